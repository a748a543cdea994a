//! The one table of configuration keys.

use std::{sync::OnceLock, time::Duration};

use crate::tree::{Entry, Node, Place, Table, Value};

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    /// Free text that is no secret: a name, an address, a path.
    Text,
    /// A URL: its user name, password and query are never shown.
    Url,
    TextList,
    /// An id of Entra's. Shown only where it has the form of one.
    Id(IdForm),
    Choice(&'static [&'static str]),
    /// A reference to a secret.
    Secret,
    /// References to secrets, in any of their shapes.
    Secrets,
    Duration {
        min: Duration,
        max: Duration,
    },
    Size {
        min: u64,
        max: u64,
    },
    Count {
        min: u64,
        max: u64,
    },
}

impl Kind {
    /// The kind in the words of the reference page.
    pub(crate) fn words(self) -> String {
        match self {
            Kind::Bool => "`true` or `false`".into(),
            Kind::Text => "text".into(),
            Kind::Url => "URL".into(),
            Kind::TextList => "list of texts".into(),
            Kind::Id(form) => form.words().into(),
            Kind::Choice(choices) => choices
                .iter()
                .map(|choice| format!("`{choice}`"))
                .collect::<Vec<_>>()
                .join(", "),
            Kind::Secret => "secret reference".into(),
            Kind::Secrets => "secret references".into(),
            Kind::Duration { min, max } => {
                format!("duration, {} to {}", duration_text(min), duration_text(max))
            }
            Kind::Size { min, max } => format!("size, {} to {}", size_text(min), size_text(max)),
            Kind::Count { min, max } => format!("number, {min} to {max}"),
        }
    }
}

/// The forms of Entra's ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdForm {
    /// 8-4-4-4-12 hexadecimal digits.
    Guid,
    /// A GUID or a domain name.
    Tenant,
    /// `/subscriptions/…/resourcegroups/…/providers/…`.
    Resource,
}

impl IdForm {
    pub(crate) fn words(self) -> &'static str {
        match self {
            IdForm::Guid => "GUID",
            IdForm::Tenant => "GUID or domain name",
            IdForm::Resource => "Azure resource id",
        }
    }

    /// Whether a text has the form.
    pub(crate) fn admits(self, text: &str) -> bool {
        match self {
            IdForm::Guid => is_guid(text),
            IdForm::Tenant => is_guid(text) || is_domain(text),
            IdForm::Resource => {
                let legal = |c: char| c.is_ascii_alphanumeric() || "-._/()".contains(c);
                text.to_ascii_lowercase().starts_with("/subscriptions/")
                    && text.len() <= 1024
                    && text.chars().all(legal)
            }
        }
    }
}

fn is_guid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    text.contains('.') && text.len() <= 253 && text.split('.').all(label)
}

/// One key. `*` in the path stands for a name that the user chooses.
#[derive(Debug)]
pub(crate) struct KeySpec {
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    pub(crate) variables: &'static [&'static str],
    pub(crate) flag: Option<&'static str>,
}

pub(crate) const DEPLOYMENT_VARIABLES: &[&str] = &[
    "AZURE_OPENAI_DEPLOYMENT_NAME",
    "AZURE_OPENAI_REALTIME_DEPLOYMENT",
    "AZURE_OPENAI_DEPLOYMENT",
];

pub(crate) const TYPES: &[&str] = &["azure-openai", "openai", "custom"];
const REFUSALS: &[&str] = &["in-band", "http"];
const STORES: &[&str] = &["memory", "redis"];
const OUTAGES: &[&str] = &["failClosed", "failOpen"];

pub(crate) const TRANSPORTS: &[&str] = &[
    "gateway-relay",
    "webrtc",
    "provider-websocket",
    "managed-room",
];
pub(crate) const AUTH_KINDS: &[&str] = &[
    "api-key",
    "managed-identity",
    "workload-identity",
    "client-secret",
    "client-assertion",
    "azure-cli",
    "azd",
    "auto",
    "none",
];

/// Whether `auth.kind` means Microsoft Entra ID.
pub(crate) fn is_entra(kind: &str) -> bool {
    AUTH_KINDS.contains(&kind) && !matches!(kind, "api-key" | "none")
}

const fn key(path: &'static str, kind: Kind) -> KeySpec {
    KeySpec {
        path,
        kind,
        variables: &[],
        flag: None,
    }
}

/// A key that one variable can stand in for.
const fn key_or_variable(
    path: &'static str,
    kind: Kind,
    variables: &'static [&'static str],
) -> KeySpec {
    KeySpec {
        path,
        kind,
        variables,
        flag: None,
    }
}

