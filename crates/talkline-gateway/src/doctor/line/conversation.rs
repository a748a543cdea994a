//! The few events of a session that the doctor holds: created, updated, closed.

use std::time::Duration;

use serde_json::{Value, json};
use talkline_dialect::ClientDialect;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Line, clean, unix_now};
use crate::doctor::{
    Check,
    board::Probe,
    report::{Finding, Severity},
    session::{Heard, Session},
};

/// From the 101 to `session.created`, and from `session.update` to its answer.
const EVENT_MAX: Duration = Duration::from_secs(5);

impl Line<'_> {
    pub(super) async fn converse(&self, mut session: Session) {
        let created = self
            .board
            .check(
                Check::Session,
                Some(self.provider),
                self.created(&mut session),
            )
            .await;
        if created.is_none() {
            return;
        }
        self.board
            .check(
                Check::Update,
                Some(self.provider),
                self.update(&mut session),
            )
            .await;
        self.board
            .check(Check::Close, Some(self.provider), async {
                match session.close().await {
                    Some(Heard::Closed(code, _)) => Probe::passed(()).with("closeCode", code),
                    Some(_) => Probe::passed(()).with(
                        "note",
                        "the upstream dropped the connection without a close frame",
                    ),
                    None => Probe::passed(()).with(
                        "note",
                        "the upstream did not answer the close frame within a second",
                    ),
                }
            })
            .await;
    }

    async fn created(&self, session: &mut Session) -> Probe<()> {
        let event = match timeout(EVENT_MAX, session.next()).await {
            Ok(Heard::Event(event)) => event,
            Ok(heard) => return self.no_event(Check::Session, "session.created", &heard),
            Err(_) => return self.silence(Check::Session, "session.created"),
        };
        if event["type"] != "session.created" {
            return self.wrong_event(Check::Session, "session.created", &event);
        }
        let session = &event["session"];
        let probe = Probe::passed(())
            .with("sessionId", self.said(&session["id"]))
            .with("model", self.said(&session["model"]));
        match session["expires_at"].as_u64() {
            Some(expires) => {
                let left = expires.saturating_sub(unix_now());
                probe
                    .with("expiresAtUnix", expires)
                    .with("expiresInSeconds", left)
            }
            None => probe,
        }
    }

    async fn update(&self, session: &mut Session) -> Probe<()> {
        if self.upstream.dialect() != Some(ClientDialect::Ga) {
            return Probe::skipped((), "asked of upstreams with the GA dialect only");
        }
        let update = json!({"type": "session.update", "session": {"type": "realtime"}});
        // An upstream that hung up may have said why: what it sent is read in any case.
        let _ = session.say(&update).await;
        let deadline = Instant::now() + EVENT_MAX;
        // Others may come first, such as rate limits.
        for _ in 0..16 {
            match timeout_at(deadline, session.next()).await {
                Ok(Heard::Event(event)) if event["type"] == "session.updated" => {
                    return Probe::passed(());
                }
                Ok(Heard::Event(event)) if event["type"] == "error" => {
                    return self.wrong_event(Check::Update, "session.updated", &event);
                }
                Ok(Heard::Event(_)) => {}
                Ok(heard) => return self.no_event(Check::Update, "session.updated", &heard),
                Err(_) => return self.silence(Check::Update, "session.updated"),
            }
        }
        self.silence(Check::Update, "session.updated")
    }

    fn no_event<T>(&self, check: Check, wanted: &str, heard: &Heard) -> Probe<T> {
        let what = match heard {
            Heard::Closed(code, reason) => {
                let code = code.map_or_else(|| "no code".to_owned(), |code| code.to_string());
                format!(
                    "the upstream closed the session before {wanted} ({code} {})",
                    clean(&self.scrub(reason))
                )
            }
            Heard::Malformed(rule) => {
                format!("the upstream broke the WebSocket protocol before {wanted}: {rule}")
            }
            Heard::NotAnEvent => {
                format!("the upstream sent something that is no JSON in place of {wanted}")
            }
            Heard::Dropped | Heard::Event(_) => {
                format!(
                    "the upstream dropped the connection before {wanted}, without a close frame"
                )
            }
        };
        Probe::failed(
            Finding::new(check, Severity::Error, "session_ended", what)
                .path(self.key("azureDeployment"))
                .fix("try again; if it stays so, look for a proxy that cuts WebSockets, and at the service's health in the region"),
        )
    }

    fn silence<T>(&self, check: Check, wanted: &str) -> Probe<T> {
        let message = format!(
            "{wanted} did not come within {} seconds",
            EVENT_MAX.as_secs()
        );
        Probe::failed(
            Finding::new(check, Severity::Error, "session_silent", message)
                .fix("try again; if it stays so, look for a proxy that buffers WebSockets, and at the service's health in the region"),
        )
    }

    fn wrong_event<T>(&self, check: Check, wanted: &str, event: &Value) -> Probe<T> {
        let kind = self.said(&event["type"]);
        let error = &event["error"];
        let message = match event["error"]["message"].as_str() {
            Some(text) => format!(
                "the upstream sent an error in place of {wanted}: {}",
                clean(&self.scrub(text))
            ),
            None => format!(
                "the upstream sent `{}` in place of {wanted}",
                kind.as_deref().unwrap_or("an event without a type")
            ),
        };
        Probe::failed(
            Finding::new(check, Severity::Error, "session_error", message)
                .path(self.key("azureDeployment"))
                .fix("read the upstream's message; an unknown parameter means that it speaks the other dialect: set or remove azureApiVersion"),
        )
        .with("upstreamCode", self.said(&error["code"]))
        .with("eventType", kind)
    }

    /// A short text of an event, as it may be shown.
    fn said(&self, value: &Value) -> Option<String> {
        value.as_str().map(|text| clean(&self.scrub(text)))
    }
}
