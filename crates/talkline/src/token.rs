//! `token`: what browsers hold in place of a client key, from the shell.

mod admin;
mod words;

use std::{
    io::Read as _,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use talkline_auth::{
    Grant, GrantLimits, KeyRing, TokenId, TokenRefusal,
    grant::{SETTINGS_BYTES_MAX, Shown, TOKEN_BYTES_MAX},
};
use talkline_config::Config;

use crate::{
    cli::{
        ConfigArguments, OutputFormat, TokenCreateArguments, TokenInspectArguments,
        TokenRevokeArguments,
    },
    configuration,
    exit::Exit,
    output,
};

/// Makes a token. Data goes to standard output, what it is to standard error.
pub(crate) fn create(arguments: &TokenCreateArguments) -> Result<(), Exit> {
    let config = configuration::load(&arguments.config)?.config;
    let Some(ring) = ring(&config) else {
        return Err(Exit::Configuration(
            "error: no key is configured to sign tokens with; the key that a running relay makes up \
             is known to that process alone\n\
             hint: set TALKLINE_TOKEN_KEY or write tokens.keys = { env = \"NAME\" }, for `run` as well"
                .to_owned(),
        ));
    };
    let grant = grant(arguments, &config)?;
    let asked = arguments.lifetime.map(Duration::from_secs);
    let lifetime = asked.unwrap_or(config.tokens.lifetime);
    if lifetime > config.tokens.lifetime {
        let most = config.tokens.lifetime.as_secs();
        return Err(wrong(format!(
            "tokens live for at most {most} seconds here (tokens.lifetime)"
        )));
    }
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| Exit::CouldNotRun(format!("there is no randomness: {error}")))?;
    let minted = ring
        .mint(&grant, lifetime, SystemTime::now(), random)
        .map_err(|error| wrong(error.to_string()))?;
    if arguments.output == OutputFormat::Json {
        let value = json!({
            "value": minted.secret.expose(),
            "id": minted.id.as_str(),
            "expires_at": unix(minted.expires_at),
        });
        return output::line(&value.to_string());
    }
    output::note(&format!(
        "token {} of {}: one session, to be opened within {}",
        minted.id,
        grant.client,
        words::time(lifetime)
    ));
    output::line(minted.secret.expose())
}

fn grant(arguments: &TokenCreateArguments, config: &Config) -> Result<Grant, Exit> {
    let name = &arguments.client;
    let identity = config.clients.keys.identity(name).ok_or_else(|| {
        wrong(format!(
            "no client is called `{name}`; see clients.keys and clients.oidc"
        ))
    })?;
    if let Some(model) = &arguments.model {
        let routed = config.routes.resolve(Some(model));
        routed.map_err(|error| wrong(error.to_string()))?;
    }
    let origin = match &arguments.origin {
        Some(origin) => Some(
            talkline_config::web_origin(origin)
                .map_err(|hint| wrong(format!("`{origin}` is not a web origin; {hint}")))?,
        ),
        None => None,
    };
    let session = match &arguments.session {
        Some(path) => Some(settings(path)?),
        None => None,
    };
    let grant = Grant {
        client: name.clone(),
        model: arguments.model.clone(),
        origin,
        policy: arguments.policy.clone(),
        session,
        limits: GrantLimits {
            session_duration_max: arguments.max_session.map(Duration::from_secs),
            responses_max: arguments.max_responses,
            tokens_max: arguments.max_tokens,
        },
    };
    grant
        .check_minter(&identity)
        .map_err(|error| wrong(error.to_string()))?;
    Ok(grant)
}

/// The settings without the white space of a file that people edit.
fn settings(path: &Path) -> Result<String, Exit> {
    let name = path.display();
    let unread = |error: String| wrong(format!("{name} cannot be read: {error}"));
    let text = match path == Path::new("-") {
        true => read_input(SETTINGS_BYTES_MAX * 16)?,
        false => std::fs::read_to_string(path).map_err(|error| unread(error.to_string()))?,
    };
    let value: Value = serde_json::from_str(&text).map_err(|error| unread(error.to_string()))?;
    Ok(value.to_string())
}