const fn seconds(min: u64, max: u64) -> Kind {
    Kind::Duration {
        min: Duration::from_secs(min),
        max: Duration::from_secs(max),
    }
}

const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Size { min, max }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Sessions of one client.
const SESSIONS: Kind = Kind::Count {
    min: 1,
    max: 1_000_000,
};
/// Session starts of one client in a minute.
const STARTS: Kind = Kind::Count {
    min: 1,
    max: 1_000_000,
};
/// Frames of one client in a second.
const FRAMES: Kind = Kind::Count {
    min: 1,
    max: 1_000_000,
};
/// A socket's buffer in the kernel.
const SOCKET_BUFFER: Kind = bytes(0, 16 * MIB);
/// Responses or tokens.
const BUDGET: Kind = Kind::Count {
    min: 1,
    max: 1_000_000_000_000,
};

/// Tokens of one response.
const RESPONSE_TOKENS: Kind = Kind::Count {
    min: 1,
    max: 1_000_000,
};
const MODES: &[&str] = &["pinned", "transparent"];
const ON_VIOLATION: &[&str] = &["rewrite", "refuse"];
const TRACING: &[&str] = &["off", "auto"];

/// Every key, in the order of the reference page.
pub(crate) const KEYS: &[KeySpec] = &[
    key("talk.realtime.provider", Kind::Text),
    key("talk.realtime.transport", Kind::Choice(TRANSPORTS)),
    key("talk.realtime.model", Kind::Text),
    key("talk.realtime.allowAnyModel", Kind::Bool),
    key("talk.realtime.routes.*", Kind::Text),
    key("talk.realtime.providers.*.type", Kind::Choice(TYPES)),
    KeySpec {
        path: "talk.realtime.providers.*.azureEndpoint",
        kind: Kind::Url,
        variables: &["AZURE_OPENAI_ENDPOINT"],
        flag: None,
    },
    KeySpec {
        path: "talk.realtime.providers.*.azureDeployment",
        kind: Kind::Text,
        variables: DEPLOYMENT_VARIABLES,
        flag: None,
    },
    KeySpec {
        path: "talk.realtime.providers.*.azureApiVersion",
        kind: Kind::Text,
        variables: &["AZURE_OPENAI_API_VERSION"],
        flag: None,
    },
    key(
        "talk.realtime.providers.*.azureTranscriptionDeployments.*",
        Kind::Text,
    ),
    key("talk.realtime.providers.*.azureDropTracing", Kind::Bool),
    key("talk.realtime.providers.*.azureMapSessionModel", Kind::Bool),
    KeySpec {
        path: "talk.realtime.providers.*.baseUrl",
        kind: Kind::Url,
        variables: &["OPENAI_BASE_URL"],
        flag: None,
    },
    key("talk.realtime.providers.*.model", Kind::Text),
    key("talk.realtime.providers.*.aliases", Kind::TextList),
    key("talk.realtime.providers.*.allowedHosts", Kind::TextList),
    key(
        "talk.realtime.providers.*.allowInsecureUpstream",
        Kind::Bool,
    ),
    KeySpec {
        path: "talk.realtime.providers.*.apiKey",
        kind: Kind::Secret,
        variables: &["AZURE_OPENAI_API_KEY", "OPENAI_API_KEY"],
        flag: None,
    },
    key("talk.realtime.providers.*.apiKeySecondary", Kind::Secret),
    key(
        "talk.realtime.providers.*.auth.kind",
        Kind::Choice(AUTH_KINDS),
    ),
    key_or_variable(
        "talk.realtime.providers.*.auth.clientId",
        Kind::Id(IdForm::Guid),
        &["AZURE_CLIENT_ID"],
    ),
    key(
        "talk.realtime.providers.*.auth.objectId",
        Kind::Id(IdForm::Guid),
    ),
    key(
        "talk.realtime.providers.*.auth.resourceId",
        Kind::Id(IdForm::Resource),
    ),
    key_or_variable(
        "talk.realtime.providers.*.auth.tenantId",
        Kind::Id(IdForm::Tenant),
        &["AZURE_TENANT_ID"],
    ),
    key_or_variable(
        "talk.realtime.providers.*.auth.clientSecret",
        Kind::Secret,
        &["AZURE_CLIENT_SECRET"],
    ),
    key_or_variable(
        "talk.realtime.providers.*.auth.certificate",
        Kind::Text,
        &["AZURE_CLIENT_CERTIFICATE_PATH"],
    ),
    key("talk.realtime.providers.*.auth.certificateKey", Kind::Text),
    key_or_variable(
        "talk.realtime.providers.*.auth.tokenFile",
        Kind::Text,
        &["AZURE_FEDERATED_TOKEN_FILE"],
    ),
    key("talk.realtime.providers.*.auth.scope", Kind::Url),
    key_or_variable(
        "talk.realtime.providers.*.auth.authority",
        Kind::Url,
        &["AZURE_AUTHORITY_HOST"],
    ),
    KeySpec {
        path: "server.listen",
        kind: Kind::Text,
        variables: &["TALKLINE_LISTEN"],
        flag: Some("--listen"),
    },
    KeySpec {
        path: "server.tls.cert",
        kind: Kind::Text,
        variables: &[],
        flag: Some("--tls-cert"),
    },
    KeySpec {
        path: "server.tls.key",
        kind: Kind::Text,
        variables: &[],
        flag: Some("--tls-key"),
    },
    key("server.threads", Kind::Count { min: 0, max: 1024 }),
    key("server.refusals", Kind::Choice(REFUSALS)),
    key("server.allowedOrigins", Kind::TextList),
    key("server.allowedHosts", Kind::TextList),
    key("server.trustedProxies", Kind::TextList),
    key("admin.listen", Kind::Text),
    key_or_variable("admin.key", Kind::Secret, &["TALKLINE_ADMIN_KEY"]),
    KeySpec {
        path: "clients.keys",
        kind: Kind::Secrets,
        variables: &["TALKLINE_CLIENT_KEY"],
        flag: None,
    },
    key("clients.allowAnonymous", Kind::Bool),
    key("clients.defaults.routes", Kind::TextList),
    key("clients.defaults.policy", Kind::Text),
    key("clients.defaults.maxSessions", SESSIONS),
    key("clients.defaults.startsPerMinute", STARTS),
    key("clients.defaults.maxSessionDuration", seconds(1, 24 * 3600)),
    key("clients.defaults.framesPerSecond", FRAMES),
    key("clients.defaults.bytesPerSecond", bytes(KIB, 256 * MIB)),
    key("clients.defaults.responsesPerSession", BUDGET),
    key("clients.defaults.responsesPerDay", BUDGET),
    key("clients.defaults.tokensPerSession", BUDGET),
    key("clients.defaults.tokensPerDay", BUDGET),
    key("clients.access.*.routes", Kind::TextList),
    key("clients.access.*.policy", Kind::Text),
    key("clients.access.*.maxSessions", SESSIONS),
    key("clients.access.*.startsPerMinute", STARTS),
    key("clients.access.*.maxSessionDuration", seconds(1, 24 * 3600)),
    key("clients.access.*.framesPerSecond", FRAMES),
    key("clients.access.*.bytesPerSecond", bytes(KIB, 256 * MIB)),
    key("clients.access.*.responsesPerSession", BUDGET),
    key("clients.access.*.responsesPerDay", BUDGET),
    key("clients.access.*.tokensPerSession", BUDGET),
    key("clients.access.*.tokensPerDay", BUDGET),
    key("clients.oidc.*.issuer", Kind::Url),
    key("clients.oidc.*.audiences", Kind::TextList),
    key("clients.oidc.*.algorithms", Kind::TextList),
    key("clients.oidc.*.jwksUri", Kind::Url),
    key("clients.oidc.*.nameClaim", Kind::Text),
    key("clients.oidc.*.requiredScopes", Kind::TextList),
    key("clients.oidc.*.requiredRoles", Kind::TextList),
    KeySpec {
        path: "tokens.keys",
        kind: Kind::Secrets,
        variables: &["TALKLINE_TOKEN_KEY"],
        flag: None,
    },
    key("tokens.audience", Kind::Text),
    key("tokens.lifetime", seconds(1, 600)),
    key("ui.enabled", Kind::Bool),
    key("limitStore.kind", Kind::Choice(STORES)),
    key_or_variable("limitStore.url", Kind::Secret, &["TALKLINE_REDIS_URL"]),
    key("limitStore.prefix", Kind::Text),
    key("limitStore.onOutage", Kind::Choice(OUTAGES)),
    key(
        "limitStore.timeout",
        Kind::Duration {
            min: Duration::from_millis(10),
            max: Duration::from_secs(10),
        },
    ),
    key("limitStore.leaseTime", seconds(3, 600)),
    key(
        "limits.maxSessions",
        Kind::Count {
            min: 1,
            max: 1_000_000,
        },
    ),
    key(
        "limits.maxHandshakes",
        Kind::Count {
            min: 1,
            max: 100_000,
        },
    ),
    key(
        "limits.maxHandshakesPerSource",
        Kind::Count {
            min: 1,
            max: 100_000,
        },
    ),
    key(
        "limits.maxFailuresPerSource",
        Kind::Count {
            min: 1,
            max: 10_000,
        },
    ),
    key(
        "limits.maxFailures",
        Kind::Count {
            min: 1,
            max: 1_000_000,
        },
    ),
    key("limits.failureWindow", seconds(1, 3600)),
    key("limits.maxRequestHeaderSize", bytes(KIB, 256 * KIB)),
    key("limits.clientHandshakeTimeout", seconds(1, 120)),
    key("limits.dnsTimeout", seconds(1, 120)),
    key("limits.connectTimeout", seconds(1, 120)),
    key("limits.tlsTimeout", seconds(1, 120)),
    key("limits.upgradeTimeout", seconds(1, 300)),
    key("limits.dialTimeout", seconds(1, 600)),
    key("limits.maxMessageSize", bytes(64 * KIB, 256 * MIB)),
    key("limits.maxFrameSize", bytes(64 * KIB, 256 * MIB)),
    key(
        "limits.maxFragments",
        Kind::Count {
            min: 1,
            max: 1_000_000,
        },
    ),
    key("limits.maxInspectedEventSize", bytes(4 * KIB, 16 * MIB)),
    key("limits.pingInterval", seconds(1, 600)),
    key("limits.pongTimeout", seconds(1, 600)),
    key("limits.maxSessionDuration", seconds(1, 24 * 3600)),
    key("limits.closeTimeout", seconds(1, 60)),
    key("limits.drainGrace", seconds(0, 24 * 3600)),
    key("limits.stallTimeout", seconds(1, 3600)),
    key("limits.frameTimeout", seconds(1, 3600)),
    key("limits.idleTimeout", seconds(0, 24 * 3600)),
    key(
        "limits.framesPerSecond",
        Kind::Count {
            min: 0,
            max: 1_000_000,
        },
    ),
    key("limits.bytesPerSecond", bytes(0, 1024 * MIB)),
    key("limits.maxBufferedSize", bytes(MIB, 64 * 1024 * MIB)),
    key("limits.clientSendBuffer", SOCKET_BUFFER),
    key("limits.clientReceiveBuffer", SOCKET_BUFFER),
    key("limits.upstreamSendBuffer", SOCKET_BUFFER),
    key("limits.upstreamReceiveBuffer", SOCKET_BUFFER),
    key("limits.maxMemory", bytes(0, 1 << 20 << 20)),
    key("reload.watch", seconds(0, 3600)),
    key("policies.*.mode", Kind::Choice(MODES)),
    key("policies.*.onViolation", Kind::Choice(ON_VIOLATION)),
    key("policies.*.instructions", Kind::Text),
    key("policies.*.instructionsFile", Kind::Text),
    key("policies.*.voice", Kind::Text),
    key("policies.*.voices", Kind::TextList),
    key("policies.*.tools", Kind::Text),
    key("policies.*.toolsFile", Kind::Text),
    key("policies.*.toolNames", Kind::TextList),
    key("policies.*.model", Kind::Text),
    key("policies.*.models", Kind::TextList),
    key("policies.*.transcriptionModel", Kind::Text),
    key("policies.*.transcriptionModels", Kind::TextList),
    key("policies.*.maxOutputTokens", RESPONSE_TOKENS),
    key("policies.*.lockMaxOutputTokens", Kind::Bool),
    key("policies.*.tracing", Kind::Choice(TRACING)),
    key("policies.*.mcpServers", Kind::TextList),
    key("policies.*.events", Kind::TextList),
    key("policies.*.outOfBandResponses", Kind::Bool),
    key("policies.*.hideInstructions", Kind::Bool),
    key("policies.*.hideTools", Kind::Bool),
    key("prices.currency", Kind::Text),
    key("prices.models.*.inputText", Kind::Text),
    key("prices.models.*.cachedInputText", Kind::Text),
    key("prices.models.*.inputAudio", Kind::Text),
    key("prices.models.*.cachedInputAudio", Kind::Text),
    key("prices.models.*.inputImage", Kind::Text),
    key("prices.models.*.cachedInputImage", Kind::Text),
    key("prices.models.*.outputText", Kind::Text),
    key("prices.models.*.outputAudio", Kind::Text),
    key("allowPlaintextSecrets", Kind::Bool),
];

