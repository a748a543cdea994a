//! What went wrong, with a stable code, whose fault it is, and what to do next.
//!
//! The table in `table` is the one place where a failure has words; `rules` says which answer of an
//! upstream leads to which row. Sources for the Azure rows: Microsoft Learn, "Troubleshoot errors"
//! of Azure OpenAI, "Configure Entra ID", "Configure Azure Private Link", the Realtime
//! preview-to-GA migration guide, and refusals that users have published.

mod claims;
mod facts;
mod identity;
mod incident;
mod reference;
mod refusal;
mod render;
mod rules;
mod said;
mod table;

use std::time::Duration;

use talkline_auth::Sealed;

pub use claims::{PrincipalKind, TokenClaims};
pub use identity::IdentityFailure;
pub use incident::{Incident, IncidentKind, UpstreamLoss};
pub use reference::{errors_module, errors_reference};
pub use refusal::{HandshakeFault, Phase, Refusal, TcpFault, TlsFault, UpstreamAnswer};

use crate::{Intent, Upstream};
use facts::Facts;
use table::Row;

/// The page that explains every code, one anchor each: the `type` of a problem document is a URI
/// reference to it, relative to the root of this repository.
pub const ERRORS_PAGE: &str = "docs/reference/errors.md";

/// The same for the Talk page, as a JavaScript module.
pub const ERRORS_MODULE: &str = "ui/page/diagnoses.js";

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The client's request.
    Client,
    /// The relay's configuration, or a setting of the upstream's resource.
    Operator,
    /// Azure itself.
    Azure,
    /// An upstream that is not Azure.
    Upstream,
    /// The way between relay and upstream.
    Network,
}

impl Blame {
    /// The party as a word, for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Blame::Client => "client",
            Blame::Operator => "operator",
            Blame::Azure => "azure",
            Blame::Upstream => "upstream",
            Blame::Network => "network",
        }
    }
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permanence {
    /// Not before somebody changes something.
    Permanent,
    /// Later: a limit was reached.
    Throttled,
    /// Soon: something was briefly unavailable.
    Transient,
}

impl Permanence {
    /// The kind as a word, for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Permanence::Permanent => "permanent",
            Permanence::Throttled => "throttled",
            Permanence::Transient => "transient",
        }
    }

    /// Close code that makes SDKs do the right thing: 1008 is not retried by openai-python and
    /// openai-node; 1013 and 1011 are.
    pub const fn close_code(self) -> u16 {
        match self {
            Permanence::Permanent => 1008,
            Permanence::Throttled => 1013,
            Permanence::Transient => 1011,
        }
    }

    /// HTTP status for clients that are told before the WebSocket is open.
    ///
    /// 424 (RFC 4918 section 11.4) is never retried by an SDK and cannot be mistaken for a refusal
    /// of the client's own key, as an upstream's 401 could.
    pub const fn http_status(self) -> u16 {
        match self {
            Permanence::Permanent => 424,
            Permanence::Throttled => 429,
            Permanence::Transient => 503,
        }
    }
}

/// What the upstream itself said, cleaned of control characters and of everything that looks like
/// a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AzureAnswer {
    /// HTTP status.
    pub status: u16,
    /// Its error code, if the body named one.
    pub code: Option<String>,
    /// Its message, if the body had one.
    pub message: Option<String>,
    /// The request id for a support case.
    pub request_id: Option<String>,
    /// The region that answered.
    pub region: Option<String>,
}

/// A failure with its cause and its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// Stable code: an anchor in the documentation, a label in metrics, the close reason.
    pub code: &'static str,
    /// Whose fault it is.
    pub blame: Blame,
    /// Whether trying again can help.
    pub permanence: Permanence,
    /// What happened, as one sentence.
    pub summary: String,
    /// What to do next, as a sentence or a few, with the exact command where there is one.
    pub next_step: String,
    /// What the upstream said, when it answered.
    pub answer: Option<AzureAnswer>,
    /// How long the upstream asks to wait.
    pub retry_after: Option<Duration>,
}

/// Under which circumstances an upstream gave no session.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// Who was asked.
    pub upstream: &'a Upstream,
    /// For what.
    pub intent: Intent,
    /// What was dialled: its credential is removed from everything the upstream said.
    pub target: &'a Sealed,
    /// The claims of the token that was presented: they fill in the commands.
    pub claims: Option<&'a TokenClaims>,
}

impl Diagnosis {
    /// Explains why `upstream` gave no session to a request for `target`.
    ///
    /// When the target's credential is a token, its claims are read, so that a missing role comes
    /// with the command that assigns it to this very principal.
    pub fn of(refusal: &Refusal, upstream: &Upstream, intent: Intent, target: &Sealed) -> Self {
        let claims = TokenClaims::of(target);
        Self::explain(
            refusal,
            Circumstances {
                upstream,
                intent,
                target,
                claims: claims.as_ref(),
            },
        )
    }

    /// Explains why there was no session under these circumstances.
    pub fn explain(refusal: &Refusal, circumstances: Circumstances<'_>) -> Self {
        refusal::explain(refusal, circumstances)
    }

    /// No name of the relay's leads to an upstream: the client asked for something that does not
    /// exist. `asked` comes from the client, `available` from the configuration.
    pub fn unknown_model<'a>(asked: &str, available: impl IntoIterator<Item = &'a str>) -> Self {
        let available: Vec<_> = available.into_iter().collect();
        Row::named("unknown_model").diagnose(
            &Facts::default()
                .with("asked", said::clean(asked, 80))
                .with("available", available.join(", ")),
        )
    }

    /// The configured upstream has a path that no request can have.
    pub fn unusable_path() -> Self {
        Row::named("upstream_path_invalid").diagnose(&Facts::default())
    }

    /// The relay has as many sessions as it may have.
    pub fn relay_full() -> Self {
        Row::named("relay_full").diagnose(&Facts::default())
    }

    /// The relay is going away.
    pub fn relay_shutting_down() -> Self {
        Row::named("relay_shutting_down").diagnose(&Facts::default())
    }

    /// Whether the upstream answered 401 in a way that another token or key may cure: not for a
    /// missing role, a wrong tenant or a firewall.
    pub fn doubts_credential(&self) -> bool {
        let answered_401 = self
            .answer
            .as_ref()
            .is_some_and(|answer| answer.status == 401);
        answered_401
            && matches!(
                self.code,
                "azure_key_invalid"
                    | "azure_token_audience"
                    | "azure_unauthorized"
                    | "upstream_unauthorized"
            )
    }

    /// Where the code is explained: a reference to its anchor on [`ERRORS_PAGE`].
    pub fn docs(&self) -> String {
        format!("{ERRORS_PAGE}#{}", self.code)
    }
}

#[cfg(test)]
mod tests;
