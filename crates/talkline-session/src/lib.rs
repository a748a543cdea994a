//! Decides what a session does at each event: forward, answer, close; limits, keep-alive, close codes
//! and usage accounting.
//!
//! A [`Session`] is told what happened on the two legs of a relayed conversation (frames, violations,
//! ends of stream, time) and answers with [`Action`]s. It never opens a socket, reads a clock or waits:
//! time is an argument, bytes belong to the caller, and calls that come too early or twice do no harm.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use talkline_session::{Action, Close, Control, Limits, Session, Side};
//!
//! let start = Instant::now();
//! let mut session = Session::new(Limits::default(), start);
//!
//! // A ping is answered where it came from and goes no further.
//! session.on_control(Side::Client, Control::Ping(b"hi"), start);
//! assert_eq!(session.poll_action(), Some(Action::Pong(Side::Client, b"hi".to_vec())));
//!
//! // A close is passed on with its code.
//! let bye = Close { code: Some(1000), reason: "bye".into() };
//! session.on_control(Side::Client, Control::Close(bye.clone()), start);
//! assert_eq!(session.poll_action(), Some(Action::Close(Side::Upstream, bye)));
//!
//! let summary = session.into_summary(start + Duration::from_secs(1));
//! assert_eq!(summary.end.code, Some(1000));
//! ```
#![forbid(unsafe_code)]

mod account;
mod close;
mod incidents;
mod inspect;
mod keep_alive;
mod limits;
mod pace;
pub mod policy;
mod session;
mod stalls;
mod summary;
#[cfg(test)]
mod tests;
mod timing;

pub use talkline_frame::Limits as FrameLimits;

pub use inspect::Inspect;

pub use close::{Close, ErrorEvent, REASON_BYTES_MAX, sanitize_reason};
pub use limits::{BURST_SECONDS, Limits, PROGRESS_BYTES, Rate};
pub use session::{
    Action, Control, FRAMES_PER_SAMPLE, Lost, Message, PONGS_MAX, Parting, RelayMark, Session,
    Side, Stop, Verdict,
};
pub use stalls::Stalls;
pub use summary::{
    End, EndKind, EndedBy, Errors, IncidentCount, Modalities, RateLimit, ResponseUsage, Responses,
    Summary, Traffic, Transcription, Usage,
};
pub use timing::Timing;

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
