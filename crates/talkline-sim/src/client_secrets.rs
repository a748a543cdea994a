//! OpenAI's endpoint that gives a browser a secret of its own.

use hyper::Method;
use hyper::http::request::Parts;
use serde_json::{Value, json};

use crate::auth;
use crate::clock::now_unix;
use crate::handshake;
use crate::ids;
use crate::misbehaviour::Scenario;
use crate::refusal::Refusal;
use crate::server::Rules;
use crate::simulator::Profile;

/// How long a secret is said to last, unless the caller says it, in seconds.
const LIFETIME_SECONDS: u64 = 600;

/// The answer to a request for a client secret; `None` for every other request. Nothing that Azure has
/// is like it for WebSockets, so only OpenAI's profile answers.
pub(crate) fn answer(
    head: &Parts,
    body: Option<&str>,
    rules: &Rules,
) -> Option<Result<String, Refusal>> {
    let is_asked = rules.profile == Profile::OpenAi
        && head.method == Method::POST
        && head.uri.path() == "/v1/realtime/client_secrets";
    is_asked.then(|| made(head, body.unwrap_or_default(), rules))
}

fn made(head: &Parts, body: &str, rules: &Rules) -> Result<String, Refusal> {
    auth::check_openai(&handshake::offered_by(head), &rules.access())?;
    if let Some(Scenario::Refuse(refusal)) = &rules.always {
        return Err(refusal.clone());
    }
    let asked: Value = serde_json::from_str(body).map_err(|_| {
        Refusal::openai(
            "invalid_json",
            400,
            "invalid_json",
            "We could not parse the JSON body of your request.",
        )
    })?;
    let seconds = asked["expires_after"]["seconds"]
        .as_u64()
        .unwrap_or(LIFETIME_SECONDS);
    let mut session = asked["session"].clone();
    if let Some(fields) = session.as_object_mut() {
        fields.insert("object".into(), "realtime.session".into());
        fields.insert("id".into(), ids::id("sess").into());
    }
    let secret = json!({
        "value": ids::id("ek"),
        "expires_at": now_unix() + seconds,
        "session": session,
    });
    Ok(secret.to_string())
}
