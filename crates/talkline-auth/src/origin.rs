//! Scheme, host and port of an upstream, parsed once and typed by provider.

use std::{
    fmt,
    marker::PhantomData,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A kind of upstream. Sealed: the three kinds are all there are.
pub trait Provider: sealed::Provider + 'static {
    /// The provider's name in logs and messages.
    const NAME: &'static str;
}

/// Azure OpenAI / Azure AI Foundry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Azure {}
/// OpenAI itself (`api.openai.com`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenAi {}
/// An OpenAI-compatible endpoint that is neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Custom {}

impl Provider for Azure {
    const NAME: &'static str = "azure-openai";
}
impl Provider for OpenAi {
    const NAME: &'static str = "openai";
}
impl Provider for Custom {
    const NAME: &'static str = "custom";
}

mod sealed {
    use super::{Host, OriginError};

    pub trait Provider {
        fn admit(host: &Host) -> Result<(), OriginError>;
        const KEY_HEADER: &'static str;
        const KEY_PREFIX: &'static str;
    }
}

/// Suffixes under which Azure gives out resource names: one label, then one of these.
///
/// Source: Microsoft's lists of Azure OpenAI and Foundry endpoints, public and sovereign clouds.
pub const AZURE_SUFFIXES: &[&str] = &[
    ".openai.azure.com",
    ".cognitiveservices.azure.com",
    ".services.ai.azure.com",
    ".api.cognitive.microsoft.com",
    ".openai.azure.us",
    ".cognitiveservices.azure.us",
    ".services.ai.azure.us",
    ".openai.azure.cn",
    ".cognitiveservices.azure.cn",
];

/// The suffixes under which one resource is reached, by cloud. Microsoft gives a Foundry resource
/// the same first label under all of a cloud's.
const AZURE_RESOURCE_SUFFIXES: &[&[&str]] = &[
    &[
        ".openai.azure.com",
        ".cognitiveservices.azure.com",
        ".services.ai.azure.com",
    ],
    &[
        ".openai.azure.us",
        ".cognitiveservices.azure.us",
        ".services.ai.azure.us",
    ],
    &[".openai.azure.cn", ".cognitiveservices.azure.cn"],
];

/// The other host names that a resource of Azure has.
pub(crate) fn azure_siblings(host: &str) -> Vec<String> {
    for suffixes in AZURE_RESOURCE_SUFFIXES {
        for suffix in *suffixes {
            if let Some(label) = host.strip_suffix(suffix)
                && !label.is_empty()
                && !label.contains('.')
            {
                let others = suffixes.iter().filter(|other| *other != suffix);
                return others.map(|other| format!("{label}{other}")).collect();
            }
        }
    }
    Vec::new()
}

/// Hosts of OpenAI's API, the regional ones included.
pub const OPENAI_HOSTS: &[&str] = &["api.openai.com", "eu.api.openai.com", "us.api.openai.com"];

impl sealed::Provider for Azure {
    fn admit(host: &Host) -> Result<(), OriginError> {
        match host.kind() {
            HostKind::Azure => Ok(()),
            HostKind::OpenAi => Err(OriginError::OpenAiHostForAzure(host.name.clone())),
            HostKind::Other => Err(OriginError::NotAzure(host.name.clone())),
        }
    }
    const KEY_HEADER: &'static str = "api-key";
    const KEY_PREFIX: &'static str = "";
}

impl sealed::Provider for OpenAi {
    fn admit(host: &Host) -> Result<(), OriginError> {
        match host.kind() {
            HostKind::OpenAi if OPENAI_HOSTS.contains(&host.name.as_str()) => Ok(()),
            HostKind::Azure => Err(OriginError::AzureHostElsewhere(host.name.clone())),
            HostKind::OpenAi | HostKind::Other => Err(OriginError::NotOpenAi(host.name.clone())),
        }
    }
    const KEY_HEADER: &'static str = "authorization";
    const KEY_PREFIX: &'static str = "Bearer ";
}

impl sealed::Provider for Custom {
    fn admit(host: &Host) -> Result<(), OriginError> {
        match host.kind() {
            HostKind::Azure => Err(OriginError::AzureHostElsewhere(host.name.clone())),
            HostKind::OpenAi => Err(OriginError::OpenAiHostForCustom(host.name.clone())),
            HostKind::Other => Ok(()),
        }
    }
    const KEY_HEADER: &'static str = "authorization";
    const KEY_PREFIX: &'static str = "Bearer ";
}

/// Whether the connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `ws`: plain text, for loopback or where the operator allowed it by name.
    Plain,
    /// `wss`: TLS.
    Tls,
}

impl Scheme {
    /// `ws` or `wss`.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Plain => "ws",
            Scheme::Tls => "wss",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Scheme::Plain => 80,
            Scheme::Tls => 443,
        }
    }
}

