//! `admin.*`.

use super::{providers::Providers, server::address};
use crate::{Admin, Problem, reader::Reader, secret::KeyVault};

/// An admin key that is shorter can be guessed.
const KEY_BYTES_MIN: usize = 16;

pub(super) fn read(reader: &mut Reader<'_>, providers: &Providers) -> Option<Admin> {
    let key = key(reader, providers);
    let Some(found) = reader.text(&["admin", "listen"]) else {
        if let Some(found) = reader.found(&["admin", "key"]) {
            let problem = Problem::warning("admin.no-listener", "nothing listens for this key")
                .hint("write admin.listen = \"127.0.0.1:8081\", or remove the key");
            let problem = reader.at_key(problem, &found);
            reader.problem(problem);
        }
        return None;
    };
    let listen = address(reader, &found)?;
    Some(Admin { listen, key })
}

fn key(reader: &mut Reader<'_>, providers: &Providers) -> Option<talkline_auth::Secret> {
    let found = reader.found(&["admin", "key"])?;
    let node = &found.entry.node;
    let resolved = reader.secret("admin.key", node, "TALKLINE_ADMIN_KEY", KeyVault::Refused)?;
    let value = resolved.secret.expose();
    let problem = if providers.keys.iter().any(|key| key.expose() == value) {
        Problem::error(
            "admin-key.is-upstream-key",
            "this is the upstream's own key",
        )
        .hint("make up another one, for instance with `openssl rand -hex 32`")
    } else if value.len() < KEY_BYTES_MIN {
        Problem::error(
            "admin-key.short",
            "the admin key is shorter than 16 characters",
        )
        .hint("generate one, for instance with `openssl rand -hex 32`")
    } else {
        reader.setting("admin.key".to_owned(), resolved.shown, &node.place);
        return Some(resolved.secret);
    };
    let problem = reader.at_value(problem, &found);
    reader.problem(problem);
    None
}
