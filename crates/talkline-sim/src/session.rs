//! What a session answers to each client event: a state machine without socket or clock.
//!
//! Feed it events and the time, take outputs until there are none, come back at [`Session::poll_timeout`]. Event
//! names, fields and order follow OpenAI's Realtime reference; the preview names are those of Microsoft's "Migrate
//! from preview to GA" page.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::clips;
use crate::ids;
use crate::server::Rules;
use crate::simulator::{Pace, Reply as ReplyChoice};

pub(crate) mod audio;
mod conversation;
mod hearing;
mod reply;
mod shape;
mod usage;
mod vad;

use conversation::{Conversation, Item};
use reply::{Reply, Script, Timing};
use shape::{Fault, Settings};
use usage::Tokens;
use vad::{Edge, SAMPLES_PER_MS, Vad, VadSettings};

/// The client events that Azure lists in its refusal of an unknown one.
const CLIENT_EVENTS: [&str; 13] = [
    "session.update",
    "session.close",
    "transcription_session.update",
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
];
/// `output_audio_buffer.clear` is for WebRTC and SIP: known on the wire, but not on Azure's list for WebSocket.
const LISTED_EVENTS: usize = CLIENT_EVENTS.len() - 1;
/// Audio of one append: 15 MiB (OpenAI's Realtime reference).
const APPEND_BYTES_MAX: usize = 15 << 20;
/// Audio in the input buffer: ten minutes at 24 kHz.
const BUFFER_SAMPLES_MAX: usize = 24_000 * 600;
/// Shortest audio that can be committed: 100 ms.
const COMMIT_SAMPLES_MIN: usize = 2_400;

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

/// What the session's owner is to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// A text message.
    Event(String),
    /// A close frame, after which the session is over.
    Close { code: u16, reason: &'static str },
}

/// Why a response ends before all of it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancel {
    ClientCancelled,
    TurnDetected,
}

