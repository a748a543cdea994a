//! What people paste as an endpoint → origin and base path, or a sentence that says what to write.
//!
//! Portals, quickstarts and SDKs each show another form of the same address. [`normalise`] takes
//! every form that names one host beyond doubt and refuses the rest: a wrong guess would send a
//! key to the wrong place. Sources: Microsoft Learn, "Use the GPT Realtime API via WebSockets"
//! and "via WebRTC"; the endpoint forms that the portals of Azure AI Foundry show.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use talkline_auth::{AZURE_SUFFIXES, OPENAI_HOSTS};

use crate::shown::{cleaned, looks_secret};

/// Whose endpoint it is meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    /// `azureEndpoint`.
    Azure,
    /// `baseUrl` of an `openai` provider.
    OpenAi,
    /// `baseUrl` of a `custom` provider.
    Custom,
}

impl EndpointKind {
    fn key(self) -> &'static str {
        match self {
            Self::Azure => "azureEndpoint",
            Self::OpenAi | Self::Custom => "baseUrl",
        }
    }
}

/// What an operator allowed beyond the built-in rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndpointRules<'a> {
    /// Exact host names that are accepted: API Management gateways, private names and addresses.
    pub allowed_hosts: &'a [String],
    /// Plain text beyond loopback. Has no effect with Azure and OpenAI.
    pub allow_insecure: bool,
}

/// An endpoint in its one normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `https://host[:port]` or, for loopback and where allowed, `http://host[:port]`.
    pub origin: String,
    /// Path before the Realtime path, empty or `/…` without a trailing slash.
    pub base_path: String,
    /// A deployment or model that the pasted URL named.
    pub deployment: Option<String>,
    /// An api-version that the pasted URL named.
    pub api_version: Option<String>,
}

impl Endpoint {
    /// The host of the origin, without scheme and port.
    pub(crate) fn host(&self) -> &str {
        let authority = self.origin.split_once("://").map_or("", |(_, rest)| rest);
        match authority.rfind(']') {
            Some(end) => &authority[..=end],
            None => authority.split(':').next().unwrap_or_default(),
        }
    }
}

/// Why a text is no endpoint. Neither field holds more of the text than its host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EndpointError {
    /// Stable identifier.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

fn refuse(
    code: &'static str,
    message: impl Into<String>,
    hint: impl Into<String>,
) -> EndpointError {
    EndpointError {
        code,
        message: message.into(),
        hint: hint.into(),
    }
}

/// Hosts that people copy from the address bar of a portal.
const PORTAL_HOSTS: [&str; 6] = [
    "ai.azure.com",
    "oai.azure.com",
    "portal.azure.com",
    "management.azure.com",
    "platform.openai.com",
    "chatgpt.com",
];

const AZURE_FORM: &str =
    "write the resource's endpoint, such as https://<resource>.openai.azure.com";

/// Brings a pasted endpoint into its normal form.
///
/// ```
/// use talkline_config::endpoint::{EndpointKind, EndpointRules, normalise};
///
/// let pasted = "wss://Voice.openai.azure.com/openai/v1/realtime?model=gpt-realtime";
/// let endpoint = normalise(EndpointKind::Azure, pasted, &EndpointRules::default())?;
/// assert_eq!(endpoint.origin, "https://voice.openai.azure.com");
/// assert_eq!(endpoint.deployment.as_deref(), Some("gpt-realtime"));
/// # Ok::<(), talkline_config::endpoint::EndpointError>(())
/// ```
///
/// # Errors
///
/// [`EndpointError`] with a stable code; the text itself is never quoted beyond its host.
pub fn normalise(
    kind: EndpointKind,
    text: &str,
    rules: &EndpointRules<'_>,
) -> Result<Endpoint, EndpointError> {
    let parts = Parts::split(kind, text)?;
    let host = Host::parse(kind, parts.host)?;
    let standing = host.standing(rules);
    standing.admit(kind, &host)?;
    if !parts.tls {
        admit_plain_text(kind, &host, rules)?;
    }
    let query = Query::parse(kind, parts.query)?;
    let path = segments(parts.path)?;
    let path = match kind {
        EndpointKind::Azure => azure_path(&path, standing)?,
        EndpointKind::OpenAi => openai_path(&path)?,
        EndpointKind::Custom => custom_path(&path),
    };
    let scheme = if parts.tls { "https" } else { "http" };
    let port = match parts.port {
        Some(port) if port != if parts.tls { 443 } else { 80 } => format!(":{port}"),
        _ => String::new(),
    };
    Ok(Endpoint {
        origin: format!("{scheme}://{}{port}", host.in_url()),
        base_path: path.base,
        deployment: query.deployment.or(path.deployment),
        api_version: query.api_version,
    })
}

