//! The session object in both dialects: its first state, which updates it takes, and how it refuses the others.
//!
//! GA nests audio settings under `audio.input` and `audio.output`; preview is flat. Names and defaults follow
//! OpenAI's Realtime reference and Microsoft's "Migrate from preview to GA" page. Texts of refusals are Azure's where
//! they are on record.

use serde_json::{Value, json};

use super::audio::Format;
use super::{Dialect, Purpose};

/// Why a client event is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
}

impl Fault {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            param: None,
        }
    }

    pub(crate) fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub(crate) fn unknown(param: &str) -> Self {
        Self::new(
            "unknown_parameter",
            format!("Unknown parameter: '{param}'."),
        )
        .at(param)
    }

    pub(crate) fn missing(param: &str) -> Self {
        let message = format!("Missing required parameter: '{param}'.");
        Self::new("missing_required_parameter", message).at(param)
    }

    /// A value that is not in the list.
    pub(crate) fn invalid(param: &str, value: &str, supported: &[&str]) -> Self {
        let message = format!(
            "Invalid value: '{value}'. Supported values are: {}.",
            listed(supported)
        );
        Self::new("invalid_value", message).at(param)
    }

    pub(crate) fn wrong_type(param: &str, expected: &str, value: &Value) -> Self {
        let got = match value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(number) if number.is_f64() => "a decimal",
            Value::Number(_) => "an integer",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        let message =
            format!("Invalid type for '{param}': expected {expected}, but got {got} instead.");
        Self::new("invalid_type", message).at(param)
    }
}

/// `'a'`, `'a' and 'b'`, `'a', 'b', and 'c'`, as the service writes lists.
fn listed(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("'{value}'")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [one, other] => format!("{one} and {other}"),
        [rest @ .., last] => format!("{}, and {last}", rest.join(", ")),
    }
}

/// The session as `session.created` shows it.
pub(crate) fn initial(
    dialect: Dialect,
    purpose: Purpose,
    id: &str,
    model: &str,
    expires_at: u64,
) -> Value {
    let turn_detection = turn_detection(&json!({"type": "server_vad"}));
    let input = json!({
        "format": {"type": "audio/pcm", "rate": 24000},
        "transcription": null,
        "noise_reduction": null,
        "turn_detection": turn_detection,
    });
    match (dialect, purpose) {
        (Dialect::Ga, Purpose::Realtime) => json!({
            "type": "realtime",
            "object": "realtime.session",
            "id": id,
            "model": model,
            "expires_at": expires_at,
            "output_modalities": ["audio"],
            "instructions": "",
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "tracing": null,
            "truncation": "auto",
            "prompt": null,
            "include": null,
            "audio": {
                "input": input,
                "output": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "voice": "alloy",
                    "speed": 1.0,
                },
            },
        }),
        (Dialect::Ga, Purpose::Transcription) => json!({
            "type": "transcription",
            "object": "realtime.transcription_session",
            "id": id,
            "expires_at": expires_at,
            "include": null,
            "audio": {"input": input},
        }),
        (Dialect::Preview, _) => json!({
            "object": "realtime.session",
            "id": id,
            "model": model,
            "expires_at": expires_at,
            "modalities": ["audio", "text"],
            "instructions": "",
            "voice": "alloy",
            "speed": 1.0,
            "turn_detection": turn_detection,
            "input_audio_format": "pcm16",
            "output_audio_format": "pcm16",
            "input_audio_transcription": null,
            "input_audio_noise_reduction": null,
            "tools": [],
            "tool_choice": "auto",
            "temperature": 0.8,
            "max_response_output_tokens": "inf",
        }),
    }
}

/// Applies `session.update`: all of it, or nothing and the first fault.
pub(crate) fn update(
    current: &mut Value,
    dialect: Dialect,
    purpose: Purpose,
    patch: &Value,
) -> Result<(), Fault> {
    if !patch.is_object() {
        return Err(Fault::wrong_type("session", "an object", patch));
    }
    if dialect == Dialect::Ga {
        check_type(patch, purpose)?;
    }
    check(dialect, purpose, "session", patch)?;
    merge(current, patch, "session");
    Ok(())
}

