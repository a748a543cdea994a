//! `clients.*`.

use std::collections::BTreeSet;

use talkline_auth::{ANONYMOUS, Argon2Hash, ClientKey, ClientKeys, KeyForm, OidcIssuer, Secret};

use super::{
    access::{self, Accesses},
    oidc,
    providers::Providers,
};
use crate::{
    Clients, Problem, Server,
    reader::{Found, Reader},
    secret::KeyVault,
    tree::{Node, Place, Table, Value},
};

/// A client key that is shorter can be guessed.
const KEY_BYTES_MIN: usize = 16;
/// Each key that is not known by its digest costs a check of every hash.
const HASHES_MANY: usize = 8;

const PATH: [&str; 2] = ["clients", "keys"];

pub(super) fn read(
    reader: &mut Reader<'_>,
    server: Option<&Server>,
    providers: &Providers,
) -> Option<Clients> {
    let before = reader.problems.len();
    let keys = keys(reader, &providers.keys);
    let issuers = oidc::names(reader);
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
    let nobody = keys.is_empty() && issuers.is_empty() && !allow_anonymous;
    if nobody && is_sound(reader, before) && !unread {
        refuse_nobody(reader, beyond_loopback.is_none());
        return None;
    }
    assemble(reader, providers, before, keys, issuers, allow_anonymous)
}

fn refuse_nobody(reader: &mut Reader<'_>, on_loopback: bool) {
    let hint = match on_loopback {
        true => {
            "set TALKLINE_CLIENT_KEY or write clients.keys = { env = \"NAME\" }; \
             on this machine alone clients.allowAnonymous = true works too"
        }
        false => {
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
}

/// Gives everybody who may come in what they may do.
fn assemble(
    reader: &mut Reader<'_>,
    providers: &Providers,
    before: usize,
    keys: Vec<(String, KeyForm)>,
    issuers: Vec<String>,
    allow_anonymous: bool,
) -> Option<Clients> {
    let routes = providers.routes.as_ref();
    let accesses = Accesses::new(reader, routes);
    let mut names: BTreeSet<String> = keys.iter().map(|(name, _)| name.clone()).collect();
    let keys: Vec<ClientKey> = keys
        .into_iter()
        .map(|(name, key)| ClientKey {
            identity: accesses.identity(reader, &name, routes),
            key,
        })
        .collect();
    let mut readable: Vec<std::sync::Arc<OidcIssuer>> = Vec::new();
    for name in issuers {
        if !is_name(&name) || name == ANONYMOUS || !names.insert(name.clone()) {
            refuse_issuer_name(reader, &name);
            continue;
        }
        let identity = accesses.identity(reader, &name, routes);
        readable.extend(oidc::read(reader, &name, identity));
    }
    let anonymous = allow_anonymous.then(|| {
        names.insert(ANONYMOUS.to_owned());
        accesses.identity(reader, ANONYMOUS, routes)
    });
    if is_sound(reader, before) {
        access::check_names(reader, &names);
    }
    is_sound(reader, before).then(|| Clients {
        keys: ClientKeys::new(keys)
            .with_issuers(readable)
            .with_anonymous_as(anonymous),
        allow_anonymous,
    })
}

fn is_sound(reader: &Reader<'_>, before: usize) -> bool {
    reader.problems[before..]
        .iter()
        .all(|p| p.severity == crate::Severity::Warning)
}

fn refuse_issuer_name(reader: &mut Reader<'_>, name: &str) {
    let problem = Problem::error("oidc.name", "this is no name for an issuer, or it is taken")
        .key("clients.oidc")
        .hint(
            "a name has 1 to 64 letters, digits, `-`, `_` and `.`, and is not that of a client key",
        );
    let problem = match reader.found(&["clients", "oidc", name]) {
        Some(found) => reader.at(problem, &found.entry.key_place),
        None => problem,
    };
    reader.problem(problem);
}

/// Whether a client may be called so.
fn is_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(legal) && !crate::shown::looks_secret(name)
}

fn keys(reader: &mut Reader<'_>, upstream: &[Secret]) -> Vec<(String, KeyForm)> {
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
        .filter(|value| keys.out.iter().all(|(_, key)| !is_plain(key, value)))
    {
        keys.out.retain(|(name, _)| name != "default");
        let place = Place::Variable(variable.to_owned());
        let node = Node {
            place,
            value: Value::Text(value.clone()),
        };
        keys.add(reader, "default".to_owned(), &node);
    }
    let hashes = keys
        .out
        .iter()
        .filter(|(_, key)| matches!(key, KeyForm::Argon2id(_)));
    if hashes.count() > HASHES_MANY {
        let problem = Problem::warning(
            "client-key.many-hashes",
            "every unknown key is checked against each of these Argon2id hashes",
        )
        .key("clients.keys")
        .hint("generate keys and write their sha256 instead: that is as safe, and quick");
        reader.problem(problem);
    }
    keys.out
}

fn is_plain(key: &KeyForm, value: &str) -> bool {
    matches!(key, KeyForm::Plain(secret) if secret.expose() == value)
}

fn refuse_type(reader: &mut Reader<'_>, found: &Found<'_, ()>, other: &Value) {
    let message = format!("expected references to secrets, found {}", other.kind());
    let problem = Problem::error("value.type", message)
        .hint("write keys = [{ env = \"NAME\" }] or keys.<name> = { env = \"NAME\" }");
    let problem = reader.at_value(problem, found);
    reader.problem(problem);
}

/// Whether a table is one reference rather than names with references.
pub(super) fn is_reference(table: &Table) -> bool {
    [
        "env",
        "file",
        "credential",
        "keyvault",
        "source",
        "sha256",
        "argon2id",
    ]
    .iter()
    .any(|key| {
        table
            .get(key)
            .is_some_and(|entry| matches!(entry.node.value, Value::Text(_)))
    })
}

pub(super) fn name_of(node: &Node) -> Option<String> {
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
    out: Vec<(String, KeyForm)>,
}

impl Keys<'_> {
    fn add(&mut self, reader: &mut Reader<'_>, name: String, node: &Node) {
        let key = match is_name(&name) && name != ANONYMOUS {
            true => crate::tree::dotted(&["clients", "keys", &name]),
            false => "clients.keys".to_owned(),
        };
        if key == "clients.keys" {
            let problem = Problem::error("client-key.name", "this is no name for a client key")
                .hint("a name has 1 to 64 letters, digits, `-`, `_` and `.`");
            self.refuse(reader, problem, &key, node);
            return;
        }
        if let Some(hash) = hash_of(node) {
            return self.add_hash(reader, name, &key, node, hash);
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
        } else if self.out.iter().any(|(_, other)| is_plain(other, value)) {
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
            self.out.push((name, KeyForm::Plain(resolved.secret)));
            return;
        };
        self.refuse(reader, problem, &key, node);
    }

    fn add_hash(
        &mut self,
        reader: &mut Reader<'_>,
        name: String,
        key: &str,
        node: &Node,
        hash: Hash<'_>,
    ) {
        let read = hash.read();
        let problem = match read {
            Err((message, hint)) => Problem::error("client-key.hash", message).hint(hint),
            Ok(_) if self.out.iter().any(|(other, _)| *other == name) => Problem::error(
                "client-key.duplicate-name",
                "two client keys have this name",
            )
            .hint("give each key a name of its own"),
            Ok(form) => {
                let shown = match &form {
                    KeyForm::Argon2id(_) => "{ argon2id = \"…\" }",
                    _ => "{ sha256 = \"…\" }",
                };
                reader.setting(key.to_owned(), shown.to_owned(), &node.place);
                self.out.push((name, form));
                return;
            }
        };
        self.refuse(reader, problem, key, node);
    }

    fn refuse(&self, reader: &mut Reader<'_>, problem: Problem, key: &str, node: &Node) {
        let problem = reader.at(problem.key(key), &node.place);
        reader.problem(problem);
    }
}

