//! The settings of a session's start: what the policy sends upstream of itself, and what a token adds.

use talkline_dialect::{ClientDialect, Intent};

use super::json::{self, Kind, Value};
use super::judge::Judge;
use super::refusal::Refusal;
use super::rules::{
    Choice, Events, Helpers, Json, McpServers, OverlayError, Policy, Rules, TokensMax, Tools,
    Tracing,
};

/// `event_id` of the policy's own event, by which the upstream's refusal of it is told from others.
pub(super) const OPENING_ID: &str = "talkline_policy";

/// Settings by their GA path with their name in the preview dialect, flat (Microsoft Learn, Realtime
/// preview-to-GA migration guide). Those without one exist in GA alone.
const SETTINGS: &[(&str, Option<&str>)] = &[
    ("audio.input.format", Some("input_audio_format")),
    (
        "audio.input.noise_reduction",
        Some("input_audio_noise_reduction"),
    ),
    (
        "audio.input.transcription",
        Some("input_audio_transcription"),
    ),
    ("audio.input.turn_detection", Some("turn_detection")),
    ("audio.output.format", Some("output_audio_format")),
    ("audio.output.speed", Some("speed")),
    ("audio.output.voice", Some("voice")),
    ("include", None),
    ("instructions", Some("instructions")),
    ("max_output_tokens", Some("max_response_output_tokens")),
    ("output_modalities", Some("modalities")),
    ("parallel_tool_calls", None),
    ("prompt", None),
    ("reasoning", None),
    ("tool_choice", Some("tool_choice")),
    ("tools", Some("tools")),
    ("tracing", None),
    ("truncation", None),
];

