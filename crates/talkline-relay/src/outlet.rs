//! The writing side of a leg: bytes that wait, and what the relay itself has to say.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use talkline_session::{Close, PONGS_MAX, Side};
use tokio::io::AsyncWrite;

use crate::budget::Lease;
use crate::frames;

/// Capacity that an empty spill keeps; sessions are idle most of the time.
const SPILL_BYTES_KEPT: usize = 64;

/// Most events of the relay's own that wait for one leg.
const EVENTS_MAX: usize = 16;

/// Where the bytes that were passed on leave off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// Between two messages: anything may follow.
    BetweenMessages,
    /// Between two frames of a message: only control frames may follow (RFC 6455 section 5.4).
    BetweenFrames,
    /// Inside a frame: only the rest of it may follow.
    InFrame,
}

/// What writing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing waits.
    Empty,
    /// The peer takes no more for the moment.
    Blocked,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Outlet {
    side: Side,
    position: Position,
    /// Bytes that the peer did not take yet; those before `written` it took.
    spill: Vec<u8>,
    written: usize,
    lease: Lease,
    /// What the relay has to say; boxed, for it seldom has.
    speech: Option<Box<Speech>>,
    shutdown: bool,
    /// Nothing goes out any more: a close frame is in the spill, the rest of a frame will never come,
    /// or writing failed.
    finished: bool,
    broken: bool,
    is_shut_down: bool,
    flush_due: bool,
    blocked: bool,
    /// The peer took bytes after it had taken none.
    progressed: bool,
    /// Pings that went out and that the session was not told of.
    ping_sent: bool,
    /// Bytes passed on that had to wait and that the session was not told of.
    spilled_bytes: u32,
    #[cfg(test)]
    spill_bytes_peak: usize,
}

/// What waits for a place between frames.
#[derive(Debug, Default)]
struct Speech {
    ping: bool,
    /// The latest ones, [`PONGS_MAX`] at most.
    pongs: VecDeque<Vec<u8>>,
    /// In the order in which they are to be sent.
    events: VecDeque<String>,
    close: Option<Close>,
}

impl Speech {
    fn is_empty(&self) -> bool {
        !self.ping && self.pongs.is_empty() && self.events.is_empty() && self.close.is_none()
    }
}

impl Outlet {
    pub(crate) const fn new(side: Side, lease: Lease) -> Self {
        Self {
            side,
            position: Position::BetweenMessages,
            spill: Vec::new(),
            written: 0,
            lease,
            speech: None,
            shutdown: false,
            finished: false,
            broken: false,
            is_shut_down: false,
            flush_due: false,
            blocked: false,
            progressed: false,
            ping_sent: false,
            spilled_bytes: 0,
            #[cfg(test)]
            spill_bytes_peak: 0,
        }
    }

    pub(crate) const fn side(&self) -> Side {
        self.side
    }

    /// Whether all that will ever go out is in the spill.
    pub(crate) const fn is_finished(&self) -> bool {
        self.finished
    }

    pub(crate) const fn is_broken(&self) -> bool {
        self.broken
    }

    pub(crate) const fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether there is something to write, to flush or to end, or to tell of what was written.
    pub(crate) const fn is_busy(&self) -> bool {
        self.flush_due
            || self.speech.is_some()
            || !self.spill.is_empty()
            || self.blocked
            || self.broken
            || (self.shutdown && !self.is_shut_down)
            || self.progressed
            || self.ping_sent
            || self.spilled_bytes > 0
    }

    #[cfg(test)]
    pub(crate) fn spill_bytes(&self) -> (usize, usize) {
        (self.spill_bytes_peak, self.spill.len() - self.written)
    }

    /// Whether something waits for a frame boundary.
    pub(crate) const fn wants_boundary(&self) -> bool {
        self.speech.is_some()
    }

    pub(crate) fn take_progressed(&mut self) -> bool {
        std::mem::take(&mut self.progressed)
    }

    pub(crate) fn take_ping_sent(&mut self) -> bool {
        std::mem::take(&mut self.ping_sent)
    }

    pub(crate) fn take_spilled_bytes(&mut self) -> u32 {
        std::mem::take(&mut self.spilled_bytes)
    }

    /// What the relay has to say, unless nothing goes out any more.
    fn speech(&mut self) -> Option<&mut Speech> {
        if self.finished {
            return None;
        }
        Some(self.speech.get_or_insert_default())
    }

    pub(crate) fn queue_ping(&mut self) {
        if let Some(speech) = self.speech() {
            speech.ping = true;
        }
    }

    /// Queues a pong. A flood of pings, while pongs cannot go out, leaves the latest ones.
    pub(crate) fn queue_pong(&mut self, payload: Vec<u8>) {
        let Some(speech) = self.speech() else { return };
        if speech.pongs.len() >= PONGS_MAX {
            speech.pongs.pop_front();
        }
        speech.pongs.push_back(payload);
    }

    pub(crate) fn queue_event(&mut self, json: String) {
        if let Some(speech) = self.speech() {
            speech.events.push_back(json);
        }
    }

    /// Whether as many events wait as may. Whoever causes them is not read until they have gone out.
    pub(crate) fn is_crowded(&self) -> bool {
        self.speech
            .as_ref()
            .is_some_and(|speech| speech.events.len() >= EVENTS_MAX)
    }

    /// How many bytes may be read for this leg, so that they can wait here if they must.
    pub(crate) fn readable(&self) -> usize {
        self.lease.readable()
    }

    pub(crate) fn queue_close(&mut self, close: Close) {
        if let Some(speech) = self.speech() {
            speech.close = Some(close);
        }
    }

    pub(crate) fn queue_shutdown(&mut self) {
        self.shutdown = true;
    }

