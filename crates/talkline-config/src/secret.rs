//! References to secrets, and what of a secret's value is acceptable.

use talkline_auth::Secret;

use crate::{
    Format, Problem, keys,
    reader::Reader,
    shown::{cleaned, looks_secret, shown},
    tree::{Node, Place, Table, Value},
};

/// Longest accepted secret; API keys have up to 200 characters, tokens a few thousand.
const SECRET_BYTES_MAX: usize = 4096;

/// A resolved secret with the words that `config show` uses for it.
pub(crate) struct Resolved {
    pub(crate) secret: Secret,
    pub(crate) shown: String,
}

/// Where a reference points.
enum Reference {
    Variable(String),
    File(String),
    /// A JSON file and a pointer (RFC 6901) into it, as OpenClaw has them.
    Pointer {
        file: String,
        pointer: String,
    },
}

impl Reader<'_> {
    /// Resolves the secret at `node`, which the key `key` holds. `variable` is the variable that
    /// the remedy for a literal key proposes.
    pub(crate) fn secret(&mut self, key: &str, node: &Node, variable: &str) -> Option<Resolved> {
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
        let (code, message, hint) = if text.starts_with("@Microsoft.KeyVault(") {
            key_vault_literal(variable)
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
            &["env", "file", "name"]
        };
        let mut sound = true;
        for entry in &table.entries {
            if known.contains(&entry.key.as_str()) {
                continue;
            }
            sound = false;
            let hint = match entry.key.as_str() {
                "env" | "file" => "write either { env = … } or { source = …, id = … }".to_owned(),
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
        match (table.get("env"), table.get("file")) {
            (Some(env), None) => {
                let name = self.name(key, &env.node, "the name of a variable")?;
                self.variable_name(key, &env.node, name)
            }
            (None, Some(file)) => {
                let path = self.name(key, &file.node, "a path")?;
                Some(Reference::File(path))
            }
            (Some(_), Some(_)) => {
                let hint = "keep `env` or `file`".to_owned();
                self.refuse(
                    key,
                    node,
                    "secret.two-sources",
                    "the reference names two sources".into(),
                    hint,
                );
                None
            }
            (None, None) => {
                let hint = "write { env = \"NAME\" } or { file = \"PATH\" }".to_owned();
                self.refuse(
                    key,
                    node,
                    "secret.no-source",
                    "the reference names no source".into(),
                    hint,
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
            Reference::File(path) => {
                let text = self.file(key, node, path)?;
                let value = text
                    .strip_suffix('\n')
                    .map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
                self.checked(
                    key,
                    node,
                    value,
                    &format!("{{ file = \"{}\" }}", cleaned(path)),
                )
            }
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

    fn file(&mut self, key: &str, node: &Node, path: &str) -> Option<String> {
        match (self.inputs.read_secret_file)(path) {
            Ok(text) => Some(text),
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
        } else if value.starts_with("@Microsoft.KeyVault(") {
            Some(key_vault_literal("AZURE_OPENAI_API_KEY"))
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
        Some(Resolved { secret, shown })
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

/// App Service leaves the reference in the variable when it could not resolve it.
fn key_vault_literal(variable: &str) -> (&'static str, &'static str, String) {
    (
        "secret.key-vault-literal",
        "this is a Key Vault reference that nobody resolved",
        format!(
            "let App Service resolve it (its identity needs the role \"Key Vault Secrets User\") and write {{ env = \"{variable}\" }}"
        ),
    )
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
