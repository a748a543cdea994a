//! Typed target and credential, and the request they make.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use talkline_auth::{Azure, Credential, Custom, KeyCell, OpenAi, SealError, Sealed, TokenCell};

use crate::{Ask, ClientDialect, Intent};

/// Everything but RFC 3986's unreserved characters is encoded in a query value.
const QUERY_VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A Realtime upstream: what to ask for, and the credential that goes only there.
///
/// Made from configuration alone. No field comes from a client's request.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// Azure OpenAI / Azure AI Foundry.
    Azure(AzureUpstream),
    /// OpenAI itself.
    OpenAi(OpenAiUpstream),
    /// An OpenAI-compatible endpoint.
    Custom(CustomUpstream),
}

/// What kind of upstream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamKind {
    /// [`Upstream::Azure`].
    Azure,
    /// [`Upstream::OpenAi`].
    OpenAi,
    /// [`Upstream::Custom`].
    Custom,
}

/// An Azure deployment.
#[derive(Clone, Debug)]
pub struct AzureUpstream {
    /// Credential and origin.
    pub credential: Credential<Azure>,
    /// What stands before `/openai` in the path: empty, or an API Management base path such as
    /// `/my-gateway`.
    pub base_path: String,
    /// Which of Azure's Realtime paths is used.
    pub api: AzureApi,
    /// Name of the deployment (not of the model).
    pub deployment: String,
}

/// The two Realtime paths of an Azure resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AzureApi {
    /// `/openai/v1/realtime?model=<deployment>`, without an api-version: Azure answers 401 to one
    /// (Microsoft Learn, Realtime preview-to-GA migration guide).
    Ga,
    /// `/openai/realtime?api-version=<version>&deployment=<deployment>`.
    Preview {
        /// Such as `2025-04-01-preview`.
        api_version: String,
    },
}

/// OpenAI's own endpoint.
#[derive(Clone, Debug)]
pub struct OpenAiUpstream {
    /// Credential and origin.
    pub credential: Credential<OpenAi>,
    /// The model; `None` passes the client's alias on.
    pub model: Option<String>,
}

/// An OpenAI-compatible endpoint.
#[derive(Clone, Debug)]
pub struct CustomUpstream {
    /// Credential and origin.
    pub credential: Credential<Custom>,
    /// The path of the configured base URL, without a trailing slash: `/v1` or empty.
    pub base_path: String,
    /// The model; `None` passes the client's alias on.
    pub model: Option<String>,
}

/// What may be handed on from the client's request, so that one conversation can be found in the
/// logs of both sides. Everything else a client sends stays here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Correlation {
    /// `x-ms-client-request-id`: the client's, or the relay's session id.
    pub client_request_id: Option<String>,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
    /// `OpenAI-Safety-Identifier`: a stable, hashed name of the end user.
    pub safety_identifier: Option<String>,
}

impl Correlation {
    /// Picks the forwarded headers out of a request. Values that are not short visible ASCII are
    /// dropped.
    pub fn from_headers<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut correlation = Self::default();
        for (name, value) in headers {
            let slot = match name.to_ascii_lowercase().as_str() {
                "x-ms-client-request-id" => &mut correlation.client_request_id,
                "traceparent" => &mut correlation.traceparent,
                "openai-safety-identifier" => &mut correlation.safety_identifier,
                _ => continue,
            };
            let printable = value.iter().all(u8::is_ascii_graphic);
            if printable && (1..=256).contains(&value.len()) {
                *slot = std::str::from_utf8(value).ok().map(str::to_owned);
            }
        }
        correlation
    }
}