    /// The rest of what was being passed on will never come. Inside a frame nothing else may follow
    /// either, so the stream can only end.
    pub(crate) fn source_ended(&mut self) {
        if self.position == Position::InFrame {
            self.finish();
        }
    }

    /// Passes bytes on: to the peer as far as it takes them, the rest to the spill. `position` is where
    /// they leave off.
    pub(crate) fn pass<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
        mut bytes: &[u8],
        position: Position,
    ) {
        if self.finished || bytes.is_empty() {
            return;
        }
        self.position = position;
        if !self.spill.is_empty() {
            bytes = self.write_both(cx, io, bytes);
        }
        while self.spill.is_empty() && !bytes.is_empty() && !self.broken {
            match Pin::new(&mut *io).poll_write(cx, bytes) {
                Poll::Ready(Ok(written)) if written > 0 => {
                    self.flush_due = true;
                    bytes = &bytes[written.min(bytes.len())..];
                }
                Poll::Ready(_) => self.broke(),
                Poll::Pending => break,
            }
        }
        if !self.broken && !bytes.is_empty() {
            self.blocked = true;
            self.spill.extend_from_slice(bytes);
            let bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            self.spilled_bytes = self.spilled_bytes.saturating_add(bytes);
            self.note_spill();
        }
    }

    /// Writes the spill and what comes behind it in one call, if the stream can; returns what is left of
    /// the latter.
    fn write_both<'a, W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
        bytes: &'a [u8],
    ) -> &'a [u8] {
        if self.blocked || self.broken || !io.is_write_vectored() {
            self.write_spill(cx, io);
            return bytes;
        }
        let waiting = self.spill.len() - self.written;
        let both = [
            IoSlice::new(&self.spill[self.written..]),
            IoSlice::new(bytes),
        ];
        match Pin::new(io).poll_write_vectored(cx, &both) {
            Poll::Ready(Ok(written)) if written > 0 => {
                self.flush_due = true;
                self.written += written.min(waiting);
                if self.written == self.spill.len() {
                    self.spill_written();
                }
                &bytes[written.saturating_sub(waiting).min(bytes.len())..]
            }
            Poll::Ready(_) => {
                self.broke();
                bytes
            }
            Poll::Pending => {
                self.blocked = true;
                bytes
            }
        }
    }

    /// Puts what the relay has to say behind the bytes passed on, as far as their position permits.
    pub(crate) fn speak(&mut self) {
        if self.position == Position::InFrame || self.finished {
            return;
        }
        let Some(mut speech) = self.speech.take() else {
            return;
        };
        // While bytes wait, pongs wait apart from them, where they can be bounded.
        while !self.blocked
            && let Some(payload) = speech.pongs.pop_front()
        {
            frames::append_pong(&mut self.spill, self.side, payload);
        }
        if std::mem::take(&mut speech.ping) {
            frames::append_ping(&mut self.spill, self.side);
            self.ping_sent = true;
        }
        if self.position == Position::BetweenMessages {
            for json in std::mem::take(&mut speech.events) {
                frames::append_text(&mut self.spill, self.side, json);
            }
        }
        // A close frame does not wait for the end of a message: the events before it are given up.
        if let Some(close) = speech.close.take() {
            frames::append_close(&mut self.spill, self.side, &close);
            self.finish();
        } else if !speech.is_empty() {
            self.speech = Some(speech);
        }
        self.note_spill();
    }

    /// Writes out everything that waits, flushes it, and ends the stream when asked to.
    pub(crate) fn drain<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut W,
    ) -> Drained {
        loop {
            self.speak();
            self.write_spill(cx, io);
            if !self.spill.is_empty() {
                return Drained::Blocked;
            }
            self.blocked = false;
            let has_pongs = self
                .speech
                .as_ref()
                .is_some_and(|speech| !speech.pongs.is_empty());
            if !has_pongs || self.position == Position::InFrame {
                break;
            }
        }
        if self.flush_due && !self.broken {
            match Pin::new(&mut *io).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.flush_due = false,
                Poll::Ready(Err(_)) => self.broke(),
                // What was passed on is in the stream's own buffer; the waker is set.
                Poll::Pending => return Drained::Empty,
            }
        }
        if self.shutdown && !self.wants_boundary() && !self.is_shut_down {
            self.finish();
            self.is_shut_down = self.broken || Pin::new(io).poll_shutdown(cx).is_ready();
        }
        Drained::Empty
    }

    fn write_spill<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, io: &mut W) {
        while self.written < self.spill.len() && !self.broken {
            match Pin::new(&mut *io).poll_write(cx, &self.spill[self.written..]) {
                Poll::Ready(Ok(written)) if written > 0 => {
                    self.flush_due = true;
                    self.progressed |= self.blocked;
                    self.written += written;
                }
                Poll::Ready(_) => self.broke(),
                Poll::Pending => {
                    self.blocked = true;
                    return;
                }
            }
        }
        self.spill_written();
    }

    fn spill_written(&mut self) {
        self.written = 0;
        self.spill.clear();
        if self.spill.capacity() > SPILL_BYTES_KEPT {
            self.spill = Vec::new();
        }
        self.lease.set(self.spill.capacity());
    }

    fn broke(&mut self) {
        self.broken = true;
        self.blocked = false;
        self.spill = Vec::new();
        self.written = 0;
        self.lease.set(0);
        self.finish();
    }

    fn finish(&mut self) {
        self.finished = true;
        self.speech = None;
    }

    fn note_spill(&mut self) {
        self.lease.set(self.spill.capacity());
        #[cfg(test)]
        {
            self.spill_bytes_peak = self.spill_bytes_peak.max(self.spill.capacity());
        }
    }
}
