//! `POST …/client_secrets`: a token for one session, in the shape of OpenAI's endpoint.
//!
//! With Azure or a custom endpoint the token is always the relay's own. Only when the upstream is
//! OpenAI and `talk.realtime.transport` is `webrtc` is OpenAI asked for one of its own ([`broker`]).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use talkline_auth::{
    Client,
    grant::{Grant, GrantLimits, MintError, Minted},
};
use tokio::time::Instant;

use super::{body, broker, transport, transport::Choice};
use crate::{
    admit::{Arrival, routed},
    refusal::HttpRefusal,
    rules,
    server::Shared,
};

/// Longest lifetime that OpenAI's endpoint takes, in seconds; what front ends written for it ask for.
const ASKED_SECONDS_MAX: u64 = 7_200;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    expires_after: Option<ExpiresAfter>,
    session: Option<Map<String, Value>>,
    /// What OpenAI's endpoint does not have: narrower bounds than the client's own.
    talkline: Option<Bounds>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpiresAfter {
    anchor: Option<String>,
    seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bounds {
    origin: Option<String>,
    session_seconds: Option<u64>,
    responses: Option<u64>,
    tokens: Option<u64>,
}

/// What a token is wanted for.
#[derive(Debug, Default)]
pub(super) struct Wish {
    /// Beside the model in `session`.
    pub(super) model: Option<String>,
    pub(super) session: Map<String, Value>,
    /// `None`: as long as is usual.
    pub(super) lifetime: Option<Duration>,
    pub(super) origin: Option<String>,
    pub(super) limits: GrantLimits,
    /// Whether bounds were asked for that OpenAI's own secrets cannot have.
    pub(super) is_bounded: bool,
}

impl Wish {
    /// The model that is named, in either place.
    ///
    /// # Errors
    ///
    /// 400 when the two differ, or when one is no name.
    pub(super) fn asked_model(&self) -> Result<Option<&str>, HttpRefusal> {
        let inner = match self.session.get("model") {
            None | Some(Value::Null) => None,
            Some(Value::String(model)) => Some(model.as_str()),
            Some(_) => return Err(invalid("`session.model` is a text", "session.model")),
        };
        match (self.model.as_deref(), inner) {
            (Some(outer), Some(inner)) if outer != inner => {
                Err(invalid("`model` and `session.model` differ", "model"))
            }
            (outer, inner) => Ok(outer.or(inner)),
        }
    }

    /// `realtime` unless the session is for transcription alone.
    pub(super) fn kind(&self) -> Result<&'static str, HttpRefusal> {
        match self.session.get("type") {
            None => Ok("realtime"),
            Some(Value::String(kind)) if kind == "realtime" => Ok("realtime"),
            Some(Value::String(kind)) if kind == "transcription" => Ok("transcription"),
            Some(_) => Err(invalid(
                "`session.type` is `realtime` or `transcription`",
                "session.type",
            )),
        }
    }

    /// The settings, without what the token and the URL say already.
    pub(super) fn settings(&self) -> Map<String, Value> {
        let mut settings = self.session.clone();
        settings.remove("type");
        settings.remove("model");
        settings
    }

    /// The same as JSON text, unless there are none.
    pub(super) fn settings_text(&self) -> Option<String> {
        let settings = self.settings();
        (!settings.is_empty()).then(|| Value::Object(settings).to_string())
    }
}

pub(super) fn invalid(message: &'static str, param: &'static str) -> HttpRefusal {
    HttpRefusal::new(StatusCode::BAD_REQUEST, "invalid_value", message).with_param(param)
}

