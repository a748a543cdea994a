//! Decides how frames move between two byte streams: one task a session, no reassembly, no copy while
//! the peer keeps up.
//!
//! [`relay`] owns both legs of a session and polls both directions from one task. Bytes are read into a
//! scratch buffer that all sessions of a thread share, looked at by a
//! [`Scanner`](talkline_frame::Scanner), and written from there as they came; what the relay says
//! itself (pings, pongs, error events, close frames) is put between frames by [fastwebsockets]. What
//! to do at each event is decided by a [`Session`].
//!
//! It does not know URLs, credentials, HTTP or TLS, opens no socket and parses no event.
//!
//! ```
//! use std::time::Instant;
//! use talkline_relay::{Leg, Limits, Options, Session, relay};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
//! let (mut browser, client) = tokio::io::duplex(4096);
//! let (mut azure, upstream) = tokio::io::duplex(4096);
//! let session = Session::new(Limits::default(), Instant::now());
//! let never = std::future::pending();
//! let relayed = tokio::spawn(async move {
//!     relay(Leg::new(client), Leg::new(upstream), session, Options::default(), never).await
//! });
//!
//! azure.write_all(b"\x81\x02{}").await?;
//! let mut text = [0; 4];
//! browser.read_exact(&mut text).await?;
//! assert_eq!(&text, b"\x81\x02{}");
//!
//! drop((browser, azure));
//! let summary = relayed.await?;
//! assert_eq!(summary.upstream_to_client.messages, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [fastwebsockets]: https://docs.rs/fastwebsockets/0.10.0
#![forbid(unsafe_code)]

mod bell;
mod budget;
mod frames;
mod inlet;
mod outlet;
mod pump;
mod refuse;
mod scratch;
#[cfg(test)]
mod tests;
mod watch;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
pub use talkline_session::{Limits, Session, Stop, Summary};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::bell::{Bells, Part};
pub use crate::budget::Budget;
pub use crate::refuse::refuse;

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
    /// As the client masked it: not one byte is touched. For an upstream behind TLS, where nothing
    /// between here and there can see the key.
    #[default]
    Verbatim,
    /// With a fresh random key for each frame, in place. For a plain-text upstream: RFC 6455 section
    /// 10.3 wants keys there that the author of the payload cannot predict.
    Fresh,
}

/// How to relay.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Masking towards the upstream.
    pub upstream_masking: UpstreamMasking,
    /// Memory for bytes that wait, shared with other sessions. `None` bounds each session by itself only.
    pub budget: Option<Arc<Budget>>,
}

/// Relays until the session is over, then drops both legs.
///
/// Every valid data frame goes out as it came, in order, and as soon as its header and at most
/// [`Limits::hold_bytes_max`] bytes of it have passed; while one side is slow the other is not read,
/// and at most 64 KiB wait in between. `stop` ends the session early: its client gets the event and the
/// close frame of the [`Stop`], its upstream 1001.
///
/// However the session ends, both legs are dropped within the times in [`Limits`]. Needs a tokio
/// runtime with its timer on.
///
/// # Cancel safety
///
/// Dropping the future drops both legs at once, without close frames, and loses the summary. Resolve
/// `stop` to end a session in an orderly way.
pub fn relay<C, U>(
    client: Leg<C>,
    upstream: Leg<U>,
    session: Session,
    options: Options,
    stop: impl Future<Output = Stop>,
) -> impl Future<Output = Summary>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    // Outside the `async` block, which would keep room for the arguments beside the pump: a third of
    // what a session costs.
    let mut pump = pump::Pump::new(client, upstream, session, options);
    async move {
        let mut stop = Some(pin!(stop));
        let mut bells = Bells::default();
        poll_fn(|cx| {
            let rings = bells.answer(cx);
            if rings.of(Part::Stop)
                && let Some(polled) = &mut stop
                && let mut cx = Context::from_waker(bells.waker(Part::Stop))
                && let Poll::Ready(wish) = polled.as_mut().poll(&mut cx)
            {
                stop = None;
                pump.stop(wish);
            }
            pump.poll(cx, &bells, rings)
        })
        .await;
        pump.into_session().into_summary(Instant::now().into_std())
    }
}

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
