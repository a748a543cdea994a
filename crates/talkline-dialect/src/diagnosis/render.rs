//! A diagnosis as what a client is sent: an `error` event, or a problem document.

use serde_json::{Value, json};

use super::{Blame, Diagnosis, Permanence};

impl Diagnosis {
    /// The `error` event that a client gets, in OpenAI's shape.
    ///
    /// The message holds the cause, the upstream's own words with its request id, and the next
    /// step: openai-python and openai-node show nothing else of it.
    pub fn error_event(&self) -> String {
        json!({
            "type": "error",
            "event_id": Value::Null,
            "error": {
                "type": self.error_type(),
                "code": self.code,
                "message": format!("{} Next step: {}", self.detail(), self.next_step),
                "param": self.param(),
                "event_id": Value::Null,
                "docs": self.docs(),
                "upstream": self.upstream(),
            },
        })
        .to_string()
    }

    /// The problem document (RFC 9457) that a client gets instead of a WebSocket. `status` in it is
    /// [`Permanence::http_status`].
    pub fn problem(&self) -> String {
        json!({
            "type": self.docs(),
            "title": self.summary,
            "status": self.permanence.http_status(),
            "detail": self.detail(),
            "code": self.code,
            "blame": self.blame.as_str(),
            "next_step": self.next_step,
            "upstream": self.upstream(),
        })
        .to_string()
    }

    /// Seconds for a `Retry-After` header: what the upstream asks for, or one second for what is
    /// only busy. `None` when trying again cannot help.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        let asked = self
            .retry_after
            .map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        match self.permanence {
            Permanence::Permanent => None,
            Permanence::Throttled | Permanence::Transient => Some(asked.unwrap_or(1).max(1)),
        }
    }

    /// What happened, with what the upstream said.
    fn detail(&self) -> String {
        let mut text = self.summary.clone();
        let Some(answer) = &self.answer else {
            return text;
        };
        text.push_str(&format!(" Upstream said: HTTP {}", answer.status));
        if let Some(code) = &answer.code {
            text.push_str(&format!(" {code}"));
        }
        match &answer.message {
            Some(message) => text.push_str(&format!(": {message}")),
            None => text.push('.'),
        }
        if let Some(id) = &answer.request_id {
            text.push_str(&format!(" (request id {id})"));
        }
        text
    }

    fn error_type(&self) -> &'static str {
        match (self.permanence, self.blame) {
            (Permanence::Throttled, _) => "rate_limit_error",
            (Permanence::Permanent, Blame::Client) => "invalid_request_error",
            _ => "server_error",
        }
    }

    fn param(&self) -> Option<&'static str> {
        matches!(
            self.code,
            "azure_deployment_not_found" | "upstream_model_not_found" | "unknown_model"
        )
        .then_some("model")
    }

    fn upstream(&self) -> Option<Value> {
        self.answer.as_ref().map(|answer| {
            json!({
                "status": answer.status,
                "code": answer.code,
                "message": answer.message,
                "request_id": answer.request_id,
                "region": answer.region,
            })
        })
    }
}
