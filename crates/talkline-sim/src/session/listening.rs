//! From audio to items: turn detection, commits, transcripts.

use std::time::Instant;

use serde_json::{Value, json};

use super::conversation::Item;
use super::reply::Script;
use super::vad::{SAMPLES_PER_MS, Vad, VadSettings};
use super::{Ending, Purpose, Session, hearing, usage, with};
use crate::ids;

/// Shortest audio that can be committed: 100 ms.
pub(super) const COMMIT_SAMPLES_MIN: usize = 2_400;

impl Session {
    /// Follows a change of `turn_detection`.
    pub(super) fn retune_vad(&mut self) {
        let settings = VadSettings::read(self.settings().turn_detection());
        if self.vad.as_ref().map(Vad::settings) == settings.as_ref() {
            return;
        }
        let position = self.buffer_start + self.buffer.len() as u64;
        self.vad = settings.map(|settings| Vad::new(settings, position));
        self.utterance_id = None;
    }

    pub(super) fn speech_started(&mut self, at: u64) {
        let at = at.max(self.buffer_start);
        self.drop_before(at);
        let id = ids::id("item");
        self.emit(
            "input_audio_buffer.speech_started",
            json!({"audio_start_ms": at / SAMPLES_PER_MS, "item_id": id}),
        );
        self.utterance_id = Some(id);
        if self.reply.is_some() && self.detection_flag("interrupt_response") {
            self.end_response(Ending::TurnDetected);
        }
    }

    pub(super) fn speech_stopped(&mut self, at: u64, now: Instant) {
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
    pub(super) fn detection_flag(&self, name: &str) -> bool {
        let flag = self.settings().turn_detection().get(name);
        flag.and_then(Value::as_bool).unwrap_or(true)
    }

    /// Drops audio that can no longer become part of an utterance.
    pub(super) fn forget_silence(&mut self) {
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

    pub(super) fn drop_before(&mut self, at: u64) {
        let index = self.index_of(at);
        self.buffer.drain(..index);
        self.buffer_start += index as u64;
    }

    /// Where a position of the session stands in the buffer.
    pub(super) fn index_of(&self, at: u64) -> usize {
        let index = usize::try_from(at.saturating_sub(self.buffer_start)).unwrap_or(usize::MAX);
        index.min(self.buffer.len())
    }

    /// Turns audio into an item of the conversation, and transcribes it if asked to.
    pub(super) fn commit(&mut self, samples: Vec<i16>) {
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
        self.asked = Some(transcript.clone());
        self.last_heard = Some(Script {
            text: transcript,
            samples: Some(samples),
        });
    }

    /// A transcription model that does not exist is only noticed here, as on Azure.
    pub(super) fn transcribe(&mut self, item_id: &str, transcript: &str, heard_ms: u64) {
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
