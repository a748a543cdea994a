//! Decides whether WebSocket bytes are well formed: a strict, streaming, sans-IO scanner that yields
//! frame metadata and the event `type`.
//!
//! A [`Scanner`] is fed one direction of a connection, in pieces of any size, after the opening
//! handshake. It checks every header against RFC 6455, checks the text of every text message while it
//! is still masked, reads the top-level `type` of every JSON event, and keeps no payload: its whole
//! state is a few hundred bytes, whatever the peer sends.
//!
//! It does not know what a session is, never opens a socket, never reads a clock, never copies a frame
//! and never decides what happens after a violation.
//!
//! ```
//! use talkline_frame::{Direction, Limits, Scanner, Step};
//!
//! let mut scanner = Scanner::new(Direction::UpstreamToClient, Limits::default());
//! let mut input: &[u8] = b"\x81\x11{\"type\": \"error\"}";
//! let mut seen = Vec::new();
//! loop {
//!     let (consumed, step) = scanner.step(input)?;
//!     input = &input[consumed..];
//!     match step {
//!         Step::FrameEnd(end) => {
//!             seen.push((end.payload_bytes, scanner.event_type().name().map(str::to_owned)));
//!         }
//!         Step::NeedMore => break,
//!         Step::Header(_) | Step::Payload => {}
//!     }
//! }
//! assert_eq!(seen, [(17, Some("error".to_owned()))]);
//! # Ok::<(), talkline_frame::Violation>(())
//! ```
#![forbid(unsafe_code)]

mod event_type;
mod header;
mod scanner;
#[cfg(test)]
mod tests;
mod utf8;
mod violation;
mod wide;

pub use event_type::{EVENT_TYPE_BYTES_MAX, EventType};
pub use header::{Header, OpCode, is_close_code_legal};
pub use scanner::{FrameEnd, Limits, MessageEnd, MessageKind, Scanner, Step};
pub use violation::Violation;
pub use wide::apply_mask;

/// Which way the scanned bytes travel; decides who has to mask (RFC 6455 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Sent by the WebSocket client: every frame must be masked.
    ClientToUpstream,
    /// Sent by the WebSocket server: no frame may be masked.
    UpstreamToClient,
}

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
