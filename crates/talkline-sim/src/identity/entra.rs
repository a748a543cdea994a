//! The token endpoint of Microsoft Entra ID.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;

use crate::clock::now_unix;
use crate::record::SeenRequest;

use super::answer::{Answer, Reaction};
use super::ca::TestCa;
use super::fault::{Fault, Mode, Modes};
use super::host::{Host, Service, serving};
use super::token::{Asked, TokenSpec};

mod app;
mod check;
mod refusal;

pub use app::{App, ClientProof, TokenRequest};
pub use refusal::EntraRefusal;

/// The name of the public cloud's authority, which the certificate bears beside `localhost` and `127.0.0.1`.
pub const LOGIN_HOST: &str = "login.microsoftonline.com";

/// What the authority does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntraMode {
    /// Checks the request and issues a token, or refuses it as Entra would.
    Works,
    /// Refuses every request to the token endpoint so.
    Refuse(EntraRefusal),
    /// Refuses with a 429 that asks to wait so long.
    Throttled {
        /// The value of `Retry-After`, in whole seconds.
        retry_after: Duration,
    },
    /// Fails.
    Fault(Fault),
}

impl From<EntraRefusal> for EntraMode {
    fn from(refusal: EntraRefusal) -> Self {
        Self::Refuse(refusal)
    }
}

impl From<Fault> for EntraMode {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Mode for EntraMode {
    fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Fault(fault) => Some(fault),
            Self::Works | Self::Refuse(_) | Self::Throttled { .. } => None,
        }
    }
}

/// How the lines of `error_description` are parted. Both have been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LineBreaks {
    /// With the escapes `\r\n`, as in Microsoft's samples.
    #[default]
    CrLf,
    /// With spaces.
    Spaces,
}

/// The token endpoint of Entra, over TLS.
///
/// Serves `POST /{tenant}/oauth2/v2.0/token` for the client credentials grant with a secret or an assertion
/// (Microsoft identity platform, "OAuth 2.0 client credentials flow"). No discovery documents: `azure_identity`
/// 1.0 asks for none.
#[derive(Debug)]
pub struct EntraAuthority {
    host: Host,
    rules: Arc<Rules>,
    ca: TestCa,
}

/// Settings of an authority that has not started.
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until it is started"]
pub struct EntraBuilder {
    ca: Option<TestCa>,
    mode: Option<EntraMode>,
    token: TokenSpec,
    tenants: Vec<String>,
    apps: Vec<App>,
    line_breaks: LineBreaks,
}

impl EntraBuilder {
    /// Who signs its certificate. Defaults to an authority of its own.
    pub fn ca(mut self, ca: &TestCa) -> Self {
        self.ca = Some(ca.clone());
        self
    }

    /// What it does at first. Defaults to [`EntraMode::Works`].
    pub fn mode(mut self, mode: impl Into<EntraMode>) -> Self {
        self.mode = Some(mode.into());
        self
    }

    /// What its tokens say. Defaults to [`TokenSpec::new`].
    pub fn token(mut self, token: TokenSpec) -> Self {
        self.token = token;
        self
    }

    /// A tenant that exists; any other is [`EntraRefusal::UnknownTenant`]. Defaults to all.
    pub fn tenant(mut self, id: impl Into<String>) -> Self {
        self.tenants.push(id.into());
        self
    }

    /// An application that is registered; any other is [`EntraRefusal::UnknownApp`]. Defaults to all, each with
    /// every secret and every assertion that has not expired.
    pub fn app(mut self, app: App) -> Self {
        self.apps.push(app);
        self
    }

    /// How the lines of error texts are parted. Defaults to [`LineBreaks::CrLf`].
    pub fn line_breaks(mut self, line_breaks: LineBreaks) -> Self {
        self.line_breaks = line_breaks;
        self
    }

    /// Listens on a free loopback port and begins to serve. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What binding or making the certificate said.
    ///
    /// # Cancel safety
    /// Dropping the future frees the port.
    pub async fn start(self) -> io::Result<EntraAuthority> {
        let ca = self.ca.map_or_else(TestCa::new, Ok)?;
        let names = [
            LOGIN_HOST,
            "login.microsoftonline.us",
            "login.chinacloudapi.cn",
            "login.partner.microsoftonline.cn",
            "localhost",
            "127.0.0.1",
        ];
        let tls = ca.server_config(&names)?;
        let rules = Arc::new(Rules {
            modes: Modes::new(self.mode.unwrap_or(EntraMode::Works)),
            token: Mutex::new(self.token),
            tenants: self.tenants,
            apps: self.apps,
            line_breaks: self.line_breaks,
        });
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let host = Host::start(listen, Some(tls), Arc::clone(&rules)).await?;
        Ok(EntraAuthority { host, rules, ca })
    }
}

