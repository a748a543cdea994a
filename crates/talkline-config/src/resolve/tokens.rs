//! `tokens.*`: how browsers' tokens are made.

use talkline_auth::{RingKey, RingKeyError, Secret};

use super::{
    clients::{is_reference, name_of},
    providers::Providers,
};
use crate::{
    Problem, Tokens,
    reader::Reader,
    secret::KeyVault,
    tree::{Node, Place, Value, dotted},
};

const VARIABLE: &str = "TALKLINE_TOKEN_KEY";
const KEYS: [&str; 2] = ["tokens", "keys"];

pub(super) fn read(reader: &mut Reader<'_>, providers: &Providers) -> Option<Tokens> {
    let mut ring = Ring {
        upstream: &providers.keys,
        secrets: Vec::new(),
        keys: Vec::new(),
    };
    match reader.found(&KEYS) {
        Some(found) => ring.written(reader, &found.entry.node),
        None => ring.variable(reader),
    }
    let lifetime = reader.duration(&["tokens", "lifetime"]);
    Some(Tokens {
        keys: ring.keys,
        audience: reader.text(&["tokens", "audience"])?.value,
        lifetime,
    })
}

struct Ring<'p> {
    upstream: &'p [Secret],
    secrets: Vec<Secret>,
    keys: Vec<RingKey>,
}

impl Ring<'_> {
    fn variable(&mut self, reader: &mut Reader<'_>) {
        let value = reader.inputs.variables.get(VARIABLE);
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return;
        };
        let node = Node {
            place: Place::Variable(VARIABLE.to_owned()),
            value: Value::Text(value.clone()),
        };
        self.add(reader, Some("default".to_owned()), &node);
    }

    fn written(&mut self, reader: &mut Reader<'_>, node: &Node) {
        match &node.value {
            Value::Array(items) if items.len() == 1 => {
                let name = name_of(&items[0]).unwrap_or_else(|| "default".to_owned());
                self.add(reader, Some(name), &items[0]);
            }
            Value::Array(items) => {
                for item in items {
                    self.add(reader, name_of(item), item);
                }
            }
            Value::Table(table) if !is_reference(table) => {
                for entry in &table.entries {
                    self.add(reader, Some(entry.key.clone()), &entry.node);
                }
            }
            _ => {
                let name = name_of(node).unwrap_or_else(|| "default".to_owned());
                self.add(reader, Some(name), node);
            }
        }
    }

    fn add(&mut self, reader: &mut Reader<'_>, name: Option<String>, node: &Node) {
        let refuse = |reader: &mut Reader<'_>, problem: Problem, key: &str| {
            let problem = reader.at(problem.key(key), &node.place);
            reader.problem(problem);
        };
        let path = dotted(&KEYS);
        let Some(name) = name else {
            let problem = Problem::error("token-key.name", "this key of several has no name").hint(
                "write { name = \"2026-11\", env = \"NAME\" }: the name stands in the tokens",
            );
            return refuse(reader, problem, &path);
        };
        let shown = !crate::shown::looks_secret(&name);
        let key = if shown {
            dotted(&[KEYS[0], KEYS[1], &name])
        } else {
            path
        };
        let Some(resolved) = reader.secret(&key, node, VARIABLE, KeyVault::Refused) else {
            return;
        };
        let value = resolved.secret.expose();
        let is = |other: &Secret| other.expose() == value;
        if self.upstream.iter().any(is) {
            let problem = Problem::error(
                "token-key.is-upstream-key",
                "this is the upstream's own key",
            )
            .hint("make up another one, for instance with `openssl rand -hex 32`");
            return refuse(reader, problem, &key);
        }
        if self.secrets.iter().any(is) || self.keys.iter().any(|other| other.id() == name) {
            let problem = Problem::error("token-key.duplicate", "two keys have this name or value")
                .hint("give each key a name and a value of its own");
            return refuse(reader, problem, &key);
        }
        match RingKey::new(name, &resolved.secret) {
            Ok(ring_key) => {
                reader.setting(key, resolved.shown, &node.place);
                self.secrets.push(resolved.secret);
                self.keys.push(ring_key);
            }
            Err(RingKeyError::Short) => {
                let problem =
                    Problem::error("token-key.short", "the key is shorter than 32 characters")
                        .hint("generate one, for instance with `openssl rand -hex 32`");
                refuse(reader, problem, &key);
            }
            Err(error) => {
                let problem = Problem::error("token-key.name", "this is no name for a key")
                    .hint(error.to_string());
                refuse(reader, problem, &key);
            }
        }
    }
}