/// `talk.realtime` keys of OpenClaw's that say nothing about the relay.
pub(crate) const OPENCLAW_REALTIME: &[&str] = &[
    "mode",
    "brain",
    "speakerVoice",
    "speakerVoiceId",
    "instructions",
    "vadThreshold",
    "silenceDurationMs",
    "prefixPaddingMs",
    "reasoningEffort",
    "consultRouting",
];

/// Provider keys of OpenClaw's that say nothing about the relay.
pub(crate) const OPENCLAW_PROVIDER: &[&str] = &[
    "voice",
    "speakerVoice",
    "speakerVoiceId",
    "temperature",
    "vadThreshold",
    "silenceDurationMs",
    "prefixPaddingMs",
    "interruptResponseOnInputAudio",
    "minBargeInAudioEndMs",
    "reasoningEffort",
];

/// What the table says about a place in the tree.
pub(crate) enum Known {
    /// A key with a value.
    Key(&'static KeySpec),
    /// A table whose keys the table lists.
    Table,
    /// Nothing.
    Unknown,
}

/// Looks a path up.
pub(crate) fn known<S: AsRef<str>>(path: &[S]) -> Known {
    let mut is_table = false;
    for spec in KEYS {
        let mut pattern = spec.path.split('.');
        let fits = path.iter().all(|segment| {
            pattern
                .next()
                .is_some_and(|expected| expected == "*" || expected == segment.as_ref())
        });
        match (fits, pattern.next()) {
            (true, None) => return Known::Key(spec),
            (true, Some(_)) => is_table = true,
            (false, _) => {}
        }
    }
    if is_table {
        Known::Table
    } else {
        Known::Unknown
    }
}

/// The keys that a table at this path may hold; empty where the user chooses the names.
pub(crate) fn children<S: AsRef<str>>(path: &[S]) -> Vec<&'static str> {
    let mut out: Vec<&'static str> = Vec::new();
    for spec in KEYS {
        let mut pattern = spec.path.split('.');
        let fits = path.iter().all(|segment| {
            pattern
                .next()
                .is_some_and(|expected| expected == "*" || expected == segment.as_ref())
        });
        if let (true, Some(next)) = (fits, pattern.next())
            && next != "*"
            && !out.contains(&next)
        {
            out.push(next);
        }
    }
    out
}