/// A key that stands there as its hash.
struct Hash<'n> {
    table: &'n Table,
    kind: &'static str,
    value: &'n Value,
}

fn hash_of(node: &Node) -> Option<Hash<'_>> {
    let Value::Table(table) = &node.value else {
        return None;
    };
    ["sha256", "argon2id"].into_iter().find_map(|kind| {
        let value = &table.get(kind)?.node.value;
        Some(Hash { table, kind, value })
    })
}

impl Hash<'_> {
    /// What is known of the key, or what is wrong and what to do. Says nothing of the hash itself.
    fn read(&self) -> Result<KeyForm, (&'static str, String)> {
        let stranger = |key: &str| key != self.kind && key != "name";
        if self.table.entries.iter().any(|entry| stranger(&entry.key)) {
            let hint = format!("write {{ name = \"NAME\", {} = \"…\" }}", self.kind);
            return Err(("a hash stands alone, beside the key's name", hint));
        }
        let Value::Text(text) = self.value else {
            return Err(("the hash is no text", "write it in quotes".to_owned()));
        };
        if self.kind == "argon2id" {
            return text
                .parse::<Argon2Hash>()
                .map(KeyForm::Argon2id)
                .map_err(|error| ("this Argon2id hash cannot be used", error.to_string()));
        }
        let hint = "write the 64 hexadecimal digits that `printf %s \"$KEY\" | sha256sum` prints";
        digest(text)
            .map(KeyForm::Sha256)
            .ok_or_else(|| ("this is no SHA-256", hint.to_owned()))
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(digest)
}
