//! What would work in place of an upgrade that Azure refused. Each is tried once, nothing is changed.
//!
//! The credential stays with the resource: the same host, or the same first label under another
//! suffix that Azure gives out, over TLS. [`talkline_auth::Credential::siblings`] is the only
//! source of other hosts.

use std::{sync::Arc, time::Duration};

use talkline_auth::{
    Credential, Jitter, KeyCell, Scheme, TokenCell, TokenRules, TokenSource, TokenState,
};
use talkline_dialect::{AzureApi, AzureUpstream, Correlation, Diagnosis, Intent, Upstream};
use tokio::time::{Instant, timeout, timeout_at};

use super::{line::plain_ask, session::Session};
use crate::dial::{self, Dialer};

/// Longest time for one alternative.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);
/// An api-version that takes Realtime sessions on the preview path.
const PREVIEW_API_VERSION: &str = "2025-04-01-preview";

/// A scope beside the configured one, and who fetches tokens for it.
pub(super) type OtherScope = (String, Arc<dyn TokenSource>);

/// An alternative that was tried.
#[derive(Debug)]
pub(super) struct Attempt {
    /// What was tried, in words.
    pub(super) what: String,
    /// The last part of the configuration key that it would change.
    pub(super) key: &'static str,
    /// How to change the configuration to it.
    pub(super) fix: String,
    /// `works`, or the code of the refusal.
    pub(super) outcome: String,
}

impl Attempt {
    pub(super) fn works(&self) -> bool {
        self.outcome == "works"
    }
}

/// Something to try: what it is, which key it would change and how, and where it leads.
struct Candidate {
    what: String,
    key: &'static str,
    fix: String,
    upstream: Upstream,
}

/// Tries one after the other until the deadline.
///
/// # Cancel safety
///
/// Dropping the future closes the connection that is open.
pub(super) async fn try_all(
    upstream: &Upstream,
    other_scope: Option<&OtherScope>,
    dialer: &Dialer,
    deadline: Instant,
) -> Vec<Attempt> {
    let mut tried = Vec::new();
    let Upstream::Azure(azure) = upstream else {
        return tried;
    };
    let origin = azure.credential.origin();
    // Where an operator allowed plain text, he allowed it for what he configured and no more.
    if origin.scheme() == Scheme::Plain && !origin.is_loopback() {
        return tried;
    }
    let mut candidates = candidates(azure);
    if let Some(other) = other_scope {
        candidates.extend(with_scope(azure, other).await);
    }
    for candidate in candidates {
        let end = deadline.min(Instant::now() + ATTEMPT_MAX);
        // The check itself ends at the deadline: leave before it, with what is known.
        if end.saturating_duration_since(Instant::now()) < ATTEMPT_MAX / 4 {
            break;
        }
        let outcome =
            timeout_at(end - ATTEMPT_MAX / 20, attempt(&candidate.upstream, dialer)).await;
        tried.push(Attempt {
            what: candidate.what,
            key: candidate.key,
            fix: candidate.fix,
            outcome: outcome.unwrap_or_else(|_| "no answer in time".to_owned()),
        });
    }
    tried
}

/// A token of the same identity for another scope. `None` when there is none to be had in time.
async fn with_scope(azure: &AzureUpstream, (scope, source): &OtherScope) -> Option<Candidate> {
    let fetched = timeout(ATTEMPT_MAX, source.fetch()).await.ok()?.ok()?;
    let now = crate::tokens::now();
    let mut life = TokenState::new(TokenRules::default(), source.name(), now);
    life.succeed(fetched, now, Jitter::from_bits(0));
    let cell = TokenCell::new(source.name());
    cell.publish(life.token(now));
    let origin = azure.credential.origin().clone();
    Some(Candidate {
        what: format!("a token for {scope}"),
        key: "auth.scope",
        fix: format!("set auth.scope = \"{scope}\""),
        upstream: Upstream::Azure(AzureUpstream {
            credential: Credential::entra(origin, cell),
            ..azure.clone()
        }),
    })
}

fn candidates(azure: &AzureUpstream) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    let spare = azure.credential.key_cell().and_then(KeyCell::spare);
    if let Some(key) = spare {
        let origin = azure.credential.origin().clone();
        candidates.push(Candidate {
            what: "the other of the two keys".to_owned(),
            key: "apiKey",
            fix: "the key in use is refused and the other one is not: renew the reference of the refused one".to_owned(),
            upstream: Upstream::Azure(AzureUpstream {
                credential: Credential::api_key(origin, key),
                ..azure.clone()
            }),
        });
    }
    let (api, what, fix) = match &azure.api {
        AzureApi::Ga => (
            AzureApi::Preview {
                api_version: PREVIEW_API_VERSION.to_owned(),
            },
            format!("the preview path with api-version {PREVIEW_API_VERSION}"),
            format!("set azureApiVersion = \"{PREVIEW_API_VERSION}\""),
        ),
        AzureApi::Preview { .. } => (
            AzureApi::Ga,
            "the GA path".to_owned(),
            "remove azureApiVersion: without it the GA path is used".to_owned(),
        ),
    };
    let upstream = Upstream::Azure(AzureUpstream {
        api,
        ..azure.clone()
    });
    candidates.push(Candidate {
        what,
        key: "azureApiVersion",
        fix,
        upstream,
    });
    for credential in azure.credential.siblings() {
        let host = credential.origin().host().to_owned();
        candidates.push(Candidate {
            what: format!("the host {host}"),
            key: "azureEndpoint",
            fix: format!("set azureEndpoint = \"https://{host}\""),
            upstream: Upstream::Azure(AzureUpstream {
                credential,
                ..azure.clone()
            }),
        });
    }
    candidates
}

async fn attempt(upstream: &Upstream, dialer: &Dialer) -> String {
    let Ok(request) = upstream.request(&plain_ask(), &Correlation::default()) else {
        return "the request cannot be built".to_owned();
    };
    match dialer.dial(&request).await {
        Ok((stream, _)) => {
            let session = match stream {
                dial::Upstream::Plain(leg) => Session::new(Box::new(leg.io), &leg.early),
                dial::Upstream::Tls(leg) => Session::new(Box::new(leg.io), &leg.early),
            };
            session.close().await;
            "works".to_owned()
        }
        Err(refusal) => {
            let diagnosis =
                Diagnosis::of(&refusal, upstream, Intent::Conversation, request.target());
            diagnosis.code.to_owned()
        }
    }
}
