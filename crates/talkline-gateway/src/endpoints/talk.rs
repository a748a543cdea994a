//! `/talk/config` and `/talk/session`: what a page has to know to begin talking.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use talkline_auth::{Client, admission::KEY_SUBPROTOCOL_PREFIX};
use talkline_config::{Prices, RouteMatch};
use talkline_dialect::REALTIME_SUBPROTOCOL;
use tokio::time::Instant;

use super::{
    body, broker,
    client_secrets::{self, Wish},
    models, transport,
    transport::{Choice, Ways},
};
use crate::{
    admit::{Arrival, routed},
    proxies::Reached,
    refusal::HttpRefusal,
    server::Shared,
};

/// Where a browser sends its SDP with a secret of OpenAI's (OpenAI's Realtime WebRTC guide).
const OPENAI_CALLS: &str = "https://api.openai.com/v1/realtime/calls";

/// Answers which transport a page would get, without giving it anything.
pub(super) async fn config(
    request: &Request<Incoming>,
    arrival: &Arrival,
    shared: &Shared,
) -> Result<Response<Full<Bytes>>, HttpRefusal> {
    let client = shared.gate.identify_if_any(request, arrival).await?;
    let anonymous = shared.gate.lets_anyone_in();
    let route = shared.routes.resolve(None).map_err(|_| no_default())?;
    let ways = Ways {
        configured: shared.transport,
        kind: route.upstream.kind(),
        guarded: client
            .as_ref()
            .is_some_and(|client| Ways::of(&route, client, shared).guarded),
    };
    let mut answer = json!({
        "transports": transport::offered(ways)
            .iter()
            .map(|transport| transport.as_str())
            .collect::<Vec<_>>(),
        "authentication": if anonymous { "none" } else { "client_key" },
        "version": env!("CARGO_PKG_VERSION"),
    });
    let fields = answer.as_object_mut().expect("it was made as an object");
    match transport::choose(ways, None) {
        Ok(choice) => {
            fields.insert("transport".into(), choice.transport().as_str().into());
            fields.insert("reason".into(), choice.why().code().into());
            fields.insert("message".into(), choice.why().message().into());
        }
        Err(refusal) => {
            fields.insert("transport".into(), Value::Null);
            fields.insert("reason".into(), refusal.code().into());
        }
    }
    if let Some(client) = client {
        fields.insert("models".into(), models(&client, shared).into());
    }
    Ok(super::json(StatusCode::OK, &answer))
}

fn no_default() -> HttpRefusal {
    HttpRefusal::new(
        StatusCode::BAD_REQUEST,
        "unknown_model",
        "there is no model for a request that names none",
    )
    .with_param("model")
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionRequest {
    transport: Option<String>,
    model: Option<String>,
    session: Option<Map<String, Value>>,
}

/// Gives a page all that it needs for one session.
pub(super) async fn session(
    request: Request<Incoming>,
    arrival: &Arrival,
    shared: &Shared,
    deadline: Instant,
) -> Result<Response<Full<Bytes>>, HttpRefusal> {
    let client = shared.gate.identify(&request, arrival).await?;
    let (parts, body) = request.into_parts();
    let asked: SessionRequest = body::read(&parts.headers, body, deadline).await?;
    let asked_transport = asked
        .transport
        .as_deref()
        .map(transport::parse)
        .transpose()?;
    let wish = Wish {
        model: asked.model,
        session: asked.session.unwrap_or_default(),
        origin: arrival.origin.clone(),
        ..Wish::default()
    };
    let route = routed(wish.asked_model()?, &client, shared)?;
    let ways = Ways::of(&route, &client, shared);
    let choice = transport::choose(ways, asked_transport)?;
    let answer = match choice {
        Choice::Relay(_) => relay_answer(&wish, &route, &client, arrival, shared)?,
        Choice::Webrtc(_) => {
            let secret = broker::secret(&wish, &route, &client, shared).await?;
            json!({
                "url": OPENAI_CALLS,
                "model": secret.model,
                "client_secret": {"value": secret.value, "expires_at": secret.expires_at},
            })
        }
    };
    let mut answer = answer;
    let fields = answer.as_object_mut().expect("it was made as an object");
    fields.insert("transport".into(), choice.transport().as_str().into());
    fields.insert("reason".into(), choice.why().code().into());
    fields.insert("message".into(), choice.why().message().into());
    Ok(super::json(StatusCode::OK, &answer))
}

fn relay_answer(
    wish: &Wish,
    route: &RouteMatch<'_>,
    client: &Client,
    arrival: &Arrival,
    shared: &Shared,
) -> Result<Value, HttpRefusal> {
    let alias = route.alias;
    let token = client_secrets::mint(wish, alias, client, shared)?;
    let value = token.secret.expose();
    let pcm = json!({"type": "audio/pcm", "rate": 24_000, "channels": 1});
    let longest = client
        .identity()
        .limits
        .session_duration_max
        .into_iter()
        .chain(shared.session_limits.session_max)
        .min();
    Ok(json!({
        "url": url(arrival, alias),
        "model": alias,
        "protocols": [REALTIME_SUBPROTOCOL, format!("{KEY_SUBPROTOCOL_PREFIX}{value}")],
        "client_secret": {"value": value, "expires_at": client_secrets::unix(token.expires_at)},
        "audio": {"input": pcm, "output": pcm},
        "session_seconds_max": longest.map(|longest| longest.as_secs()),
        "prices": prices(route, &shared.prices),
    }))
}

/// What a million tokens cost by modality, as a page adds it up; null where the operator priced nothing.
fn prices(route: &RouteMatch<'_>, table: &Prices) -> Value {
    let asked_for = route.upstream.deployment().unwrap_or(route.alias);
    let Some(prices) = table.models.get(asked_for) else {
        return Value::Null;
    };
    // Prices are kept in millionths.
    let decimal = |price: u64| price as f64 / 1e6;
    json!({
        "currency": table.currency,
        "input": {
            "text": decimal(prices.input_text),
            "audio": decimal(prices.input_audio),
            "image": decimal(prices.input_image),
        },
        "cached": {
            "text": decimal(prices.cached_input_text),
            "audio": decimal(prices.cached_input_audio),
            "image": decimal(prices.cached_input_image),
        },
        "output": {
            "text": decimal(prices.output_text),
            "audio": decimal(prices.output_audio),
        },
    })
}

/// The relay's WebSocket under the name that the client knows it by.
fn url(arrival: &Arrival, alias: &str) -> String {
    let page_is_https = arrival
        .origin
        .as_deref()
        .is_some_and(|origin| origin == format!("https://{}", arrival.host));
    let scheme = match arrival.sender.reached {
        Reached::Https => "wss",
        Reached::Http => "ws",
        // A front end that nobody named: a page that came over TLS is told to come back so.
        Reached::Unknown if page_is_https => "wss",
        Reached::Unknown => "ws",
    };
    let model = utf8_percent_encode(alias, NON_ALPHANUMERIC);
    format!("{scheme}://{}/v1/realtime?model={model}", arrival.host)
}