/// A URL cut at its separators, nothing decoded.
struct Parts<'a> {
    tls: bool,
    host: &'a str,
    port: Option<u16>,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn split(kind: EndpointKind, text: &'a str) -> Result<Self, EndpointError> {
        let key = kind.key();
        let text = text.trim_matches([' ', '\t']);
        if text.is_empty() {
            let message = format!("`{key}` is empty");
            return Err(refuse("endpoint.empty", message, form(kind)));
        }
        if text.contains(['<', '>', '{', '}']) {
            let message = format!("`{key}` still holds a placeholder");
            return Err(refuse("endpoint.placeholder", message, form(kind)));
        }
        if text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || matches!(c, '\\' | '"' | '\u{feff}'))
        {
            let message =
                format!("`{key}` holds white space, quotes or other characters that no URL has");
            return Err(refuse("endpoint.characters", message, form(kind)));
        }
        let (tls, rest) = scheme(kind, text)?;
        let rest = rest.split('#').next().unwrap_or_default();
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        if authority.contains('@') {
            let message = format!("`{key}` carries a user name or password before the host");
            let hint =
                "remove everything up to the `@`; the key belongs in `apiKey` as a reference";
            return Err(refuse("endpoint.userinfo", message, hint));
        }
        let (host, port) = split_port(authority)?;
        Ok(Self {
            tls,
            host,
            port,
            path,
            query,
        })
    }
}

fn form(kind: EndpointKind) -> &'static str {
    match kind {
        EndpointKind::Azure => AZURE_FORM,
        EndpointKind::OpenAi => "write https://api.openai.com/v1, or leave `baseUrl` out",
        EndpointKind::Custom => {
            "write the base URL before `/realtime`, such as https://host.example/v1"
        }
    }
}

fn scheme(kind: EndpointKind, text: &str) -> Result<(bool, &str), EndpointError> {
    let key = kind.key();
    let Some((scheme, rest)) = text.split_once("://") else {
        let host = text.split(['/', '?', '#', ':']).next().unwrap_or_default();
        let is_name = host.contains('.') && !host.contains('@') && !looks_secret(host);
        if is_name {
            let message = format!("`{key}` has no scheme");
            let hint = format!("write https://{}", cleaned(host));
            return Err(refuse("endpoint.no-scheme", message, hint));
        }
        let message = format!("`{key}` is not a URL");
        let hint = format!("{}; a key belongs in `apiKey` as a reference", form(kind));
        return Err(refuse("endpoint.not-a-url", message, hint));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "https" | "wss" => Ok((true, rest)),
        "http" | "ws" => Ok((false, rest)),
        other => {
            let other = cleaned(other);
            let message =
                format!("`{key}` has the scheme `{other}`, which is neither https nor wss");
            Err(refuse("endpoint.scheme", message, form(kind)))
        }
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), EndpointError> {
    if authority.starts_with('[') && !authority.contains(']') {
        return Ok((authority, None));
    }
    let after_address = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let Some(colon) = authority[after_address..].find(':') else {
        return Ok((authority, None));
    };
    let (host, port) = (
        &authority[..after_address + colon],
        &authority[after_address + colon + 1..],
    );
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if digits && port != 0 => Ok((host, Some(port))),
        _ => Err(refuse(
            "endpoint.port",
            "the port is not a number from 1 to 65535",
            "leave the port out for 443",
        )),
    }
}

/// A host name or address in normal form.
struct Host {
    name: String,
    address: Option<IpAddr>,
}

/// What is known about a host.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Loopback,
    Azure,
    OpenAi,
    /// None of these, but named in `allowedHosts`.
    Allowed,
    Other,
}