/// Audio formats in GA and in preview names.
const FORMATS: &[(&str, &str)] = &[
    (r#"{"type":"audio/pcm","rate":24000}"#, r#""pcm16""#),
    (r#"{"type":"audio/pcmu"}"#, r#""g711_ulaw""#),
    (r#"{"type":"audio/pcma"}"#, r#""g711_alaw""#),
];

/// The event that puts the rules in force, unless the upstream's defaults do not break any.
pub(super) fn opening(
    rules: &Rules,
    helpers: &Helpers,
    dialect: ClientDialect,
    intent: Intent,
) -> Option<String> {
    let mut settings = Settings::default();
    let mut pin = |path: &str, text: Option<String>| {
        if let Some(text) = text {
            settings.set(path, text);
        }
    };
    pin(
        "instructions",
        rules.instructions.as_deref().map(json::string),
    );
    pin("prompt", rules.prompt.as_ref().map(text));
    pin("audio.output.voice", rules.voice.first().map(json::string));
    pin(
        "tools",
        match &rules.tools {
            Tools::Fixed(tools) => Some(text(tools)),
            Tools::Free | Tools::Named(_) => None,
        },
    );
    pin(
        "max_output_tokens",
        match rules.max_output_tokens {
            TokensMax::Fixed(tokens) | TokensMax::AtMost(tokens) => Some(tokens.to_string()),
            TokensMax::Free => None,
        },
    );
    pin(
        "tracing",
        match &rules.tracing {
            Tracing::Fixed(tracing) if !helpers.drop_tracing => Some(text(tracing)),
            _ => None,
        },
    );
    if let Some(initial) = &rules.initial {
        settings.add_session(initial.as_str());
    }
    settings.finish_transcription(&rules.transcription_model, helpers, intent);
    settings.into_event(dialect, intent)
}

fn text(json: &Json) -> String {
    json.as_str().to_owned()
}

/// Settings by GA path, each once, and the transcription's members apart.
#[derive(Debug, Default)]
struct Settings {
    entries: Vec<(String, String)>,
}

impl Settings {
    /// Sets what is not set yet.
    fn set(&mut self, path: &str, text: String) {
        if !self.entries.iter().any(|(known, _)| known == path) {
            self.entries.push((path.to_owned(), text));
        }
    }

    fn get(&self, path: &str) -> Option<&str> {
        let mut entries = self.entries.iter();
        entries
            .find(|(known, _)| known == path)
            .map(|(_, text)| text.as_str())
    }

    /// Adds the members of a session object in either shape. `type` and `model` are the connection's, and
    /// a member that is unknown stays where it stands.
    fn add_session(&mut self, session: &str) {
        if let Ok(session) = json::parse(session.as_bytes()) {
            self.add("", &session);
        }
    }

    fn add(&mut self, here: &str, value: &Value<'_>) {
        match &value.kind {
            Kind::Object(object)
                if matches!(here, "" | "audio" | "audio.input" | "audio.output") =>
            {
                for member in &object.members {
                    match here {
                        "" => self.add(&member.key, &member.value),
                        here => self.add(&format!("{here}.{}", member.key), &member.value),
                    }
                }
            }
            _ if matches!(
                here,
                "type" | "model" | "temperature" | "client_secret" | "expires_at"
            ) => {}
            _ => {
                let flat = SETTINGS.iter().find(|(_, flat)| *flat == Some(here));
                let path = flat.map_or(here, |(path, _)| path);
                self.set(path, to_ga(path, value.text()));
            }
        }
    }

    /// Puts the model of the transcription in, where there is a transcription.
    fn finish_transcription(&mut self, choice: &Choice, helpers: &Helpers, intent: Intent) {
        const PATH: &str = "audio.input.transcription";
        let given = self.get(PATH).unwrap_or("null").to_owned();
        let Ok(mut value) = json::parse(given.as_bytes()) else {
            return;
        };
        let rules = Rules {
            transcription_model: choice.clone(),
            ..Rules::default()
        };
        let judge = Judge {
            rules: &rules,
            helpers,
        };
        let mut written = String::new();
        match &value.kind {
            Kind::Object(_) => match judge.session_transcription(&mut value) {
                Ok(()) => value.write(&mut written),
                Err(_) => return,
            },
            _ => match (intent, choice.first()) {
                (Intent::Transcription, Some(model)) => {
                    let names = &helpers.transcription_deployments;
                    let model = names.get(model).map_or(model, String::as_str);
                    written = format!("{{\"model\":{}}}", json::string(model));
                }
                _ => return,
            },
        }
        self.entries.retain(|(path, _)| path != PATH);
        self.set(PATH, written);
    }

    fn into_event(mut self, dialect: ClientDialect, intent: Intent) -> Option<String> {
        if intent == Intent::Transcription {
            self.entries
                .retain(|(path, _)| path.starts_with("audio.input.") || path == "include");
        }
        let mut tree = Tree::default();
        let mut is_empty = true;
        for (path, text) in &self.entries {
            let known = SETTINGS.iter().find(|(known, _)| known == path);
            match (dialect, known) {
                (ClientDialect::Ga, _) => tree.insert(path, text.clone()),
                (ClientDialect::Beta, Some((_, Some(flat)))) => {
                    tree.insert(flat, to_preview(path, text));
                }
                (ClientDialect::Beta, _) => continue,
            }
            is_empty = false;
        }
        if is_empty {
            return None;
        }
        let event = match (dialect, intent) {
            (ClientDialect::Beta, Intent::Transcription) => "transcription_session.update",
            _ => "session.update",
        };
        let session_type = match intent {
            Intent::Transcription => "transcription",
            Intent::Conversation => "realtime",
        };
        if dialect == ClientDialect::Ga {
            tree.insert("type", json::string(session_type));
        }
        let mut session = String::new();
        tree.write(&mut session);
        Some(format!(
            "{{\"type\":\"{event}\",\"event_id\":\"{OPENING_ID}\",\"session\":{session}}}"
        ))
    }

    /// The settings as a session object in GA shape; `None` when there are none.
    fn into_session(self) -> Option<Json> {
        if self.entries.is_empty() {
            return None;
        }
        let mut tree = Tree::default();
        for (path, text) in self.entries {
            tree.insert(&path, text);
        }
        let mut session = String::new();
        tree.write(&mut session);
        Json::new(session)
    }
}

fn same(one: &str, other: &str) -> bool {
    match (json::parse(one.as_bytes()), json::parse(other.as_bytes())) {
        (Ok(one), Ok(other)) => one.means(&other),
        _ => false,
    }
}

fn to_preview(path: &str, text: &str) -> String {
    let converted = match path {
        "audio.input.format" | "audio.output.format" => {
            let mut formats = FORMATS.iter();
            formats
                .find(|(ga, _)| same(ga, text))
                .map(|(_, preview)| *preview)
        }
        // Preview upstreams take no audio without text.
        "output_modalities" if same(text, r#"["audio"]"#) => Some(r#"["audio","text"]"#),
        _ => None,
    };
    converted.unwrap_or(text).to_owned()
}

fn to_ga(path: &str, text: &str) -> String {
    let converted = match path {
        "audio.input.format" | "audio.output.format" => {
            let mut formats = FORMATS.iter();
            formats
                .find(|(_, preview)| *preview == text)
                .map(|(ga, _)| *ga)
        }
        "output_modalities" => {
            let both = [r#"["audio","text"]"#, r#"["text","audio"]"#];
            both.iter()
                .any(|both| same(both, text))
                .then_some(r#"["audio"]"#)
        }
        _ => None,
    };
    converted.unwrap_or(text).to_owned()
}

/// An object of objects, in the order in which members came.
#[derive(Debug, Default)]
struct Tree {
    members: Vec<(String, Branch)>,
}

#[derive(Debug)]
enum Branch {
    Leaf(String),
    Tree(Tree),
}

impl Tree {
    fn insert(&mut self, path: &str, text: String) {
        let (first, rest) = match path.strip_prefix("audio.") {
            Some(rest) => ("audio", Some(rest)),
            None => match path.split_once('.') {
                Some((first @ ("input" | "output"), rest)) => (first, Some(rest)),
                _ => (path, None),
            },
        };
        let Some(rest) = rest else {
            return self.members.push((first.to_owned(), Branch::Leaf(text)));
        };
        let known = self.members.iter().position(|(key, _)| key == first);
        let index = known.unwrap_or_else(|| {
            self.members
                .push((first.to_owned(), Branch::Tree(Self::default())));
            self.members.len() - 1
        });
        if let Some((_, Branch::Tree(tree))) = self.members.get_mut(index) {
            tree.insert(rest, text);
        }
    }

    fn write(&self, out: &mut String) {
        out.push('{');
        for (index, (key, branch)) in self.members.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            out.push_str(&json::string(key));
            out.push(':');
            match branch {
                Branch::Leaf(text) => out.push_str(text),
                Branch::Tree(tree) => tree.write(out),
            }
        }
        out.push('}');
    }
}

impl Policy {
    /// This policy with the settings of a token laid over it: `session` is the JSON text of a session
    /// object, such as `client_secrets` takes.
    ///
    /// Instructions, prompt template, voice, tools, model, transcription model and tracing that it holds
    /// are fixed for the session, its most output tokens bound the client's; its other settings are where
    /// the session starts. Where the policy has a rule of its own, the session object is held against it
    /// as a client's `session.update` would be.
    ///
    /// # Errors
    ///
    /// [`OverlayError`] when the object is none, or asks for what the policy refuses.
    pub fn overlay(&self, session: &str) -> Result<Self, OverlayError> {
        let mut rules = self.rules().cloned().unwrap_or_else(|| Rules {
            events: Events::Any,
            mcp_servers: McpServers::Any,
            out_of_band: true,
            ..Rules::default()
        });
        let mut value = json::parse(session.as_bytes()).map_err(Refusal::from)?;
        let judge = Judge {
            rules: &rules,
            helpers: &Helpers::default(),
        };
        judge.session(&mut value)?;
        let mut written = String::new();
        value.write(&mut written);
        let value = json::parse(written.as_bytes()).map_err(Refusal::from)?;
        if let Some(model) = value.as_object().and_then(|session| session.get("model")) {
            rules.model = Choice::Fixed(name(model, "session.model")?);
        }
        let mut settings = Settings::default();
        settings.add("", &value);
        let mut initial = Settings::default();
        let is_prompt_ours = rules.pins_prompt();
        for (path, text) in settings.entries {
            // Whoever holds the token cannot read them out of it, and shall not out of the session.
            match path.as_str() {
                "instructions" | "prompt" => rules.hide.instructions |= !is_prompt_ours,
                "tools" => rules.hide.tools = true,
                _ => {}
            }
            if is_prompt_ours && matches!(path.as_str(), "instructions" | "prompt") {
                continue;
            }
            let value = json::parse(text.as_bytes()).map_err(Refusal::from)?;
            if !fix(&mut rules, &path, &value)? {
                initial.set(&path, text);
            }
        }
        if let Some(initial) = initial.into_session() {
            rules.initial = Some(initial);
        }
        Ok(Self::pinned(rules))
    }
}

/// Makes a rule of a token's setting; says whether nothing else is to be done with it.
fn fix(rules: &mut Rules, path: &str, value: &Value<'_>) -> Result<bool, Refusal> {
    let param = || format!("session.{path}");
    match path {
        "instructions" => rules.instructions = Some(name(value, &param())?),
        "prompt" if value.is_null() => {}
        "prompt" => rules.prompt = Json::new(value.text()),
        "audio.output.voice" => rules.voice = Choice::Fixed(name(value, &param())?),
        "tools" if value.is_null() => {}
        "tools" => {
            let tools = Json::objects(value.text());
            rules.tools = Tools::Fixed(tools.ok_or_else(|| Refusal::malformed(&param()))?);
        }
        "max_output_tokens" => {
            if let Some(most) = value.as_count() {
                rules.max_output_tokens = match rules.max_output_tokens {
                    TokensMax::Fixed(fixed) => TokensMax::Fixed(fixed),
                    TokensMax::Free | TokensMax::AtMost(_) => TokensMax::AtMost(most),
                };
            }
        }
        "tracing" if value.is_null() => rules.tracing = Tracing::Off,
        "tracing" => rules.tracing = Json::new(value.text()).map_or(Tracing::Off, Tracing::Fixed),
        "audio.input.transcription" => {
            if let Some(model) = value.as_object().and_then(|it| it.get("model")) {
                rules.transcription_model = Choice::Fixed(name(model, &param())?);
            }
            return Ok(false);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn name(value: &Value<'_>, param: &str) -> Result<String, Refusal> {
    let name = value.as_str().map(str::to_owned);
    name.ok_or_else(|| Refusal::malformed(param))
}
