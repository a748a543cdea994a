//! Whom a test call goes to: a URL and a key, as the typed target and credential that the relay itself would use,
//! and what its failures mean.
//!
//! The same types hold the same promise: a key for Azure cannot be sent to OpenAI, nor the other way round.

use std::{borrow::Cow, io, iter};

use http::Uri;
use percent_encoding::percent_decode_str;
use talkline_auth::{
    AZURE_SUFFIXES, Azure, Credential, Custom, OPENAI_HOSTS, OpenAi, Origin, OriginError,
    OriginRules, SealError, Secret,
};
use talkline_dialect::{
    Ask, AzureApi, AzureUpstream, ClientDialect, Correlation, CustomUpstream, Incident, Intent,
    OpenAiUpstream, Refusal, Upstream, UpstreamAnswer, UpstreamRequest,
};

use crate::dial;

pub use talkline_dialect::{Diagnosis, IncidentKind, Permanence, Phase};

/// A Realtime URL, read; no key yet.
#[derive(Clone, Debug)]
pub struct Address {
    scheme: String,
    authority: String,
    host: String,
    place: Place,
    model: Option<String>,
}

#[derive(Clone, Debug)]
enum Place {
    Azure { base_path: String, api: AzureApi },
    OpenAi,
    Other { base_path: String },
}

/// Why a URL cannot be called. No variant repeats a query, which may hold a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Not a URL with a scheme and a host.
    #[error("that is not a URL such as ws://localhost:8080/v1/realtime")]
    NotAUrl,
    /// The scheme, host or port cannot be called, or not in plain text.
    #[error("{0}")]
    Origin(#[from] OriginError),
    /// A path that no Realtime endpoint of that host has.
    #[error("there is no Realtime endpoint at the path `{path}`; {expected}")]
    Path {
        /// The path.
        path: String,
        /// The paths that there are.
        expected: &'static str,
    },
    /// A query parameter that has no meaning here.
    #[error("the query parameter `{0}` is not known; model, deployment and api-version are")]
    Parameter(String),
    /// The service needs to be told a model, or on Azure a deployment.
    #[error("no {0} is named")]
    NoModel(&'static str),
    /// The URL says one model and the caller another.
    #[error("the URL names another model than {0}")]
    TwoModels(String),
    /// The key has characters that no header can carry.
    #[error("the request cannot be made: {0}")]
    Unsendable(#[from] SealError),
}

impl Address {
    /// Reads a Realtime URL, complete or only its beginning: `ws`, `wss`, `http` or `https`, a host, and as much of
    /// the path as there is. What is missing is Azure's GA path for an Azure host, `/v1/realtime` for any other.
    ///
    /// # Errors
    ///
    /// [`AddressError`], each of which is the caller's to mend.
    pub fn parse(url: &str, model: Option<&str>) -> Result<Self, AddressError> {
        let uri: Uri = url.trim().parse().map_err(|_| AddressError::NotAUrl)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(AddressError::NotAUrl);
        };
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let query = Query::parse(uri.query().unwrap_or_default())?;
        let model = match (query.model, model) {
            (Some(one), Some(other)) if one != other => {
                return Err(AddressError::TwoModels(other.to_owned()));
            }
            (one, other) => one.or(other.map(str::to_owned)),
        };
        let path = uri.path().trim_end_matches('/');
        let base = path.strip_suffix("/realtime").unwrap_or(path);
        let place = place(&host, base, query.api_version)?;
        let needed = match place {
            Place::Azure { .. } => Some("deployment"),
            Place::OpenAi => Some("model"),
            Place::Other { .. } => None,
        };
        if let (None, Some(needed)) = (&model, needed) {
            return Err(AddressError::NoModel(needed));
        }
        Ok(Self {
            scheme: scheme.to_owned(),
            authority: authority.as_str().to_owned(),
            host,
            place,
            model,
        })
    }

    /// The variable that a key for this address usually stands in.
    pub fn key_variable(&self) -> &'static str {
        match &self.place {
            _ if is_azure(&self.host) => "AZURE_OPENAI_API_KEY",
            Place::OpenAi => "OPENAI_API_KEY",
            Place::Azure { .. } | Place::Other { .. } => "TALKLINE_CLIENT_KEY",
        }
    }

    /// Whether the address is one of Azure's or OpenAI's own, where nobody is let in without a key.
    pub fn needs_key(&self) -> bool {
        self.key_variable() != "TALKLINE_CLIENT_KEY"
    }

    /// Joins address and key.
    ///
    /// `allow_insecure` lets a key go to another host than this one in plain text.
    ///
    /// # Errors
    ///
    /// [`AddressError::Origin`] for a host that may not be called like this, [`AddressError::Unsendable`] for a path or
    /// key that no request can carry.
    pub fn with_key(
        self,
        key: Option<Secret>,
        allow_insecure: bool,
    ) -> Result<Callee, AddressError> {
        let url = format!("{}://{}", self.scheme, self.authority);
        let rules = OriginRules {
            // An Azure path says what it is, also behind API Management or a private name.
            allowed_hosts: vec![self.host],
            allow_insecure,
        };
        let upstream = match self.place {
            Place::Azure { base_path, api } => Upstream::Azure(AzureUpstream {
                credential: credential(Origin::<Azure>::parse(&url, &rules)?, key),
                base_path,
                api,
                deployment: self.model.unwrap_or_default(),
            }),
            Place::OpenAi => Upstream::OpenAi(OpenAiUpstream {
                credential: credential(Origin::<OpenAi>::parse(&url, &rules)?, key),
                model: self.model,
            }),
            Place::Other { base_path } => {
                let origin = Origin::<Custom>::parse(&url, &rules)?;
                let credential = match key {
                    Some(key) => Credential::api_key(origin, key),
                    None => Credential::none(origin),
                };
                Upstream::Custom(CustomUpstream {
                    credential,
                    base_path,
                    model: self.model,
                })
            }
        };
        let request = upstream.request(&ask(), &Correlation::default())?;
        Ok(Callee { upstream, request })
    }
}