impl EntraAuthority {
    /// Starts from the defaults.
    pub fn builder() -> EntraBuilder {
        EntraBuilder::default()
    }

    /// An authority with the defaults.
    ///
    /// # Errors
    /// As [`EntraBuilder::start`].
    ///
    /// # Cancel safety
    /// Dropping the future frees the port.
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// `https://localhost:<port>`: what `AZURE_AUTHORITY_HOST` would hold.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.addr().port())
    }

    /// Who signed its certificate.
    #[must_use]
    pub fn ca(&self) -> &TestCa {
        &self.ca
    }

    /// Does this from the next request (or connection) on.
    pub fn set_mode(&self, mode: impl Into<EntraMode>) {
        self.rules.modes.set(mode.into());
    }

    /// Does each of `first` for one request, then `then` for all others.
    pub fn set_modes(
        &self,
        first: impl IntoIterator<Item = EntraMode>,
        then: impl Into<EntraMode>,
    ) {
        self.rules.modes.set_all(first, then.into());
    }

    /// Changes what further tokens say.
    pub fn set_token(&self, token: TokenSpec) {
        *self
            .rules
            .token
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// The requests to the token endpoint so far, taken apart, oldest first.
    #[must_use]
    pub fn token_requests(&self) -> Vec<TokenRequest> {
        self.requests()
            .iter()
            .filter_map(TokenRequest::read)
            .collect()
    }
}

serving!(EntraAuthority);

#[derive(Debug)]
struct Rules {
    modes: Modes<EntraMode>,
    token: Mutex<TokenSpec>,
    tenants: Vec<String>,
    apps: Vec<App>,
    line_breaks: LineBreaks,
}

impl Service for Rules {
    fn greet(&self) -> Option<Fault> {
        self.modes.greet()
    }

    fn react(&self, request: &SeenRequest) -> Reaction {
        let Some(asked) = TokenRequest::read(request) else {
            let body =
                "<!DOCTYPE html>\n<html><body>404 - File or directory not found.</body></html>\n";
            return Answer::html(404, body).into();
        };
        match self.modes.take().0 {
            EntraMode::Works => self.proper(&asked).into(),
            EntraMode::Refuse(refusal) => self.refuse(refusal, &asked).into(),
            EntraMode::Throttled { retry_after } => self
                .refuse(EntraRefusal::Throttled, &asked)
                .header("retry-after", retry_after.as_secs().to_string())
                .into(),
            EntraMode::Fault(fault) => fault.react(|| self.proper(&asked)),
        }
    }
}

impl Rules {
    fn proper(&self, asked: &TokenRequest) -> Answer {
        match check::check(asked, &self.tenants, &self.apps, now_unix()) {
            Ok(()) => self.issue(asked),
            Err(refusal) => self.refuse(refusal, asked),
        }
    }

    fn issue(&self, asked: &TokenRequest) -> Answer {
        let token = self
            .token
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let issued = token.issue(
            &Asked {
                audience: asked
                    .scope
                    .strip_suffix("/.default")
                    .unwrap_or(&asked.scope),
                object_id: None,
                app_id: Some(&asked.client_id),
                tenant: check::is_guid(&asked.tenant).then_some(&asked.tenant),
            },
            now_unix(),
        );
        let mut body = json!({
            "token_type": "Bearer",
            "expires_in": issued.ttl_secs,
            "ext_expires_in": issued.ttl_secs,
            "access_token": issued.token,
        });
        if let Some(secs) = issued.refresh_in_secs {
            body["refresh_in"] = secs.into();
        }
        Answer::json(200, &body).header("cache-control", "no-store, no-cache")
    }

    fn refuse(&self, refusal: EntraRefusal, asked: &TokenRequest) -> Answer {
        let text = refusal.text(asked, now_unix(), self.line_breaks);
        Answer::json(refusal.status(), &text.body)
            .header("cache-control", "no-store, no-cache")
            .header("x-ms-request-id", text.trace_id)
    }
}
