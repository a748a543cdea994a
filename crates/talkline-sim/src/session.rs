//! What a session answers to each client event: a state machine without socket or clock.
//!
//! Feed it events and the time, take outputs until there are none, come back at [`Session::poll_timeout`]. Event
//! names, fields and order follow OpenAI's Realtime reference; the preview names are those of Microsoft's "Migrate
//! from preview to GA" page.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use crate::ids;
use crate::misbehaviour::Misbehaviour;
use crate::server::Rules;

mod answer;
pub(crate) mod audio;
mod client;
mod conversation;
mod hearing;
mod listening;
mod reply;
mod shape;
mod speaking;
mod usage;
mod vad;

use conversation::{Conversation, Item};
use reply::{Reply, Script};
use shape::{Fault, Settings};
use usage::Tokens;
use vad::{SAMPLES_PER_MS, Vad};

/// The vocabulary of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Ga,
    Preview,
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Realtime,
    Transcription,
}

/// What the handshake settled.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) dialect: Dialect,
    pub(crate) purpose: Purpose,
    /// The deployment's or model's name; empty for a transcription session without one.
    pub(crate) model: String,
    pub(crate) misbehaviour: Option<Misbehaviour>,
}

/// What the session's owner is to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// A text message.
    Event(String),
    /// A close frame, after which the session is over.
    Close { code: u16, reason: &'static str },
    /// Nothing more: the connection is to end as it is.
    Drop,
}

/// How a response ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Complete,
    ClientCancelled,
    TurnDetected,
    Filtered,
}

/// One session from `session.created` to close.
#[derive(Debug)]
pub(crate) struct Session {
    dialect: Dialect,
    purpose: Purpose,
    misbehaviour: Option<Misbehaviour>,
    rules: Arc<Rules>,
    /// The session object as the client sees it.
    object: Value,
    conversation: Conversation,
    conversation_id: String,
    /// Audio appended and not committed.
    buffer: Vec<i16>,
    /// How many samples came before the buffer's first.
    buffer_start: u64,
    vad: Option<Vad>,
    /// The id that the utterance being spoken will have as an item.
    utterance_id: Option<String>,
    /// What was last heard, for a parrot to repeat.
    last_heard: Option<Script>,
    /// What the user last said or wrote, until it is answered.
    asked: Option<String>,
    reply: Option<Reply>,
    replies_given: usize,
    tokens_spent: u64,
    /// Input that an earlier response has read.
    read_before: Tokens,
    expires: Instant,
    outputs: VecDeque<Output>,
}

// === what the owner calls ===

impl Session {
    /// Opens a session; `session.created` is its first output.
    pub(crate) fn new(terms: &Terms, rules: Arc<Rules>, now: Instant, now_unix: u64) -> Self {
        let (dialect, purpose) = (terms.dialect, terms.purpose);
        let expires_at = now_unix + rules.session_life.as_secs();
        let id = ids::id("sess");
        let object = shape::initial(dialect, purpose, &id, &terms.model, expires_at);
        let expires = match terms.misbehaviour {
            Some(Misbehaviour::SessionExpired) => now,
            _ => now + rules.session_life,
        };
        let mut session = Self {
            dialect,
            purpose,
            misbehaviour: terms.misbehaviour,
            rules,
            object,
            conversation: Conversation::default(),
            conversation_id: ids::id("conv"),
            buffer: Vec::new(),
            buffer_start: 0,
            vad: None,
            utterance_id: None,
            last_heard: None,
            asked: None,
            reply: None,
            replies_given: 0,
            tokens_spent: 0,
            read_before: Tokens::default(),
            expires,
            outputs: VecDeque::new(),
        };
        session.retune_vad();
        session.emit("session.created", json!({"session": session.object}));
        if dialect == Dialect::Preview {
            let conversation =
                json!({"id": session.conversation_id, "object": "realtime.conversation"});
            session.emit(
                "conversation.created",
                json!({"conversation": conversation}),
            );
        }
        session
    }