/// Azure and OpenAI let nobody in without a key; the empty one is refused there, and by a relay.
fn credential<P: talkline_auth::Provider>(origin: Origin<P>, key: Option<Secret>) -> Credential<P> {
    Credential::api_key(origin, key.unwrap_or_else(|| Secret::new("")))
}

fn ask() -> Ask {
    Ask {
        alias: None,
        intent: Intent::Conversation,
        dialect: ClientDialect::Ga,
        offers_realtime: false,
    }
}

fn is_azure(host: &str) -> bool {
    AZURE_SUFFIXES.iter().any(|suffix| host.ends_with(suffix))
}

fn place(host: &str, base: &str, api_version: Option<String>) -> Result<Place, AddressError> {
    let no_path = |expected| AddressError::Path {
        path: format!("{base}/realtime"),
        expected,
    };
    let azure = |base_path: &str, api| {
        Ok(Place::Azure {
            base_path: base_path.to_owned(),
            api,
        })
    };
    const AZURE: &str = "Azure has /openai/v1/realtime?model=… without an api-version, and \
                         /openai/realtime?api-version=…&deployment=…";
    if OPENAI_HOSTS.contains(&host) {
        return match base {
            "" | "/v1" => Ok(Place::OpenAi),
            _ => Err(no_path("OpenAI has /v1/realtime")),
        };
    }
    match (
        base.strip_suffix("/openai/v1"),
        base.strip_suffix("/openai"),
    ) {
        (Some(base_path), _) if api_version.is_none() => azure(base_path, AzureApi::Ga),
        (None, Some(base_path)) => match api_version {
            Some(api_version) => azure(base_path, AzureApi::Preview { api_version }),
            None => Err(no_path(AZURE)),
        },
        (None, None) if is_azure(host) && base.is_empty() => match api_version {
            Some(api_version) => azure("", AzureApi::Preview { api_version }),
            None => azure("", AzureApi::Ga),
        },
        (None, None) if !is_azure(host) && api_version.is_none() => Ok(Place::Other {
            base_path: if base.is_empty() { "/v1" } else { base }.to_owned(),
        }),
        _ => Err(no_path(AZURE)),
    }
}

#[derive(Default)]
struct Query {
    model: Option<String>,
    api_version: Option<String>,
}

impl Query {
    fn parse(query: &str) -> Result<Self, AddressError> {
        let mut read = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value)
                .decode_utf8()
                .map(Cow::into_owned)
                .map_err(|_| AddressError::NotAUrl)?;
            match name {
                "model" | "deployment" => read.model = Some(value),
                "api-version" => read.api_version = Some(value),
                other => return Err(AddressError::Parameter(other.chars().take(40).collect())),
            }
        }
        Ok(read)
    }
}

