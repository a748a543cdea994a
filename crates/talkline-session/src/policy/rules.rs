//! The rules, as the operator means them.

use std::collections::BTreeMap;
use std::fmt;

use super::json;
use super::refusal::Refusal;

/// What a session may say; immutable once made, meant to be shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    rules: Option<Rules>,
}

impl Policy {
    /// Nothing is looked at.
    #[must_use]
    pub const fn transparent() -> Self {
        Self { rules: None }
    }

    /// Every event of the client's is held against these rules.
    #[must_use]
    pub const fn pinned(rules: Rules) -> Self {
        Self { rules: Some(rules) }
    }

    /// The rules; `None` when it is transparent.
    #[must_use]
    pub const fn rules(&self) -> Option<&Rules> {
        self.rules.as_ref()
    }
}

/// Rules of a pinned session. The default leaves every setting to the client, allows the
/// [default events](DEFAULT_EVENTS) and no MCP server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// What becomes of a setting that breaks a rule.
    pub on_violation: OnViolation,
    /// The instructions, when they are the operator's: then no `prompt` template, no item of the role
    /// `system` and no instructions of a single response pass either. `None` leaves them to the client.
    pub instructions: Option<String>,
    /// The prompt template, when it is the operator's; as strict as `instructions`.
    pub prompt: Option<Json>,
    /// Voices.
    pub voice: Choice,
    /// Tools of the model.
    pub tools: Tools,
    /// Models, in the names that clients use.
    pub model: Choice,
    /// Models that transcribe the client's speech, in the names that clients use.
    pub transcription_model: Choice,
    /// Most tokens of one response.
    pub max_output_tokens: TokensMax,
    /// Traces that the upstream keeps.
    pub tracing: Tracing,
    /// MCP servers that tools may name.
    pub mcp_servers: McpServers,
    /// Events that the client may send.
    pub events: Events,
    /// Whether a response may have an input of its own or stand outside the conversation.
    pub out_of_band: bool,
    /// What the client is not shown of the session.
    pub hide: Hide,
    /// More settings for the start of the session, a session object in GA shape; the client may change
    /// them. They come from a token.
    pub initial: Option<Json>,
}

impl Rules {
    /// Whether what the model is told is the operator's.
    #[must_use]
    pub const fn pins_prompt(&self) -> bool {
        self.instructions.is_some() || self.prompt.is_some()
    }
}

/// The text of a JSON value, strict: no key twice in one object, no number out of range, not too deep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(String);

impl Json {
    /// The text, if it is one.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        json::parse(text.as_bytes()).is_ok().then_some(Self(text))
    }

    /// The text of an array of objects, such as tools are.
    #[must_use]
    pub fn objects(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let is_list = match json::parse(text.as_bytes()).ok()?.kind {
            json::Kind::Array(items) => items.iter().all(|item| item.as_object().is_some()),
            _ => false,
        };
        is_list.then_some(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What becomes of a setting that breaks a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnViolation {
    /// It is set right, and the rest of the event goes on. The client is not told.
    #[default]
    Rewrite,
    /// The event is answered with an `error` event and goes no further.
    Refuse,
}

/// A setting that is a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The client's to choose.
    #[default]
    Free,
    /// Always this.
    Fixed(String),
    /// One of these; the first where the client chooses none of them. An empty list allows nothing.
    OneOf(Vec<String>),
}

impl Choice {
    /// Whether a client may choose this.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        match self {
            Self::Free => true,
            Self::Fixed(only) => only == name,
            Self::OneOf(names) => names.iter().any(|one| one == name),
        }
    }

    /// What holds where the client chooses nothing that is allowed.
    #[must_use]
    pub fn first(&self) -> Option<&str> {
        match self {
            Self::Free => None,
            Self::Fixed(only) => Some(only),
            Self::OneOf(names) => names.first().map(String::as_str),
        }
    }
}

/// Tools of the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tools {
    /// The client's to choose.
    #[default]
    Free,
    /// Always these, an array.
    Fixed(Json),
    /// Functions with these names; what they are said to do is the client's.
    Named(Vec<String>),
}

/// Most tokens of one response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokensMax {
    /// The client's to choose.
    #[default]
    Free,
    /// Always this many.
    Fixed(u64),
    /// At most this many.
    AtMost(u64),
}

/// Traces that the upstream keeps of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Tracing {
    /// The client's to choose.
    #[default]
    Free,
    /// None: `tracing` is taken out.
    Off,
    /// Always this.
    Fixed(Json),
}

/// MCP servers that tools may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum McpServers {
    /// Any.
    Any,
    /// These: a `server_url`, a `connector_id` or a `tunnel_id`, exactly as the client writes it. The
    /// default is none.
    Only(Vec<String>),
}

impl McpServers {
    /// Whether a tool may name this server.
    #[must_use]
    pub fn allows(&self, server: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(servers) => servers.iter().any(|one| one == server),
        }
    }
}

impl Default for McpServers {
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

/// Events that a client may send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Events {
    /// [`DEFAULT_EVENTS`].
    #[default]
    Default,
    /// Any.
    Any,
    /// Those with exactly these types.
    Only(Vec<String>),
}

impl Events {
    /// Whether a client may send events of this type.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        match self {
            Self::Default => DEFAULT_EVENTS.contains(&name),
            Self::Any => true,
            Self::Only(names) => names.iter().any(|one| one == name),
        }
    }
}

/// The events that a voice client needs, with GA and with preview upstreams.
pub const DEFAULT_EVENTS: &[&str] = &[
    "session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "conversation.item.create",
    "conversation.item.retrieve",
    "conversation.item.truncate",
    "conversation.item.delete",
    "response.create",
    "response.cancel",
    "output_audio_buffer.clear",
    "transcription_session.update",
];

/// What the client is not shown of the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hide {
    /// Instructions, prompt templates and the prompt of the transcription.
    pub instructions: bool,
    /// Tools.
    pub tools: bool,
}

/// What a route does for its clients, whatever their policy; see `docs/reference/policy.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Helpers {
    /// Model that a client asks for to transcribe its speech → name of the upstream's deployment.
    pub transcription_deployments: BTreeMap<String, String>,
    /// Takes `tracing` out of session settings.
    pub drop_tracing: bool,
    /// Model that a client names in its session settings → name of the upstream's deployment.
    pub model_deployments: BTreeMap<String, String>,
}

impl Helpers {
    /// Whether they do nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.transcription_deployments.is_empty()
            && !self.drop_tracing
            && self.model_deployments.is_empty()
    }
}

/// Why the settings of a token cannot be laid over a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayError {
    /// Stable code, one of those in `docs/reference/policy.md`.
    pub code: &'static str,
    /// The parameter at fault, such as `session.tools`.
    pub param: Option<String>,
    /// A sentence that is safe to show.
    pub message: String,
}

impl From<Refusal> for OverlayError {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: refusal.code,
            param: refusal.param,
            message: refusal.message,
        }
    }
}

impl fmt::Display for OverlayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for OverlayError {}
