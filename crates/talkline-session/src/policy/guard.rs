//! The policy at work in one session.

use std::sync::Arc;

use talkline_dialect::{ClientDialect, Intent};
use talkline_frame::MessageKind;

use super::rules::{Helpers, Policy};
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
}

impl Guard {
    /// A guard for a session that begins, or `None` when there is nothing to look at.
    #[must_use]
    pub fn new(policy: Arc<Policy>, setup: Setup) -> Option<Self> {
        let idle = policy.rules().is_none() && setup.helpers.is_empty();
        (!idle).then_some(Self { policy, setup })
    }

    /// The event to send upstream before anything of the client's. Asked once.
    pub fn opening(&mut self) -> Option<String> {
        None
    }

    /// The first frame header of a message came.
    #[must_use]
    pub fn begin(&mut self, _from: Side, _kind: MessageKind) -> Watch {
        Watch::Pass
    }

    /// More of a message came: `head` is all of it so far, unmasked, at most [`HEAD_BYTES_MAX`] bytes of
    /// it; `complete` says that it is the whole message.
    #[must_use]
    pub fn look(&mut self, _from: Side, _head: &[u8], _complete: bool) -> Look {
        Look::Stream
    }

    /// More of a streamed message came, unmasked, behind what was shown before.
    ///
    /// # Errors
    ///
    /// [`Breach`]: the piece must not go out, and the session ends.
    pub fn stream(&mut self, _from: Side, _piece: &[u8]) -> Result<(), Breach> {
        Ok(())
    }

    /// A streamed message is complete; asked before its last piece goes out.
    ///
    /// # Errors
    ///
    /// [`Breach`]: its last piece must not go out, and the session ends.
    pub fn stream_end(&mut self, _from: Side) -> Result<(), Breach> {
        Ok(())
    }

    /// A held message is complete, and this is all of it, unmasked.
    #[must_use]
    pub fn decide(&mut self, _from: Side, _kind: MessageKind, _message: &[u8]) -> Decision {
        let _ = (&self.policy, &self.setup);
        Decision::Forward
    }

    /// A held message grew past what may be held; the rest of it is thrown away.
    #[must_use]
    pub fn oversize(&mut self, _from: Side) -> Decision {
        Decision::Drop
    }
}