/// Where to call and with which key, ready to be called.
#[derive(Clone, Debug)]
pub struct Callee {
    upstream: Upstream,
    request: UpstreamRequest,
}

impl Callee {
    /// The whole URL. It holds no key.
    pub fn url(&self) -> String {
        let target = self.request.target();
        let scheme = target.scheme().as_str();
        format!(
            "{scheme}://{}{}",
            target.authority(),
            target.path_and_query()
        )
    }

    /// The headers to send beside those of every upgrade; one of them may be the key.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, Secret)> {
        let key = self.request.target().authentication();
        let key = key
            .filter(|(_, secret)| !secret.expose().is_empty())
            .map(|(name, secret)| (name, secret.clone()));
        let others = self.request.headers().iter();
        iter::chain(
            key,
            others.map(|(name, value)| (*name, Secret::new(value.as_str()))),
        )
    }

    /// Whether the host is Azure's or OpenAI's own, so that its answers are theirs and no relay's.
    pub fn is_vendor(&self) -> bool {
        let host = self.request.target().host();
        is_azure(host) || OPENAI_HOSTS.contains(&host)
    }

    /// Removes the key from a text, should somebody have repeated it.
    pub fn scrub(&self, text: &str) -> String {
        self.request.target().scrub(text)
    }

    /// What it means that a step of reaching it failed.
    pub fn explain_connection(&self, phase: Phase, error: &io::Error) -> Diagnosis {
        let refusal = match phase {
            Phase::Tcp => dial::tcp_refusal(error),
            Phase::Tls => Refusal::Tls(dial::tls_fault(error), error.to_string()),
            Phase::Dns | Phase::Upgrade => Refusal::Failed(phase, error.to_string()),
        };
        self.explain(&refusal)
    }

    /// What it means that nothing came in time.
    pub fn explain_timeout(&self, phase: Phase) -> Diagnosis {
        self.explain(&Refusal::TimedOut(phase))
    }

    /// What it means that the upgrade was answered with something other than 101.
    pub fn explain_answer<'a>(
        &self,
        status: u16,
        headers: impl Iterator<Item = (&'a str, &'a str)>,
        body: &str,
    ) -> Diagnosis {
        let headers = headers.map(|(name, value)| (name, value.as_bytes()));
        let answer = UpstreamAnswer::new(status, headers, body.as_bytes().to_vec());
        self.explain(&Refusal::Answered(answer))
    }

    /// What it means that an event reported a failure in the session.
    pub fn explain_incident(&self, kind: IncidentKind, error: &serde_json::Value) -> Diagnosis {
        let text = |name: &str| error[name].as_str().unwrap_or_default();
        let incident = Incident {
            kind,
            code: text("code"),
            error_type: text("type"),
            param: text("param"),
            message: text("message"),
        };
        Diagnosis::in_session(&incident, self.upstream.kind())
    }

    fn explain(&self, refusal: &Refusal) -> Diagnosis {
        Diagnosis::of(
            refusal,
            &self.upstream,
            Intent::Conversation,
            self.request.target(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(url: &str, model: Option<&str>) -> Result<Callee, AddressError> {
        Address::parse(url, model)?.with_key(Some(Secret::new("KEY-0123456789abcdef")), false)
    }

    fn check(url: &str, model: Option<&str>, variable: &str, expected: &str) {
        let address = Address::parse(url, model).unwrap();
        assert_eq!(address.key_variable(), variable, "{url}");
        let callee = called(url, model).unwrap();
        let key = callee.headers().next().unwrap();
        let shown = format!("{} {}: {}", callee.url(), key.0, key.1.expose());
        assert_eq!(shown, expected, "{url}");
        assert!(!format!("{callee:?}").contains("KEY"), "{callee:?}");
    }

    #[test]
    fn urls_are_completed_and_keys_go_as_their_service_takes_them() {
        const AZURE: &str = "AZURE_OPENAI_API_KEY";
        const RELAY: &str = "TALKLINE_CLIENT_KEY";
        let ga =
            "wss://r.openai.azure.com/openai/v1/realtime?model=voice api-key: KEY-0123456789abcdef";
        check("https://r.openai.azure.com", Some("voice"), AZURE, ga);
        check(
            "wss://r.openai.azure.com/openai/v1/",
            Some("voice"),
            AZURE,
            ga,
        );
        check(
            "wss://R.OpenAI.azure.com/openai/v1/realtime?model=voice",
            None,
            AZURE,
            ga,
        );
        let preview = "wss://r.openai.azure.com/openai/realtime?api-version=2025-04-01-preview&deployment=voice \
                       api-key: KEY-0123456789abcdef";
        check(
            "wss://r.openai.azure.com/openai/realtime?api-version=2025-04-01-preview&deployment=voice",
            None,
            AZURE,
            preview,
        );
        check(
            "https://r.openai.azure.com?api-version=2025-04-01-preview",
            Some("voice"),
            AZURE,
            preview,
        );
        check(
            "https://gw.azure-api.net/talk/openai/v1",
            Some("a b"),
            RELAY,
            "wss://gw.azure-api.net/talk/openai/v1/realtime?model=a%20b api-key: KEY-0123456789abcdef",
        );
        check(
            "https://api.openai.com/v1",
            Some("gpt-realtime"),
            "OPENAI_API_KEY",
            "wss://api.openai.com/v1/realtime?model=gpt-realtime authorization: Bearer KEY-0123456789abcdef",
        );
        for url in ["ws://localhost:8080", "http://localhost:8080/v1/realtime"] {
            check(
                url,
                None,
                RELAY,
                "ws://localhost:8080/v1/realtime authorization: Bearer KEY-0123456789abcdef",
            );
        }
        check(
            "wss://relay.example/realtime?model=fast",
            None,
            RELAY,
            "wss://relay.example/v1/realtime?model=fast authorization: Bearer KEY-0123456789abcdef",
        );
        check(
            "ws://127.0.0.1:9/openai/v1/realtime?model=m",
            None,
            RELAY,
            "ws://127.0.0.1:9/openai/v1/realtime?model=m api-key: KEY-0123456789abcdef",
        );
    }

    #[test]
    fn what_cannot_be_called_says_why() {
        let refused = |url: &str, expected: &str| {
            let error = called(url, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        };
        refused("localhost", "not a URL");
        refused("/v1/realtime", "not a URL");
        refused("ftp://h/", "not https or wss");
        refused("ws://u:hunter2@h/", "user name or password");
        refused("ws://relay.example/", "plain text");
        refused("https://r.openai.azure.com", "no deployment is named");
        refused("https://api.openai.com", "no model is named");
        refused(
            "https://api.openai.com/openai/v1?model=m",
            "OpenAI has /v1/realtime",
        );
        refused(
            "https://r.openai.azure.com/v1?model=m",
            "/openai/v1/realtime",
        );
        refused(
            "https://r.openai.azure.com/openai/v1?api-version=1&model=m",
            "without an api-version",
        );
        refused("https://r.openai.azure.com/openai?model=m", "api-version");
        refused("ws://localhost/?key=hunter2", "`key` is not known");
        let two = called("ws://localhost/?model=a", Some("b")).unwrap_err();
        assert!(matches!(two, AddressError::TwoModels(_)), "{two}");
        let plain = Address::parse("ws://relay.example", None).unwrap();
        assert!(plain.with_key(None, true).is_ok());
    }

    #[test]
    fn failures_are_explained() {
        let azure = called("https://r.openai.azure.com", Some("voice")).unwrap();
        let body = r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment KEY-0123456789abcdef does not exist."}}"#;
        let missing = azure.explain_answer(404, iter::empty(), body);
        assert_eq!(missing.code, "azure_deployment_not_found");
        assert!(!format!("{missing:?}").contains("KEY"), "{missing:?}");
        let nobody = io::Error::from(io::ErrorKind::ConnectionRefused);
        let refused = azure.explain_connection(Phase::Tcp, &nobody);
        assert_eq!(refused.code, "azure_tcp_refused");
        let relay = called("ws://localhost:1", None).unwrap();
        let late = relay.explain_timeout(Phase::Upgrade);
        assert_eq!(late.code, "upstream_upgrade_timeout");
        let error = serde_json::json!({"code": "DeploymentNotFound"});
        let untranscribed = azure.explain_incident(IncidentKind::TranscriptionFailed, &error);
        assert_eq!(untranscribed.code, "transcription_deployment_not_found");
    }
}