/// GA: every update says which kind of session it is for.
fn check_type(patch: &Value, purpose: Purpose) -> Result<(), Fault> {
    const PARAM: &str = "session.type";
    let value = patch.get("type").ok_or_else(|| Fault::missing(PARAM))?;
    let Some(kind) = value.as_str() else {
        return Err(Fault::wrong_type(PARAM, "a string", value));
    };
    let mismatch = |update: &str, session: &str| {
        let message = format!(
            "Passing a {update} session update event to a {session} session is not allowed."
        );
        Err(Fault::new("invalid_parameter", message).at(PARAM))
    };
    match (kind, purpose) {
        ("realtime", Purpose::Realtime) | ("transcription", Purpose::Transcription) => Ok(()),
        ("transcription", Purpose::Realtime) => mismatch("transcription", "realtime"),
        ("realtime", Purpose::Transcription) => mismatch("realtime", "transcription"),
        _ => Err(Fault::invalid(PARAM, kind, &["realtime", "transcription"])),
    }
}

/// Keys that an object at this path may have; `None` if what is there is taken as it is.
fn keys(dialect: Dialect, purpose: Purpose, path: &str) -> Option<&'static [&'static str]> {
    Some(match (dialect, path) {
        (Dialect::Ga, "session") if purpose == Purpose::Transcription => {
            &["type", "audio", "include"]
        }
        (Dialect::Ga, "session") => &[
            "type",
            "model",
            "instructions",
            "output_modalities",
            "audio",
            "tools",
            "tool_choice",
            "parallel_tool_calls",
            "max_output_tokens",
            "tracing",
            "truncation",
            "include",
            "prompt",
            "reasoning",
        ],
        (Dialect::Ga, "session.audio") if purpose == Purpose::Transcription => &["input"],
        (Dialect::Ga, "session.audio") => &["input", "output"],
        (Dialect::Ga, "session.audio.input") => &[
            "format",
            "transcription",
            "noise_reduction",
            "turn_detection",
        ],
        (Dialect::Ga, "session.audio.output") => &["format", "voice", "speed"],
        (Dialect::Ga, "session.audio.input.format" | "session.audio.output.format") => {
            &["type", "rate"]
        }
        (Dialect::Preview, "session") => &[
            "model",
            "modalities",
            "instructions",
            "voice",
            "speed",
            "input_audio_format",
            "output_audio_format",
            "input_audio_transcription",
            "input_audio_noise_reduction",
            "turn_detection",
            "tools",
            "tool_choice",
            "temperature",
            "max_response_output_tokens",
            "include",
        ],
        (Dialect::Ga, "session.audio.input.transcription")
        | (Dialect::Preview, "session.input_audio_transcription") => {
            &["model", "language", "prompt", "delay"]
        }
        (Dialect::Ga, "session.audio.input.noise_reduction")
        | (Dialect::Preview, "session.input_audio_noise_reduction") => &["type"],
        (Dialect::Ga, "session.audio.input.turn_detection")
        | (Dialect::Preview, "session.turn_detection") => &[
            "type",
            "threshold",
            "prefix_padding_ms",
            "silence_duration_ms",
            "idle_timeout_ms",
            "create_response",
            "interrupt_response",
            "eagerness",
        ],
        (Dialect::Ga, "response") => &[
            "instructions",
            "output_modalities",
            "audio",
            "tools",
            "tool_choice",
            "parallel_tool_calls",
            "max_output_tokens",
            "conversation",
            "metadata",
            "input",
            "prompt",
            "reasoning",
        ],
        (Dialect::Ga, "response.audio") => &["output"],
        (Dialect::Ga, "response.audio.output") => &["format", "voice"],
        (Dialect::Preview, "response") => &[
            "modalities",
            "instructions",
            "voice",
            "output_audio_format",
            "tools",
            "tool_choice",
            "temperature",
            "max_output_tokens",
            "max_response_output_tokens",
            "conversation",
            "metadata",
            "input",
        ],
        _ => return None,
    })
}

