//! The policy at work in one session.

use std::sync::Arc;

use talkline_dialect::{ClientDialect, Intent};
use talkline_frame::MessageKind;

use super::append::{Append, Deviation};
use super::json::{self, Object, Value};
use super::judge::Judge;
use super::opening::{OPENING_ID, opening};
use super::refusal::{Refusal, breach, not_applied, too_large, withheld};
use super::rules::{Events, Helpers, Hide, McpServers, Policy, Rules};
use super::upstream::{Glance, conceal, glance, shows_settings};
use crate::{Close, Side};

/// Bytes from the start of a message after which [`Guard::look`] has decided.
pub const HEAD_BYTES_MAX: usize = 256;

/// What a guard has to know of its session beside the policy.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The vocabulary of the upstream.
    pub dialect: ClientDialect,
    /// What the session is for.
    pub intent: Intent,
    /// What the route does for its clients.
    pub helpers: Arc<Helpers>,
}

/// Whether a message has to be shown to the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// No: relay it as usual.
    Pass,
    /// Yes: nothing of it goes out before [`Guard::look`] says so.
    Look,
}

/// What to do with a message of which the first bytes have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Wait for more of it.
    More,
    /// Pass it on as it comes, each piece through [`Guard::stream`].
    Stream,
    /// Collect all of it for [`Guard::decide`].
    Hold,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes on as it came.
    Forward,
    /// These bytes go on in its place, as one message of the same kind.
    Rewrite(Vec<u8>),
    /// It goes no further, and nobody is told.
    Drop,
    /// It goes no further, and the *client* is sent this event, whichever side the message came from.
    /// The session goes on.
    Answer(String),
    /// It goes no further, and the session ends.
    Close(Farewell),
}

/// How a session ends that the policy does not let go on. The upstream is closed at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// The `error` event that the client is sent first.
    pub event: String,
    /// The close frame for the client.
    pub close: Close,
}

/// A streamed message left the shape in which it could be streamed. The session ends, and the rest of
/// the message, this piece included, never goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach(pub Farewell);

/// The policy of one session; see the [module documentation](super).
#[derive(Debug)]
pub struct Guard {
    policy: Arc<Policy>,
    setup: Setup,
    append: Append,
    is_appending: bool,
    /// Of the client's message that is being looked at.
    kind: MessageKind,
    opening: Opening,
    answers: u64,
}

/// Where the policy's own event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    /// Not sent, and perhaps there is none.
    Unsent,
    /// The upstream has not answered it.
    Sent,
    /// Its answer came.
    Answered,
}

impl Guard {
    /// A guard for a session that begins, or `None` when there is nothing to look at.
    #[must_use]
    pub fn new(policy: Arc<Policy>, setup: Setup) -> Option<Self> {
        if policy.rules().is_none() && setup.helpers.is_empty() {
            return None;
        }
        let rules = policy.rules();
        let append = Append::new(|name| rules.is_none_or(|rules| rules.events.allows(name)));
        Some(Self {
            policy,
            setup,
            append,
            is_appending: false,
            kind: MessageKind::Text,
            opening: Opening::Unsent,
            answers: 0,
        })
    }

    /// The event to send upstream before anything of the client's. The upstream's answer to it is kept
    /// from the client; a refusal ends the session. `None` when there is nothing to set, and when it was
    /// asked for before.
    pub fn opening(&mut self) -> Option<String> {
        if self.opening != Opening::Unsent {
            return None;
        }
        let rules = self.policy.rules()?;
        let Setup {
            dialect,
            intent,
            helpers,
        } = &self.setup;
        let event = opening(rules, helpers, *dialect, *intent)?;
        self.opening = Opening::Sent;
        Some(event)
    }

    /// The first frame header of a message came.
    #[must_use]
    pub fn begin(&mut self, from: Side, kind: MessageKind) -> Watch {
        match from {
            Side::Client => {
                self.kind = kind;
                self.is_appending = false;
                Watch::Look
            }
            Side::Upstream if self.opening == Opening::Sent || self.hides() => Watch::Look,
            Side::Upstream => Watch::Pass,
        }
    }

    /// More of a message came: `head` is all of it so far, unmasked, or its first [`HEAD_BYTES_MAX`]
    /// bytes; `complete` says that it is the whole message.
    ///
    /// The verdict depends on the first [`HEAD_BYTES_MAX`] bytes alone, not on how they came in.
    #[must_use]
    pub fn look(&mut self, from: Side, head: &[u8], complete: bool) -> Look {
        let is_last = complete || head.len() >= HEAD_BYTES_MAX;
        match (from, self.policy.rules()) {
            (Side::Client, Some(_)) => self.look_for_audio(head, is_last, complete),
            (Side::Client, None) => match glance(head) {
                Glance::Unknown if !is_last => Look::More,
                Glance::Type(name) if !is_settings_update(name) => Look::Stream,
                Glance::NoEvent => Look::Stream,
                Glance::Type(_) | Glance::Unknown | Glance::Odd => Look::Hold,
            },
            (Side::Upstream, _) => match glance(head) {
                Glance::Unknown if !is_last => Look::More,
                Glance::Type(name) if !self.reads(name) => Look::Stream,
                Glance::NoEvent => Look::Stream,
                Glance::Type(_) | Glance::Unknown | Glance::Odd => Look::Hold,
            },
        }
    }

    fn look_for_audio(&mut self, head: &[u8], is_last: bool, complete: bool) -> Look {
        // A binary message is not known to be UTF-8, and no SDK sends audio in one.
        if self.kind == MessageKind::Binary {
            return Look::Hold;
        }
        self.append.restart();
        match self.append.feed(head) {
            Err(Deviation) => Look::Hold,
            Ok(()) if complete && !self.append.is_complete() => Look::Hold,
            Ok(()) if !is_last => Look::More,
            // A long event id, or white space: what the event is cannot be told yet.
            Ok(()) if !self.append.has_audio() => Look::Hold,
            Ok(()) => {
                self.is_appending = true;
                Look::Stream
            }
        }
    }

