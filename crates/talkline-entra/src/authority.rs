//! Entra itself: who issues tokens to an application.

use std::sync::Arc;

use azure_core::{
    cloud::{CloudConfiguration, CustomConfiguration},
    http::Url,
};

use crate::{
    Environment, SetupError,
    transport::{Destination, Reach},
};

/// The host that issues tokens.
///
/// Source: <https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority(String);

impl Authority {
    /// `login.microsoftonline.com`, the public cloud.
    pub fn public() -> Self {
        Self("https://login.microsoftonline.com".into())
    }

    /// `login.microsoftonline.us`, Azure Government.
    pub fn us_government() -> Self {
        Self("https://login.microsoftonline.us".into())
    }

    /// `login.partner.microsoftonline.cn`, Azure operated by 21Vianet.
    pub fn china() -> Self {
        Self("https://login.partner.microsoftonline.cn".into())
    }

    /// A private or future cloud.
    ///
    /// # Errors
    ///
    /// [`SetupError::Authority`] unless the URL is `https://host[:port][/]`.
    pub fn parse(text: &str) -> Result<Self, SetupError> {
        let bad = || SetupError::Authority(text.escape_default().to_string());
        let url = Url::parse(text).map_err(|_| bad())?;
        let destination = Destination::of(&url, Reach::Anywhere, false).ok_or_else(bad)?;
        let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !destination.tls || !plain {
            return Err(bad());
        }
        Ok(Self(format!("https://{}", destination.authority())))
    }

    /// `AZURE_AUTHORITY_HOST`, which the workload identity webhook of AKS sets, or else the public
    /// cloud.
    ///
    /// # Errors
    ///
    /// [`SetupError::Authority`], as [`parse`](Self::parse).
    pub fn from_environment(environment: &Environment) -> Result<Self, SetupError> {
        match &environment.authority_host {
            Some(text) => Self::parse(text),
            None => Ok(Self::public()),
        }
    }

    /// Always spelled out for the SDK, which would look into the process environment otherwise.
    pub(crate) fn cloud(&self) -> CloudConfiguration {
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host.clone_from(&self.0);
        cloud.into()
    }

    pub(crate) fn destination(&self) -> Result<Arc<Destination>, SetupError> {
        Url::parse(&self.0)
            .ok()
            .and_then(|url| Destination::of(&url, Reach::Anywhere, false))
            .map(Arc::new)
            .ok_or_else(|| SetupError::Authority(self.0.clone()))
    }
}

/// An application registered in Entra.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// The tenant's id or one of its domain names.
    pub tenant_id: String,
    /// The application's (client) id.
    pub client_id: String,
    /// Who issues the token.
    pub authority: Authority,
}

impl Application {
    /// `AZURE_TENANT_ID`, `AZURE_CLIENT_ID` and `AZURE_AUTHORITY_HOST`.
    ///
    /// # Errors
    ///
    /// [`SetupError::Missing`] or [`SetupError::Authority`].
    pub fn from_environment(environment: &Environment) -> Result<Self, SetupError> {
        let set = |value: &Option<String>, name| value.clone().ok_or(SetupError::Missing(name));
        Ok(Self {
            tenant_id: set(&environment.tenant_id, "AZURE_TENANT_ID")?,
            client_id: set(&environment.client_id, "AZURE_CLIENT_ID")?,
            authority: Authority::from_environment(environment)?,
        })
    }

    /// Where tokens of this application are issued, and what its assertions are addressed to.
    pub(crate) fn token_endpoint(&self) -> String {
        format!("{}/{}/oauth2/v2.0/token", self.authority.0, self.tenant_id)
    }

    pub(crate) fn check(&self) -> Result<(), SetupError> {
        check_id("tenant id", &self.tenant_id)?;
        check_id("client id", &self.client_id)
    }
}

/// An id goes into paths and argument lists: it is one word, and no option.
pub(crate) fn check_id(what: &'static str, value: &str) -> Result<(), SetupError> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    if value.is_empty() || value.starts_with(['-', '.']) || !value.bytes().all(word) {
        return Err(SetupError::Id {
            what,
            value: value.escape_default().to_string(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_over_https() {
        fn check(text: &str, expected: Option<&str>) {
            let parsed = Authority::parse(text).ok();
            assert_eq!(
                parsed.map(|Authority(url)| url).as_deref(),
                expected,
                "{text}"
            );
        }
        let public = Some("https://login.microsoftonline.com");
        check("https://login.microsoftonline.com", public);
        check("https://login.microsoftonline.com/", public);
        check("https://LOGIN.microsoftonline.com:443/", public);
        check("https://localhost:8443", Some("https://localhost:8443"));
        check("http://login.microsoftonline.com", None);
        check("https://login.microsoftonline.com/tenant", None);
        check("https://login.microsoftonline.com/?a=b", None);
        check("https://login.microsoftonline.com@evil.example/", None);
        check("login.microsoftonline.com", None);
        check("", None);
    }

    #[test]
    fn an_application_has_two_ids() {
        fn check(tenant_id: &str, client_id: &str, good: bool) {
            let application = Application {
                tenant_id: tenant_id.into(),
                client_id: client_id.into(),
                authority: Authority::public(),
            };
            assert_eq!(application.check().is_ok(), good, "{tenant_id} {client_id}");
        }
        check("contoso.onmicrosoft.com", "0a1b-2c", true);
        check("", "0a1b", false);
        check("t", "", false);
        check("../common", "0a1b", false);
        check("..", "0a1b", false);
        check("--help", "0a1b", false);
        check("t", "a b", false);
    }
}
