//! What the relay presents upstream, bound to the origin it was configured for.

use std::{fmt, sync::Arc};

use crate::{
    Azure, Bearer, Custom, KeyCell, LiveKey, Origin, Provider, Scheme, Secret, TokenCell,
    TokenError, origin::OpenAi,
};

/// A credential of provider `P` together with the only origin it may be sent to.
///
/// The two are one value: no method takes a host, and a credential of one provider is not a
/// credential of another.
///
/// ```compile_fail
/// # use talkline_auth::{Azure, Credential, OpenAi, Origin, OriginRules, Secret};
/// let openai = Origin::<OpenAi>::parse("https://api.openai.com", &OriginRules::default()).unwrap();
/// // An Azure credential cannot be made for an OpenAI origin …
/// let wrong: Credential<Azure> = Credential::api_key(openai, Secret::new("azure-key"));
/// ```
///
/// ```compile_fail
/// # use talkline_auth::{Azure, Credential, OpenAi};
/// // … nor handed over where OpenAI's is asked for.
/// fn dial_openai(_: &Credential<OpenAi>) {}
/// fn misuse(azure: &Credential<Azure>) { dial_openai(azure) }
/// ```
///
/// ```compile_fail
/// # use talkline_auth::{Credential, OpenAi, Origin, TokenCell};
/// // An Entra token is for Azure alone …
/// fn misuse(origin: Origin<OpenAi>, token: TokenCell) { Credential::<OpenAi>::entra(origin, token); }
/// ```
///
/// ```compile_fail
/// # use talkline_auth::{Azure, Credential, Custom, KeyCell, Origin};
/// // … and a key that rotates is bound to its origin like one that does not.
/// fn misuse(origin: Origin<Custom>, keys: KeyCell) -> Credential<Azure> {
///     Credential::rotating_key(origin, keys)
/// }
/// ```
///
/// ```compile_fail
/// # use talkline_auth::{Azure, Credential, Origin};
/// // Azure is never dialled without a credential.
/// fn misuse(origin: Origin<Azure>) -> Credential<Azure> { Credential::none(origin) }
/// ```
#[derive(Clone)]
pub struct Credential<P> {
    origin: Arc<Origin<P>>,
    material: Material,
}

#[derive(Clone)]
enum Material {
    ApiKey(Secret),
    RotatingKey(KeyCell),
    Entra(TokenCell),
    None,
}

impl<P: Provider> Credential<P> {
    /// A static API key. Azure gets it as `api-key`, all others as `Authorization: Bearer`.
    ///
    /// Azure does not reliably take an API key as a bearer token on the Realtime WebSocket
    /// (Microsoft's GA quickstart sets the `api-key` header for that reason).
    pub fn api_key(origin: Origin<P>, key: Secret) -> Self {
        Self {
            origin: Arc::new(origin),
            material: Material::ApiKey(key),
        }
    }

    /// An API key that may be replaced while the relay runs; sent like a static one.
    pub fn rotating_key(origin: Origin<P>, keys: KeyCell) -> Self {
        Self {
            origin: Arc::new(origin),
            material: Material::RotatingKey(keys),
        }
    }

    /// The origin that this credential belongs to.
    pub fn origin(&self) -> &Origin<P> {
        &self.origin
    }

    /// What kind of credential it is, for logs: `api-key`, `none`, or the name of the token source.
    pub fn kind(&self) -> &'static str {
        match &self.material {
            Material::ApiKey(_) | Material::RotatingKey(_) => "api-key",
            Material::Entra(token) => token.source_name(),
            Material::None => "none",
        }
    }

    /// Where its tokens are found, when it is an Entra credential.
    pub fn token_cell(&self) -> Option<&TokenCell> {
        match &self.material {
            Material::Entra(cell) => Some(cell),
            Material::ApiKey(_) | Material::RotatingKey(_) | Material::None => None,
        }
    }

    /// Where its keys are found, when they rotate.
    pub fn key_cell(&self) -> Option<&KeyCell> {
        match &self.material {
            Material::RotatingKey(cell) => Some(cell),
            Material::ApiKey(_) | Material::Entra(_) | Material::None => None,
        }
    }

    /// Joins the credential, its origin and a path into the one value that a dialler takes.
    ///
    /// # Errors
    ///
    /// [`SealError::NotOriginForm`] when `path_and_query` is not in origin form (RFC 9112 section
    /// 3.2.1): it must start with one `/` and hold visible ASCII only, without `#`, so that it can
    /// neither name another host nor add a header line.
    ///
    /// [`SealError::NoToken`] when the credential is an Entra identity without a usable token.
    pub fn seal(&self, path_and_query: &str) -> Result<Sealed, SealError> {
        let legal = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\' | b'"');
        let origin_form = path_and_query.starts_with('/') && !path_and_query.starts_with("//");
        if !origin_form || !path_and_query.bytes().all(legal) {
            return Err(SealError::NotOriginForm);
        }
        let presented = match &self.material {
            Material::ApiKey(key) => Presented::Key(key.clone()),
            Material::RotatingKey(keys) => Presented::RotatingKey(keys.live()),
            Material::Entra(token) => Presented::Token(token.current()?),
            Material::None => Presented::Nothing,
        };
        let header = match &presented {
            Presented::Key(_) | Presented::RotatingKey(_) => Some((P::KEY_HEADER, P::KEY_PREFIX)),
            Presented::Token(_) => Some(("authorization", "Bearer ")),
            Presented::Nothing => None,
        };
        let authentication = header
            .zip(presented.secret())
            .map(|((name, prefix), secret)| {
                // Of the exact size: nothing is copied, and left behind, when it becomes a secret.
                (name, Secret::new([prefix, secret.expose()].concat()))
            });
        Ok(Sealed {
            provider: P::NAME,
            scheme: self.origin.scheme(),
            host: self.origin.host().to_owned(),
            port: self.origin.port(),
            authority: self.origin.authority(),
            path_and_query: path_and_query.to_owned(),
            authentication,
            presented,
        })
    }
}

