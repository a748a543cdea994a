//! The list of checks: what each looks at, what it needs, and which of them are wanted.

use std::fmt;

/// A check of the doctor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// `config`
    Config,
    /// `secrets`
    Secrets,
    /// `listener.port`
    ListenerPort,
    /// `clients.open`
    ClientsOpen,
    /// `process.files`
    ProcessFiles,
    /// `upstream.cloud`
    Cloud,
    /// `upstream.dns`
    Dns,
    /// `upstream.tcp`
    Tcp,
    /// `upstream.tls`
    Tls,
    /// `upstream.unauthenticated`
    Unauthenticated,
    /// `upstream.credential`
    Credential,
    /// `upstream.upgrade`
    Upgrade,
    /// `upstream.session`
    Session,
    /// `upstream.update`
    Update,
    /// `upstream.close`
    Close,
    /// `upstream.region`
    Region,
    /// `upstream.alternatives`
    Alternatives,
    /// `clock`
    Clock,
    /// `turn`
    Turn,
}

/// A row of the reference page.
struct Row {
    id: &'static str,
    needs: &'static [Check],
    looks_at: &'static str,
    finds: &'static str,
}

impl Check {
    /// Every check, in the order in which they are reported.
    pub const ALL: [Check; 19] = [
        Check::Config,
        Check::Secrets,
        Check::ListenerPort,
        Check::ClientsOpen,
        Check::ProcessFiles,
        Check::Cloud,
        Check::Dns,
        Check::Tcp,
        Check::Tls,
        Check::Unauthenticated,
        Check::Credential,
        Check::Upgrade,
        Check::Session,
        Check::Update,
        Check::Close,
        Check::Region,
        Check::Alternatives,
        Check::Clock,
        Check::Turn,
    ];