impl Upstream {
    /// Builds the handshake request for what a client asked.
    ///
    /// # Errors
    ///
    /// [`SealError`] when there is no usable Entra token, or when a configured path is not in origin
    /// form; resolved configurations have none of these.
    pub fn request(
        &self,
        ask: &Ask,
        correlation: &Correlation,
    ) -> Result<UpstreamRequest, SealError> {
        let target = match self {
            Upstream::Azure(azure) => azure.credential.seal(&azure.path(ask.intent))?,
            Upstream::OpenAi(openai) => {
                let query = query(ask, openai.model.as_deref());
                openai.credential.seal(&format!("/v1/realtime{query}"))?
            }
            Upstream::Custom(custom) => {
                let query = query(ask, custom.model.as_deref());
                custom
                    .credential
                    .seal(&format!("{}/realtime{query}", custom.base_path))?
            }
        };
        let beta = ask.dialect == ClientDialect::Beta && !self.is_ga_only();
        let mut headers = vec![(
            "user-agent",
            concat!("talkline/", env!("CARGO_PKG_VERSION")).to_owned(),
        )];
        let optional = [
            ("openai-beta", beta.then(|| "realtime=v1".to_owned())),
            (
                "openai-safety-identifier",
                correlation.safety_identifier.clone(),
            ),
            ("traceparent", correlation.traceparent.clone()),
            (
                "x-ms-client-request-id",
                correlation.client_request_id.clone(),
            ),
        ];
        headers.extend(
            optional
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        Ok(UpstreamRequest { target, headers })
    }

    /// What kind of upstream it is.
    pub fn kind(&self) -> UpstreamKind {
        match self {
            Upstream::Azure(_) => UpstreamKind::Azure,
            Upstream::OpenAi(_) => UpstreamKind::OpenAi,
            Upstream::Custom(_) => UpstreamKind::Custom,
        }
    }

    /// Name of the provider, for logs.
    pub fn provider(&self) -> &'static str {
        match self {
            Upstream::Azure(_) => "azure-openai",
            Upstream::OpenAi(_) => "openai",
            Upstream::Custom(_) => "custom",
        }
    }

    /// Where the upstream's tokens are found, when it is signed in to with Entra ID.
    pub fn token_cell(&self) -> Option<&TokenCell> {
        match self {
            Upstream::Azure(azure) => azure.credential.token_cell(),
            Upstream::OpenAi(_) | Upstream::Custom(_) => None,
        }
    }

    /// Where the upstream's keys are found, when they rotate.
    pub fn key_cell(&self) -> Option<&KeyCell> {
        match self {
            Upstream::Azure(azure) => azure.credential.key_cell(),
            Upstream::OpenAi(openai) => openai.credential.key_cell(),
            Upstream::Custom(custom) => custom.credential.key_cell(),
        }
    }

    /// The vocabulary of the upstream's events, where its kind tells: `None` for custom endpoints.
    pub fn dialect(&self) -> Option<ClientDialect> {
        match self {
            Upstream::Azure(AzureUpstream {
                api: AzureApi::Preview { .. },
                ..
            }) => Some(ClientDialect::Beta),
            Upstream::Azure(_) | Upstream::OpenAi(_) => Some(ClientDialect::Ga),
            Upstream::Custom(_) => None,
        }
    }

    /// The deployment or model that is asked for, where configuration names one.
    pub fn deployment(&self) -> Option<&str> {
        match self {
            Upstream::Azure(azure) => Some(&azure.deployment),
            Upstream::OpenAi(openai) => openai.model.as_deref(),
            Upstream::Custom(custom) => custom.model.as_deref(),
        }
    }

    /// Scheme, host and port, for logs and for the readiness of the configuration.
    pub fn origin(&self) -> String {
        match self {
            Upstream::Azure(azure) => azure.credential.origin().to_string(),
            Upstream::OpenAi(openai) => openai.credential.origin().to_string(),
            Upstream::Custom(custom) => custom.credential.origin().to_string(),
        }
    }

    fn is_ga_only(&self) -> bool {
        self.dialect() == Some(ClientDialect::Ga)
    }
}

impl AzureUpstream {
    fn path(&self, intent: Intent) -> String {
        let deployment = encode(&self.deployment);
        let base = &self.base_path;
        match (&self.api, intent) {
            (AzureApi::Ga, Intent::Conversation) => {
                format!("{base}/openai/v1/realtime?model={deployment}")
            }
            // The deployment of a transcription session stands in its session.update.
            (AzureApi::Ga, Intent::Transcription) => {
                format!("{base}/openai/v1/realtime?intent=transcription")
            }
            (AzureApi::Preview { api_version }, intent) => {
                let intent = match intent {
                    Intent::Conversation => "",
                    Intent::Transcription => "&intent=transcription",
                };
                let version = encode(api_version);
                format!(
                    "{base}/openai/realtime?api-version={version}&deployment={deployment}{intent}"
                )
            }
        }
    }
}

/// A handshake request, ready to be written: where to, with which credential, and the headers
/// beside those that every WebSocket upgrade has (RFC 6455 section 4.1).
#[derive(Clone, Debug)]
pub struct UpstreamRequest {
    target: Sealed,
    headers: Vec<(&'static str, String)>,
}

impl UpstreamRequest {
    /// Host, path and credential.
    pub fn target(&self) -> &Sealed {
        &self.target
    }