impl Credential<Azure> {
    /// A Microsoft Entra ID identity, whose access token is sent as `Authorization: Bearer`.
    pub fn entra(origin: Origin<Azure>, token: TokenCell) -> Self {
        Self {
            origin: Arc::new(origin),
            material: Material::Entra(token),
        }
    }
}

impl Credential<Azure> {
    /// This credential for the other host names of the same resource: its first label under the
    /// other suffixes that Azure gives out in the same cloud, on the same port.
    ///
    /// For diagnosis only: which of the names works is told to a person. Empty when the origin is
    /// not such a host over TLS (a gateway, a loopback address, a regional host that many
    /// resources share).
    pub fn siblings(&self) -> Vec<Self> {
        let (host, port) = (self.origin.host(), self.origin.port());
        let siblings = match self.origin.scheme() {
            Scheme::Tls => crate::origin::azure_siblings(host),
            Scheme::Plain => Vec::new(),
        };
        siblings
            .into_iter()
            .filter_map(|host| {
                let url = format!("https://{host}:{port}");
                Origin::parse(&url, &crate::OriginRules::default()).ok()
            })
            .map(|origin| Self {
                origin: Arc::new(origin),
                material: self.material.clone(),
            })
            .collect()
    }
}

impl Credential<Custom> {
    /// No credential at all, for a custom endpoint that asks for none.
    pub fn none(origin: Origin<Custom>) -> Self {
        Self {
            origin: Arc::new(origin),
            material: Material::None,
        }
    }
}

impl Credential<OpenAi> {
    /// The credential for `api.openai.com` itself.
    pub fn platform_key(key: Secret) -> Self {
        let origin = Origin::parse("https://api.openai.com", &crate::OriginRules::default())
            .expect("the provider's own origin obeys its own rules");
        Self::api_key(origin, key)
    }
}

impl<P: Provider> fmt::Debug for Credential<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Credential<{}>({} for {})",
            P::NAME,
            self.kind(),
            self.origin
        )
    }
}

/// Why [`Credential::seal`] gives no target.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The path is not in origin form.
    #[error("the path is not in origin form")]
    NotOriginForm,
    /// The identity has no usable token.
    #[error(transparent)]
    NoToken(#[from] TokenError),
}

/// What a sealed target presents, so that a refusal can be brought home to the right token or key.
#[derive(Clone, Debug)]
pub enum Presented {
    /// No credential.
    Nothing,
    /// A key that never changes.
    Key(Secret),
    /// A key that may be replaced.
    RotatingKey(LiveKey),
    /// An Entra token.
    Token(Bearer),
}

impl Presented {
    fn secret(&self) -> Option<&Secret> {
        match self {
            Presented::Nothing => None,
            Presented::Key(key) => Some(key),
            Presented::RotatingKey(key) => Some(key.secret()),
            Presented::Token(token) => Some(token.secret()),
        }
    }
}

/// Where to dial and what to present there, as one value.
///
/// A dialler takes host and port from here and has no other source for them.
#[derive(Clone)]
pub struct Sealed {
    provider: &'static str,
    scheme: Scheme,
    host: String,
    port: u16,
    authority: String,
    path_and_query: String,
    authentication: Option<(&'static str, Secret)>,
    presented: Presented,
}

impl Sealed {
    /// Name of the provider, for logs.
    pub fn provider(&self) -> &'static str {
        self.provider
    }

    /// Whether TLS is used.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host to resolve, to name in the TLS handshake and to check the certificate against.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Value of the `Host` header.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Request target in origin form.
    pub fn path_and_query(&self) -> &str {
        &self.path_and_query
    }

