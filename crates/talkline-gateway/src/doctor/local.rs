//! Checks of this machine: configuration, secrets, listener, limits.

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};
use talkline_config::{Config, Report, Severity as ProblemSeverity};
use tokio::net::TcpListener;

use super::{
    Check,
    board::{Board, Probe},
    line::Line,
    report::{Finding, Severity},
};

/// Lengths of the keys that Azure hands out.
const AZURE_KEY_LENGTHS: [usize; 2] = [32, 84];
/// Descriptors beside those of connections: listener, runtime, standard streams, files.
const DESCRIPTORS_BESIDE: u64 = 64;

/// The problems that resolving found.
pub(super) fn config(board: &Board<'_>, report: &Report) {
    board.note(Check::Config, None, || {
        let findings = report.problems().iter().map(|problem| {
            let severity = match problem.severity {
                ProblemSeverity::Warning => Severity::Warning,
                ProblemSeverity::Error => Severity::Error,
            };
            let mut finding = Finding::new(
                Check::Config,
                severity,
                problem.code,
                problem.message.clone(),
            );
            finding.path = problem.key.clone();
            finding.fix_hint = problem.hint.clone();
            if let Some(source) = &problem.source {
                finding
                    .evidence
                    .insert("source".into(), source.to_string().into());
            }
            finding
        });
        let findings: Vec<_> = findings.collect();
        Probe {
            value: (!report.has_errors()).then_some(()),
            evidence: Map::from_iter([("problems".to_owned(), Value::from(findings.len()))]),
            findings,
            skipped: None,
        }
    });
}

/// Oddities of the upstreams' keys, and of the files that secrets stand in.
pub(super) fn secrets(board: &Board<'_>, lines: &[Line<'_>], files: &[PathBuf]) {
    board.note(Check::Secrets, None, || {
        let mut probe = Probe::passed(());
        for line in lines {
            let Some(key) = line.static_key() else { continue };
            let length = key.expose().len();
            probe = probe.with(
                line.provider(),
                json!({"fingerprint": key.fingerprint(), "length": length}),
            );
            for (code, message) in oddities(key.expose(), line.is_azure_host()) {
                probe = probe.finding(
                    Finding::new(Check::Secrets, Severity::Warning, code, message)
                        .path(line.key("apiKey"))
                        .fix("copy the key anew: `az cognitiveservices account keys list` prints it without anything around it"),
                );
            }
        }
        for file in files {
            if let Some(finding) = readable_by_others(file) {
                probe = probe.finding(finding);
            }
        }
        probe
    });
}

fn oddities(key: &str, azure_host: bool) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if key.chars().any(char::is_whitespace) {
        found.push((
            "key_white_space",
            "the key has white space in it".to_owned(),
        ));
    }
    if key.contains(['"', '\'']) {
        found.push(("key_quoted", "the key has quotation marks in it".to_owned()));
    }
    if azure_host && !AZURE_KEY_LENGTHS.contains(&key.len()) {
        let message = format!(
            "the key has {} characters; Azure's keys have 32 or 84",
            key.len()
        );
        found.push(("key_length", message));
    }
    found
}

fn readable_by_others(file: &Path) -> Option<Finding> {
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    let others = mode & 0o077;
    (others != 0).then(|| {
        let mut finding = Finding::new(
            Check::Secrets,
            Severity::Warning,
            "secret_file_mode",
            format!(
                "the secret file {} can be used by others (mode {:03o})",
                file.display(),
                mode & 0o777
            ),
        )
        .fix(format!("chmod 600 {}", file.display()));
        finding
            .evidence
            .insert("file".into(), file.display().to_string().into());
        finding
    })
}

/// Whether the relay could listen.
pub(super) async fn listener_port(board: &Board<'_>, config: &Config) {
    let listen = config.server.listen;
    board
        .check(Check::ListenerPort, None, async {
            let probe = match TcpListener::bind(listen).await {
                Ok(_) => Probe::passed(()),
                Err(error) => Probe::failed(bind_finding(&error, listen)),
            };
            probe.with("listen", listen.to_string())
        })
        .await;
}

