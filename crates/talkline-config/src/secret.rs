//! References to secrets, and what of a secret's value is acceptable.

use talkline_auth::Secret;

use crate::{
    Format, KeyPlace, KeyVaultReference, Problem,
    identity::APP_SERVICE_PREFIX,
    keys,
    reader::Reader,
    shown::{cleaned, looks_secret, shown},
    tree::{Node, Place, Table, Value},
};

/// Longest accepted secret; API keys have up to 200 characters, tokens a few thousand.
const SECRET_BYTES_MAX: usize = 4096;

/// A resolved secret with the words that `config show` uses for it.
pub(crate) struct Resolved {
    /// Empty when it is kept in Key Vault, which this crate does not open.
    pub(crate) secret: Secret,
    pub(crate) shown: String,
    pub(crate) place: KeyPlace,
}

/// Whether a secret may be kept in Key Vault.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyVault {
    /// Somebody fetches it before it is used.
    Accepted,
    /// It is needed at once.
    Refused,
}

/// Where a reference points.
enum Reference {
    Variable(String),
    File(String),
    /// A credential that systemd hands to the service.
    Credential(String),
    KeyVault(KeyVaultReference),
    /// A JSON file and a pointer (RFC 6901) into it, as OpenClaw has them.
    Pointer {
        file: String,
        pointer: String,
    },
}