impl Host {
    fn parse(kind: EndpointKind, text: &str) -> Result<Self, EndpointError> {
        if text.is_empty() {
            let message = format!("`{}` names no host", kind.key());
            return Err(refuse("endpoint.host", message, form(kind)));
        }
        if !text.is_ascii() {
            let message = format!("the host `{}` holds letters beyond ASCII", cleaned(text));
            let hint =
                "type the host name by hand: letters of other alphabets can look like Latin ones";
            return Err(refuse("endpoint.homograph", message, hint));
        }
        if let Some(inner) = text.strip_prefix('[') {
            let address = inner
                .strip_suffix(']')
                .and_then(|inner| inner.parse::<Ipv6Addr>().ok());
            return match address {
                Some(address) => Self::address(IpAddr::V6(address)),
                None => Err(refuse(
                    "endpoint.host",
                    "the IPv6 address is malformed",
                    form(kind),
                )),
            };
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if name.len() > 253 || !name.split('.').all(label) {
            let message = format!("`{}` is not a host name", cleaned(text));
            return Err(refuse("endpoint.host", message, form(kind)));
        }
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Self::address(IpAddr::V4(address));
        }
        // Some resolvers read `0x7f.1` or `2130706433` as an address, others as a name.
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|byte| byte.is_ascii_digit())
            || last.starts_with("0x")
            || name.starts_with("0x")
        {
            let message = format!(
                "`{}` is an address in a form that programs read differently",
                cleaned(text)
            );
            return Err(refuse(
                "endpoint.address-form",
                message,
                "write it as four decimal numbers, or as a name",
            ));
        }
        Ok(Self {
            name,
            address: None,
        })
    }

    fn address(address: IpAddr) -> Result<Self, EndpointError> {
        let forbidden = match address {
            IpAddr::V4(v4) => {
                v4.is_link_local() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()
            }
            IpAddr::V6(v6) => {
                v6.is_unspecified()
                    || v6.is_multicast()
                    || v6.is_unicast_link_local()
                    || v6.to_ipv4_mapped().is_some()
            }
        };
        if forbidden {
            let message = format!("`{address}` is not an address that an upstream can have");
            let hint = "write the host name of the endpoint; link-local addresses belong to the cloud's metadata service";
            return Err(refuse("endpoint.address-forbidden", message, hint));
        }
        Ok(Self {
            name: address.to_string(),
            address: Some(address),
        })
    }

    fn standing(&self, rules: &EndpointRules<'_>) -> Standing {
        let loopback = self
            .address
            .map_or(self.name == "localhost", |address| address.is_loopback());
        let azure = AZURE_SUFFIXES.iter().any(|suffix| {
            let label = self.name.strip_suffix(suffix).unwrap_or_default();
            !label.is_empty() && !label.contains('.') && !label.starts_with("xn--")
        });
        let allowed = |name: &String| {
            let name = name.strip_suffix('.').unwrap_or(name);
            self.name
                .eq_ignore_ascii_case(name.trim_start_matches('[').trim_end_matches(']'))
        };
        if loopback {
            Standing::Loopback
        } else if azure {
            Standing::Azure
        } else if self.name == "openai.com" || self.name.ends_with(".openai.com") {
            Standing::OpenAi
        } else if rules.allowed_hosts.iter().any(allowed) {
            Standing::Allowed
        } else {
            Standing::Other
        }
    }

    fn is_private(&self) -> bool {
        match self.address {
            Some(IpAddr::V4(v4)) => {
                v4.is_private() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64)
            }
            Some(IpAddr::V6(v6)) => v6.is_unique_local(),
            None => false,
        }
    }

    fn in_url(&self) -> String {
        match self.address {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.name.clone(),
        }
    }

    /// For a name that only resembles Azure's: what was probably meant.
    fn azure_look_alike(&self) -> Option<EndpointError> {
        let name = &self.name;
        if PORTAL_HOSTS.contains(&name.as_str()) {
            let message = format!("`{name}` is a portal, not an endpoint");
            let hint = format!(
                "{AZURE_FORM}; the portal shows it as \"Endpoint\" under \"Keys and Endpoint\""
            );
            return Some(refuse("endpoint.portal", message, hint));
        }
        if name.ends_with(".realtimeapi-preview.ai.azure.com") {
            return Some(webrtc_mint());
        }
        for suffix in AZURE_SUFFIXES {
            let bare = &suffix[1..];
            if name == bare {
                let message = format!("`{name}` lacks the name of the resource");
                return Some(refuse(
                    "endpoint.no-resource",
                    message,
                    format!("write https://<resource>{suffix}"),
                ));
            }
            if let Some(labels) = name.strip_suffix(suffix) {
                if let Some(resource) = labels.strip_suffix(".privatelink") {
                    let message = format!(
                        "`{name}` is the name behind a private endpoint; its certificate does not cover it"
                    );
                    let hint = format!(
                        "write https://{resource}{suffix}: inside the network it resolves to the private address"
                    );
                    return Some(refuse("endpoint.privatelink", message, hint));
                }
                let resource = labels.rsplit('.').next().unwrap_or_default();
                let message =
                    format!("`{name}` has more than the resource's name before `{suffix}`");
                return Some(refuse(
                    "endpoint.look-alike",
                    message,
                    format!("write https://{resource}{suffix}"),
                ));
            }
            if name.contains(bare) {
                let message = format!("`{name}` resembles an Azure host and is none");
                let hint =
                    format!("the name must end in `{suffix}`, right after the resource's name");
                return Some(refuse("endpoint.look-alike", message, hint));
            }
        }
        None
    }
}