/// What an operator allowed beyond the built-in host rules.
#[derive(Clone, Debug, Default)]
pub struct OriginRules {
    /// Exact host names (no port) that count as belonging to the provider: private DNS names,
    /// API Management gateways, front doors. Never `*.openai.com` for Azure.
    pub allowed_hosts: Vec<String>,
    /// Plain text to a host that is not loopback. A credential then crosses the network in clear.
    pub allow_insecure: bool,
}

/// Scheme, host and port of an upstream of provider `P`.
///
/// The only constructor is [`Origin::parse`], which checks the host against the provider's rules:
/// an `Origin<Azure>` for `api.openai.com` does not exist. Loopback is allowed for every provider,
/// so that a simulator can stand in.
///
/// ```
/// # use talkline_auth::{Azure, Origin, OriginError, OriginRules};
/// let rules = OriginRules::default();
/// let origin = Origin::<Azure>::parse("https://Voice.openai.azure.com.", &rules)?;
/// assert_eq!(origin.to_string(), "wss://voice.openai.azure.com");
/// assert!(Origin::<Azure>::parse("https://voice.openai.azure.com.evil.example", &rules).is_err());
/// assert!(Origin::<Azure>::parse("https://api.openai.com", &rules).is_err());
/// # Ok::<(), OriginError>(())
/// ```
pub struct Origin<P> {
    scheme: Scheme,
    host: Host,
    port: u16,
    provider: PhantomData<fn() -> P>,
}

/// Why a URL is not an origin of the provider. No variant carries more of the URL than its host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError {
    /// There is no `scheme://`.
    #[error("the URL has no scheme; write https:// in front of it")]
    NoScheme,
    /// The scheme is none of https, wss, http, ws.
    #[error("the scheme `{0}` is not https or wss")]
    BadScheme(String),
    /// A user name or password stands before the host.
    #[error("the URL carries a user name or password")]
    Userinfo,
    /// The host is empty, too long or has characters that a host name has not.
    #[error("`{0}` is not a host name")]
    BadHost(String),
    /// The port is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    BadPort,
    /// Something follows the host: a path, a query or a fragment.
    #[error("the origin ends after the host; a path, query or fragment follows it")]
    NotAnOrigin,
    /// Plain text beyond loopback.
    #[error("`{0}` would be reached in plain text; use https")]
    Insecure(String),
    /// The host is no Azure resource name and not in `allowedHosts`.
    #[error("`{0}` is not an Azure OpenAI host")]
    NotAzure(String),
    /// The host is not OpenAI's.
    #[error("`{0}` is not an OpenAI host")]
    NotOpenAi(String),
    /// An OpenAI host was given where an Azure one is meant.
    #[error("`{0}` belongs to OpenAI; an Azure credential is never sent there")]
    OpenAiHostForAzure(String),
    /// An OpenAI host was given for a custom endpoint.
    #[error("`{0}` belongs to OpenAI; use the `openai` provider for it")]
    OpenAiHostForCustom(String),
    /// An Azure host was given for another provider.
    #[error("`{0}` belongs to Azure; use the `azure-openai` provider for it")]
    AzureHostElsewhere(String),
    /// A link-local, unspecified or multicast address: the metadata service lives there.
    #[error("`{0}` is not an address that an upstream can have")]
    ForbiddenAddress(String),
}

impl<P: Provider> Origin<P> {
    /// Parses `scheme://host[:port][/]` and checks the host against the provider's rules.
    ///
    /// `https` and `wss` mean TLS, `http` and `ws` plain text. The host is lower-cased and a
    /// trailing dot removed.
    ///
    /// # Errors
    ///
    /// One [`OriginError`] variant for each thing that a person would mend differently.
    pub fn parse(url: &str, rules: &OriginRules) -> Result<Self, OriginError> {
        let (scheme, rest) = split_scheme(url.trim())?;
        let authority = match rest.find(['/', '?', '#']) {
            Some(end) if rest[end..] == *"/" => &rest[..end],
            Some(end) if rest[..end].contains('@') => return Err(OriginError::Userinfo),
            Some(_) => return Err(OriginError::NotAnOrigin),
            None => rest,
        };
        if authority.contains('@') {
            return Err(OriginError::Userinfo);
        }
        let (host, port) = split_port(authority)?;
        let host = Host::parse(host)?;
        let port = port.unwrap_or_else(|| scheme.default_port());

        let allowed = rules.allowed_hosts.iter().any(|name| host.is_named(name));
        let named_by_operator = allowed && host.kind() == HostKind::Other;
        if !(host.is_loopback() || named_by_operator) {
            P::admit(&host)?;
        }
        if scheme == Scheme::Plain && !host.is_loopback() && !rules.allow_insecure {
            return Err(OriginError::Insecure(host.name));
        }
        Ok(Self {
            scheme,
            host,
            port,
            provider: PhantomData,
        })
    }
}

