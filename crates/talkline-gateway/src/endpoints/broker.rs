//! Asks OpenAI for a secret with which a browser talks WebRTC to it.
//!
//! The request can go to `api.openai.com` alone: it is made of a `Credential<OpenAi>`, whose origin
//! is fixed, and nothing else has the type. No redirect is followed, and of the answer only the
//! fields that a browser needs are passed on.

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use talkline_auth::{Client, Scheme, Sealed};
use talkline_config::RouteMatch;
use talkline_dialect::{Diagnosis, Intent, Refusal, Upstream, UpstreamAnswer};

use super::client_secrets::{Wish, check_may_mint, invalid};
use crate::{limits, outgoing, refusal::HttpRefusal, report, server::Shared};

const PATH: &str = "/v1/realtime/client_secrets";
/// Longest secret. Those that OpenAI makes have some 40 bytes.
const SECRET_BYTES_MAX: usize = 4 * 1024;

/// What a browser gets of OpenAI's answer.
pub(super) struct VendorSecret {
    pub(super) value: String,
    pub(super) expires_at: u64,
    pub(super) model: String,
    pub(super) session: Map<String, Value>,
}

#[derive(Deserialize)]
struct Answer {
    value: String,
    expires_at: u64,
    #[serde(default)]
    session: Map<String, Value>,
}

/// Brokers a secret for one session. Counts as a session start of the client's.
///
/// # Errors
///
/// The client's limits, or the diagnosis of what OpenAI answered.
///
/// # Cancel safety
///
/// Dropping the future closes the connection; OpenAI may have made a secret that nobody has.
pub(super) async fn secret(
    wish: &Wish,
    route: &RouteMatch<'_>,
    client: &Client,
    shared: &Shared,
) -> Result<VendorSecret, HttpRefusal> {
    check_may_mint(client)?;
    if wish.is_bounded {
        // Rather than a secret that is good for more than was asked for.
        return Err(invalid(
            "a secret of OpenAI's cannot be bound; `talkline token create` makes tokens of the relay's, which can",
            "talkline",
        ));
    }
    let Upstream::OpenAi(openai) = route.upstream.as_ref() else {
        // Azure's and custom credentials never come this far.
        return Err(HttpRefusal::new(
            StatusCode::BAD_REQUEST,
            "transport_unsupported",
            "this upstream has no secrets for browsers; ask for gateway-relay",
        )
        .with_param("transport"));
    };
    // The session itself is out of the relay's sight: its start is all that can be counted.
    drop(limits::lease(client, &report::new_session_id(), shared).await?);
    let model = openai.model.as_deref().unwrap_or(route.alias);
    let mut session = wish.settings();
    session.insert("type".into(), wish.kind()?.into());
    session.insert("model".into(), model.into());
    let mut body = json!({"session": session});
    if let (Some(lifetime), Some(fields)) = (wish.lifetime, body.as_object_mut()) {
        let after = json!({"anchor": "created_at", "seconds": lifetime.as_secs()});
        fields.insert("expires_after".into(), after);
    }
    let sealed = openai.credential.seal(PATH).map_err(|_| unreadable())?;
    let diagnose = |refusal: &Refusal| {
        let diagnosis = Diagnosis::of(refusal, route.upstream, Intent::Conversation, &sealed);
        report::broker_refused(client.name(), &diagnosis);
        HttpRefusal::of_upstream(&diagnosis)
    };
    let bytes = exchange(&sealed, body.to_string(), shared)
        .await
        .map_err(|refusal| diagnose(&refusal))?;
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
    let sound = answer.value.starts_with("ek_")
        && answer.value.len() <= SECRET_BYTES_MAX
        && answer.value.bytes().all(|byte| byte.is_ascii_graphic());
    if !sound {
        return Err(unreadable());
    }
    Ok(VendorSecret {
        value: answer.value,
        expires_at: answer.expires_at,
        model: model.to_owned(),
        session: answer.session,
    })
}

fn unreadable() -> HttpRefusal {
    HttpRefusal::new(
        StatusCode::BAD_GATEWAY,
        "upstream_answer_unreadable",
        "OpenAI answered with something else than a client secret",
    )
}

async fn exchange(sealed: &Sealed, body: String, shared: &Shared) -> Result<Bytes, Refusal> {
    let dialer = &shared.reach.dialer;
    let addresses = dialer.resolve(sealed).await?;
    let tcp = dialer.connect(addresses).await?;
    let request = request(sealed, body)?;
    let (parts, body) = match sealed.scheme() {
        Scheme::Tls => outgoing::exchange(dialer.handshake(sealed, tcp).await?, request).await?,
        Scheme::Plain => outgoing::exchange(tcp, request).await?,
    };
    if parts.status == StatusCode::OK {
        return Ok(body);
    }
    let fields = parts
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()));
    let answer = UpstreamAnswer::new(parts.status.as_u16(), fields, body.to_vec());
    Err(Refusal::Answered(answer))
}

fn request(sealed: &Sealed, body: String) -> Result<Request<Full<Bytes>>, Refusal> {
    let mut request = Request::post(sealed.path_and_query())
        .header(header::HOST, sealed.authority())
        .header(header::CONTENT_TYPE, "application/json");
    if let Some((name, secret)) = sealed.authentication() {
        let value = http::HeaderValue::from_str(secret.expose());
        let mut value = value.map_err(|error| outgoing::failed(&error))?;
        value.set_sensitive(true);
        request = request.header(name, value);
    }
    request
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| outgoing::failed(&error))
}