    /// Further headers in the order in which they are sent; names are lower case.
    pub fn headers(&self) -> &[(&'static str, String)] {
        &self.headers
    }
}

fn encode(value: &str) -> String {
    utf8_percent_encode(value, QUERY_VALUE).to_string()
}

fn query(ask: &Ask, model: Option<&str>) -> String {
    match (ask.intent, model.or(ask.alias.as_deref())) {
        (Intent::Transcription, _) => "?intent=transcription".to_owned(),
        (Intent::Conversation, Some(model)) => format!("?model={}", encode(model)),
        (Intent::Conversation, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use talkline_auth::{
        FetchedToken, Jitter, Moment, Origin, OriginRules, Secret, TokenRules, TokenState,
    };

    use super::*;

    fn azure(api: AzureApi) -> Upstream {
        let rules = OriginRules {
            allowed_hosts: vec!["gw.azure-api.net".into()],
            allow_insecure: false,
        };
        let origin = Origin::parse("https://gw.azure-api.net", &rules).unwrap();
        Upstream::Azure(AzureUpstream {
            credential: Credential::api_key(origin, Secret::new("AZURE-KEY")),
            base_path: "/talk".into(),
            api,
            deployment: "gpt realtime&x=1".into(),
        })
    }

    fn preview() -> AzureApi {
        AzureApi::Preview {
            api_version: "2025-04-01-preview".into(),
        }
    }

    fn openai(model: Option<&str>) -> Upstream {
        Upstream::OpenAi(OpenAiUpstream {
            credential: Credential::platform_key(Secret::new("sk-openai")),
            model: model.map(str::to_owned),
        })
    }

    fn custom() -> Upstream {
        let origin = Origin::parse("ws://127.0.0.1:9000", &OriginRules::default()).unwrap();
        Upstream::Custom(CustomUpstream {
            credential: Credential::none(origin),
            base_path: "/v1".into(),
            model: None,
        })
    }

    /// What a hostile or careless client may send along; none of it may be forwarded but the
    /// three correlation headers.
    const CLIENT_HEADERS: &[(&str, &[u8])] = &[
        ("Authorization", b"Bearer CLIENT-KEY"),
        ("api-key", b"CLIENT-KEY"),
        ("Cookie", b"session=CLIENT"),
        ("Origin", b"https://page.example"),
        ("User-Agent", b"AsyncOpenAI/Python 3.54.0"),
        ("X-Stainless-Lang", b"python"),
        ("OpenAI-Organization", b"org"),
        ("OpenAI-Beta", b"realtime=v1"),
        ("Metadata", b"true"),
        ("X-IDENTITY-HEADER", b"x"),
        ("Ocp-Apim-Subscription-Key", b"x"),
        ("X-Forwarded-Host", b"evil.example"),
        ("OpenAI-Safety-Identifier", b"user-7f"),
        ("x-ms-client-request-id", b"req-1"),
        (
            "traceparent",
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ];

    fn check(upstream: &Upstream, query: &str, headers: &[(&str, &[u8])], expected: &str) {
        let fields = || headers.iter().map(|(name, value)| (*name, *value));
        let ask = Ask::parse("/v1/realtime", Some(query), fields()).unwrap();
        let request = upstream
            .request(&ask, &Correlation::from_headers(fields()))
            .unwrap();
        let target = request.target();
        let mut lines = vec![
            format!("GET {}", target.path_and_query()),
            format!("host: {}", target.authority()),
        ];
        lines.extend(
            target
                .authentication()
                .map(|(name, value)| format!("{name}: {}", value.expose())),
        );
        lines.extend(
            request
                .headers()
                .iter()
                .map(|(name, value)| format!("{name}: {value}")),
        );
        assert_eq!(
            lines.join("\n").replace(env!("CARGO_PKG_VERSION"), "V"),
            expected
        );
    }

    #[test]
    fn golden_azure_ga() {
        check(
            &azure(AzureApi::Ga),
            "model=anything",
            CLIENT_HEADERS,
            "\
GET /talk/openai/v1/realtime?model=gpt%20realtime%26x%3D1
host: gw.azure-api.net
api-key: AZURE-KEY
user-agent: talkline/V
openai-safety-identifier: user-7f
traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
x-ms-client-request-id: req-1",
        );
    }

    #[test]
    fn golden_azure_preview() {
        check(
            &azure(preview()),
            "model=m",
            CLIENT_HEADERS,
            "\
GET /talk/openai/realtime?api-version=2025-04-01-preview&deployment=gpt%20realtime%26x%3D1
host: gw.azure-api.net
api-key: AZURE-KEY
user-agent: talkline/V
openai-beta: realtime=v1
openai-safety-identifier: user-7f
traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
x-ms-client-request-id: req-1",
        );
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a token needs some instant to be valid from"
    )]
    fn token_cell() -> TokenCell {
        let now = Moment {
            monotonic: std::time::Instant::now(),
            wall: std::time::SystemTime::UNIX_EPOCH,
        };
        let mut state = TokenState::new(TokenRules::default(), "managed-identity", now);
        let token = FetchedToken {
            secret: Secret::new("eyJ0"),
            time_to_live: Duration::from_secs(3600),
            refresh_in: None,
        };
        state.succeed(token, now, Jitter::from_bits(0));
        let cell = TokenCell::new("managed-identity");
        cell.publish(state.token(now));
        cell
    }

    #[test]
    fn golden_azure_entra_token() {
        let origin = Origin::parse("https://r.openai.azure.com", &OriginRules::default()).unwrap();
        let upstream = Upstream::Azure(AzureUpstream {
            credential: Credential::entra(origin, token_cell()),
            base_path: String::new(),
            api: AzureApi::Ga,
            deployment: "voice".into(),
        });
        check(
            &upstream,
            "",
            &[],
            "\
GET /openai/v1/realtime?model=voice
host: r.openai.azure.com
authorization: Bearer eyJ0
user-agent: talkline/V",
        );
    }

    #[test]
    fn golden_openai() {
        let beta: &[(&str, &[u8])] = &[("openai-beta", b"realtime=v1")];
        check(
            &openai(None),
            "model=gpt-realtime",
            beta,
            "\
GET /v1/realtime?model=gpt-realtime
host: api.openai.com
authorization: Bearer sk-openai
user-agent: talkline/V",
        );
        check(
            &openai(Some("gpt-realtime-2.1")),
            "model=alias",
            &[],
            "\
GET /v1/realtime?model=gpt-realtime-2.1
host: api.openai.com
authorization: Bearer sk-openai
user-agent: talkline/V",
        );
    }

    #[test]
    fn golden_custom() {
        let beta: &[(&str, &[u8])] = &[("openai-beta", b"realtime=v1")];
        check(
            &custom(),
            "model=org/voice",
            beta,
            "\
GET /v1/realtime?model=org%2Fvoice
host: 127.0.0.1:9000
user-agent: talkline/V
openai-beta: realtime=v1",
        );
    }

    #[test]
    fn transcription_names_no_model_in_the_url() {
        let path = |upstream: &Upstream| {
            let ask = Ask::parse(
                "/v1/realtime",
                Some("intent=transcription"),
                std::iter::empty(),
            )
            .unwrap();
            let request = upstream.request(&ask, &Correlation::default()).unwrap();
            request.target().path_and_query().to_owned()
        };
        assert_eq!(
            path(&azure(AzureApi::Ga)),
            "/talk/openai/v1/realtime?intent=transcription"
        );
        assert_eq!(
            path(&azure(preview())),
            "/talk/openai/realtime?api-version=2025-04-01-preview&deployment=gpt%20realtime%26x%3D1&intent=transcription"
        );
        assert_eq!(path(&openai(None)), "/v1/realtime?intent=transcription");
        assert_eq!(path(&custom()), "/v1/realtime?intent=transcription");
    }

    #[test]
    fn correlation_drops_what_could_break_a_header() {
        let long = vec![b'x'; 257];
        let headers: &[(&str, &[u8])] = &[
            ("traceparent", b"a\r\nX: y"),
            ("x-ms-client-request-id", &long),
            ("openai-safety-identifier", b""),
        ];
        let correlation = Correlation::from_headers(headers.iter().map(|(n, v)| (*n, *v)));
        assert_eq!(correlation, Correlation::default());
    }

    #[test]
    fn debug_shows_no_credential() {
        let shown = format!("{:?}", azure(AzureApi::Ga));
        assert!(!shown.contains("AZURE-KEY"), "{shown}");
    }
}