/// The candidate that a name was probably meant to be.
///
/// Other spellings (`azure_endpoint`, `AzureEndpoint`) count as equal, misspellings by
/// Jaro-Winkler similarity of 0.8 or more.
pub(crate) fn suggestion<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| -> String {
        text.chars()
            .filter(|c| !matches!(c, '_' | '-'))
            .flat_map(char::to_lowercase)
            .collect()
    };
    let name = plain(name);
    let score = |candidate: &&str| strsim::jaro_winkler(&name, &plain(candidate));
    candidates
        .iter()
        .map(|candidate| (score(candidate), *candidate))
        .filter(|(score, _)| *score >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The documented defaults, as the lowest layer.
pub(crate) fn defaults() -> Table {
    static DEFAULTS: OnceLock<Table> = OnceLock::new();
    DEFAULTS
        .get_or_init(|| {
            let read = crate::read::read(include_str!("defaults.toml"), crate::Format::Toml, 0);
            placed_nowhere(read.expect("the built-in defaults are read by every test"))
        })
        .clone()
}

fn placed_nowhere(table: Table) -> Table {
    let entries = table.entries.into_iter().map(|entry| {
        let value = match entry.node.value {
            Value::Table(inner) => Value::Table(placed_nowhere(inner)),
            value => value,
        };
        let node = Node {
            place: Place::Default,
            value,
        };
        Entry {
            key: entry.key,
            key_place: Place::Default,
            node,
        }
    });
    Table {
        entries: entries.collect(),
    }
}

/// A duration as one writes it: the largest unit that divides it.
pub(crate) fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0s".into(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    }
}

/// A size as one writes it: the largest unit that divides it.
pub(crate) fn size_text(bytes: u64) -> String {
    match bytes {
        0 => "0".into(),
        _ if bytes.is_multiple_of(MIB) => format!("{}MiB", bytes / MIB),
        _ if bytes.is_multiple_of(KIB) => format!("{}KiB", bytes / KIB),
        _ => format!("{bytes}"),
    }
}