impl Reader<'_> {
    /// Resolves the secret at `node`, which the key `key` holds. `variable` is the variable that
    /// the remedy for a literal key proposes.
    pub(crate) fn secret(
        &mut self,
        key: &str,
        node: &Node,
        variable: &str,
        key_vault: KeyVault,
    ) -> Option<Resolved> {
        match &node.place {
            // The variable's value is the secret; there is nothing to refer to.
            Place::Variable(name) => {
                let Value::Text(text) = &node.value else {
                    return None;
                };
                let name = name.clone();
                return self.checked(key, node, text, &format!("${name}"));
            }
            Place::Flag(flag) => {
                let message = format!(
                    "a key on the command line ({}) can be read by every process",
                    cleaned(flag)
                );
                self.refuse(
                    key,
                    node,
                    "secret.on-command-line",
                    message,
                    "put it in a variable or a file".into(),
                );
                return None;
            }
            Place::File { .. } | Place::Default => {}
        }
        match &node.value {
            Value::Table(table) => {
                let reference = self.reference(key, node, table)?;
                if let (Reference::KeyVault(_), KeyVault::Refused) = (&reference, key_vault) {
                    self.refuse(
                        key,
                        node,
                        "secret.key-vault-here",
                        "only `apiKey` and `apiKeySecondary` can be read from Key Vault".into(),
                        "let the platform put it into a variable or a file, and refer to that"
                            .into(),
                    );
                    return None;
                }
                self.dereferenced(key, node, &reference)
            }
            Value::Text(text) => self.literal(key, node, text, variable),
            other => {
                let message = format!("expected a reference to a secret, found {}", other.kind());
                self.refuse(
                    key,
                    node,
                    "secret.type",
                    message,
                    format!("write {{ env = \"{variable}\" }}"),
                );
                None
            }
        }
    }

    fn literal(&mut self, key: &str, node: &Node, text: &str, variable: &str) -> Option<Resolved> {
        if self.is_in_json(&node.place)
            && let Some(name) = interpolated(text)
        {
            let reference = Reference::Variable(name.to_owned());
            return self.dereferenced(key, node, &reference);
        }
        let (code, message, hint) = if text.starts_with(APP_SERVICE_PREFIX) {
            let hint = match own_reference(text) {
                Some(reference) => format!("write {{ keyvault = \"{reference}\" }}"),
                None => "write { keyvault = \"https://<vault>.vault.azure.net/secrets/<name>\" }"
                    .to_owned(),
            };
            let message =
                "a Key Vault reference in this form is resolved in App Service's settings only";
            ("secret.key-vault-literal", message, hint)
        } else if let Some(name) = interpolated(text) {
            (
                "secret.interpolation",
                "variables are not put into strings",
                format!("write {{ env = \"{}\" }}", cleaned(name)),
            )
        } else if text.starts_with('<') && text.ends_with('>') {
            (
                "secret.placeholder",
                "this is a placeholder, not a key",
                format!("write {{ env = \"{variable}\" }} and set that variable"),
            )
        } else if self.plaintext_allowed() {
            let problem = Problem::warning(
                "secret.plaintext",
                "the key stands in the file in plain text",
            )
            .key(key)
            .hint("allowPlaintextSecrets is meant for a developer's own machine");
            let problem = self.at(problem, &node.place);
            self.problem(problem);
            return self.checked(key, node, text, "plain text");
        } else {
            (
                "secret.literal",
                "the key itself stands here; a configuration file holds references only",
                format!(
                    "write {{ env = \"{variable}\" }} or {{ file = \"/run/secrets/…\" }}, and renew a key that was shared with the file"
                ),
            )
        };
        self.refuse(key, node, code, message.into(), hint);
        None
    }

    fn reference(&mut self, key: &str, node: &Node, table: &Table) -> Option<Reference> {
        let openclaw = table.get("source").is_some();
        let known: &[&str] = if openclaw {
            &["source", "provider", "id", "name"]
        } else {
            &["env", "file", "credential", "keyvault", "name"]
        };
        let mut sound = true;
        for entry in &table.entries {
            if known.contains(&entry.key.as_str()) {
                continue;
            }
            sound = false;
            let hint = match entry.key.as_str() {
                "env" | "file" | "credential" | "keyvault" => {
                    "write either { env = … } or { source = …, id = … }".to_owned()
                }
                other => match keys::suggestion(other, known) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => "a reference is { env = \"NAME\" } or { file = \"PATH\" }".to_owned(),
                },
            };
            let name = if looks_secret(&entry.key) {
                "…"
            } else {
                &entry.key
            };
            let message = format!("unknown key {} in a secret reference", shown(&entry.key));
            let problem = Problem::error("secret.unknown-key", message)
                .key(format!("{key}.{}", cleaned(name)))
                .hint(hint);
            let problem = self.at(problem, &entry.key_place);
            self.problem(problem);
        }
        if !sound {
            return None;
        }
        if openclaw {
            return self.openclaw_reference(key, node, table);
        }
        let mut sources = table.entries.iter().filter(|entry| entry.key != "name");
        let Some(source) = sources.next() else {
            let hint = "write { env = \"NAME\" } or { file = \"PATH\" }".to_owned();
            self.refuse(
                key,
                node,
                "secret.no-source",
                "the reference names no source".into(),
                hint,
            );
            return None;
        };
        if let Some(other) = sources.next() {
            let hint = format!("keep `{}` or `{}`", source.key, other.key);
            self.refuse(
                key,
                node,
                "secret.two-sources",
                "the reference names two sources".into(),
                hint,
            );
            return None;
        }
        let at = &source.node;
        match source.key.as_str() {
            "env" => {
                let name = self.name(key, at, "the name of a variable")?;
                self.variable_name(key, at, name)
            }
            "file" => Some(Reference::File(self.name(key, at, "a path")?)),
            "credential" => {
                let name = self.name(key, at, "the name of a credential")?;
                self.credential_name(key, at, name)
            }
            _ => {
                let url = self.name(key, at, "the URL of a secret")?;
                self.key_vault_reference(key, at, &url)
            }
        }
    }

    fn credential_name(&mut self, key: &str, node: &Node, name: String) -> Option<Reference> {
        if is_credential_name(&name) && !looks_secret(&name) {
            return Some(Reference::Credential(name));
        }
        let message = "this is not the name of a credential; if it is the key itself, renew it";
        let hint = "write the name that stands before the colon in LoadCredential=".to_owned();
        self.refuse(key, node, "secret.credential-name", message.into(), hint);
        None
    }

    fn key_vault_reference(&mut self, key: &str, node: &Node, url: &str) -> Option<Reference> {
        match KeyVaultReference::parse(url) {
            Ok(reference) => Some(Reference::KeyVault(reference)),
            Err(error) => {
                let message = format!("this is no reference to a secret in Key Vault: {error}");
                let hint =
                    "write { keyvault = \"https://<vault>.vault.azure.net/secrets/<name>\" }";
                self.refuse(
                    key,
                    node,
                    "secret.key-vault-reference",
                    message,
                    hint.into(),
                );
                None
            }
        }
    }

    /// OpenClaw's `{ source, provider, id }` (docs.openclaw.ai, SecretRef contract).
    fn openclaw_reference(&mut self, key: &str, node: &Node, table: &Table) -> Option<Reference> {
        let text = |name: &str| match &table.get(name)?.node.value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        };
        let (source, id) = (text("source").unwrap_or_default(), text("id"));
        let hint = || "write { env = \"NAME\" } or { file = \"PATH\" }".to_owned();
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            self.refuse(
                key,
                node,
                "secret.no-source",
                "the reference has no `id`".into(),
                hint(),
            );
            return None;
        };
        match source.as_str() {
            "env" => self.variable_name(key, node, id),
            "file" => {
                let provider = text("provider").unwrap_or_else(|| "default".to_owned());
                let settings = self.table(&["secrets", "providers", &provider]);
                let of = |name: &str| match &settings?.get(name)?.node.value {
                    Value::Text(text) => Some(text.clone()),
                    _ => None,
                };
                let Some(file) = of("path") else {
                    let message = format!(
                        "secrets.providers has no file provider {} with a `path`",
                        shown(&provider)
                    );
                    self.refuse(key, node, "secret.unknown-provider", message, hint());
                    return None;
                };
                if of("mode").as_deref() == Some("singleValue") {
                    return Some(Reference::File(file));
                }
                Some(Reference::Pointer { file, pointer: id })
            }
            "exec" | "store" => {
                let message = match source.as_str() {
                    "exec" => "Talkline runs no program to get a secret",
                    _ => "Talkline cannot open OpenClaw's secret store",
                };
                self.refuse(
                    key,
                    node,
                    "secret.source-unsupported",
                    message.into(),
                    hint(),
                );
                None
            }
            other => {
                let message = format!("{} is no source of secrets", shown(other));
                self.refuse(key, node, "secret.source-unsupported", message, hint());
                None
            }
        }
    }

    fn name(&mut self, key: &str, node: &Node, expected: &str) -> Option<String> {
        match &node.value {
            Value::Text(text) if !text.trim().is_empty() => Some(text.clone()),
            other => {
                let message = format!(
                    "expected {expected}, found {}",
                    match other {
                        Value::Text(_) => "nothing",
                        other => other.kind(),
                    }
                );
                self.refuse(
                    key,
                    node,
                    "secret.type",
                    message,
                    "write it in quotes".into(),
                );
                None
            }
        }
    }

    fn variable_name(&mut self, key: &str, node: &Node, name: String) -> Option<Reference> {
        let legal = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if legal && !name.starts_with(|c: char| c.is_ascii_digit()) && !looks_secret(&name) {
            return Some(Reference::Variable(name));
        }
        let message = "this is not the name of a variable; if it is the key itself, renew it";
        let hint =
            "write the variable's name, such as { env = \"AZURE_OPENAI_API_KEY\" }".to_owned();
        self.refuse(key, node, "secret.variable-name", message.into(), hint);
        None
    }

    fn dereferenced(&mut self, key: &str, node: &Node, reference: &Reference) -> Option<Resolved> {
        match reference {
            Reference::Variable(name) => match self.inputs.variables.get(name) {
                Some(value) => {
                    let value = value.clone();
                    self.checked(key, node, &value, &format!("{{ env = \"{name}\" }}"))
                }
                None => {
                    let names: Vec<&str> =
                        self.inputs.variables.keys().map(String::as_str).collect();
                    let hint = match keys::suggestion(name, &names)
                        .filter(|near| strsim::normalized_damerau_levenshtein(near, name) >= 0.8)
                    {
                        Some(near) => {
                            format!(
                                "set {name}; did you mean `{}`, which is set?",
                                cleaned(near)
                            )
                        }
                        None => format!("set {name} in the environment of the relay"),
                    };
                    let message = format!("the variable {name} is not set");
                    self.refuse(key, node, "secret.variable-missing", message, hint);
                    None
                }
            },
            Reference::File(path) => self.whole_file(
                key,
                node,
                path,
                &format!("{{ file = \"{}\" }}", cleaned(path)),
            ),
            Reference::Credential(name) => {
                let directory = self.inputs.variables.get("CREDENTIALS_DIRECTORY");
                let Some(directory) = directory.filter(|directory| !directory.is_empty()) else {
                    let message =
                        "CREDENTIALS_DIRECTORY is not set: systemd handed over no credentials";
                    let hint = format!(
                        "add LoadCredential={name}:/path to the unit, or use {{ file = … }}"
                    );
                    self.refuse(key, node, "secret.no-credentials", message.into(), hint);
                    return None;
                };
                let path = format!("{}/{name}", directory.trim_end_matches('/'));
                self.whole_file(key, node, &path, &format!("{{ credential = \"{name}\" }}"))
            }
            Reference::KeyVault(reference) => Some(Resolved {
                secret: Secret::new(""),
                shown: format!("{{ keyvault = \"{reference}\" }} (read when the relay starts)"),
                place: KeyPlace::KeyVault(reference.clone()),
            }),
            Reference::Pointer { file, pointer } => {
                let text = self.file(key, node, file)?;
                let found = crate::read::read(&text, Format::Json5, 0)
                    .ok()
                    .and_then(|root| pointed(&root, pointer));
                let Some(value) = found else {
                    let message =
                        format!("`{}` holds no text at {}", cleaned(file), shown(pointer));
                    let hint = "check the id of the reference".to_owned();
                    self.refuse(key, node, "secret.pointer", message, hint);
                    return None;
                };
                self.checked(
                    key,
                    node,
                    &value,
                    &format!("{{ file = \"{}\" }}", cleaned(file)),
                )
            }
        }
    }

    /// A file that holds the secret and nothing else.
    fn whole_file(&mut self, key: &str, node: &Node, path: &str, origin: &str) -> Option<Resolved> {
        let text = self.file(key, node, path)?;
        let value = text
            .strip_suffix('\n')
            .map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
        let resolved = self.checked(key, node, value, origin)?;
        Some(Resolved {
            place: KeyPlace::File(path.to_owned()),
            ..resolved
        })
    }

    fn file(&mut self, key: &str, node: &Node, path: &str) -> Option<String> {
        match (self.inputs.read_secret_file)(path) {
            Ok(text) => {
                if (self.inputs.is_exposed)(path) {
                    let message = format!(
                        "everybody on this machine may read the secret file {}",
                        shown(path)
                    );
                    let problem = Problem::warning("secret.file-exposed", message)
                        .hint("chmod o= it, and renew a key that others may have read");
                    let problem = self.at(problem.key(key), &node.place);
                    self.problem(problem);
                }
                Some(text)
            }
            Err(reason) => {
                let message = format!(
                    "the secret file {} cannot be read: {}",
                    shown(path),
                    cleaned(&reason)
                );
                let hint = "check the path and that the relay's user may read it".to_owned();
                self.refuse(key, node, "secret.file-unreadable", message, hint);
                None
            }
        }
    }

    /// Accepts a value that can be sent in a header, and says what the others look like.
    fn checked(&mut self, key: &str, node: &Node, value: &str, origin: &str) -> Option<Resolved> {
        let quote = |c: char| matches!(c, '"' | '\'' | '`' | '\u{201c}' | '\u{201d}');
        let hint = "store the bare key, nothing around it".to_owned();
        let refused = if value.is_empty() {
            Some((
                "secret.empty",
                "the secret is empty",
                "store the key there".to_owned(),
            ))
        } else if value.contains('\u{feff}') {
            Some((
                "secret.bom",
                "the secret starts with a byte order mark",
                "save it as UTF-8 without BOM".to_owned(),
            ))
        } else if value.starts_with(APP_SERVICE_PREFIX) {
            Some((
                "secret.key-vault-literal",
                "App Service could not resolve this Key Vault reference and left it as it was",
                unresolved_hint(value),
            ))
        } else if value.starts_with(quote) || value.ends_with(quote) {
            Some(("secret.quoted", "the secret has quotes around it", hint))
        } else if value.starts_with('<') && value.ends_with('>') {
            Some((
                "secret.placeholder",
                "the secret is a placeholder, not a key",
                hint,
            ))
        } else if value.chars().any(|c| c.is_whitespace() || c.is_control()) {
            Some((
                "secret.whitespace",
                "the secret holds white space or a line break",
                hint,
            ))
        } else if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            Some((
                "secret.characters",
                "the secret holds characters that no key has",
                hint,
            ))
        } else if value.len() > SECRET_BYTES_MAX {
            Some((
                "secret.too-long",
                "the secret is longer than 4096 bytes",
                "check that the right file is named".to_owned(),
            ))
        } else {
            None
        };
        if let Some((code, message, hint)) = refused {
            let message = format!("{message} ({origin})");
            self.refuse(key, node, code, message, hint);
            return None;
        }
        let secret = Secret::new(value);
        let shown = format!("{origin} (fingerprint {})", secret.fingerprint());
        Some(Resolved {
            secret,
            shown,
            place: KeyPlace::Fixed,
        })
    }

    fn refuse(
        &mut self,
        key: &str,
        node: &Node,
        code: &'static str,
        message: String,
        hint: String,
    ) {
        let problem = Problem::error(code, message).key(key).hint(hint);
        let problem = self.at(problem, &node.place);
        self.problem(problem);
    }

    fn plaintext_allowed(&self) -> bool {
        matches!(
            self.entry(&["allowPlaintextSecrets"])
                .map(|entry| &entry.node.value),
            Some(Value::Bool(true))
        )
    }
}

