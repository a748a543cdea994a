//! The rules that a session is under: its client's policy, with a token's settings laid over it.

use std::sync::Arc;

use http::StatusCode;
use talkline_auth::Client;
use talkline_config::RouteMatch;
use talkline_dialect::{Ask, AzureApi, ClientDialect, Upstream};
use talkline_session::policy::{Policy, Setup};

use crate::{refusal::HttpRefusal, server::Shared};

/// The policy of a client's session that begins with these settings, the JSON text of a session
/// object.
///
/// # Errors
///
/// 400 when the settings ask for what the policy refuses, 403 when the policy that the client should
/// be under is not configured: without it the session must not be.
pub(crate) fn policy(
    client: &Client,
    settings: Option<&str>,
    shared: &Shared,
) -> Result<Arc<Policy>, HttpRefusal> {
    let name = client.identity().policy.as_deref();
    let policy = shared.policies.resolve(name).map_err(|unknown| {
        HttpRefusal::new(StatusCode::FORBIDDEN, "policy_unknown", unknown.to_string())
    })?;
    let Some(settings) = settings else {
        return Ok(Arc::clone(policy));
    };
    let laid_over = policy.overlay(settings).map_err(|refused| {
        let answer = HttpRefusal::new(StatusCode::BAD_REQUEST, refused.code, refused.message);
        match refused.param {
            Some(param) => answer.with_param(param),
            None => answer,
        }
    })?;
    Ok(Arc::new(laid_over))
}

/// What a guard has to know of a session beside its policy.
pub(crate) fn setup(route: &RouteMatch<'_>, ask: &Ask) -> Setup {
    let dialect = match route.upstream.as_ref() {
        Upstream::Azure(azure) => match azure.api {
            AzureApi::Ga => ClientDialect::Ga,
            AzureApi::Preview { .. } => ClientDialect::Beta,
        },
        // The header that makes the difference is passed on to these.
        Upstream::OpenAi(_) | Upstream::Custom(_) => ask.dialect,
    };
    Setup {
        dialect,
        intent: ask.intent,
        helpers: Arc::clone(route.helpers),
    }
}
