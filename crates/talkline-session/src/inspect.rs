//! What a session has its messages shown to, one side at a time.

use std::fmt;

use talkline_frame::MessageKind;

use crate::Side;
use crate::policy::{Breach, Decision, Guard, Look, Watch};

/// Looks at messages before they go out; see [`policy`](crate::policy) for how it is driven.
///
/// [`Guard`] is the one there is; tests have others, which say by script what a policy would say by rule.
pub trait Inspect: fmt::Debug + Send {
    /// See [`Guard::opening`].
    fn opening(&mut self) -> Option<String>;
    /// See [`Guard::begin`].
    fn begin(&mut self, from: Side, kind: MessageKind) -> Watch;
    /// See [`Guard::look`].
    fn look(&mut self, from: Side, head: &[u8], complete: bool) -> Look;
    /// See [`Guard::stream`].
    ///
    /// # Errors
    ///
    /// [`Breach`]: the piece must not go out, and the session ends.
    fn stream(&mut self, from: Side, piece: &[u8]) -> Result<(), Breach>;
    /// See [`Guard::stream_end`].
    ///
    /// # Errors
    ///
    /// [`Breach`]: the last piece must not go out, and the session ends.
    fn stream_end(&mut self, from: Side) -> Result<(), Breach>;
    /// See [`Guard::decide`].
    fn decide(&mut self, from: Side, kind: MessageKind, message: &[u8]) -> Decision;
    /// See [`Guard::oversize`].
    fn oversize(&mut self, from: Side) -> Decision;
}

impl Inspect for Guard {
    fn opening(&mut self) -> Option<String> {
        self.opening()
    }

    fn begin(&mut self, from: Side, kind: MessageKind) -> Watch {
        self.begin(from, kind)
    }

    fn look(&mut self, from: Side, head: &[u8], complete: bool) -> Look {
        self.look(from, head, complete)
    }

    fn stream(&mut self, from: Side, piece: &[u8]) -> Result<(), Breach> {
        self.stream(from, piece)
    }

    fn stream_end(&mut self, from: Side) -> Result<(), Breach> {
        self.stream_end(from)
    }

    fn decide(&mut self, from: Side, kind: MessageKind, message: &[u8]) -> Decision {
        self.decide(from, kind, message)
    }

    fn oversize(&mut self, from: Side) -> Decision {
        self.oversize(from)
    }
}

impl Inspect for Box<dyn Inspect> {
    fn opening(&mut self) -> Option<String> {
        (**self).opening()
    }

    fn begin(&mut self, from: Side, kind: MessageKind) -> Watch {
        (**self).begin(from, kind)
    }

    fn look(&mut self, from: Side, head: &[u8], complete: bool) -> Look {
        (**self).look(from, head, complete)
    }

    fn stream(&mut self, from: Side, piece: &[u8]) -> Result<(), Breach> {
        (**self).stream(from, piece)
    }

    fn stream_end(&mut self, from: Side) -> Result<(), Breach> {
        (**self).stream_end(from)
    }

    fn decide(&mut self, from: Side, kind: MessageKind, message: &[u8]) -> Decision {
        (**self).decide(from, kind, message)
    }

    fn oversize(&mut self, from: Side) -> Decision {
        (**self).oversize(from)
    }
}