    /// Takes one text message from the client.
    pub(crate) fn handle_text(&mut self, text: &str, now: Instant) {
        let event: Value = match serde_json::from_str(text) {
            Ok(event) => event,
            Err(error) => {
                let message = format!("The message could not be parsed as JSON: {error}.");
                return self.refuse(&Value::Null, Fault::new("invalid_json", message));
            }
        };
        if let Err(fault) = self.handle_event(&event, now) {
            self.refuse(&event, fault);
        }
    }

    /// Does what is due. Harmless when nothing is.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.expires <= now {
            return self.expire();
        }
        self.advance_reply(now);
    }

    /// When [`Session::handle_timeout`] is to be called next.
    pub(crate) fn poll_timeout(&self) -> Instant {
        let due = self.reply.as_ref().map(Reply::next_due);
        due.map_or(self.expires, |due| due.min(self.expires))
    }

    /// The next thing to send.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

// === sending ===

impl Session {
    fn settings(&self) -> Settings<'_> {
        Settings {
            dialect: self.dialect,
            session: &self.object,
        }
    }

    /// Tells the client of a new item, in one event or in two.
    fn announce_item(&mut self, item: &Item, previous: Option<&str>) {
        let fields = json!({"previous_item_id": previous, "item": item.value});
        self.emit(self.item_added(), fields.clone());
        if self.dialect == Dialect::Ga {
            self.emit("conversation.item.done", fields);
        }
    }

    fn item_added(&self) -> &'static str {
        match self.dialect {
            Dialect::Ga => "conversation.item.added",
            Dialect::Preview => "conversation.item.created",
        }
    }

    /// Queues an event, given by its GA name, with `type` and `event_id` first, as the service writes them.
    fn emit(&mut self, kind: &str, fields: Value) {
        let kind = match self.dialect {
            Dialect::Ga => kind,
            Dialect::Preview => preview_name(kind),
        };
        let fields = fields.to_string();
        let rest = fields.strip_prefix('{').unwrap_or("}");
        let comma = if rest == "}" { "" } else { "," };
        let event_id = ids::id("event");
        let event = format!(r#"{{"type":"{kind}","event_id":"{event_id}"{comma}{rest}"#);
        self.outputs.push_back(Output::Event(event));
    }

    /// Answers a client event with an `error` that names it.
    fn refuse(&mut self, event: &Value, fault: Fault) {
        let error = json!({
            "type": "invalid_request_error",
            "code": fault.code,
            "message": fault.message,
            "param": fault.param,
            "event_id": event.get("event_id").filter(|id| id.is_string()),
        });
        self.emit("error", json!({"error": error}));
    }

    /// The end that OpenAI's service is known to give a session, and Azure documents at 60 minutes.
    fn expire(&mut self) {
        const MESSAGE: &str = "Your session hit the maximum duration of 60 minutes.";
        self.reply = None;
        self.refuse(&Value::Null, Fault::new("session_expired", MESSAGE));
        self.close(1001, MESSAGE);
    }

    fn close(&mut self, code: u16, reason: &'static str) {
        self.outputs.push_back(Output::Close { code, reason });
    }
}

/// The preview name of a GA server event.
fn preview_name(ga: &str) -> &str {
    match ga {
        "response.output_text.delta" => "response.text.delta",
        "response.output_text.done" => "response.text.done",
        "response.output_audio.delta" => "response.audio.delta",
        "response.output_audio.done" => "response.audio.done",
        "response.output_audio_transcript.delta" => "response.audio_transcript.delta",
        "response.output_audio_transcript.done" => "response.audio_transcript.done",
        other => other,
    }
}

/// The fields of both objects.
fn with(base: &Value, more: Value) -> Value {
    let mut all = base.clone();
    if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
        all.extend(more);
    }
    all
}

fn bad_audio(got: &str) -> Fault {
    let message = format!(
        "Invalid 'audio'. Expected base64-encoded audio bytes (mono PCM16 at 24kHz) but got {got}."
    );
    Fault::new("invalid_value", message).at("audio")
}

#[cfg(test)]
mod tests;