    /// The stable identifier: `checkId` in the JSON report, and what `--only` and `--skip` take.
    pub fn id(self) -> &'static str {
        self.row().id
    }

    /// The check with this identifier.
    pub fn by_id(id: &str) -> Option<Check> {
        Check::ALL.into_iter().find(|check| check.id() == id)
    }

    /// The checks whose results this one builds on.
    pub fn needs(self) -> &'static [Check] {
        self.row().needs
    }

    /// Where the check is documented, relative to the project's root.
    pub fn docs_url(self) -> String {
        // The anchors that Markdown renderers make of the headings: lower case, dots dropped.
        format!("docs/reference/doctor.md#{}", self.id().replace('.', ""))
    }

    fn row(self) -> Row {
        let row = |id, needs, looks_at, finds| Row {
            id,
            needs,
            looks_at,
            finds,
        };
        match self {
            Check::Config => row(
                "config",
                &[],
                "The configuration, by the same rules as `talkline check`.",
                "Every problem of the configuration. With an error among them nothing else is checked.",
            ),
            Check::Secrets => row(
                "secrets",
                &[Check::Config],
                "The upstream's key: its fingerprint and length, never the key. The files that secrets were read from.",
                "A key with the length of no Azure key, white space or quotation marks in it; a secret file that others on the machine may read.",
            ),
            Check::ListenerPort => row(
                "listener.port",
                &[Check::Config],
                "Whether `server.listen` can be bound.",
                "An address that is in use (by the running relay, perhaps), is not this machine's, or needs a privilege.",
            ),
            Check::ClientsOpen => row(
                "clients.open",
                &[Check::Config],
                "Who may open a session: client keys, web origins, the listener's address and TLS.",
                "Client keys that cross a network in plain text; clients without a key.",
            ),
            Check::ProcessFiles => row(
                "process.files",
                &[Check::Config],
                "The limit of open files of this process, against two sockets for each of `limits.maxSessions`.",
                "A limit that ends before the configured sessions do. The service's own limit may be another.",
            ),
            Check::Cloud => row(
                "upstream.cloud",
                &[Check::Config],
                "The cloud that the host name belongs to.",
                "Azure Government, for which Microsoft lists no Realtime model, and Azure in China, for which nothing is documented.",
            ),
            Check::Dns => row(
                "upstream.dns",
                &[Check::Config],
                "The addresses of the upstream's name, each public, private or loopback. A CNAME to `privatelink.*` cannot be seen by this lookup: a private address is the sign of a private endpoint.",
                "A name that does not resolve; private and public addresses side by side.",
            ),
            Check::Tcp => row(
                "upstream.tcp",
                &[Check::Dns],
                "A TCP connection to one of the addresses.",
                "Nobody listening, or packets that are dropped.",
            ),
            Check::Tls => row(
                "upstream.tls",
                &[Check::Tcp],
                "The TLS handshake: version, issuer, names and end of the certificate, also of one that was not accepted.",
                "A certificate that is expired, made for another name or by an unknown issuer (a proxy that inspects TLS, often); one that expires within 14 days.",
            ),
            Check::Unauthenticated => row(
                "upstream.unauthenticated",
                &[Check::Tls],
                "The upgrade request without any credential. 401 is the answer of an upstream that can be reached and asks for a credential.",
                "A 403 (firewall or private endpoint: no credential would help), an unknown path, a redirect, or a session for everyone.",
            ),
            Check::Credential => row(
                "upstream.credential",
                &[Check::Config],
                "The kind of credential; of a bearer token its tenant, object id, audience and expiry, never the token.",
                "An identity service that gives no token; a token that is expired, not valid yet, about to expire, or made for another service.",
            ),
            Check::Upgrade => row(
                "upstream.upgrade",
                &[Check::Tls, Check::Credential],
                "The upgrade as the relay makes it, with the credential: status, Azure's request id and region.",
                "Every refusal, with its cause and its remedy.",
            ),
            Check::Session => row(
                "upstream.session",
                &[Check::Upgrade],
                "`session.created` within five seconds: model and end of the session.",
                "Silence, a closed connection, or an `error` event in its place.",
            ),
            Check::Update => row(
                "upstream.update",
                &[Check::Session],
                "A minimal `session.update` of the GA dialect.",
                "An upstream that does not accept it: usually the other dialect.",
            ),
            Check::Close => row(
                "upstream.close",
                &[Check::Session],
                "The closing handshake.",
                "A connection that is dropped or left open (information only).",
            ),
            Check::Region => row(
                "upstream.region",
                &[Check::Upgrade],
                "The region that Azure says it answered from, against a dated list of regions with Realtime models.",
                "A region that is not in the list (a hint only: the list ages).",
            ),
            Check::Alternatives => row(
                "upstream.alternatives",
                &[Check::Upgrade],
                "After a refused upgrade: the other Azure path (GA or preview) and the resource's other host names, each once. Only over TLS (or on loopback, as configured), only with the same resource name under a suffix of Azure. Nothing is changed.",
                "A change of the configuration that would work.",
            ),
            Check::Clock => row(
                "clock",
                &[Check::Tls],
                "This machine's clock against the `Date` of the upstream's answers.",
                "A difference of more than 60 seconds: tokens and certificates are judged by the clock.",
            ),
            Check::Turn => row(
                "turn",
                &[Check::Upgrade],
                "With `--turn`: one spoken turn through a relay in this process. It costs tokens and has 40 seconds of its own.",
                "A turn that fails or brings no audio. Reports the time to the first audio.",
            ),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// Which checks are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    wanted: Vec<Check>,
}

impl Default for Selection {
    /// All but the spoken turn.
    fn default() -> Self {
        let wanted = Check::ALL.into_iter().filter(|check| *check != Check::Turn);
        Self {
            wanted: wanted.collect(),
        }
    }
}

/// No check has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no check `{name}`; the checks are: {}", ids(), name = self.0)]
pub struct UnknownCheck(pub String);

fn ids() -> String {
    Check::ALL.map(Check::id).join(", ")
}

impl Selection {
    /// Everything, or `only` these together with what they need, without `skip`.
    ///
    /// A name stands for itself and for all names that go on with a dot: `upstream` means
    /// `upstream.dns` and the others. What needs a skipped check is skipped with it.
    ///
    /// # Errors
    ///
    /// [`UnknownCheck`] for a name that means no check.
    pub fn new(only: &[String], skip: &[String], turn: bool) -> Result<Self, UnknownCheck> {
        let mut wanted = Self::default().wanted;
        if !only.is_empty() {
            wanted = with_needs(&named(only)?);
        }
        if turn {
            wanted.extend(with_needs(&[Check::Turn]));
        }
        let skip = named(skip)?;
        wanted.retain(|check| !skip.contains(check));
        wanted.sort_unstable();
        wanted.dedup();
        Ok(Self { wanted })
    }

    /// Whether the check is wanted.
    pub fn contains(&self, check: Check) -> bool {
        self.wanted.contains(&check)
    }
}

fn named(names: &[String]) -> Result<Vec<Check>, UnknownCheck> {
    let mut checks = Vec::new();
    for name in names {
        let group = format!("{name}.");
        let before = checks.len();
        let meant = |check: &Check| check.id() == name || check.id().starts_with(&group);
        checks.extend(Check::ALL.into_iter().filter(meant));
        if checks.len() == before {
            let shown = name.chars().take(60).flat_map(char::escape_debug);
            return Err(UnknownCheck(shown.collect()));
        }
    }
    Ok(checks)
}

fn with_needs(checks: &[Check]) -> Vec<Check> {
    let mut all = checks.to_vec();
    let mut at = 0;
    while let Some(check) = all.get(at).copied() {
        all.extend(check.needs().iter().filter(|need| !checks.contains(need)));
        at += 1;
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// The reference page of the checks, in Markdown.
pub fn reference() -> String {
    let mut page = String::from(
        "# The checks of `talkline doctor`\n\n\
         <!-- Made from the list of checks; TALKLINE_BLESS=1 cargo test -p talkline-gateway writes it anew. -->\n\n\
         `talkline doctor` goes the way of a session step by step and says where it ends. Checks that do not need each \
         other run at the same time; all of them together take at most ten seconds, `turn` aside. A check whose needs \
         failed is skipped, and the report says why. Nothing is changed, and the credential is sent only to the \
         resource that it was configured for.\n\n\
         `--only` and `--skip` take the names below; `upstream` stands for all that begin with `upstream.`. \
         `--only` runs what the named checks need as well. A skipped check takes along what needs it.\n\n\
         `--output json` prints OpenClaw's fields (`schemaVersion`, `ok`, `checksRun`, `checksSkipped`, `findings` with \
         `checkId`, `severity`, `message`, `path`, `fixHint`) and beside them `code`, `evidence` and `docsUrl` in each \
         finding, and `checks` with the outcome and the time of each.\n\n\
         | exit code | meaning |\n|---|---|\n\
         | 0 | no finding of `--severity-min` (default `warning`) or above |\n\
         | 1 | such findings |\n\
         | 2 | the doctor could not run: wrong usage, or a file that cannot be read |\n",
    );
    for check in Check::ALL {
        let row = check.row();
        let needs = match row.needs {
            [] => String::new(),
            needs => {
                let ids: Vec<_> = needs.iter().map(|need| format!("`{need}`")).collect();
                format!("\n- Needs: {}", ids.join(", "))
            }
        };
        page.push_str(&format!(
            "\n## {}\n\n{}\n\n- Finds: {}{needs}\n",
            row.id,
            row.looks_at,
            lower_first(row.finds)
        ));
    }
    page
}

/// A sentence as it goes on behind a colon. Words in capitals stay.
fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() && !text.starts_with("Azure") => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(only: &[&str], skip: &[&str], turn: bool, expected: &str) {
        let owned = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let selected = Selection::new(&owned(only), &owned(skip), turn).map_or_else(
            |error| error.to_string(),
            |selection| {
                selection
                    .wanted
                    .iter()
                    .map(|check| check.id())
                    .collect::<Vec<_>>()
                    .join(" ")
            },
        );
        assert!(
            selected.starts_with(expected)
                && (expected.len() == selected.len() || only == ["nonsense"]),
            "{only:?} {skip:?}: {selected}"
        );
    }

    #[test]
    fn selections() {
        check(&["config"], &[], false, "config");
        check(
            &["upstream.tls"],
            &[],
            false,
            "config upstream.dns upstream.tcp upstream.tls",
        );
        check(
            &["listener", "clients"],
            &[],
            false,
            "config listener.port clients.open",
        );
        check(
            &["upstream.tls"],
            &["upstream.dns"],
            false,
            "config upstream.tcp upstream.tls",
        );
        check(
            &["secrets"],
            &[],
            true,
            "config secrets upstream.dns upstream.tcp upstream.tls upstream.credential upstream.upgrade turn",
        );
        check(
            &["nonsense"],
            &[],
            false,
            "there is no check `nonsense`; the checks are: config, secrets",
        );
    }

    #[test]
    fn needs_come_earlier_in_the_list() {
        for check in Check::ALL {
            assert!(check.needs().iter().all(|need| *need < check), "{check}");
            assert_eq!(Check::by_id(check.id()), Some(check));
        }
        assert!(Check::ALL.is_sorted());
    }

    #[test]
    fn the_reference_page_is_fresh() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/doctor.md");
        let fresh = reference();
        if std::env::var_os("TALKLINE_BLESS").is_some() {
            std::fs::write(&path, &fresh).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).unwrap_or_default() == fresh,
            "docs/reference/doctor.md is stale: run `TALKLINE_BLESS=1 cargo test -p talkline-gateway`"
        );
        for check in Check::ALL {
            let heading = format!("\n## {}\n", check.id());
            assert_eq!(fresh.matches(&heading).count(), 1);
        }
    }
}
