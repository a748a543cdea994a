//! `clients.*`.

use talkline_auth::{ClientKey, ClientKeys, Secret};

use super::providers::Providers;
use crate::{
    Clients, Problem, Server,
    reader::{Found, Reader},
    secret::KeyVault,
    tree::{Node, Place, Table, Value},
};

/// A client key that is shorter can be guessed.
const KEY_BYTES_MIN: usize = 16;

const PATH: [&str; 2] = ["clients", "keys"];

pub(super) fn read(
    reader: &mut Reader<'_>,
    server: Option<&Server>,
    providers: &Providers,
) -> Option<Clients> {
    let before = reader.problems.len();
    let keys = keys(reader, &providers.keys);
    let sound = reader.problems[before..]
        .iter()
        .all(|p| p.severity == crate::Severity::Warning);
    let anonymous = reader.flag(&["clients", "allowAnonymous"]);
    let allow_anonymous = anonymous.as_ref().is_some_and(|found| found.value);
    let beyond_loopback = server
        .map(|server| server.listen)
        .filter(|listen| !listen.ip().is_loopback());

    if let (Some(listen), true, Some(found)) = (beyond_loopback, allow_anonymous, &anonymous) {
        let message = format!("anonymous clients would reach the upstream through {listen}");
        let problem = Problem::error("clients.anonymous-beyond-loopback", message)
            .hint("remove allowAnonymous and configure clients.keys, or listen on 127.0.0.1");
        let problem = reader.at_value(problem, found);
        reader.problem(problem);
        return None;
    }
    let unread = reader.has_problem(&["clients", "allowAnonymous"]);
    if keys.is_empty() && !allow_anonymous && sound && !unread {
        let hint = match beyond_loopback {
            None => {
                "set TALKLINE_CLIENT_KEY or write clients.keys = { env = \"NAME\" }; \
                 on this machine alone clients.allowAnonymous = true works too"
            }
            Some(_) => {
                "set TALKLINE_CLIENT_KEY or write clients.keys = { env = \"NAME\" }; \
                 clients.allowAnonymous = true works with a loopback address only"
            }
        };
        let problem = Problem::error(
            "clients.none",
            "no client could be let in: there is no client key",
        )
        .key("clients.keys")
        .hint(hint);
        let problem = match reader.found(&PATH) {
            Some(found) => reader.at_key(problem, &found),
            None => problem,
        };
        reader.problem(problem);
        return None;
    }
    let keys = keys
        .into_iter()
        .map(|(name, secret)| ClientKey::unrestricted(name, secret))
        .collect();
    sound.then(|| Clients {
        keys: ClientKeys::new(keys).with_anonymous(allow_anonymous),
        allow_anonymous,
    })
}

fn keys(reader: &mut Reader<'_>, upstream: &[Secret]) -> Vec<(String, Secret)> {
    let mut keys = Keys {
        upstream,
        out: Vec::new(),
    };
    if let Some(found) = reader.found(&PATH) {
        match &found.entry.node.value {
            Value::Array(items) => {
                for (index, node) in items.iter().enumerate() {
                    let name = name_of(node).unwrap_or_else(|| format!("key-{}", index + 1));
                    keys.add(reader, name, node);
                }
            }
            Value::Table(table) if is_reference(table) => {
                let node = &found.entry.node;
                keys.add(
                    reader,
                    name_of(node).unwrap_or_else(|| "default".to_owned()),
                    node,
                );
            }
            Value::Table(table) => {
                for entry in &table.entries {
                    keys.add(reader, entry.key.clone(), &entry.node);
                }
            }
            Value::Text(_) => keys.add(reader, "default".to_owned(), &found.entry.node),
            other => refuse_type(reader, &found, other),
        }
    }
    let variable = "TALKLINE_CLIENT_KEY";
    if let Some(value) = reader
        .inputs
        .variables
        .get(variable)
        .filter(|value| !value.is_empty())
        // A file that refers to this very variable has given its key a name already.
        .filter(|value| {
            keys.out
                .iter()
                .all(|(_, secret)| secret.expose() != **value)
        })
    {
        keys.out.retain(|(name, _)| name != "default");
        let place = Place::Variable(variable.to_owned());
        let node = Node {
            place,
            value: Value::Text(value.clone()),
        };
        keys.add(reader, "default".to_owned(), &node);
    }
    keys.out
}

fn refuse_type(reader: &mut Reader<'_>, found: &Found<'_, ()>, other: &Value) {
    let message = format!("expected references to secrets, found {}", other.kind());
    let problem = Problem::error("value.type", message)
        .hint("write keys = [{ env = \"NAME\" }] or keys.<name> = { env = \"NAME\" }");
    let problem = reader.at_value(problem, found);
    reader.problem(problem);
}

/// Whether a table is one reference rather than names with references.
fn is_reference(table: &Table) -> bool {
    ["env", "file", "credential", "keyvault", "source"]
        .iter()
        .any(|key| {
            table
                .get(key)
                .is_some_and(|entry| matches!(entry.node.value, Value::Text(_)))
        })
}

fn name_of(node: &Node) -> Option<String> {
    let Value::Table(table) = &node.value else {
        return None;
    };
    match &table.get("name")?.node.value {
        Value::Text(name) => Some(name.clone()),
        _ => Some(String::new()),
    }
}

struct Keys<'a> {
    upstream: &'a [Secret],
    out: Vec<(String, Secret)>,
}

impl Keys<'_> {
    fn add(&mut self, reader: &mut Reader<'_>, name: String, node: &Node) {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let name_ok = (1..=64).contains(&name.len()) && name.bytes().all(legal);
        let key = match name_ok && !crate::shown::looks_secret(&name) {
            true => crate::tree::dotted(&["clients", "keys", &name]),
            false => "clients.keys".to_owned(),
        };
        if key == "clients.keys" {
            let problem = Problem::error("client-key.name", "this is no name for a client key")
                .hint("a name has 1 to 64 letters, digits, `-`, `_` and `.`");
            self.refuse(reader, problem, &key, node);
            return;
        }
        let Some(resolved) = reader.secret(&key, node, "TALKLINE_CLIENT_KEY", KeyVault::Refused)
        else {
            return;
        };
        let value = resolved.secret.expose();
        let problem = if self
            .upstream
            .iter()
            .any(|upstream| upstream.expose() == value)
        {
            Problem::error(
                "client-key.is-upstream-key",
                "this client key is the upstream's own key",
            )
            .hint("make up another one: clients must never hold the upstream's key")
        } else if self.out.iter().any(|(other, _)| *other == name) {
            Problem::error(
                "client-key.duplicate-name",
                "two client keys have this name",
            )
            .hint("give each key a name of its own")
        } else if self.out.iter().any(|(_, other)| other.expose() == value) {
            Problem::error(
                "client-key.duplicate",
                "two client keys have the same value",
            )
            .hint("give each client a key of its own")
        } else {
            if value.len() < KEY_BYTES_MIN {
                let problem = Problem::warning(
                    "client-key.short",
                    "the client key is shorter than 16 characters",
                )
                .hint("generate one, for instance with `openssl rand -hex 32`");
                self.refuse(reader, problem, &key, node);
            }
            reader.setting(key, resolved.shown, &node.place);
            self.out.push((name, resolved.secret));
            return;
        };
        self.refuse(reader, problem, &key, node);
    }

    fn refuse(&self, reader: &mut Reader<'_>, problem: Problem, key: &str, node: &Node) {
        let problem = reader.at(problem.key(key), &node.place);
        reader.problem(problem);
    }
}