/// Checks a value and what is in it, in the order sent.
pub(crate) fn check(
    dialect: Dialect,
    purpose: Purpose,
    path: &str,
    value: &Value,
) -> Result<(), Fault> {
    check_value(dialect, path, value)?;
    let (Some(known), Some(object)) = (keys(dialect, purpose, path), value.as_object()) else {
        return Ok(());
    };
    for (key, inner) in object {
        let inner_path = format!("{path}.{key}");
        if !known.contains(&key.as_str()) {
            return Err(Fault::unknown(&inner_path));
        }
        check(dialect, purpose, &inner_path, inner)?;
    }
    Ok(())
}

/// Checks what a single value may be. Null resets a setting and is always taken.
fn check_value(dialect: Dialect, path: &str, value: &Value) -> Result<(), Fault> {
    if value.is_null() {
        return Ok(());
    }
    let string = || {
        value
            .as_str()
            .ok_or_else(|| Fault::wrong_type(path, "a string", value))
    };
    let one_of = |supported: &[&str]| match string()? {
        text if supported.contains(&text) => Ok(()),
        text => Err(Fault::invalid(path, text, supported)),
    };
    match path {
        "session.instructions"
        | "session.model"
        | "session.audio.input.transcription.model"
        | "session.input_audio_transcription.model"
        | "response.instructions" => string().map(|_| ()),
        "session.tools" | "response.tools" if !value.is_array() => {
            Err(Fault::wrong_type(path, "an array", value))
        }
        "session.audio.output.speed" | "session.speed" | "session.temperature"
            if !value.is_number() =>
        {
            Err(Fault::wrong_type(path, "a decimal", value))
        }
        "session.audio"
        | "session.audio.input"
        | "session.audio.output"
        | "session.audio.input.format"
        | "session.audio.output.format"
        | "session.audio.input.transcription"
        | "session.audio.input.turn_detection"
        | "session.input_audio_transcription"
        | "session.turn_detection"
        | "response"
            if !value.is_object() =>
        {
            Err(Fault::wrong_type(path, "an object", value))
        }
        "session.output_modalities"
        | "session.modalities"
        | "response.output_modalities"
        | "response.modalities" => check_modalities(dialect, path, value),
        "session.audio.input.format.type" | "session.audio.output.format.type" => {
            one_of(&["audio/pcm", "audio/pcmu", "audio/pcma"])
        }
        "session.input_audio_format" | "session.output_audio_format" => {
            one_of(&["pcm16", "g711_ulaw", "g711_alaw"])
        }
        "session.audio.input.format.rate" | "session.audio.output.format.rate"
            if value.as_u64() != Some(24_000) =>
        {
            let message = format!("Invalid value: {value}. Supported values are: 24000.");
            Err(Fault::new("invalid_value", message).at(path))
        }
        "session.audio.input.noise_reduction.type" | "session.input_audio_noise_reduction.type" => {
            one_of(&["near_field", "far_field"])
        }
        "session.audio.input.turn_detection.type" => one_of(&["server_vad", "semantic_vad"]),
        "session.turn_detection.type" => one_of(&["server_vad", "semantic_vad", "none"]),
        _ => Ok(()),
    }
}

