//! Decides how a Realtime upstream is asked for a session, and what its answer means.
//!
//! From the left, a client's request becomes an [`Ask`]; an [`Upstream`] (typed target and
//! credential in one) turns it into an [`UpstreamRequest`], built from scratch with an allow-list
//! of forwarded headers. From the right, a refusal becomes a [`Diagnosis`]: a stable code, whose
//! fault it is, and what to do next. Nothing here opens a socket or reads a clock.
//!
//! ```
//! use talkline_auth::{Credential, Origin, OriginRules, Secret};
//! use talkline_dialect::{Ask, AzureApi, AzureUpstream, Correlation, Upstream};
//!
//! let origin = Origin::parse("https://voice.openai.azure.com", &OriginRules::default())?;
//! let upstream = Upstream::Azure(AzureUpstream {
//!     credential: Credential::api_key(origin, Secret::new("0123456789abcdef")),
//!     base_path: String::new(),
//!     api: AzureApi::Ga,
//!     deployment: "my voice".into(),
//! });
//! let ask = Ask::parse("/v1/realtime", Some("model=voice"), std::iter::empty())?;
//! let request = upstream.request(&ask, &Correlation::default())?;
//! assert_eq!(request.target().path_and_query(), "/openai/v1/realtime?model=my%20voice");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod ask;
mod diagnosis;
mod upstream;

pub use ask::{Ask, AskError, ClientDialect, Intent, REALTIME_SUBPROTOCOL};
pub use diagnosis::{
    AzureAnswer, Blame, Circumstances, Diagnosis, ERRORS_MODULE, ERRORS_PAGE, HandshakeFault,
    IdentityFailure, Incident, IncidentKind, Permanence, Phase, PrincipalKind, Refusal, TcpFault,
    TlsFault, TokenClaims, UpstreamAnswer, UpstreamLoss, errors_module, errors_reference,
};
pub use upstream::{
    AzureApi, AzureUpstream, Correlation, CustomUpstream, OpenAiUpstream, Upstream, UpstreamKind,
    UpstreamRequest,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