    /// More of a streamed message came, unmasked, behind what was shown before.
    ///
    /// # Errors
    ///
    /// [`Breach`]: the piece must not go out, and the session ends.
    pub fn stream(&mut self, from: Side, piece: &[u8]) -> Result<(), Breach> {
        if from == Side::Client && self.is_appending && self.append.feed(piece).is_err() {
            return Err(self.breach());
        }
        Ok(())
    }

    /// A streamed message is complete; asked before its last piece goes out.
    ///
    /// # Errors
    ///
    /// [`Breach`]: its last piece must not go out, and the session ends.
    pub fn stream_end(&mut self, from: Side) -> Result<(), Breach> {
        if from == Side::Client && self.is_appending && !self.append.is_complete() {
            return Err(self.breach());
        }
        Ok(())
    }

    /// A held message is complete, and this is all of it, unmasked.
    #[must_use]
    pub fn decide(&mut self, from: Side, _kind: MessageKind, message: &[u8]) -> Decision {
        match (from, self.policy.rules()) {
            (Side::Client, Some(rules)) => {
                let refused = match judge(rules, &self.setup.helpers, message) {
                    Ok(decision) => return decision,
                    Err(refused) => refused,
                };
                let (refusal, event_id) = *refused;
                Decision::Answer(refusal.to_event(self.answer(), event_id.as_deref()))
            }
            (Side::Client, None) => {
                let decision = judge(&permissive(), &self.setup.helpers, message);
                decision.unwrap_or(Decision::Forward)
            }
            (Side::Upstream, _) => self.decide_upstream(message),
        }
    }

    /// A held message grew past what may be held; the rest of it is thrown away.
    #[must_use]
    pub fn oversize(&mut self, from: Side) -> Decision {
        let refusal = match from {
            Side::Client => too_large(),
            Side::Upstream => withheld(),
        };
        Decision::Answer(refusal.to_event(self.answer(), None))
    }

    fn decide_upstream(&mut self, message: &[u8]) -> Decision {
        let Ok(mut event) = json::parse(message) else {
            return Decision::Answer(withheld().to_event(self.answer(), None));
        };
        let object = event.as_object();
        let Some(name) = object.and_then(|event| event.get("type")?.as_str()) else {
            return Decision::Forward;
        };
        if self.opening == Opening::Sent {
            match name {
                "session.updated" | "transcription_session.updated" => {
                    self.opening = Opening::Answered;
                    return Decision::Drop;
                }
                "error" if is_about_opening(object) => {
                    let error = object.and_then(|event| event.get("error")?.as_object());
                    let code = error.and_then(|error| error.get("code")?.as_str());
                    return Decision::Close(not_applied(self.answer(), code));
                }
                // Events are answered in order: this one answers nothing that came behind the policy's.
                "response.created" => return Decision::Close(not_applied(self.answer(), None)),
                _ => {}
            }
        }
        if !shows_settings(name) {
            return Decision::Forward;
        }
        conceal(&mut event, self.hide());
        written(&event)
    }

    fn answer(&mut self) -> u64 {
        self.answers += 1;
        self.answers
    }

    fn breach(&mut self) -> Breach {
        Breach(breach(self.answer()))
    }

    fn hide(&self) -> Hide {
        self.policy
            .rules()
            .map(|rules| rules.hide)
            .unwrap_or_default()
    }

    fn hides(&self) -> bool {
        self.hide() != Hide::default()
    }

    /// Whether an event of the upstream's has to be read.
    fn reads(&self, name: &str) -> bool {
        let answers = matches!(
            name,
            "session.updated" | "transcription_session.updated" | "error" | "response.created"
        );
        (self.opening == Opening::Sent && answers) || (self.hides() && shows_settings(name))
    }
}

type Refused = Box<(Refusal, Option<String>)>;

fn judge(rules: &Rules, helpers: &Helpers, message: &[u8]) -> Result<Decision, Refused> {
    let mut event = json::parse(message).map_err(|fault| Box::new((fault.into(), None)))?;
    let judge = Judge { rules, helpers };
    judge.event(&mut event).map_err(|refusal| {
        let event_id = event
            .as_object()
            .and_then(|event| event.get("event_id")?.as_str());
        Box::new((refusal, event_id.map(str::to_owned)))
    })?;
    Ok(written(&event))
}

fn written(event: &Value<'_>) -> Decision {
    if !event.is_touched() {
        return Decision::Forward;
    }
    let mut text = String::new();
    event.write(&mut text);
    Decision::Rewrite(text.into_bytes())
}

/// The rules of a session that has helpers alone.
fn permissive() -> Rules {
    Rules {
        events: Events::Any,
        mcp_servers: McpServers::Any,
        out_of_band: true,
        ..Rules::default()
    }
}

/// The client events that helpers look into.
fn is_settings_update(name: &str) -> bool {
    matches!(
        name,
        "session.update" | "session.start" | "transcription_session.update" | "response.create"
    )
}

/// Whether an error is the answer to the policy's own event: it says so, or it says nothing while that
/// event is the only one that the upstream can have answered.
fn is_about_opening(event: Option<&Object<'_>>) -> bool {
    let error = event.and_then(|event| event.get("error")?.as_object());
    match error.and_then(|error| error.get("event_id")) {
        None => true,
        Some(id) => id.is_null() || id.as_str() == Some(OPENING_ID),
    }
}