/// Prints what a token says. What is sealed in it is printed only by whom it is sealed for: with the
/// ring that made it.
pub(crate) fn inspect(arguments: &TokenInspectArguments) -> Result<(), Exit> {
    let token = match arguments.token.as_str() {
        "-" => read_input(TOKEN_BYTES_MAX + 2)?,
        token => token.to_owned(),
    };
    let token = token.trim();
    let shown = Shown::read(token).map_err(|error| Exit::Findings(error.to_string()))?;
    let ring = ring_at_hand(&arguments.config)?;
    let now = SystemTime::now();
    let inspected = words::Inspected {
        // As of a moment at which it was valid, so that an expired token can be told from an
        // altered one.
        signature: ring
            .as_ref()
            .map(|ring| ring.verify(token, shown.valid_from)),
        shown: &shown,
        now,
    };
    match arguments.output {
        OutputFormat::Human => output::bytes(inspected.text().as_bytes())?,
        OutputFormat::Json => output::line(&inspected.json().to_string())?,
    }
    match inspected.refusal() {
        Some(_) => Err(Exit::Findings(String::new())),
        None => Ok(()),
    }
}

/// The ring of the configuration, where there is one that can be read.
fn ring_at_hand(arguments: &ConfigArguments) -> Result<Option<KeyRing>, Exit> {
    match configuration::resolve(arguments)? {
        Ok(resolved) => Ok(ring(&resolved.config)),
        // A configuration that was asked for has to be right.
        Err(report) if arguments.config.is_some() => {
            Err(Exit::Configuration(report.render(configuration::style())))
        }
        Err(_) => Ok(None),
    }
}

fn ring(config: &Config) -> Option<KeyRing> {
    let audience = config.tokens.audience.as_str();
    KeyRing::new(config.tokens.keys.clone(), audience)
}

/// Tells a running relay to take access away.
pub(crate) fn revoke(arguments: &TokenRevokeArguments) -> Result<(), Exit> {
    let config = configuration::load(&arguments.config)?.config;
    let admin = config.admin;
    let address = arguments.admin.or(admin.as_ref().map(|admin| admin.listen));
    let Some(address) = address else {
        return Err(wrong(
            "there is no listener for operators: write admin.listen = \"127.0.0.1:8081\", restart \
             the relay, or name its address with --admin"
                .to_owned(),
        ));
    };
    let Some(key) = admin.and_then(|admin| admin.key) else {
        return Err(wrong(
            "nothing can be revoked without the admin key: write admin.key = { env = \"NAME\" }"
                .to_owned(),
        ));
    };
    let target = &arguments.target;
    let (kind, id) = match (&target.token, &target.session, &target.client) {
        (Some(token), _, _) => ("token", token_id(token)?.to_string()),
        (_, Some(session), _) => ("session", session.clone()),
        (_, _, client) => ("client", client.clone().unwrap_or_default()),
    };
    let mut body = json!({ kind: id });
    if let Some(seconds) = arguments.time {
        body["seconds"] = seconds.into();
    }
    let (status, answer) = admin::post(address, "/admin/revoke", &key, &body.to_string())?;
    if status == 200 {
        return output::line(&format!("revoked {kind} {id}"));
    }
    let told: Option<Value> = serde_json::from_str(&answer).ok();
    let message = told.and_then(|told| Some(told["error"]["message"].as_str()?.to_owned()));
    let text = format!(
        "{address} answered {status}: {}",
        message.unwrap_or_else(|| "this is not the listener for operators".to_owned())
    );
    Err(match status {
        401 | 403 => Exit::NoPermission(text),
        500.. => Exit::Unavailable(text),
        _ => wrong(text),
    })
}

/// The id of a token that is given as it is, or by its id.
fn token_id(text: &str) -> Result<TokenId, Exit> {
    if let Some(id) = TokenId::parse(text) {
        return Ok(id);
    }
    let shown = Shown::read(text);
    shown
        .map(|shown| shown.id)
        .map_err(|refusal| match refusal {
            TokenRefusal::Malformed => wrong(
                "this is neither a token nor the id of one (32 hexadecimal digits)".to_owned(),
            ),
            other => wrong(other.to_string()),
        })
}

fn read_input(bytes_max: usize) -> Result<String, Exit> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(bytes_max as u64)
        .read_to_string(&mut text)
        .map_err(|error| wrong(format!("standard input cannot be read: {error}")))?;
    Ok(text)
}

fn wrong(text: String) -> Exit {
    Exit::CouldNotRun(text)
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
