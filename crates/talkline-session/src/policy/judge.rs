//! The rules held against one event of the client's.
//!
//! Rules go by key, not by type: whatever the event is called, a `session`, a `response` or an `item` in
//! it is checked, in both dialects' shapes, so that no event that the operator allows is a way around.

use std::collections::BTreeMap;

use super::json::{self, Kind, Object, Value};
use super::refusal::Refusal;
use super::rules::{
    Choice, Helpers, Json, McpServers, OnViolation, Rules, TokensMax, Tools, Tracing,
};

/// Keys that mean something to a rule, by the object that they stand in. A key that differs from one of
/// them in case alone is refused: some readers of JSON do not tell them apart.
const EVENT_KEYS: &[&str] = &["type", "session", "response", "item"];
const SETTINGS_KEYS: &[&str] = &[
    "instructions",
    "prompt",
    "voice",
    "tools",
    "model",
    "max_output_tokens",
    "max_response_output_tokens",
    "tracing",
    "audio",
    "input_audio_transcription",
    "conversation",
    "input",
];
const AUDIO_KEYS: &[&str] = &["input", "output"];
const OUTPUT_KEYS: &[&str] = &["voice"];
const INPUT_KEYS: &[&str] = &["transcription"];
const TRANSCRIPTION_KEYS: &[&str] = &["model"];
const ITEM_KEYS: &[&str] = &["type", "role"];
const TOOL_KEYS: &[&str] = &[
    "type",
    "name",
    SERVER_KEYS[0],
    SERVER_KEYS[1],
    SERVER_KEYS[2],
];

/// Keys by which a tool names a server (OpenAI API reference, MCP tool of a session).
const SERVER_KEYS: [&str; 3] = ["server_url", "connector_id", "tunnel_id"];

/// Items that an instruction can hide in are those of other kinds.
const ITEM_TYPES: &[&str] = &[
    "message",
    "function_call",
    "function_call_output",
    "item_reference",
    "mcp_approval_response",
];

/// Events of the live endpoint that add to the instructions while a session runs.
const INSTRUCTING_EVENTS: &[&str] = &[
    "session.instructions.append",
    "session.thinking.append",
    "session.commentary.append",
];

/// Whose settings an object holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The session's: what breaks a rule is set to the operator's value.
    Session,
    /// One response's: what breaks a rule is taken out, and the session's setting holds.
    Response,
}

impl Scope {
    const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Response => "response",
        }
    }
}

/// What holds a client's event against the rules.
pub(super) struct Judge<'p> {
    pub(super) rules: &'p Rules,
    pub(super) helpers: &'p Helpers,
}

