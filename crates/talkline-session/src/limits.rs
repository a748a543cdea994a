//! The bounds of a session, each with its default.

use std::time::Duration;

/// What a session may take, in bytes and in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sizes of frames and messages, for both directions; see [`talkline_frame::Limits`].
    pub frames: talkline_frame::Limits,
    /// Time between two pings, on each leg. `None` sends no pings and declares nobody dead. Defaults to
    /// 15 seconds, well within the 240 seconds after which Azure Container Apps drops an idle socket.
    pub ping_interval: Option<Duration>,
    /// Longest silence after a ping, counted from the first ping that nothing answered; any byte counts
    /// as an answer. A leg that the relay itself does not read, because the other leg is slow, is not
    /// counted. Defaults to 20 seconds.
    pub pong_timeout: Duration,
    /// How long the upstream may go on answering the valid frames of a client that broke a rule, before
    /// that client is sent its close frame. Zero sends it at once. Defaults to 250 milliseconds.
    pub violation_grace: Duration,
    /// How long one side's close frame waits for the other side's, while messages still flow towards the
    /// one that closes. Defaults to 5 seconds.
    pub close_wait: Duration,
    /// How long both sides may take to hang up once they have been told to, counted from then; what
    /// they still send is read and thrown away, or a close frame on its way to them could be lost to a
    /// TCP reset. Defaults to 1 second.
    pub linger: Duration,
    /// How long the upstream of a client that vanished may take to hang up. Defaults to
    /// 150 milliseconds.
    pub gone_linger: Duration,
    /// Longest time that a session may last. `None`, the default, leaves that to the upstream.
    pub session_max: Option<Duration>,
    /// Longest control event that is read for the summary, in bytes; a longer one is forwarded and
    /// counted as uninspected. Defaults to 256 KiB.
    pub inspect_bytes_max: usize,
    /// A frame is forwarded from its first byte only when it is complete or this many payload bytes of
    /// it have come and passed, so a smaller one never goes out in part. At most 32 KiB. Defaults to
    /// 256 bytes.
    pub hold_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frames: talkline_frame::Limits::default(),
            ping_interval: Some(Duration::from_secs(15)),
            pong_timeout: Duration::from_secs(20),
            violation_grace: Duration::from_millis(250),
            close_wait: Duration::from_secs(5),
            linger: Duration::from_secs(1),
            gone_linger: Duration::from_millis(150),
            session_max: None,
            inspect_bytes_max: 256 << 10,
            hold_bytes_max: 256,
        }
    }
}