impl Standing {
    fn admit(self, kind: EndpointKind, host: &Host) -> Result<(), EndpointError> {
        let name = &host.name;
        match (kind, self) {
            (_, Standing::Loopback)
            | (EndpointKind::Azure, Standing::Azure | Standing::Allowed)
            | (EndpointKind::Custom, Standing::Allowed) => Ok(()),
            (EndpointKind::OpenAi, Standing::OpenAi) if OPENAI_HOSTS.contains(&name.as_str()) => Ok(()),
            (EndpointKind::Azure, Standing::OpenAi) => Err(refuse(
                "endpoint.openai-host",
                format!("`{name}` belongs to OpenAI; an Azure credential is never sent there"),
                format!("{AZURE_FORM}; for OpenAI itself remove the azure* keys and set provider = \"openai\""),
            )),
            (EndpointKind::Azure, Standing::Other) => Err(host.azure_look_alike().unwrap_or_else(|| {
                refuse(
                    "endpoint.not-azure",
                    format!("`{}` is not an Azure OpenAI host", cleaned(name)),
                    format!("{AZURE_FORM}; for API Management or a private name add allowedHosts = [\"{}\"]", cleaned(name)),
                )
            })),
            (EndpointKind::OpenAi | EndpointKind::Custom, Standing::Azure) => Err(refuse(
                "endpoint.azure-host",
                format!("`{name}` belongs to Azure"),
                "set type = \"azure-openai\" and write it as `azureEndpoint`",
            )),
            (EndpointKind::Custom, Standing::OpenAi) => Err(refuse(
                "endpoint.openai-host",
                format!("`{name}` belongs to OpenAI"),
                "set type = \"openai\" for it",
            )),
            (EndpointKind::OpenAi, _) => Err(refuse(
                "endpoint.not-openai",
                format!("`{}` is not an OpenAI host", cleaned(name)),
                "set type = \"custom\" for an OpenAI-compatible endpoint: an OpenAI key goes to api.openai.com only",
            )),
            (EndpointKind::Custom, Standing::Other) => match host.azure_look_alike() {
                Some(error) => Err(error),
                None if host.is_private() => Err(refuse(
                    "endpoint.address-private",
                    format!("`{name}` is a private address"),
                    format!("add allowedHosts = [\"{name}\"] if it is meant"),
                )),
                None => Ok(()),
            },
        }
    }
}

fn admit_plain_text(
    kind: EndpointKind,
    host: &Host,
    rules: &EndpointRules<'_>,
) -> Result<(), EndpointError> {
    let loopback = host.standing(&EndpointRules::default()) == Standing::Loopback;
    if loopback || (kind == EndpointKind::Custom && rules.allow_insecure) {
        return Ok(());
    }
    let name = cleaned(&host.name);
    let hint = match kind {
        EndpointKind::Custom => format!(
            "write https://{name}, or set allowInsecureUpstream = true if the network is trusted"
        ),
        EndpointKind::Azure | EndpointKind::OpenAi => format!("write https://{name}"),
    };
    Err(refuse(
        "endpoint.insecure",
        format!("`{name}` would be reached in plain text, key included"),
        hint,
    ))
}

/// What a pasted URL's query tells.
#[derive(Default)]
struct Query {
    deployment: Option<String>,
    api_version: Option<String>,
}

impl Query {
    fn parse(kind: EndpointKind, query: &str) -> Result<Self, EndpointError> {
        let mut found = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = || Some(value.to_owned()).filter(|value| !value.is_empty());
            match name.to_ascii_lowercase().as_str() {
                "model" | "deployment" => found.deployment = value(),
                "api-version" if kind == EndpointKind::Azure => found.api_version = value(),
                "intent" => {}
                other if is_key_name(other) => {
                    return Err(refuse(
                        "endpoint.key-in-url",
                        format!("`{}` carries a key in its query", kind.key()),
                        "remove the query, write the key as a reference in `apiKey`, and renew it: URLs end up in logs",
                    ));
                }
                _ => {
                    return Err(refuse(
                        "endpoint.query",
                        format!("`{}` has a query that means nothing here", kind.key()),
                        "remove everything from the `?` on",
                    ));
                }
            }
        }
        Ok(found)
    }
}