impl<P> Origin<P> {
    /// Whether TLS is used.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host name or address, lower case, without brackets.
    pub fn host(&self) -> &str {
        &self.host.name
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the host is a loopback address or `localhost`.
    pub fn is_loopback(&self) -> bool {
        self.host.is_loopback()
    }

    /// `host[:port]` as it stands in the `Host` header: the port only when it is not the scheme's.
    pub fn authority(&self) -> String {
        let host = match self.host.address {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.host.name.clone(),
        };
        if self.port == self.scheme.default_port() {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl<P> Clone for Origin<P> {
    fn clone(&self) -> Self {
        Self {
            scheme: self.scheme,
            host: self.host.clone(),
            port: self.port,
            provider: PhantomData,
        }
    }
}

impl<P> PartialEq for Origin<P> {
    fn eq(&self, other: &Self) -> bool {
        (self.scheme, &self.host.name, self.port) == (other.scheme, &other.host.name, other.port)
    }
}

impl<P> fmt::Display for Origin<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

impl<P: Provider> fmt::Debug for Origin<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin<{}>({self})", P::NAME)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostKind {
    Azure,
    OpenAi,
    Other,
}

#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    address: Option<IpAddr>,
}

impl Host {
    fn parse(text: &str) -> Result<Self, OriginError> {
        let bad = || OriginError::BadHost(text.chars().take(80).collect());
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or_else(bad)?;
            let address: Ipv6Addr = inner.parse().map_err(|_| bad())?;
            return Self::from_address(IpAddr::V6(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
        if name.is_empty() || name.len() > 253 || !name.bytes().all(legal) {
            return Err(bad());
        }
        let label_ok = |label: &str| {
            (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
        };
        if !name.split('.').all(label_ok) {
            return Err(bad());
        }
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Self::from_address(IpAddr::V4(address));
        }
        // `0x7f.1`, `2130706433` and the like: names to us, addresses to some resolvers.
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") {
            return Err(bad());
        }
        Ok(Self {
            name,
            address: None,
        })
    }

    fn from_address(address: IpAddr) -> Result<Self, OriginError> {
        let forbidden =
            |v4: Ipv4Addr| v4.is_link_local() || v4.is_unspecified() || v4.is_multicast();
        let refused = match address {
            IpAddr::V4(v4) => forbidden(v4),
            IpAddr::V6(v6) => {
                v6.is_unspecified()
                    || v6.is_multicast()
                    || v6.is_unicast_link_local()
                    || v6.to_ipv4_mapped().is_some()
            }
        };
        if refused {
            return Err(OriginError::ForbiddenAddress(address.to_string()));
        }
        Ok(Self {
            name: address.to_string(),
            address: Some(address),
        })
    }

    fn kind(&self) -> HostKind {
        let azure = AZURE_SUFFIXES.iter().any(|suffix| {
            self.name
                .strip_suffix(suffix)
                .is_some_and(|label| !label.is_empty() && !label.contains('.'))
        });
        if azure {
            HostKind::Azure
        } else if self.name == "openai.com" || self.name.ends_with(".openai.com") {
            HostKind::OpenAi
        } else {
            HostKind::Other
        }
    }

    fn is_loopback(&self) -> bool {
        match self.address {
            Some(address) => address.is_loopback(),
            None => self.name == "localhost",
        }
    }

    fn is_named(&self, name: &str) -> bool {
        self.name
            .eq_ignore_ascii_case(name.strip_suffix('.').unwrap_or(name))
    }
}

fn split_scheme(url: &str) -> Result<(Scheme, &str), OriginError> {
    let (scheme, rest) = url.split_once("://").ok_or(OriginError::NoScheme)?;
    match scheme.to_ascii_lowercase().as_str() {
        "https" | "wss" => Ok((Scheme::Tls, rest)),
        "http" | "ws" => Ok((Scheme::Plain, rest)),
        other => Err(OriginError::BadScheme(other.chars().take(20).collect())),
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), OriginError> {
    let end_of_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let Some(colon) = authority[end_of_host..]
        .find(':')
        .map(|at| at + end_of_host)
    else {
        return Ok((authority, None));
    };
    let digits = &authority[colon + 1..];
    let port = digits
        .parse::<u16>()
        .ok()
        .filter(|port| *port != 0 && !digits.starts_with('+'));
    match port {
        Some(port) => Ok((&authority[..colon], Some(port))),
        None => Err(OriginError::BadPort),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> OriginRules {
        OriginRules {
            allowed_hosts: vec!["gw.azure-api.net".into()],
            allow_insecure: false,
        }
    }

    fn check<P: Provider>(url: &str, expected: &str) {
        let got = match Origin::<P>::parse(url, &rules()) {
            Ok(origin) => origin.to_string(),
            Err(error) => format!("{error:?}"),
        };
        assert_eq!(got, expected, "{url}");
    }

    #[test]
    fn azure_origins() {
        check::<Azure>("https://r.openai.azure.com", "wss://r.openai.azure.com");
        check::<Azure>("HTTPS://R.OpenAI.Azure.COM./", "wss://r.openai.azure.com");
        check::<Azure>(
            "wss://r.services.ai.azure.com:443",
            "wss://r.services.ai.azure.com",
        );
        check::<Azure>(
            "https://r.cognitiveservices.azure.us:8443",
            "wss://r.cognitiveservices.azure.us:8443",
        );
        check::<Azure>("https://gw.azure-api.net", "wss://gw.azure-api.net");
        check::<Azure>("http://127.0.0.1:9000", "ws://127.0.0.1:9000");
        check::<Azure>("http://[::1]:9000", "ws://[::1]:9000");
        check::<Azure>("https://localhost:9000", "wss://localhost:9000");
    }

    #[test]
    fn azure_refusals() {
        check::<Azure>("r.openai.azure.com", "NoScheme");
        check::<Azure>("ftp://r.openai.azure.com", "BadScheme(\"ftp\")");
        check::<Azure>("https://u:p@r.openai.azure.com", "Userinfo");
        check::<Azure>("https://r.openai.azure.com@evil.example/", "Userinfo");
        check::<Azure>("https://r.openai.azure.com/openai", "NotAnOrigin");
        check::<Azure>("https://r.openai.azure.com?x", "NotAnOrigin");
        check::<Azure>("https://r.openai.azure.com:0", "BadPort");
        check::<Azure>("https://r.openai.azure.com:+443", "BadPort");
        check::<Azure>("https://r.openai.azure.com:65536", "BadPort");
        check::<Azure>(
            "http://r.openai.azure.com",
            "Insecure(\"r.openai.azure.com\")",
        );
        check::<Azure>(
            "https://r.openai.azure.com.evil.com",
            "NotAzure(\"r.openai.azure.com.evil.com\")",
        );
        check::<Azure>(
            "https://a.b.openai.azure.com",
            "NotAzure(\"a.b.openai.azure.com\")",
        );
        check::<Azure>(
            "https://evilopenai.azure.com",
            "NotAzure(\"evilopenai.azure.com\")",
        );
        check::<Azure>(
            "https://.openai.azure.com",
            "BadHost(\".openai.azure.com\")",
        );
        check::<Azure>(
            "https://api.openai.com",
            "OpenAiHostForAzure(\"api.openai.com\")",
        );
        check::<Azure>(
            "https://169.254.169.254",
            "ForbiddenAddress(\"169.254.169.254\")",
        );
        check::<Azure>(
            "https://[::ffff:169.254.169.254]",
            "ForbiddenAddress(\"::ffff:169.254.169.254\")",
        );
        check::<Azure>("https://0x7f.1", "BadHost(\"0x7f.1\")");
        check::<Azure>("https://2130706433", "BadHost(\"2130706433\")");
        check::<Azure>("https://10.0.0.4", "NotAzure(\"10.0.0.4\")");
        check::<Azure>(
            "https://r.openai.azure.c\u{43e}m",
            "BadHost(\"r.openai.azure.c\u{43e}m\")",
        );
    }

    #[test]
    fn openai_and_custom() {
        check::<OpenAi>("https://api.openai.com", "wss://api.openai.com");
        check::<OpenAi>("https://evil.openai.com", "NotOpenAi(\"evil.openai.com\")");
        check::<OpenAi>(
            "https://r.openai.azure.com",
            "AzureHostElsewhere(\"r.openai.azure.com\")",
        );
        check::<Custom>("wss://voice.example", "wss://voice.example");
        check::<Custom>(
            "https://r.openai.azure.com",
            "AzureHostElsewhere(\"r.openai.azure.com\")",
        );
        check::<Custom>(
            "https://api.openai.com",
            "OpenAiHostForCustom(\"api.openai.com\")",
        );
        check::<Custom>("http://10.0.0.4:8080", "Insecure(\"10.0.0.4\")");
    }

    #[test]
    fn allowed_hosts_never_widen_to_another_vendor() {
        let rules = OriginRules {
            allowed_hosts: vec!["api.openai.com".into(), "r.openai.azure.com".into()],
            allow_insecure: true,
        };
        assert!(Origin::<Azure>::parse("https://api.openai.com", &rules).is_err());
        assert!(Origin::<Custom>::parse("https://r.openai.azure.com", &rules).is_err());
    }
}
