//! `clients.oidc.*`: identity providers whose users may come in.

use std::sync::Arc;

use talkline_auth::{ClientIdentity, OidcIssuer, UserAlgorithm};

use crate::{
    Problem,
    reader::{Found, Reader, quoted},
    shown::shown,
    tree::dotted,
};

/// The names of the issuers, as they are written.
pub(super) fn names(reader: &Reader<'_>) -> Vec<String> {
    reader.names(&["clients", "oidc"])
}

/// One issuer; `None` when it has a problem.
pub(super) fn read(
    reader: &mut Reader<'_>,
    name: &str,
    identity: Arc<ClientIdentity>,
) -> Option<Arc<OidcIssuer>> {
    let before = reader.problems.len();
    let key = |key| ["clients", "oidc", name, key];
    let issuer = url(reader, &key("issuer"));
    if issuer.is_none() && reader.problems.len() == before {
        missing(
            reader,
            name,
            "issuer",
            "write the exact `iss` of its tokens",
        );
    }
    let audiences = texts(reader, &key("audiences"));
    if audiences.is_empty() && !reader.has_problem(&key("audiences")) {
        let hint = "write the `aud` of the tokens that are meant for this relay, such as the \
                    application id of its API";
        missing(reader, name, "audiences", hint);
    }
    let algorithms = algorithms(reader, &key("algorithms"));
    let jwks_uri = url(reader, &key("jwksUri"));
    let name_claim = reader.text(&key("nameClaim")).map(|found| found.value);
    let issuer = OidcIssuer {
        identity: (*identity).clone(),
        issuer: issuer?,
        audiences,
        algorithms,
        jwks_uri,
        name_claim: name_claim.unwrap_or_else(|| "sub".to_owned()),
        required_scopes: texts(reader, &key("requiredScopes")),
        required_roles: texts(reader, &key("requiredRoles")),
    };
    (reader.problems.len() == before).then(|| Arc::new(issuer))
}

fn missing(reader: &mut Reader<'_>, name: &str, key: &str, hint: &str) {
    let problem = Problem::error("oidc.incomplete", format!("the issuer needs `{key}`"))
        .key(dotted(&["clients", "oidc", name, key]))
        .hint(hint);
    let problem = match reader.found(&["clients", "oidc", name]) {
        Some(found) => reader.at(problem, &found.entry.key_place),
        None => problem,
    };
    reader.problem(problem);
}

fn texts(reader: &mut Reader<'_>, path: &[&str]) -> Vec<String> {
    reader
        .list(path)
        .into_iter()
        .map(|(text, _)| text)
        .collect()
}

fn algorithms(reader: &mut Reader<'_>, path: &[&str]) -> Vec<UserAlgorithm> {
    let written = reader.list(path);
    let mut algorithms = Vec::new();
    for (text, place) in written {
        match text.parse() {
            Ok(algorithm) => algorithms.push(algorithm),
            Err(_) => {
                let all: Vec<&str> = UserAlgorithm::ALL.iter().map(|(name, _)| *name).collect();
                let message = format!("{} is no algorithm with a public key", shown(&text));
                let problem = Problem::error("oidc.algorithm", message)
                    .key(dotted(path))
                    .hint(format!("possible are {}", all.join(", ")));
                let problem = reader.at(problem, &place);
                reader.problem(problem);
            }
        }
    }
    if algorithms.is_empty() {
        algorithms.push(UserAlgorithm::Rs256);
    }
    algorithms
}

/// A URL that keys may be fetched from: by https, or from this machine.
fn url(reader: &mut Reader<'_>, path: &[&str]) -> Option<String> {
    let found = reader.text(path)?;
    let Some(hint) = objection(&found.value) else {
        let place = found.entry.key_place.clone();
        reader.setting(dotted(path), quoted(&found.value), &place);
        return Some(found.value);
    };
    refuse(reader, &found, hint);
    None
}

fn refuse(reader: &mut Reader<'_>, found: &Found<'_, String>, hint: &str) {
    let problem = Problem::error("oidc.url", "this URL cannot be used here").hint(hint);
    let problem = reader.at_value(problem, found);
    reader.problem(problem);
}

fn objection(url: &str) -> Option<&'static str> {
    let plain = url.strip_prefix("http://");
    let Some(rest) = url.strip_prefix("https://").or(plain) else {
        return Some("write it with https://");
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    let loopback = host == "[::1]"
        || host
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback());
    let sound = |byte: u8| byte.is_ascii_graphic() && !b"?#@\\\"<>{}".contains(&byte);
    if host.is_empty() || !url.bytes().all(sound) {
        return Some("write it without user name, query or placeholder");
    }
    (plain.is_some() && !loopback)
        .then_some("keys that anybody can replace on the way are no keys: write it with https://")
}
