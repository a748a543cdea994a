//! What a session may say: the operator's rules for a client's events, and what a client may see.
//!
//! A [`Policy`] is compiled once and shared; a [`Guard`] applies it to one session. The guard is sans-IO
//! like the rest of the crate: it is shown the messages that it asks to see, and answers with verdicts.
//! A session without rules has no guard at all ([`Guard::new`] gives `None`), and its bytes are never
//! looked at.
//!
//! # How a relay drives a guard
//!
//! 1. Right after both handshakes [`Guard::opening`] may have an event for the upstream. It goes out
//!    before anything of the client's.
//! 2. At the first frame header of each message [`Guard::begin`] says [`Watch::Pass`] (relay as usual,
//!    show nothing) or [`Watch::Look`].
//! 3. After `Look` nothing of the message goes out yet. [`Guard::look`] is shown the unmasked bytes of the
//!    message so far, from its first byte, whenever more have come, until it says [`Look::Stream`] or
//!    [`Look::Hold`]. Once [`HEAD_BYTES_MAX`] bytes have been shown, or the message is complete, it does.
//! 4. After [`Look::Stream`] the bytes that were shown may go out. Every later piece goes through
//!    [`Guard::stream`] before it goes out, and [`Guard::stream_end`] is asked before the last piece goes
//!    out. A [`Breach`] ends the session while the message is still incomplete upstream, so that nothing
//!    of it takes effect.
//! 5. After [`Look::Hold`] the whole message is collected, all its fragments, and [`Guard::decide`] gives
//!    the [`Decision`]. When it grows past the relay's limit, [`Guard::oversize`] gives the decision, and
//!    the rest of the message is thrown away.
//!
//! Control frames are none of the guard's business. Messages of one side are shown one after the other;
//! the two sides are independent.
//!
//! What is decided, event by event, stands in `docs/reference/policy.md`.
//!
//! ```
//! use std::sync::Arc;
//! use talkline_dialect::{ClientDialect, Intent};
//! use talkline_frame::MessageKind::Text;
//! use talkline_session::Side;
//! use talkline_session::policy::{Choice, Decision, Guard, Policy, Rules, Setup};
//!
//! let policy = Policy::pinned(Rules {
//!     voice: Choice::Fixed("marin".into()),
//!     ..Rules::default()
//! });
//! let setup = Setup {
//!     dialect: ClientDialect::Ga,
//!     intent: Intent::Conversation,
//!     helpers: Arc::default(),
//! };
//! let mut guard = Guard::new(Arc::new(policy), setup).expect("it has rules");
//! assert!(guard.opening().is_some_and(|event| event.contains(r#""voice":"marin""#)));
//!
//! let update = br#"{"type":"session.update","session":{"audio":{"output":{"voice":"ash","speed":1.10}}}}"#;
//! let Decision::Rewrite(event) = guard.decide(Side::Client, Text, update) else {
//!     panic!("the voice is the operator's");
//! };
//! assert_eq!(
//!     event,
//!     br#"{"type":"session.update","session":{"audio":{"output":{"voice":"marin","speed":1.10}}}}"#
//! );
//! ```

mod append;
mod guard;
mod json;
mod judge;
mod opening;
mod refusal;
mod rules;
#[cfg(test)]
mod tests;
mod upstream;

pub use guard::{Breach, Decision, Farewell, Guard, HEAD_BYTES_MAX, Look, Setup, Watch};
// What a guard is set up with.
pub use rules::{
    Choice, DEFAULT_EVENTS, Events, Helpers, Hide, Json, McpServers, OnViolation, OverlayError,
    Policy, Rules, TokensMax, Tools, Tracing,
};
pub use talkline_dialect::{ClientDialect, Intent};