/// GA takes exactly one modality; preview takes text, or audio with text.
fn check_modalities(dialect: Dialect, path: &str, value: &Value) -> Result<(), Fault> {
    let Some(array) = value.as_array() else {
        return Err(Fault::wrong_type(path, "an array", value));
    };
    let mut names: Vec<&str> = array.iter().filter_map(Value::as_str).collect();
    names.sort_unstable();
    let supported = match dialect {
        Dialect::Ga => matches!(names.as_slice(), ["audio"] | ["text"]),
        Dialect::Preview => matches!(names.as_slice(), ["text"] | ["audio", "text"]),
    };
    if supported && names.len() == array.len() {
        return Ok(());
    }
    let combinations = match dialect {
        Dialect::Ga => "['text'] and ['audio']",
        Dialect::Preview => "['text'] and ['audio', 'text']",
    };
    let given: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    let message = format!(
        "Invalid modalities: [{}]. Supported combinations are: {combinations}.",
        given.join(", ")
    );
    Err(Fault::new("invalid_value", message).at(path))
}

/// Objects that group settings are merged; a setting itself is replaced.
fn merge(current: &mut Value, patch: &Value, path: &str) {
    let (Some(target), Some(source)) = (current.as_object_mut(), patch.as_object()) else {
        return;
    };
    for (key, value) in source {
        let groups = matches!(
            (path, key.as_str()),
            ("session", "audio") | ("session.audio", "input" | "output")
        );
        if groups && value.is_object() {
            let slot = target.entry(key.as_str()).or_insert_with(|| json!({}));
            merge(slot, value, &format!("{path}.{key}"));
            continue;
        }
        let value = match key.as_str() {
            "turn_detection" => turn_detection(value),
            "format" if value.get("type").and_then(Value::as_str) == Some("audio/pcm") => {
                json!({"type": "audio/pcm", "rate": 24000})
            }
            _ => value.clone(),
        };
        target.insert(key.clone(), value);
    }
}

/// Turn detection with the defaults of its type filled in.
fn turn_detection(given: &Value) -> Value {
    let mut full = match given.get("type").and_then(Value::as_str) {
        None => return Value::Null,
        Some("semantic_vad") => json!({
            "type": "semantic_vad", "eagerness": "auto", "create_response": true, "interrupt_response": true,
        }),
        Some("none") => json!({"type": "none"}),
        Some(_) => json!({
            "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500,
            "idle_timeout_ms": null, "create_response": true, "interrupt_response": true,
        }),
    };
    if let (Some(full), Some(given)) = (full.as_object_mut(), given.as_object()) {
        full.extend(
            given
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
    }
    full
}

/// Reads settings from a session object of either dialect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings<'a> {
    pub(crate) dialect: Dialect,
    pub(crate) session: &'a Value,
}

impl<'a> Settings<'a> {
    fn find(self, ga: &str, preview: &str) -> &'a Value {
        let pointer = match self.dialect {
            Dialect::Ga => ga,
            Dialect::Preview => preview,
        };
        self.session.pointer(pointer).unwrap_or(&Value::Null)
    }

    pub(crate) fn turn_detection(self) -> &'a Value {
        self.find("/audio/input/turn_detection", "/turn_detection")
    }

    /// The transcription model, if transcription is on.
    pub(crate) fn transcription_model(self) -> Option<&'a str> {
        let transcription = self.find("/audio/input/transcription", "/input_audio_transcription");
        transcription.get("model").and_then(Value::as_str)
    }

    pub(crate) fn input_format(self) -> Format {
        format(self.find("/audio/input/format/type", "/input_audio_format"))
    }

    pub(crate) fn output_format(self) -> Format {
        format(self.find("/audio/output/format/type", "/output_audio_format"))
    }

    pub(crate) fn modalities(self) -> &'a Value {
        self.find("/output_modalities", "/modalities")
    }

    pub(crate) fn voice(self) -> &'a Value {
        self.find("/audio/output/voice", "/voice")
    }

    pub(crate) fn max_output_tokens(self) -> &'a Value {
        self.find("/max_output_tokens", "/max_response_output_tokens")
    }

    pub(crate) fn instructions(self) -> &'a str {
        self.find("/instructions", "/instructions")
            .as_str()
            .unwrap_or_default()
    }
}

fn format(name: &Value) -> Format {
    name.as_str()
        .and_then(Format::by_name)
        .unwrap_or(Format::Pcm16)
}

#[cfg(test)]
mod tests;