    /// Name (lower case) and value of the header that authenticates the request.
    pub fn authentication(&self) -> Option<(&'static str, &Secret)> {
        self.authentication
            .as_ref()
            .map(|(name, value)| (*name, value))
    }

    /// Which key or token the header was made of.
    pub fn presented(&self) -> &Presented {
        &self.presented
    }

    /// `text` without any trace of the credential.
    pub fn scrub(&self, text: &str) -> String {
        match self.presented.secret() {
            Some(secret) => secret.scrub(text),
            None => text.to_owned(),
        }
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        write!(
            f,
            "Sealed({}://{}{path})",
            self.scheme.as_str(),
            self.authority
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{FetchedToken, Jitter, OriginRules, TokenRules, TokenState};

    fn azure() -> Origin<Azure> {
        Origin::parse("https://r.openai.azure.com", &OriginRules::default()).unwrap()
    }

    fn header(sealed: &Sealed) -> String {
        let (name, value) = sealed.authentication().unwrap();
        format!("{name}: {}", value.expose())
    }

    fn cell_with(token: &str) -> TokenCell {
        let now = crate::token::tests::start();
        let mut state = TokenState::new(TokenRules::default(), "test", now);
        let fetched = FetchedToken {
            secret: Secret::new(token),
            time_to_live: Duration::from_secs(3600),
            refresh_in: None,
        };
        state.succeed(fetched, now, Jitter::from_bits(0));
        let cell = TokenCell::new("test");
        cell.publish(state.token(now));
        cell
    }

    #[test]
    fn siblings_stay_with_the_resource() {
        let check = |url: &str, expected: &[&str]| {
            let rules = OriginRules {
                allowed_hosts: vec![
                    "gateway.example".into(),
                    "r.openai.azure.com.example".into(),
                ],
                allow_insecure: true,
            };
            let origin = Origin::<Azure>::parse(url, &rules).unwrap();
            let credential = Credential::api_key(origin, Secret::new("k-123"));
            let siblings = credential.siblings();
            let origins: Vec<_> = siblings
                .iter()
                .map(|sibling| sibling.origin().to_string())
                .collect();
            assert_eq!(origins, expected, "{url}");
            for sibling in siblings {
                assert_eq!(sibling.kind(), "api-key");
            }
        };
        check(
            "https://r.openai.azure.com",
            &[
                "wss://r.cognitiveservices.azure.com",
                "wss://r.services.ai.azure.com",
            ],
        );
        check(
            "https://r.services.ai.azure.us:8443",
            &[
                "wss://r.openai.azure.us:8443",
                "wss://r.cognitiveservices.azure.us:8443",
            ],
        );
        check(
            "https://r.cognitiveservices.azure.cn",
            &["wss://r.openai.azure.cn"],
        );
        check("http://r.openai.azure.com", &[]);
        check("https://gateway.example", &[]);
        check("https://r.openai.azure.com.example", &[]);
        check("https://eastus2.api.cognitive.microsoft.com", &[]);
        check("https://127.0.0.1:8443", &[]);
    }

    #[test]
    fn each_provider_gets_its_own_header() {
        let seal = |c: &Credential<Azure>| header(&c.seal("/p").unwrap());
        assert_eq!(
            seal(&Credential::api_key(azure(), Secret::new("k"))),
            "api-key: k"
        );
        assert_eq!(
            seal(&Credential::entra(azure(), cell_with("t"))),
            "authorization: Bearer t"
        );
        let keys = KeyCell::new(Secret::new("k1"), None);
        assert_eq!(
            seal(&Credential::rotating_key(azure(), keys)),
            "api-key: k1"
        );
        let openai = Credential::platform_key(Secret::new("sk-1"));
        assert_eq!(
            header(&openai.seal("/p").unwrap()),
            "authorization: Bearer sk-1"
        );
        assert_eq!(openai.origin().to_string(), "wss://api.openai.com");
    }

    #[test]
    fn a_path_cannot_name_another_host_or_add_a_header() {
        let credential = Credential::api_key(azure(), Secret::new("k"));
        for path in [
            "",
            "openai",
            "//evil.example/",
            "https://evil.example/",
            "/a b",
            "/a\r\nX: y",
            "/a#b",
            "/\u{e9}",
        ] {
            let refused = credential.seal(path).unwrap_err();
            assert!(matches!(refused, SealError::NotOriginForm), "{path:?}");
        }
    }

    #[test]
    fn nothing_shows_the_secret() {
        let credential = Credential::api_key(azure(), Secret::new("CANARY-KEY"));
        let sealed = credential.seal("/p?q=CANARY-QUERY").unwrap();
        let shown = format!("{credential:?} {sealed:?}");
        assert!(!shown.contains("CANARY"), "{shown}");
        assert_eq!(sealed.scrub("you sent CANARY-KEY"), "you sent [redacted]");
    }
}
