//! Which requests become sessions: path, query, credential, upgrade headers, in the order of the service.

use std::borrow::Cow;

use base64::Engine;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Version};

use crate::auth::{self, Offered};
use crate::misbehaviour::Scenario;
use crate::refusal::Refusal;
use crate::server::Rules;
use crate::session::{Dialect, Purpose, Terms};
use crate::simulator::Profile;
use crate::ws;

/// The subprotocol prefix that carries a key for api.openai.com.
const KEY_SUBPROTOCOL: &str = "openai-insecure-api-key.";

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Verdict {
    Refuse(Refusal),
    Open(Opening),
}

/// A session about to be opened.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) terms: Terms,
    /// The value of `Sec-WebSocket-Accept`.
    pub(crate) accept: String,
    pub(crate) offers_realtime: bool,
}

/// Whether the connection is encrypted, which the `Location` of a redirect repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Plain,
    Tls,
}

/// Decides on a request from its head alone.
pub(crate) fn decide(
    request: &Parts,
    rules: &Rules,
    transport: Transport,
    now_unix: u64,
) -> Verdict {
    match open(request, rules, now_unix) {
        Ok(opening) => Verdict::Open(opening),
        Err(refusal) if refusal.redirects => Verdict::Refuse(redirect(refusal, request, transport)),
        Err(refusal) => Verdict::Refuse(refusal),
    }
}

fn open(request: &Parts, rules: &Rules, now_unix: u64) -> Result<Opening, Refusal> {
    let query = Query::of(request);
    let dialect = route(request, rules.profile, &query)?;
    let offered = offered(&request.headers, &query);
    match rules.profile {
        Profile::OpenAi => auth::check_openai(&offered, &rules.access())?,
        Profile::Ga | Profile::Preview | Profile::Both => {
            auth::check_azure(&offered, &rules.access(), now_unix)?;
        }
    }
    let key = upgrade_key(request).ok_or_else(Refusal::not_an_upgrade)?;
    if let (Dialect::Preview, Some(version)) = (dialect, query.get("api-version"))
        && !rules.api_versions.iter().any(|each| *each == version)
    {
        return Err(Refusal::api_version_bad());
    }
    let purpose = match query.get("intent").as_deref() {
        Some("transcription") => Purpose::Transcription,
        _ => Purpose::Realtime,
    };
    let model = model(&query, rules, dialect, purpose)?;
    let scenario = rules.always.clone().or_else(|| Scenario::by_name(&model));
    let misbehaviour = match scenario {
        Some(Scenario::Refuse(refusal)) => return Err(refusal),
        Some(Scenario::Misbehave(misbehaviour)) => Some(misbehaviour),
        None => None,
    };
    let known = rules
        .deployments
        .as_ref()
        .is_none_or(|all| all.contains(&model));
    if !known && misbehaviour.is_none() && !model.is_empty() {
        return Err(Refusal::deployment_not_found());
    }
    Ok(Opening {
        terms: Terms {
            dialect,
            purpose,
            model,
            misbehaviour,
        },
        accept: ws::accept_for(key),
        offers_realtime: subprotocols(&request.headers).any(|each| each == "realtime"),
    })
}

/// What a request presents.
pub(crate) fn offered_by(request: &Parts) -> Offered<'_> {
    offered(&request.headers, &Query::of(request))
}

/// The dialect that path and `api-version` select.
fn route(request: &Parts, profile: Profile, query: &Query<'_>) -> Result<Dialect, Refusal> {
    let has_version = query.get("api-version").is_some();
    match (profile, request.uri.path()) {
        (Profile::Ga | Profile::Both, "/openai/v1/realtime") => {
            if has_version {
                return Err(Refusal::api_version_on_ga());
            }
            Ok(Dialect::Ga)
        }
        (Profile::Preview | Profile::Both, "/openai/realtime") if has_version => {
            Ok(Dialect::Preview)
        }
        (Profile::OpenAi, "/v1/realtime") if asks_for_beta(&request.headers) => {
            Ok(Dialect::Preview)
        }
        (Profile::OpenAi, "/v1/realtime") => Ok(Dialect::Ga),
        (Profile::OpenAi, _) => Err(Refusal::openai(
            "invalid_url",
            404,
            "not_found",
            "Invalid URL",
        )),
        (Profile::Ga | Profile::Preview | Profile::Both, _) => Err(Refusal::resource_not_found()),
    }
}

