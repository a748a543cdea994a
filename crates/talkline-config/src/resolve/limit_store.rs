//! `limitStore.*`.

use super::providers::Providers;
use crate::{
    LimitStoreConfig, Problem, RedisConfig, reader::Reader, secret::KeyVault, tree::Place,
};

const SCHEMES: [&str; 4] = ["redis://", "rediss://", "valkey://", "valkeys://"];
/// Braces would cut the hash tag short.
const PREFIX_LEGAL: &str = "-_.:";

pub(super) fn read(reader: &mut Reader<'_>, providers: &Providers) -> Option<LimitStoreConfig> {
    let kind = reader.choice(&["limitStore", "kind"])?;
    let fail_open = reader
        .choice(&["limitStore", "onOutage"])
        .is_some_and(|found| found.value == "failOpen");
    let timeout = reader.duration(&["limitStore", "timeout"]);
    let lease_time = reader.duration(&["limitStore", "leaseTime"]);
    let prefix = prefix(reader)?;
    if kind.value != "redis" {
        // A variable that is there for another process is no mistake; a key in the file is.
        if let Some(found) = reader.found(&["limitStore", "url"])
            && matches!(found.entry.node.place, Place::File { .. })
        {
            let problem = Problem::warning("limit-store.not-used", "nothing connects to this URL")
                .hint("write limitStore.kind = \"redis\", or remove the URL");
            let problem = reader.at_key(problem, &found);
            reader.problem(problem);
        }
        return Some(LimitStoreConfig::Memory);
    }
    let Some(found) = reader.found(&["limitStore", "url"]) else {
        let problem = Problem::error("limit-store.url-missing", "the server has no URL")
            .hint("set TALKLINE_REDIS_URL or write limitStore.url = { env = \"NAME\" }");
        let problem = reader.at_value(problem, &kind);
        reader.problem(problem);
        return None;
    };
    let node = &found.entry.node;
    let resolved = reader.secret(
        "limitStore.url",
        node,
        "TALKLINE_REDIS_URL",
        KeyVault::Refused,
    )?;
    let url = resolved.secret.expose();
    let is_upstream_key = providers.keys.iter().any(|key| key.expose() == url);
    let is_url = SCHEMES.iter().any(|scheme| url.starts_with(scheme)) && !url.contains(['?', '#']);
    if is_upstream_key || !is_url {
        let problem = Problem::error("limit-store.url", "this is no URL of a Redis server").hint(
            "the form is redis://[user[:password]@]host[:port][/database], with rediss:// for TLS",
        );
        let problem = reader.at_value(problem, &found);
        reader.problem(problem);
        return None;
    }
    reader.setting("limitStore.url".to_owned(), resolved.shown, &node.place);
    Some(LimitStoreConfig::Redis(RedisConfig {
        url: resolved.secret,
        prefix,
        fail_open,
        timeout,
        lease_time,
    }))
}

fn prefix(reader: &mut Reader<'_>) -> Option<String> {
    let found = reader.text(&["limitStore", "prefix"])?;
    let is_legal = |c: char| c.is_ascii_alphanumeric() || PREFIX_LEGAL.contains(c);
    if found.value.len() <= 64 && found.value.chars().all(is_legal) {
        return Some(found.value);
    }
    let problem = Problem::error("limit-store.prefix", "this is no prefix for keys")
        .hint("use up to 64 letters, digits and any of - _ . :");
    let problem = reader.at_value(problem, &found);
    reader.problem(problem);
    None
}
