//! What browsers ask before they open a session: which transport, and with which token.

pub(crate) mod admin;
mod body;
mod broker;
mod client_secrets;
mod talk;
mod transport;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::Value;
use talkline_auth::Client;
use tokio::time::Instant;

use crate::{admit::Arrival, refusal::HttpRefusal, server::Shared};

/// How long a browser may keep what a preflight said, in seconds.
const PREFLIGHT_SECONDS: &str = "600";

/// An endpoint of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `GET /talk/config`
    TalkConfig,
    /// `POST /talk/session`
    TalkSession,
    /// `POST /v1/realtime/client_secrets`, as OpenAI and Azure have it.
    ClientSecrets,
}

impl Endpoint {
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path {
            "/talk/config" => Some(Self::TalkConfig),
            "/talk/session" => Some(Self::TalkSession),
            "/v1/realtime/client_secrets" | "/openai/v1/realtime/client_secrets" => {
                Some(Self::ClientSecrets)
            }
            _ => None,
        }
    }

    fn method(self) -> Method {
        match self {
            Self::TalkConfig => Method::GET,
            Self::TalkSession | Self::ClientSecrets => Method::POST,
        }
    }

    fn methods(self) -> &'static str {
        match self {
            Self::TalkConfig => "GET, OPTIONS",
            Self::TalkSession | Self::ClientSecrets => "POST, OPTIONS",
        }
    }
}

/// Answers a request to one of the endpoints. Pages of origins that are let in may read the answer,
/// refusals included.
pub(crate) async fn answer(
    endpoint: Endpoint,
    request: Request<Incoming>,
    arrival: &Arrival,
    shared: &Shared,
    deadline: Instant,
) -> Result<Response<Full<Bytes>>, HttpRefusal> {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let vetted = shared
        .gate
        .check_origin(request.headers(), request.uri().query(), arrival);
    let answered = match &vetted {
        Err(refusal) => return Err(refusal.clone()),
        Ok(()) if request.method() == Method::OPTIONS => preflight(endpoint, request.headers()),
        Ok(()) if request.method() != endpoint.method() => Err(HttpRefusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this endpoint has another method",
        )
        .with_header(header::ALLOW, endpoint.methods())),
        Ok(()) => served(endpoint, request, arrival, shared, deadline).await,
    };
    let mut response = match answered {
        Ok(response) => response,
        Err(refusal) if origin.is_none() => return Err(refusal),
        Err(refusal) => {
            crate::report::client_refused(
                &shared.metrics,
                refusal.status().as_u16(),
                refusal.code(),
            );
            refusal.into_response()
        }
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    Ok(response)
}

async fn served(
    endpoint: Endpoint,
    request: Request<Incoming>,
    arrival: &Arrival,
    shared: &Shared,
    deadline: Instant,
) -> Result<Response<Full<Bytes>>, HttpRefusal> {
    match endpoint {
        Endpoint::TalkConfig => talk::config(&request, arrival, shared).await,
        Endpoint::TalkSession => talk::session(request, arrival, shared, deadline).await,
        Endpoint::ClientSecrets => client_secrets::create(request, arrival, shared, deadline).await,
    }
}

/// The answer to a browser that asks before it sends (Fetch standard, "CORS-preflight fetch").
/// Cookies are never asked for, so a wildcard of headers is enough for whatever an SDK adds.
fn preflight(
    endpoint: Endpoint,
    headers: &HeaderMap,
) -> Result<Response<Full<Bytes>>, HttpRefusal> {
    if !headers.contains_key(header::ORIGIN)
        || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    {
        return Err(HttpRefusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "OPTIONS is for a browser's preflight",
        )
        .with_header(header::ALLOW, endpoint.methods()));
    }
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let answers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, endpoint.methods()),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, *"),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
        (header::CONNECTION, "close"),
    ];
    for (name, value) in answers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// An answer that nobody may keep.
fn json(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONNECTION, "close"),
    ];
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Model names that a client may ask for, sorted.
fn models(client: &Client, shared: &Shared) -> Vec<String> {
    let routes = &client.identity().routes;
    shared
        .routes
        .aliases()
        .map(|(alias, _)| alias)
        .filter(|alias| routes.allows(alias))
        .map(str::to_owned)
        .collect()
}