/// What to do about a reference that App Service left in a variable: it does so when its own
/// identity may not read the secret
/// (<https://learn.microsoft.com/azure/app-service/app-service-key-vault-references>).
fn unresolved_hint(value: &str) -> String {
    let role = "give the app's identity the role \"Key Vault Secrets User\" on the vault";
    match own_reference(value) {
        Some(reference) => {
            format!(
                "{role}, or write {{ keyvault = \"{reference}\" }} so that Talkline reads it itself"
            )
        }
        None => format!("correct the reference in the app's settings, and {role}"),
    }
}

/// The reference as Talkline writes it, where it can be shown.
fn own_reference(text: &str) -> Option<String> {
    let reference = KeyVaultReference::parse(text).ok()?;
    let shown = format!("https://{}/secrets/{}", reference.vault(), reference.name());
    (!looks_secret(&shown)).then_some(shown)
}

/// Whether systemd would take it as the name of a credential: a file name, at most 255 characters.
pub(crate) fn is_credential_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=255).contains(&name.len()) && name.bytes().all(legal) && !name.starts_with('.')
}

/// The variable of `${NAME}` or `$NAME`.
fn interpolated(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    let name = name
        .strip_prefix('{')
        .map_or(Some(name), |name| name.strip_suffix('}'))?;
    let legal = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    (!name.is_empty() && name.bytes().all(legal)).then_some(name)
}

/// The text at a JSON pointer (RFC 6901), through objects only.
fn pointed(root: &Table, pointer: &str) -> Option<String> {
    let path: Vec<String> = pointer
        .strip_prefix('/')?
        .split('/')
        .map(|segment| segment.replace("~1", "/").replace("~0", "~"))
        .collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match &root.at(&path)?.node.value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}
