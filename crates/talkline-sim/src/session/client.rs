//! What each client event does, or why it is refused.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::conversation::Item;
use super::listening::COMMIT_SAMPLES_MIN;
use super::shape::{self, Fault};
use super::vad::{Edge, SAMPLES_PER_MS};
use super::{Ending, Purpose, Session, bad_audio};

/// The client events that Azure lists in its refusal of an unknown one.
pub(super) const CLIENT_EVENTS: [&str; 13] = [
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

impl Session {
    pub(super) fn handle_event(&mut self, event: &Value, now: Instant) -> Result<(), Fault> {
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

    pub(super) fn update(&mut self, event: &Value) -> Result<(), Fault> {
        let patch = event
            .get("session")
            .ok_or_else(|| Fault::missing("session"))?;
        shape::update(&mut self.object, self.dialect, self.purpose, patch)?;
        self.retune_vad();
        self.emit("session.updated", json!({"session": self.object}));
        Ok(())
    }

    pub(super) fn append(&mut self, event: &Value, now: Instant) -> Result<(), Fault> {
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

    pub(super) fn commit_by_client(&mut self) -> Result<(), Fault> {
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

    pub(super) fn clear_buffer(&mut self) {
        self.buffer_start += self.buffer.len() as u64;
        self.buffer.clear();
        self.utterance_id = None;
        if let Some(vad) = &mut self.vad {
            vad.reset();
        }
    }

    pub(super) fn create_item(&mut self, event: &Value) -> Result<(), Fault> {
        let given = event.get("item").ok_or_else(|| Fault::missing("item"))?;
        let format = self.settings().input_format();
        let item = Item::from_client(given, self.dialect, format)?;
        let after = event.get("previous_item_id").and_then(Value::as_str);
        let (item, previous) = self.conversation.insert(item, after)?;
        if let Some(written) = item.written_by_user() {
            self.asked = Some(written);
        }
        self.announce_item(&item, previous.as_deref());
        Ok(())
    }

    pub(super) fn retrieve_item(&mut self, event: &Value) -> Result<(), Fault> {
        let id = item_id(event)?;
        let item = self.conversation.find(id).ok_or_else(|| {
            let message = format!("Error retrieving item: the item with id '{id}' does not exist.");
            Fault::new("item_retrieve_invalid_item_id", message).at("item_id")
        })?;
        let fields = json!({"item": item.value});
        self.emit("conversation.item.retrieved", fields);
        Ok(())
    }

    pub(super) fn truncate_item(&mut self, event: &Value) -> Result<(), Fault> {
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

    pub(super) fn delete_item(&mut self, event: &Value) -> Result<(), Fault> {
        let id = item_id(event)?;
        self.conversation.remove(id)?;
        self.emit("conversation.item.deleted", json!({"item_id": id}));
        Ok(())
    }

    pub(super) fn create_response(&mut self, event: &Value, now: Instant) -> Result<(), Fault> {
        let options = event.get("response").unwrap_or(&Value::Null);
        if self.purpose == Purpose::Transcription {
            let message = "Responses are not supported in transcription sessions.";
            return Err(Fault::new("invalid_parameter", message));
        }
        shape::check(self.dialect, self.purpose, "response", options)?;
        self.start_response(options, now)
    }

    pub(super) fn cancel_response(&mut self, event: &Value) -> Result<(), Fault> {
        let named = event.get("response_id").and_then(Value::as_str);
        let active = self
            .reply
            .as_ref()
            .filter(|reply| named.is_none_or(|id| id == reply.id));
        if active.is_none() {
            let message = "Cancellation failed: no active response found";
            return Err(Fault::new("response_cancel_not_active", message));
        }
        self.end_response(Ending::ClientCancelled);
        Ok(())
    }
}

fn item_id(event: &Value) -> Result<&str, Fault> {
    let id = event
        .get("item_id")
        .ok_or_else(|| Fault::missing("item_id"))?;
    id.as_str()
        .ok_or_else(|| Fault::wrong_type("item_id", "a string", id))
}
