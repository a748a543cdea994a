//! Responses: what is said, its events as they become due, and how it ends.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::answer::Answer;
use super::conversation::Item;
use super::reply::{Reply, Script, Timing};
use super::shape::Fault;
use super::usage::Tokens;
use super::{Dialect, Ending, Output, Session, usage, with};
use crate::misbehaviour::Misbehaviour;
use crate::simulator::{Pace, Reply as ReplyChoice};

impl Session {
    pub(super) fn start_response(&mut self, options: &Value, now: Instant) -> Result<(), Fault> {
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
                every: Duration::from_millis(160),
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
        if self.misbehaviour == Some(Misbehaviour::InferenceRateLimitExceeded) {
            self.fail_response(&reply);
            return Ok(());
        }
        self.read_before = reply.input_tokens;
        self.open_response(&reply);
        self.reply = Some(reply);
        self.advance_reply(now);
        Ok(())
    }

    /// What is said next.
    pub(super) fn script(&mut self) -> Script {
        let parrot = self.rules.reply == ReplyChoice::Parrot;
        if let Some(heard) = self.last_heard.clone().filter(|_| parrot) {
            return heard;
        }
        let asked = self.asked.take().unwrap_or_default();
        let answer = match self.misbehaviour {
            Some(Misbehaviour::LongReply) => Answer::Count,
            _ => Answer::to(&asked, self.replies_given),
        };
        self.replies_given += 1;
        answer.script()
    }

    pub(super) fn open_response(&mut self, reply: &Reply) {
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
    pub(super) fn advance_reply(&mut self, now: Instant) {
        while let Some(mut reply) = self.reply.take() {
            if reply.is_over() {
                self.reply = Some(reply);
                return self.end_response(Ending::Complete);
            }
            match self.misbehaviour {
                Some(Misbehaviour::DropsMidReply) if reply.is_half_given() => {
                    return self.outputs.push_back(Output::Drop);
                }
                Some(Misbehaviour::ContentFilter) if reply.is_half_given() => {
                    self.reply = Some(reply);
                    return self.end_response(Ending::Filtered);
                }
                _ => {}
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

    /// Ends the active response with what has been given.
    pub(super) fn end_response(&mut self, ending: Ending) {
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
        let cut_short = |status, reason| {
            (
                "incomplete",
                status,
                json!({"type": status, "reason": reason}),
            )
        };
        let (item_status, status, details) = match ending {
            Ending::Complete => ("completed", "completed", Value::Null),
            Ending::ClientCancelled => cut_short("cancelled", "client_cancelled"),
            Ending::TurnDetected => cut_short("cancelled", "turn_detected"),
            Ending::Filtered => cut_short("incomplete", "content_filter"),
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

    /// A response that the service has no capacity for: created, and done without output.
    pub(super) fn fail_response(&mut self, reply: &Reply) {
        let created = self.response_object(reply, "in_progress", &Value::Null);
        self.emit("response.created", json!({"response": created}));
        let error = json!({
            "type": "rate_limit_error",
            "code": "inference_rate_limit_exceeded",
            "message": "Rate limit reached for realtime inference. Please try again later.",
        });
        let details = json!({"type": "failed", "error": error});
        let failed = self.response_object(reply, "failed", &details);
        self.emit("response.done", json!({"response": failed}));
        self.rate_limits();
    }

    pub(super) fn rate_limits(&mut self) {
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

    pub(super) fn response_object(&self, reply: &Reply, status: &str, details: &Value) -> Value {
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

    pub(super) fn reply_item(&self, reply: &Reply, status: &str, content: Value) -> Value {
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
    pub(super) fn content(&self, part: &Value) -> Value {
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