/// One session from `session.created` to close.
#[derive(Debug)]
pub(crate) struct Session {
    dialect: Dialect,
    purpose: Purpose,
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
    pub(crate) fn new(
        dialect: Dialect,
        purpose: Purpose,
        model: &str,
        rules: Arc<Rules>,
        now: Instant,
        now_unix: u64,
    ) -> Self {
        let expires_at = now_unix + rules.session_life.as_secs();
        let object = shape::initial(dialect, purpose, &ids::id("sess"), model, expires_at);
        let expires = now + rules.session_life;
        let mut session = Self {
            dialect,
            purpose,
            rules,
            object,
            conversation: Conversation::default(),
            conversation_id: ids::id("conv"),
            buffer: Vec::new(),
            buffer_start: 0,
            vad: None,
            utterance_id: None,
            last_heard: None,
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

// === client events ===

impl Session {
    fn handle_event(&mut self, event: &Value, now: Instant) -> Result<(), Fault> {
        if !event.is_object() {
            return Err(Fault::wrong_type("event", "an object", event));
        }
        let kind = event.get("type").ok_or_else(|| Fault::missing("type"))?;
        let kind = kind
            .as_str()
            .ok_or_else(|| Fault::wrong_type("type", "a string", kind))?;
        match kind {
            "session.update" => self.update(event),
            "transcription_session.update" if self.purpose == Purpose::Transcription => {
                self.update(event)
            }
            "transcription_session.update" => Err(Fault::new(
                "invalid_parameter",
                "Passing a transcription session update event to a realtime session is not allowed.",
            )),
            "session.close" => {
                self.close(1000, "");
                Ok(())
            }
            "input_audio_buffer.append" => self.append(event, now),
            "input_audio_buffer.commit" => self.commit_by_client(),
            "input_audio_buffer.clear" => {
                self.clear_buffer();
                self.emit("input_audio_buffer.cleared", json!({}));
                Ok(())
            }
            "conversation.item.create" => self.create_item(event),
            "conversation.item.retrieve" => self.retrieve_item(event),
            "conversation.item.truncate" => self.truncate_item(event),
            "conversation.item.delete" => self.delete_item(event),
            "response.create" => self.create_response(event, now),
            "response.cancel" => self.cancel_response(event),
            _ => Err(Fault::invalid(
                "type",
                kind,
                &CLIENT_EVENTS[..LISTED_EVENTS],
            )),
        }
    }

    fn update(&mut self, event: &Value) -> Result<(), Fault> {
        let patch = event
            .get("session")
            .ok_or_else(|| Fault::missing("session"))?;
        shape::update(&mut self.object, self.dialect, self.purpose, patch)?;
        self.retune_vad();
        self.emit("session.updated", json!({"session": self.object}));
        Ok(())
    }

    fn append(&mut self, event: &Value, now: Instant) -> Result<(), Fault> {
        let audio = event.get("audio").ok_or_else(|| Fault::missing("audio"))?;
        let audio = audio
            .as_str()
            .ok_or_else(|| Fault::wrong_type("audio", "a string", audio))?;
        let bytes = STANDARD
            .decode(audio)
            .map_err(|_| bad_audio("an invalid value"))?;
        if bytes.is_empty() {
            return Err(bad_audio("empty bytes"));
        }
        if bytes.len() > APPEND_BYTES_MAX {
            return Err(bad_audio("more than 15 MiB"));
        }
        let format = self.settings().input_format();
        let samples = format
            .decode(&bytes)
            .ok_or_else(|| bad_audio("an odd number of bytes"))?;
        if self.buffer.len() + samples.len() > BUFFER_SAMPLES_MAX {
            let message = "The input audio buffer is full. Commit or clear it first.";
            return Err(Fault::new("input_audio_buffer_full", message).at("audio"));
        }
        self.buffer.extend_from_slice(&samples);
        let edges = self
            .vad
            .as_mut()
            .map(|vad| vad.hear(&samples))
            .unwrap_or_default();
        for edge in edges {
            match edge {
                Edge::Started(at) => self.speech_started(at),
                Edge::Stopped(at) => self.speech_stopped(at, now),
            }
        }
        self.forget_silence();
        Ok(())
    }

    fn commit_by_client(&mut self) -> Result<(), Fault> {
        if self.buffer.len() < COMMIT_SAMPLES_MIN {
            let held_ms = self.buffer.len() as f64 / SAMPLES_PER_MS as f64;
            return Err(Fault::new(
                "input_audio_buffer_commit_empty",
                format!(
                    "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, but \
                     buffer only has {held_ms:.2}ms of audio."
                ),
            ));
        }
        let samples = std::mem::take(&mut self.buffer);
        self.buffer_start += samples.len() as u64;
        if let Some(vad) = &mut self.vad {
            vad.reset();
        }
        self.commit(samples);
        Ok(())
    }

    fn clear_buffer(&mut self) {
        self.buffer_start += self.buffer.len() as u64;
        self.buffer.clear();
        self.utterance_id = None;
        if let Some(vad) = &mut self.vad {
            vad.reset();
        }
    }

    fn create_item(&mut self, event: &Value) -> Result<(), Fault> {
        let given = event.get("item").ok_or_else(|| Fault::missing("item"))?;
        let format = self.settings().input_format();
        let item = Item::from_client(given, self.dialect, format)?;
        let after = event.get("previous_item_id").and_then(Value::as_str);
        let (item, previous) = self.conversation.insert(item, after)?;
        self.announce_item(&item, previous.as_deref());
        Ok(())
    }

    fn retrieve_item(&mut self, event: &Value) -> Result<(), Fault> {
        let id = item_id(event)?;
        let item = self.conversation.find(id).ok_or_else(|| {
            let message = format!("Error retrieving item: the item with id '{id}' does not exist.");
            Fault::new("item_retrieve_invalid_item_id", message).at("item_id")
        })?;
        let fields = json!({"item": item.value});
        self.emit("conversation.item.retrieved", fields);
        Ok(())
    }

    fn truncate_item(&mut self, event: &Value) -> Result<(), Fault> {
        let id = item_id(event)?;
        let index = event
            .get("content_index")
            .ok_or_else(|| Fault::missing("content_index"))?;
        let end = event
            .get("audio_end_ms")
            .ok_or_else(|| Fault::missing("audio_end_ms"))?;
        let end_ms = end
            .as_u64()
            .ok_or_else(|| Fault::wrong_type("audio_end_ms", "an integer", end))?;
        self.conversation.truncate(id, end_ms)?;
        let fields = json!({"item_id": id, "content_index": index, "audio_end_ms": end_ms});
        self.emit("conversation.item.truncated", fields);
        Ok(())
    }

    fn delete_item(&mut self, event: &Value) -> Result<(), Fault> {
        let id = item_id(event)?;
        self.conversation.remove(id)?;
        self.emit("conversation.item.deleted", json!({"item_id": id}));
        Ok(())
    }

    fn create_response(&mut self, event: &Value, now: Instant) -> Result<(), Fault> {
        let options = event.get("response").unwrap_or(&Value::Null);
        if self.purpose == Purpose::Transcription {
            let message = "Responses are not supported in transcription sessions.";
            return Err(Fault::new("invalid_parameter", message));
        }
        shape::check(self.dialect, self.purpose, "response", options)?;
        self.start_response(options, now)
    }

    fn cancel_response(&mut self, event: &Value) -> Result<(), Fault> {
        let named = event.get("response_id").and_then(Value::as_str);
        let active = self
            .reply
            .as_ref()
            .filter(|reply| named.is_none_or(|id| id == reply.id));
        if active.is_none() {
            let message = "Cancellation failed: no active response found";
            return Err(Fault::new("response_cancel_not_active", message));
        }
        self.end_response(Some(Cancel::ClientCancelled));
        Ok(())
    }
}

// === hearing ===

impl Session {
    /// Follows a change of `turn_detection`.
    fn retune_vad(&mut self) {
        let settings = VadSettings::read(self.settings().turn_detection());
        if self.vad.as_ref().map(Vad::settings) == settings.as_ref() {
            return;
        }
        let position = self.buffer_start + self.buffer.len() as u64;
        self.vad = settings.map(|settings| Vad::new(settings, position));
        self.utterance_id = None;
    }

    fn speech_started(&mut self, at: u64) {
        let at = at.max(self.buffer_start);
        self.drop_before(at);
        let id = ids::id("item");
        self.emit(
            "input_audio_buffer.speech_started",
            json!({"audio_start_ms": at / SAMPLES_PER_MS, "item_id": id}),
        );
        self.utterance_id = Some(id);
        if self.reply.is_some() && self.detection_flag("interrupt_response") {
            self.end_response(Some(Cancel::TurnDetected));
        }
    }

    fn speech_stopped(&mut self, at: u64, now: Instant) {
        let id = self
            .utterance_id
            .get_or_insert_with(|| ids::id("item"))
            .clone();
        self.emit(
            "input_audio_buffer.speech_stopped",
            json!({"audio_end_ms": at / SAMPLES_PER_MS, "item_id": id}),
        );
        let after = self.buffer.split_off(self.index_of(at));
        let utterance = std::mem::replace(&mut self.buffer, after);
        self.buffer_start += utterance.len() as u64;
        self.commit(utterance);
        if self.purpose == Purpose::Realtime
            && self.detection_flag("create_response")
            && let Err(fault) = self.start_response(&Value::Null, now)
        {
            self.refuse(&Value::Null, fault);
        }
    }

    /// Whether a switch of `turn_detection` is on, which it is unless said otherwise.
    fn detection_flag(&self, name: &str) -> bool {
        let flag = self.settings().turn_detection().get(name);
        flag.and_then(Value::as_bool).unwrap_or(true)
    }

    /// Drops audio that can no longer become part of an utterance.
    fn forget_silence(&mut self) {
        let Some(vad) = self.vad.as_ref().filter(|vad| !vad.is_speaking()) else {
            return;
        };
        // The detector lags by less than the frame that is not full yet, which the lookback's rounding covers.
        let keep = vad.settings().lookback() as usize + COMMIT_SAMPLES_MIN;
        let end = self.buffer_start + self.buffer.len() as u64;
        if self.buffer.len() > 2 * keep {
            self.drop_before(end - keep as u64);
        }
    }

    fn drop_before(&mut self, at: u64) {
        let index = self.index_of(at);
        self.buffer.drain(..index);
        self.buffer_start += index as u64;
    }

    /// Where a position of the session stands in the buffer.
    fn index_of(&self, at: u64) -> usize {
        let index = usize::try_from(at.saturating_sub(self.buffer_start)).unwrap_or(usize::MAX);
        index.min(self.buffer.len())
    }

    /// Turns audio into an item of the conversation, and transcribes it if asked to.
    fn commit(&mut self, samples: Vec<i16>) {
        let id = self.utterance_id.take().unwrap_or_else(|| ids::id("item"));
        let previous = self.conversation.last_id();
        self.emit(
            "input_audio_buffer.committed",
            json!({"previous_item_id": previous, "item_id": id}),
        );
        let heard_ms = samples.len() as u64 / SAMPLES_PER_MS;
        let item = Item::heard(&id, heard_ms);
        self.conversation.push(item.clone());
        self.announce_item(&item, previous.as_deref());
        let transcript = hearing::transcript(&samples);
        self.transcribe(&id, &transcript, heard_ms);
        self.last_heard = Some(Script {
            text: transcript,
            samples: Some(samples),
        });
    }

    /// A transcription model that does not exist is only noticed here, as on Azure.
    fn transcribe(&mut self, item_id: &str, transcript: &str, heard_ms: u64) {
        let Some(model) = self.settings().transcription_model().map(str::to_owned) else {
            return;
        };
        const PREFIX: &str = "conversation.item.input_audio_transcription";
        let at = json!({"item_id": item_id, "content_index": 0});
        if !self.rules.transcription_models.contains(&model) {
            let error = json!({
                "type": "invalid_request_error",
                "code": "DeploymentNotFound",
                "message": "The API deployment for this resource does not exist. If you created the deployment \
                            within the last 5 minutes, please wait a moment and try again.",
                "param": null,
            });
            return self.emit(
                &format!("{PREFIX}.failed"),
                with(&at, json!({"error": error})),
            );
        }
        let words: Vec<&str> = transcript.split_inclusive(' ').collect();
        for words in words.chunks(3) {
            self.emit(
                &format!("{PREFIX}.delta"),
                with(&at, json!({"delta": words.concat()})),
            );
        }
        self.conversation.transcribe(item_id, transcript);
        let usage = usage::transcription(&model, heard_ms, transcript);
        let done = with(&at, json!({"transcript": transcript, "usage": usage}));
        self.emit(&format!("{PREFIX}.completed"), done);
    }
}

// === speaking ===

impl Session {
    fn start_response(&mut self, options: &Value, now: Instant) -> Result<(), Fault> {
        if let Some(active) = &self.reply {
            let message = format!(
                "Conversation already has an active response in progress: {}. Wait until the response is finished \
                 before creating a new one.",
                active.id
            );
            return Err(Fault::new(
                "conversation_already_has_active_response",
                message,
            ));
        }
        let named = match self.dialect {
            Dialect::Ga => options.get("output_modalities"),
            Dialect::Preview => options.get("modalities"),
        };
        let modalities = named.unwrap_or(self.settings().modalities()).clone();
        let speaks = modalities
            .as_array()
            .is_some_and(|all| all.iter().any(|each| each == "audio"));
        let mut script = self.script();
        script.samples = script.samples.filter(|_| speaks);
        let timing = match self.rules.pace {
            Pace::RealTime => Timing {
                first: now + Duration::from_millis(300),
                every: Duration::from_millis(200),
            },
            Pace::Fast { delta_every } => Timing {
                first: now,
                every: delta_every,
            },
        };
        let mut reply = Reply::new(&script, self.settings().output_format(), timing);
        reply.in_conversation = options.get("conversation").and_then(Value::as_str) != Some("none");
        reply.metadata = options.get("metadata").cloned().unwrap_or_default();
        reply.modalities = modalities;
        let instructions = options.get("instructions").and_then(Value::as_str);
        let instructions = Tokens::of_text(instructions.unwrap_or(self.settings().instructions()));
        reply.input_tokens = instructions + self.conversation.tokens();
        reply.cached_tokens = Tokens {
            text: self.read_before.text.min(reply.input_tokens.text),
            audio: self.read_before.audio.min(reply.input_tokens.audio),
        };
        self.read_before = reply.input_tokens;
        self.open_response(&reply);
        self.reply = Some(reply);
        self.advance_reply(now);
        Ok(())
    }

    /// What is said next.
    fn script(&mut self) -> Script {
        let parrot = self.rules.reply == ReplyChoice::Parrot;
        if let Some(heard) = self.last_heard.clone().filter(|_| parrot) {
            return heard;
        }
        let clip = clips::REPLIES[self.replies_given % clips::REPLIES.len()];
        self.replies_given += 1;
        Script {
            text: clip.text.to_owned(),
            samples: clip.wav().ok().map(|wav| wav.samples().to_vec()),
        }
    }

    fn open_response(&mut self, reply: &Reply) {
        let response = self.response_object(reply, "in_progress", &Value::Null);
        self.emit("response.created", json!({"response": response}));
        let item = self.reply_item(reply, "in_progress", json!([]));
        let at_output = json!({"response_id": reply.id, "output_index": 0});
        self.emit(
            "response.output_item.added",
            with(&at_output, json!({"item": item})),
        );
        if reply.in_conversation {
            let previous = self.conversation.last_id();
            let fields = json!({"previous_item_id": previous, "item": item});
            self.emit(self.item_added(), fields);
        }
        let part = reply.part();
        self.emit(
            "response.content_part.added",
            with(&place(reply), json!({"part": part})),
        );
    }

    /// Gives the deltas that are due, and the end when they have all been given.
    fn advance_reply(&mut self, now: Instant) {
        while let Some(mut reply) = self.reply.take() {
            if reply.is_over() {
                self.reply = Some(reply);
                return self.end_response(None);
            }
            let (at, speaks) = (place(&reply), reply.speaks());
            let step = reply.step(now).cloned();
            self.reply = Some(reply);
            let Some(step) = step else {
                return;
            };
            let words = if speaks {
                "response.output_audio_transcript.delta"
            } else {
                "response.output_text.delta"
            };
            if !step.text.is_empty() {
                self.emit(words, with(&at, json!({"delta": step.text})));
            }
            if speaks {
                let delta = STANDARD.encode(&step.audio);
                self.emit(
                    "response.output_audio.delta",
                    with(&at, json!({"delta": delta})),
                );
            }
        }
    }

    /// Ends the active response, complete or cancelled, with what has been given.
    fn end_response(&mut self, cancel: Option<Cancel>) {
        let Some(reply) = self.reply.take() else {
            return;
        };
        let at = place(&reply);
        if reply.speaks() {
            self.emit("response.output_audio.done", at.clone());
            let transcript = json!({"transcript": reply.text()});
            self.emit(
                "response.output_audio_transcript.done",
                with(&at, transcript),
            );
        } else {
            self.emit(
                "response.output_text.done",
                with(&at, json!({"text": reply.text()})),
            );
        }
        let part = reply.part();
        self.emit(
            "response.content_part.done",
            with(&at, json!({"part": part})),
        );
        let (item_status, status, details) = match cancel {
            None => ("completed", "completed", Value::Null),
            Some(cancel) => ("incomplete", "cancelled", cancelled(cancel)),
        };
        let item = self.reply_item(&reply, item_status, self.content(&part));
        if reply.in_conversation {
            let output = output_tokens(&reply);
            let previous = self.conversation.last_id();
            self.conversation
                .push(Item::spoken(item.clone(), output, reply.audio_ms()));
            if self.dialect == Dialect::Ga {
                self.emit(
                    "conversation.item.done",
                    json!({"previous_item_id": previous, "item": item}),
                );
            }
        }
        let at_output = json!({"response_id": reply.id, "output_index": 0});
        self.emit(
            "response.output_item.done",
            with(&at_output, json!({"item": item})),
        );
        let mut response = self.response_object(&reply, status, &details);
        response["output"] = json!([item]);
        response["usage"] = usage::response(
            reply.input_tokens,
            reply.cached_tokens,
            output_tokens(&reply),
        );
        self.emit("response.done", json!({"response": response}));
        self.tokens_spent += (reply.input_tokens + output_tokens(&reply)).total();
        self.rate_limits();
    }

    fn rate_limits(&mut self) {
        const REQUESTS: u64 = 1_000;
        const TOKENS: u64 = 100_000;
        let requests = REQUESTS.saturating_sub(self.replies_given as u64);
        let tokens = TOKENS.saturating_sub(self.tokens_spent);
        let limits = json!([
            {"name": "requests", "limit": REQUESTS, "remaining": requests, "reset_seconds": 0.06},
            {"name": "tokens", "limit": TOKENS, "remaining": tokens, "reset_seconds": 0.6},
        ]);
        self.emit("rate_limits.updated", json!({"rate_limits": limits}));
    }

    fn response_object(&self, reply: &Reply, status: &str, details: &Value) -> Value {
        let settings = self.settings();
        let common = json!({
            "object": "realtime.response",
            "id": reply.id,
            "status": status,
            "status_details": details,
            "output": [],
            "conversation_id": reply.in_conversation.then_some(&self.conversation_id),
            "max_output_tokens": settings.max_output_tokens(),
            "usage": null,
            "metadata": reply.metadata,
        });
        let own = match self.dialect {
            Dialect::Ga => json!({
                "output_modalities": reply.modalities,
                "audio": {"output": {
                    "format": self.object.pointer("/audio/output/format"),
                    "voice": settings.voice(),
                }},
            }),
            Dialect::Preview => json!({
                "modalities": reply.modalities,
                "voice": settings.voice(),
                "output_audio_format": self.object["output_audio_format"],
                "temperature": self.object["temperature"],
            }),
        };
        with(&common, own)
    }

    fn reply_item(&self, reply: &Reply, status: &str, content: Value) -> Value {
        json!({
            "id": reply.item_id,
            "object": "realtime.item",
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        })
    }

    /// The content of an item, whose parts GA has renamed.
    fn content(&self, part: &Value) -> Value {
        let mut part = part.clone();
        if self.dialect == Dialect::Ga {
            part["type"] = json!(match part["type"].as_str() {
                Some("audio") => "output_audio",
                _ => "output_text",
            });
        }
        json!([part])
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

/// Where in a response a content event belongs.
fn place(reply: &Reply) -> Value {
    json!({
        "response_id": reply.id,
        "item_id": reply.item_id,
        "output_index": 0,
        "content_index": 0,
    })
}

fn output_tokens(reply: &Reply) -> Tokens {
    Tokens::of_text(&reply.text()) + Tokens::of_spoken_ms(reply.audio_ms())
}

fn cancelled(cancel: Cancel) -> Value {
    let reason = match cancel {
        Cancel::ClientCancelled => "client_cancelled",
        Cancel::TurnDetected => "turn_detected",
    };
    json!({"type": "cancelled", "reason": reason})
}

/// The fields of both objects.
fn with(base: &Value, more: Value) -> Value {
    let mut all = base.clone();
    if let (Some(all), Value::Object(more)) = (all.as_object_mut(), more) {
        all.extend(more);
    }
    all
}

fn item_id(event: &Value) -> Result<&str, Fault> {
    let id = event
        .get("item_id")
        .ok_or_else(|| Fault::missing("item_id"))?;
    id.as_str()
        .ok_or_else(|| Fault::wrong_type("item_id", "a string", id))
}

fn bad_audio(got: &str) -> Fault {
    let message = format!(
        "Invalid 'audio'. Expected base64-encoded audio bytes (mono PCM16 at 24kHz) but got {got}."
    );
    Fault::new("invalid_value", message).at("audio")
}

#[cfg(test)]
mod tests;
