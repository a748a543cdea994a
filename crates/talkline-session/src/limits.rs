//! The bounds of a session, each with its default.

use std::time::Duration;

/// Payload that counts as progress within a frame; see [`Limits::frame_timeout`].
pub const PROGRESS_BYTES: u64 = 16 << 10;

/// Seconds' worth of a [`Rate`] that may come at once, after a silence of as long.
pub const BURST_SECONDS: u32 = 4;

/// What one side may send in a second, with bursts of [`BURST_SECONDS`].
///
/// Frames beyond the rate end the session: each costs the same work however small it is, and twenty
/// milliseconds of audio a frame make fifty a second, so nothing honest comes near. Bytes beyond the rate
/// are not read until they fit: an image or a recording comes at the speed of the network, and does as well
/// at a lower one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Frames, control frames included. `None`, the default, is no limit.
    pub frames_max: Option<u32>,
    /// Bytes, headers included. `None`, the default, is no limit.
    pub bytes_max: Option<u64>,
}

/// What a session may take, in bytes and in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sizes of frames and messages, for both directions; see [`talkline_frame::Limits`].
    pub frames: talkline_frame::Limits,
    /// Time between two pings, on each leg. `None` sends no pings and declares nobody dead. Defaults to
    /// 15 seconds, well within the 240 seconds after which Azure Container Apps drops an idle socket.
    pub ping_interval: Option<Duration>,
    /// Longest silence of a leg, counted from its last byte, whatever that was. A leg is only given up
    /// when a ping has had time to be answered: what this leaves after `ping_interval`, or all of it when
    /// it is the shorter one. A leg that the relay itself does not read, because the other leg is slow, is
    /// not counted. Defaults to 20 seconds.
    pub pong_timeout: Duration,
    /// How long a leg may take none of the bytes that wait for it, before its session ends with
    /// `slow_consumer`; each byte taken starts the count again. `None` waits for ever. Defaults to
    /// 15 seconds: room for a network that is gone for ten, and less than the time after which the
    /// operating system gives the connection up.
    pub stall_timeout: Option<Duration>,
    /// How long a leg may take to send the next [`PROGRESS_BYTES`] of a frame, or its end. While a frame is
    /// incomplete nothing else can be said to its receiver, not even goodbye. `None` waits for ever.
    /// Defaults to 30 seconds.
    pub frame_timeout: Option<Duration>,
    /// Longest time without a data frame of the client's. `None`, the default, leaves that to the
    /// upstream.
    pub idle_max: Option<Duration>,
    /// What the client may send in a second.
    pub client_rate: Rate,
    /// How long one side may go on answering the valid frames of the other, which broke a rule, before
    /// that one is sent its close frame. Zero sends it at once. Defaults to 250 milliseconds.
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
            stall_timeout: Some(Duration::from_secs(15)),
            frame_timeout: Some(Duration::from_secs(30)),
            idle_max: None,
            client_rate: Rate::default(),
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