fn is_key_name(name: &str) -> bool {
    ["key", "token", "secret", "sig", "code", "password", "auth"]
        .iter()
        .any(|word| name.contains(word))
}

fn segments(path: &str) -> Result<Vec<&str>, EndpointError> {
    let segments: Vec<&str> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    let legal =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':');
    let clean = |segment: &&str| *segment != "." && *segment != ".." && segment.bytes().all(legal);
    if !segments.iter().all(clean) {
        let hint = "write the path in plain letters, without `..` and `%`";
        return Err(refuse(
            "endpoint.path",
            "the path holds characters that mean something else to some servers",
            hint,
        ));
    }
    Ok(segments)
}

/// What a pasted URL's path tells.
#[derive(Default)]
struct Path {
    base: String,
    deployment: Option<String>,
}

fn azure_path(path: &[&str], standing: Standing) -> Result<Path, EndpointError> {
    let lower: Vec<String> = path
        .iter()
        .map(|segment| segment.to_ascii_lowercase())
        .collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    let has = |pair: [&str; 2]| lower.windows(2).any(|window| window == pair);
    let mint = lower
        .iter()
        .any(|segment| matches!(*segment, "realtimeapi" | "realtimertc" | "client_secrets"));
    if mint || has(["realtime", "calls"]) {
        return Err(webrtc_mint());
    }
    if lower.contains(&"voice-live")
        || has(["v1", "live"])
        || lower.contains(&"transcription_sessions")
    {
        return Err(refuse(
            "endpoint.other-api",
            "this is the address of another API than Realtime",
            AZURE_FORM,
        ));
    }
    // A Foundry project's address: Realtime lives at the root of its account.
    let rooted = match lower.as_slice() {
        ["api", "projects", ..] => {
            let end = 3.min(path.len());
            &path[end..]
        }
        _ => path,
    };
    let tail_at = rooted
        .iter()
        .position(|segment| segment.eq_ignore_ascii_case("openai"));
    let (base, tail) = rooted.split_at(tail_at.unwrap_or(rooted.len()));
    let tail: Vec<String> = tail
        .iter()
        .map(|segment| segment.to_ascii_lowercase())
        .collect();
    let tail: Vec<&str> = tail.iter().map(String::as_str).collect();
    let deployment = match tail.as_slice() {
        []
        | ["openai"]
        | ["openai", "v1"]
        | ["openai", "realtime"]
        | ["openai", "v1", "realtime"] => None,
        ["openai", "deployments", _] | ["openai", "deployments", _, "realtime"] => {
            rooted.get(base.len() + 2).map(|name| (*name).to_owned())
        }
        _ => {
            return Err(refuse(
                "endpoint.path",
                "the path belongs to another API than Realtime",
                AZURE_FORM,
            ));
        }
    };
    let own_paths = matches!(standing, Standing::Allowed | Standing::Loopback);
    if !base.is_empty() && !own_paths {
        return Err(refuse(
            "endpoint.path",
            "an Azure resource has nothing before `/openai` in its path",
            AZURE_FORM,
        ));
    }
    Ok(Path {
        base: joined(base),
        deployment,
    })
}

fn webrtc_mint() -> EndpointError {
    refuse(
        "endpoint.webrtc-mint",
        "this is an address of the WebRTC handshake, which a relay does not use",
        AZURE_FORM,
    )
}

fn openai_path(path: &[&str]) -> Result<Path, EndpointError> {
    match path {
        [] | ["v1"] | ["v1", "realtime"] => Ok(Path::default()),
        _ => Err(refuse(
            "endpoint.path",
            "OpenAI's Realtime API stands at /v1/realtime",
            form(EndpointKind::OpenAi),
        )),
    }
}

fn custom_path(path: &[&str]) -> Path {
    let base = match path {
        [base @ .., "realtime"] => base,
        base => base,
    };
    Path {
        base: joined(base),
        deployment: None,
    }
}

fn joined(segments: &[&str]) -> String {
    segments
        .iter()
        .map(|segment| format!("/{segment}"))
        .collect()
}