fn bind_finding(error: &io::Error, listen: std::net::SocketAddr) -> Finding {
    let (severity, code, hint) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            Severity::Warning,
            "listener_in_use",
            "if that is the running relay, all is well; otherwise end the other process or choose another server.listen",
        ),
        io::ErrorKind::PermissionDenied => (
            Severity::Error,
            "listener_not_permitted",
            "ports below 1024 need CAP_NET_BIND_SERVICE; a port such as 8443 needs nothing",
        ),
        io::ErrorKind::AddrNotAvailable => (
            Severity::Error,
            "listener_address",
            "the address is not one of this machine's; 0.0.0.0 means all of them",
        ),
        _ => (
            Severity::Error,
            "listener_failed",
            "choose another server.listen",
        ),
    };
    Finding::new(
        Check::ListenerPort,
        severity,
        code,
        format!("{listen} cannot be bound: {error}"),
    )
    .path("server.listen")
    .fix(hint)
}

/// Who may open a session.
pub(super) fn clients_open(board: &Board<'_>, config: &Config) {
    let (server, clients) = (&config.server, &config.clients);
    let loopback = server.listen.ip().is_loopback();
    board.note(Check::ClientsOpen, None, || {
        let mut probe = Probe::passed(())
            .with("clientKeys", clients.keys.len())
            .with("anonymous", clients.allow_anonymous)
            .with("allowedOrigins", server.allowed_origins.len())
            .with("loopbackOnly", loopback)
            .with("tls", server.tls.is_some());
        if clients.allow_anonymous {
            let (severity, message) = if loopback {
                (Severity::Info, "every process on this machine may open sessions")
            } else {
                (Severity::Error, "everyone who reaches the listener may open sessions")
            };
            probe = probe.finding(
                Finding::new(Check::ClientsOpen, severity, "clients_anonymous", message)
                    .path("clients.allowAnonymous")
                    .fix("remove allowAnonymous and configure clients.keys"),
            );
        }
        if !loopback && server.tls.is_none() {
            let message = format!("client keys come to {} in plain text", server.listen);
            probe = probe.finding(
                Finding::new(Check::ClientsOpen, Severity::Warning, "clients_plain_text", message)
                    .path("server.listen")
                    .fix("set server.tls.cert and server.tls.key, or let only a front end that ends TLS reach the port"),
            );
        }
        probe
    });
}

/// Whether the limit of open files allows for the configured sessions.
pub(super) fn process_files(board: &Board<'_>, config: &Config) {
    let limits = &config.limits;
    let wanted = 2 * limits.sessions_max as u64 + limits.handshakes_max as u64 + DESCRIPTORS_BESIDE;
    board.note(Check::ProcessFiles, None, || {
        let text = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let Some(soft) = open_files_limit(&text) else {
            return Probe::skipped((), "this system has no /proc/self/limits");
        };
        let probe = Probe::passed(()).with("limit", soft).with("wanted", wanted);
        if soft >= wanted {
            return probe;
        }
        probe.finding(
            Finding::new(
                Check::ProcessFiles,
                Severity::Warning,
                "files_limit",
                format!("{soft} open files are allowed; {} sessions need {wanted}", limits.sessions_max),
            )
            .path("limits.maxSessions")
            .fix("raise the service's limit (LimitNOFILE= in systemd, ulimit -n in a shell) or lower limits.maxSessions"),
        )
    });
}

/// The soft limit in `/proc/<pid>/limits`; `unlimited` is the largest number.
fn open_files_limit(limits: &str) -> Option<u64> {
    let row = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match row.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_keys() {
        let check = |key: &str, azure, expected: &[&str]| {
            let codes: Vec<_> = oddities(key, azure)
                .into_iter()
                .map(|(code, _)| code)
                .collect();
            assert_eq!(codes, expected, "{key:?}");
        };
        check(&"a".repeat(32), true, &[]);
        check(&"a".repeat(84), true, &[]);
        check(&"a".repeat(33), true, &["key_length"]);
        check("short", false, &[]);
        check("\"quoted\"", false, &["key_quoted"]);
        check("two words", true, &["key_white_space", "key_length"]);
    }

    #[test]
    fn limits_of_open_files() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             100                  200                  processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(open_files_limit(text), Some(1024));
        assert_eq!(
            open_files_limit("Max open files unlimited unlimited files"),
            Some(u64::MAX)
        );
        assert_eq!(open_files_limit(""), None);
    }

    #[test]
    fn modes_of_secret_files() {
        let file =
            std::env::temp_dir().join(format!("talkline-doctor-mode-{}", std::process::id()));
        std::fs::write(&file, "x").unwrap();
        for (mode, found) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(readable_by_others(&file).is_some(), found, "{mode:o}");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(readable_by_others(&file).is_none());
    }
}