impl Judge<'_> {
    /// Checks an event and sets right what may be set right.
    pub(super) fn event(&self, event: &mut Value<'_>) -> Result<(), Refusal> {
        let Kind::Object(object) = &mut event.kind else {
            return Err(Refusal::new(
                "policy_malformed_event",
                "an event is a JSON object",
            ));
        };
        unambiguous(object, EVENT_KEYS, "")?;
        let Some(name) = object.get("type").and_then(Value::as_str) else {
            return Err(Refusal::new("policy_malformed_event", "an event has a `type`").at("type"));
        };
        let instructing = self.rules.pins_prompt() && INSTRUCTING_EVENTS.contains(&name);
        if !self.rules.events.allows(name) || instructing {
            return Err(Refusal::event(name));
        }
        for scope in [Scope::Session, Scope::Response] {
            let Some(settings) = object.get_mut(scope.name()) else {
                continue;
            };
            match &mut settings.kind {
                Kind::Object(settings) => self.settings(settings, scope)?,
                Kind::Null => {}
                _ => return Err(Refusal::malformed(scope.name())),
            }
        }
        if let Some(item) = object.get("item") {
            self.item(item, "item")?;
        }
        self.servers(event, "")
    }

    /// Checks a session object by itself, such as that of a token.
    pub(super) fn session(&self, session: &mut Value<'_>) -> Result<(), Refusal> {
        let Kind::Object(settings) = &mut session.kind else {
            return Err(Refusal::malformed("session"));
        };
        self.settings(settings, Scope::Session)?;
        self.servers(session, "session")
    }

    /// Checks the settings of a session's transcription by themselves.
    pub(super) fn session_transcription(&self, value: &mut Value<'_>) -> Result<(), Refusal> {
        self.transcription(value, Scope::Session, "session.audio.input.transcription")
    }

    fn settings(&self, settings: &mut Object<'_>, scope: Scope) -> Result<(), Refusal> {
        let rules = self.rules;
        let here = scope.name();
        unambiguous(settings, SETTINGS_KEYS, here)?;
        self.prompt(settings, scope)?;
        self.choice(settings, "voice", &rules.voice, scope, here)?;
        self.choice(settings, "model", &rules.model, scope, here)?;
        self.translate(settings, "model", &self.helpers.model_deployments);
        for key in ["max_output_tokens", "max_response_output_tokens"] {
            if let Some(value) = settings.get_mut(key) {
                self.tokens(value, scope, &format!("{here}.{key}"))?;
            }
        }
        self.tools(settings, scope)?;
        self.tracing(settings, scope)?;
        if let Some(value) = settings.get_mut("input_audio_transcription") {
            let param = format!("{here}.input_audio_transcription");
            self.transcription(value, scope, &param)?;
        }
        if scope == Scope::Response {
            self.band(settings)?;
        }
        let Some(audio) = member_object(settings, "audio", here)? else {
            return Ok(());
        };
        let here = format!("{here}.audio");
        unambiguous(audio, AUDIO_KEYS, &here)?;
        if let Some(output) = member_object(audio, "output", &here)? {
            let here = format!("{here}.output");
            unambiguous(output, OUTPUT_KEYS, &here)?;
            self.choice(output, "voice", &rules.voice, scope, &here)?;
        }
        if let Some(input) = member_object(audio, "input", &here)? {
            let here = format!("{here}.input");
            unambiguous(input, INPUT_KEYS, &here)?;
            if let Some(value) = input.get_mut("transcription") {
                let param = format!("{here}.transcription");
                self.transcription(value, scope, &param)?;
            }
        }
        Ok(())
    }

    /// Sets a value right, or refuses it.
    fn correct(
        &self,
        value: &mut Value<'_>,
        right: Option<&str>,
        scope: Scope,
        param: &str,
    ) -> Result<(), Refusal> {
        match (self.rules.on_violation, scope, right) {
            (OnViolation::Refuse, ..) => return Err(Refusal::pinned(param)),
            (OnViolation::Rewrite, Scope::Session, Some(right)) => value.replace(right),
            (OnViolation::Rewrite, ..) => value.remove(),
        }
        Ok(())
    }

    fn prompt(&self, settings: &mut Object<'_>, scope: Scope) -> Result<(), Refusal> {
        let rules = self.rules;
        if !rules.pins_prompt() {
            return Ok(());
        }
        let here = scope.name();
        if let Some(value) = settings.get_mut("instructions")
            && (rules.instructions.is_none() || value.as_str() != rules.instructions.as_deref())
        {
            let right = rules.instructions.as_deref().map(json::string);
            self.correct(
                value,
                right.as_deref(),
                scope,
                &format!("{here}.instructions"),
            )?;
        }
        if let Some(value) = settings.get_mut("prompt")
            && !value.is_null()
            && !rules
                .prompt
                .as_ref()
                .is_some_and(|right| means(value, right))
        {
            let right = rules.prompt.as_ref().map(Json::as_str);
            self.correct(value, right, scope, &format!("{here}.prompt"))?;
        }
        Ok(())
    }

    fn choice(
        &self,
        object: &mut Object<'_>,
        key: &str,
        choice: &Choice,
        scope: Scope,
        here: &str,
    ) -> Result<(), Refusal> {
        let Some(value) = object.get_mut(key) else {
            return Ok(());
        };
        if value
            .as_str()
            .map_or(*choice == Choice::Free, |name| choice.allows(name))
        {
            return Ok(());
        }
        let right = choice.first().map(json::string);
        self.correct(value, right.as_deref(), scope, &format!("{here}.{key}"))
    }

    /// Puts the upstream's name for a model in place of the client's.
    fn translate(&self, object: &mut Object<'_>, key: &str, names: &BTreeMap<String, String>) {
        if let Some(value) = object.get_mut(key)
            && let Some(name) = value.written_str()
            && let Some(deployment) = names.get(&*name)
        {
            value.replace(json::string(deployment));
        }
    }

    fn tokens(&self, value: &mut Value<'_>, scope: Scope, param: &str) -> Result<(), Refusal> {
        let right = match (self.rules.max_output_tokens, value.as_count()) {
            (TokensMax::Free, _) => return Ok(()),
            (TokensMax::Fixed(right), Some(asked)) if asked == right => return Ok(()),
            (TokensMax::AtMost(most), Some(asked)) if asked <= most => return Ok(()),
            (TokensMax::Fixed(right) | TokensMax::AtMost(right), _) => right.to_string(),
        };
        self.correct(value, Some(&right), scope, param)
    }

    fn tools(&self, settings: &mut Object<'_>, scope: Scope) -> Result<(), Refusal> {
        let Some(value) = settings.get_mut("tools") else {
            return Ok(());
        };
        let here = scope.name();
        let param = format!("{here}.tools");
        if let Tools::Fixed(right) = &self.rules.tools {
            return match means(value, right) {
                true => Ok(()),
                false => self.correct(value, Some(right.as_str()), scope, &param),
            };
        }
        match (&self.rules.tools, &mut value.kind) {
            (_, Kind::Null) | (Tools::Free | Tools::Fixed(_), Kind::Array(_)) => Ok(()),
            (Tools::Named(names), Kind::Array(tools)) => {
                for (index, tool) in tools.iter_mut().enumerate() {
                    let object = tool.as_object();
                    let object = object.ok_or_else(|| Refusal::malformed(&param))?;
                    let name = object.get("name").and_then(Value::as_str);
                    let is_named = name.is_some_and(|name| names.iter().any(|one| one == name));
                    if is_server(object) || is_named {
                        continue;
                    }
                    match self.rules.on_violation {
                        OnViolation::Rewrite => tool.remove(),
                        OnViolation::Refuse => {
                            return Err(Refusal::pinned(&format!("{param}[{index}]")));
                        }
                    }
                }
                Ok(())
            }
            _ => Err(Refusal::malformed(&param)),
        }
    }

    fn tracing(&self, settings: &mut Object<'_>, scope: Scope) -> Result<(), Refusal> {
        let Some(value) = settings.get_mut("tracing") else {
            return Ok(());
        };
        if self.helpers.drop_tracing {
            value.remove();
            return Ok(());
        }
        let right = match &self.rules.tracing {
            Tracing::Free => return Ok(()),
            Tracing::Off if value.is_null() => return Ok(()),
            Tracing::Off => None,
            Tracing::Fixed(right) if means(value, right) => return Ok(()),
            Tracing::Fixed(right) => Some(right.as_str()),
        };
        self.correct(value, right, scope, &format!("{}.tracing", scope.name()))
    }

    fn transcription(
        &self,
        value: &mut Value<'_>,
        scope: Scope,
        here: &str,
    ) -> Result<(), Refusal> {
        let transcription = match &mut value.kind {
            Kind::Object(transcription) => transcription,
            Kind::Null => return Ok(()),
            _ => return Err(Refusal::malformed(here)),
        };
        unambiguous(transcription, TRANSCRIPTION_KEYS, here)?;
        let choice = &self.rules.transcription_model;
        self.choice(transcription, "model", choice, scope, here)?;
        self.translate(
            transcription,
            "model",
            &self.helpers.transcription_deployments,
        );
        // Without a model the upstream takes its own.
        if transcription.get("model").is_none()
            && let Some(first) = choice.first()
        {
            let names = &self.helpers.transcription_deployments;
            let name = names.get(first).map_or(first, String::as_str);
            transcription.add("model", json::string(name));
        }
        Ok(())
    }

    /// A response beside the conversation, or on other input than the conversation's.
    fn band(&self, settings: &Object<'_>) -> Result<(), Refusal> {
        let refused = |param: &str| {
            let message =
                "responses beside the conversation, or with an input of their own, are not allowed";
            Refusal::new("policy_out_of_band", message).at(param)
        };
        if let Some(conversation) = settings.get("conversation")
            && !self.rules.out_of_band
            && !conversation.is_null()
            && conversation.as_str() != Some("auto")
        {
            return Err(refused("response.conversation"));
        }
        match settings.get("input").map(|input| &input.kind) {
            None | Some(Kind::Null) => Ok(()),
            Some(_) if !self.rules.out_of_band => Err(refused("response.input")),
            Some(Kind::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.item(item, &format!("response.input[{index}]"))?;
                }
                Ok(())
            }
            Some(_) => Err(Refusal::malformed("response.input")),
        }
    }

    /// A system message is a prompt like any other.
    fn item(&self, item: &Value<'_>, here: &str) -> Result<(), Refusal> {
        let item = item.as_object().ok_or_else(|| Refusal::malformed(here))?;
        unambiguous(item, ITEM_KEYS, here)?;
        if !self.rules.pins_prompt() {
            return Ok(());
        }
        let refused = |key: &str| {
            let message = "items that instruct the model are not allowed: the instructions are the operator's";
            Refusal::new("policy_item_not_allowed", message).at(format!("{here}.{key}"))
        };
        if let Some(role) = item.get("role")
            && !matches!(role.as_str(), Some("user" | "assistant"))
        {
            return Err(refused("role"));
        }
        match item.get("type") {
            Some(kind) if !kind.as_str().is_some_and(|kind| ITEM_TYPES.contains(&kind)) => {
                Err(refused("type"))
            }
            _ => Ok(()),
        }
    }

    /// Looks through every list of tools in a value for servers that are not allowed.
    fn servers(&self, value: &Value<'_>, here: &str) -> Result<(), Refusal> {
        if value.is_patched() || self.rules.mcp_servers == McpServers::Any {
            return Ok(());
        }
        match &value.kind {
            Kind::Array(items) => {
                for item in items {
                    self.servers(item, here)?;
                }
            }
            Kind::Object(object) => {
                for member in &object.members {
                    let here = match here {
                        "" => member.key.to_string(),
                        _ => format!("{here}.{}", member.key),
                    };
                    match &member.value.kind {
                        _ if member.value.is_patched() => {}
                        Kind::Array(tools) if member.key.eq_ignore_ascii_case("tools") => {
                            self.tool_list(tools, &here)?;
                        }
                        _ => self.servers(&member.value, &here)?,
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn tool_list(&self, tools: &[Value<'_>], here: &str) -> Result<(), Refusal> {
        for (index, tool) in tools.iter().enumerate() {
            if tool.is_patched() {
                continue;
            }
            let here = format!("{here}[{index}]");
            let object = tool.as_object().ok_or_else(|| Refusal::malformed(&here))?;
            unambiguous(object, TOOL_KEYS, &here)?;
            if !is_server(object) {
                let kind = object.get("type");
                match kind.map(|kind| kind.as_str()) {
                    None | Some(Some("function")) => continue,
                    Some(_) => {
                        let message = "tools of this type are not allowed in this session";
                        let param = format!("{here}.type");
                        return Err(Refusal::new("policy_tool_not_allowed", message).at(param));
                    }
                }
            }
            let mut named = SERVER_KEYS
                .iter()
                .filter_map(|key| object.get(key))
                .peekable();
            let is_allowed = named.peek().is_some()
                && named.all(|server| {
                    let server = server.as_str();
                    server.is_some_and(|server| self.rules.mcp_servers.allows(server))
                });
            if !is_allowed {
                let message = "MCP servers may not be named by clients of this relay";
                return Err(Refusal::new("policy_mcp_server", message).at(here));
            }
        }
        Ok(())
    }
}

/// Whether a tool is one that the upstream would reach elsewhere.
fn is_server(tool: &Object<'_>) -> bool {
    tool.get("type").and_then(Value::as_str) == Some("mcp")
        || SERVER_KEYS.iter().any(|key| tool.get(key).is_some())
}

/// Whether a value means what a rule's JSON text says.
fn means(value: &Value<'_>, right: &Json) -> bool {
    json::parse(right.as_str().as_bytes()).is_ok_and(|right| value.means(&right))
}

fn member_object<'o, 'a>(
    object: &'o mut Object<'a>,
    key: &str,
    here: &str,
) -> Result<Option<&'o mut Object<'a>>, Refusal> {
    match object.get_mut(key).map(|value| &mut value.kind) {
        None | Some(Kind::Null) => Ok(None),
        Some(Kind::Object(inner)) => Ok(Some(inner)),
        Some(_) => Err(Refusal::malformed(&format!("{here}.{key}"))),
    }
}

/// Refuses keys that a careless reader takes for one that a rule knows.
fn unambiguous(object: &Object<'_>, keys: &[&str], here: &str) -> Result<(), Refusal> {
    for member in &object.members {
        let key: &str = &member.key;
        if keys
            .iter()
            .any(|known| known.eq_ignore_ascii_case(key) && *known != key)
        {
            let message = "a key differs from one of the Realtime API in case alone";
            let refusal = Refusal::new("policy_ambiguous_event", message);
            return Err(match here {
                "" => refusal,
                here => refusal.at(here),
            });
        }
    }
    Ok(())
}