pub(super) async fn create(
    request: Request<Incoming>,
    arrival: &Arrival,
    shared: &Shared,
    deadline: Instant,
) -> Result<Response<Full<Bytes>>, HttpRefusal> {
    let client = shared.gate.identify(&request, arrival).await?;
    let (parts, body) = request.into_parts();
    let asked: Asked = body::read(&parts.headers, body, deadline).await?;
    let wish = wish(asked, arrival, shared)?;
    let route = routed(wish.asked_model()?, &client, shared)?;
    let ways = transport::Ways::of(&route, &client, shared);
    let answer = match transport::choose(ways, None) {
        Ok(Choice::Webrtc(_)) => {
            let secret = broker::secret(&wish, &route, &client, shared).await?;
            json!({
                "value": secret.value,
                "expires_at": secret.expires_at,
                "session": secret.session,
            })
        }
        // Whatever the transport, the relay's own WebSocket is open to whoever holds a token.
        Ok(Choice::Relay(_)) | Err(_) => {
            let token = mint(&wish, route.alias, &client, shared)?;
            let mut session = wish.settings();
            session.insert("type".into(), wish.kind()?.into());
            session.insert("object".into(), "realtime.session".into());
            session.insert("id".into(), format!("sess_{}", token.id).into());
            session.insert("model".into(), route.alias.into());
            json!({
                "value": token.secret.expose(),
                "expires_at": unix(token.expires_at),
                "session": session,
            })
        }
    };
    Ok(super::json(StatusCode::OK, &answer))
}

fn wish(asked: Asked, arrival: &Arrival, shared: &Shared) -> Result<Wish, HttpRefusal> {
    let lifetime = match asked.expires_after {
        None => None,
        Some(after) => {
            if after.anchor.is_some_and(|anchor| anchor != "created_at") {
                return Err(invalid(
                    "`expires_after.anchor` is `created_at`",
                    "expires_after.anchor",
                ));
            }
            match after.seconds {
                None => None,
                Some(seconds @ 1..=ASKED_SECONDS_MAX) => Some(Duration::from_secs(seconds)),
                Some(_) => {
                    return Err(invalid(
                        "`expires_after.seconds` is 1 to 7200",
                        "expires_after.seconds",
                    ));
                }
            }
        }
    };
    let is_bounded = asked.talkline.is_some();
    let bounds = asked.talkline.unwrap_or_default();
    let origin = match (&arrival.origin, bounds.origin) {
        (Some(page), Some(wanted)) if *page != wanted => {
            return Err(invalid(
                "a page gets tokens for its own origin",
                "talkline.origin",
            ));
        }
        (None, Some(wanted)) if !shared.gate.may_come_from(&wanted, arrival) => {
            return Err(invalid(
                "pages of this origin are not let in; the operator adds it to server.allowedOrigins",
                "talkline.origin",
            ));
        }
        (page, wanted) => page.clone().or(wanted),
    };
    Ok(Wish {
        model: None,
        session: asked.session.unwrap_or_default(),
        lifetime,
        origin,
        limits: GrantLimits {
            session_duration_max: bounds.session_seconds.map(Duration::from_secs),
            responses_max: bounds.responses,
            tokens_max: bounds.tokens,
        },
        is_bounded,
    })
}

/// Makes a token of the relay's own.
pub(super) fn mint(
    wish: &Wish,
    alias: &str,
    client: &Client,
    shared: &Shared,
) -> Result<Minted, HttpRefusal> {
    check_may_mint(client)?;
    wish.kind()?;
    let session = wish.settings_text();
    // Refused now rather than by the session that the token is for.
    rules::policy(client, session.as_deref(), shared)?;
    let grant = Grant {
        client: client.name().to_owned(),
        model: Some(alias.to_owned()),
        origin: wish.origin.clone(),
        policy: client.identity().policy.clone(),
        session,
        limits: wish.limits,
    };
    grant.check_minter(client.identity()).map_err(refused)?;
    let longest = shared.gate.token_lifetime;
    // Front ends written for OpenAI ask for minutes; they are told what they got.
    let lifetime = wish.lifetime.map_or(longest, |asked| asked.min(longest));
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("the operating system has randomness");
    shared
        .gate
        .ring
        .mint(&grant, lifetime, SystemTime::now(), random)
        .map_err(refused)
}

pub(super) fn check_may_mint(client: &Client) -> Result<(), HttpRefusal> {
    if client.may_mint() {
        return Ok(());
    }
    Err(HttpRefusal::new(
        StatusCode::FORBIDDEN,
        "token_cannot_mint",
        "a client token opens one session; ask for another one with the client key",
    ))
}

fn refused(error: MintError) -> HttpRefusal {
    let status = match error {
        MintError::Model | MintError::Policy => StatusCode::FORBIDDEN,
        MintError::Signing => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    HttpRefusal::new(status, error.code(), error.to_string()).with_param("session")
}

/// Seconds since 1970.
pub(super) fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