/// The deployment's or model's name; empty for a GA transcription session, which has none.
fn model(
    query: &Query<'_>,
    rules: &Rules,
    dialect: Dialect,
    purpose: Purpose,
) -> Result<String, Refusal> {
    let azure_preview = dialect == Dialect::Preview && rules.profile != Profile::OpenAi;
    let name = if azure_preview { "deployment" } else { "model" };
    match query.get(name) {
        Some(model) if !model.is_empty() => Ok(model.into_owned()),
        _ if purpose == Purpose::Transcription => Ok(String::new()),
        _ if azure_preview => Err(Refusal::deployment_not_found()),
        _ => Err(Refusal::missing_model()),
    }
}

/// The key of a proper upgrade request (RFC 6455, section 4.2.1).
fn upgrade_key(request: &Parts) -> Option<&str> {
    let headers = &request.headers;
    let has_token = |name: &str, token: &str| {
        let values = headers.get_all(name).into_iter();
        let mut tokens = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|v| v.split(','));
        tokens.any(|each| each.trim().eq_ignore_ascii_case(token))
    };
    let key = text(headers, "sec-websocket-key")?;
    let nonce = base64::engine::general_purpose::STANDARD.decode(key).ok()?;
    let proper = request.method == Method::GET
        && request.version == Version::HTTP_11
        && has_token("upgrade", "websocket")
        && has_token("connection", "upgrade")
        && text(headers, "sec-websocket-version") == Some("13")
        && nonce.len() == 16;
    proper.then_some(key)
}

fn offered<'a>(headers: &'a HeaderMap, query: &Query<'_>) -> Offered<'a> {
    Offered {
        key_header: text(headers, "api-key"),
        key_query: query.get("api-key").map(Cow::into_owned),
        authorization: text(headers, "authorization"),
        key_subprotocol: subprotocols(headers).find_map(|each| each.strip_prefix(KEY_SUBPROTOCOL)),
    }
}

/// The two ways in which a client asks for the beta vocabulary.
fn asks_for_beta(headers: &HeaderMap) -> bool {
    text(headers, "openai-beta") == Some("realtime=v1")
        || subprotocols(headers).any(|each| each == "openai-beta.realtime-v1")
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all("sec-websocket-protocol").into_iter();
    let lists = values.filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The redirect that Azure was seen to give: same host, a path without `/openai`, and the caller's key in the
/// query. A caller that came with a bearer token gets no key, since it sent none.
fn redirect(refusal: Refusal, request: &Parts, transport: Transport) -> Refusal {
    let query = Query::of(request);
    let scheme = match transport {
        Transport::Plain => "ws",
        Transport::Tls => "wss",
    };
    let host = text(&request.headers, "host").unwrap_or_default();
    let version = query
        .get("api-version")
        .unwrap_or(Cow::Borrowed("2025-04-01-preview"));
    let mut location = format!(
        "{scheme}://{host}/v1/realtime?api-version={version}&deployment={}",
        refusal.name
    );
    if let Some(key) = offered(&request.headers, &query).key() {
        location.push_str("&api-key=");
        location.extend(percent_encoding::utf8_percent_encode(
            key,
            percent_encoding::NON_ALPHANUMERIC,
        ));
    }
    refusal.header("location", location)
}

/// The query of a request, decoded on demand.
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn of(request: &'a Parts) -> Self {
        Self(request.uri.query().unwrap_or_default())
    }

    /// The first value of that name.
    fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        let mut pairs = self
            .0
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let (_, value) = pairs.find(|(key, _)| decoded(key) == name)?;
        Some(decoded(value))
    }
}

/// Percent-decoding, with `+` for a space, as browsers encode forms.
fn decoded(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        let bytes: Vec<u8> = percent_encoding::percent_decode_str(&spaced).collect();
        return Cow::Owned(String::from_utf8_lossy(&bytes).into_owned());
    }
    percent_encoding::percent_decode_str(text).decode_utf8_lossy()
}

#[cfg(test)]
mod tests;
