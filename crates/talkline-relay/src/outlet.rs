//! The writing side of a leg: bytes that wait, and what the relay itself has to say.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use talkline_session::{Close, PONGS_MAX, Side};
use tokio::io::AsyncWrite;

use crate::frames;

/// Capacity that an empty spill keeps; sessions are idle most of the time.
const SPILL_BYTES_KEPT: usize = 1024;

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
    ping: bool,
    /// The latest ones, [`PONGS_MAX`] at most.
    pongs: VecDeque<Vec<u8>>,
    event: Option<String>,
    close: Option<Close>,
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
    spilled_bytes: u64,
    #[cfg(test)]
    spill_bytes_peak: usize,
}

impl Outlet {
    pub(crate) const fn new(side: Side) -> Self {
        Self {
            side,
            position: Position::BetweenMessages,
            spill: Vec::new(),
            written: 0,
            ping: false,
            pongs: VecDeque::new(),
            event: None,
            close: None,
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

    #[cfg(test)]
    pub(crate) fn spill_bytes(&self) -> (usize, usize) {
        (self.spill_bytes_peak, self.spill.len() - self.written)
    }

    /// Whether something waits for a frame boundary.
    pub(crate) fn wants_boundary(&self) -> bool {
        self.ping || !self.pongs.is_empty() || self.event.is_some() || self.close.is_some()
    }

    pub(crate) fn take_progressed(&mut self) -> bool {
        std::mem::take(&mut self.progressed)
    }

    pub(crate) fn take_ping_sent(&mut self) -> bool {
        std::mem::take(&mut self.ping_sent)
    }

    pub(crate) fn take_spilled_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.spilled_bytes)
    }

    pub(crate) fn queue_ping(&mut self) {
        self.ping = !self.finished;
    }

    /// Queues a pong. A flood of pings, while pongs cannot go out, leaves the latest ones.
    pub(crate) fn queue_pong(&mut self, payload: Vec<u8>) {
        if self.finished {
            return;
        }
        if self.pongs.len() >= PONGS_MAX {
            self.pongs.pop_front();
        }
        self.pongs.push_back(payload);
    }

    pub(crate) fn queue_event(&mut self, json: String) {
        self.event = (!self.finished).then_some(json);
    }

    pub(crate) fn queue_close(&mut self, close: Close) {
        self.close = (!self.finished).then_some(close);
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
            self.write_spill(cx, io);
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
            self.spilled_bytes += bytes.len() as u64;
            self.note_spill();
        }
    }

    /// Puts what the relay has to say behind the bytes passed on, as far as their position permits.
    pub(crate) fn speak(&mut self) {
        if self.position == Position::InFrame || self.finished {
            return;
        }
        // While bytes wait, pongs wait apart from them, where they can be bounded.
        while !self.blocked
            && let Some(payload) = self.pongs.pop_front()
        {
            frames::append_pong(&mut self.spill, self.side, payload);
        }
        if std::mem::take(&mut self.ping) {
            frames::append_ping(&mut self.spill, self.side);
            self.ping_sent = true;
        }
        if self.position == Position::BetweenMessages
            && let Some(json) = self.event.take()
        {
            frames::append_text(&mut self.spill, self.side, json);
        }
        // A close frame does not wait for the end of a message: the event before it is given up.
        if let Some(close) = self.close.take() {
            frames::append_close(&mut self.spill, self.side, &close);
            self.finish();
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
            if self.pongs.is_empty() || self.position == Position::InFrame {
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
        self.written = 0;
        self.spill.clear();
        if self.spill.capacity() > SPILL_BYTES_KEPT {
            self.spill = Vec::new();
        }
    }

    fn broke(&mut self) {
        self.broken = true;
        self.blocked = false;
        self.spill = Vec::new();
        self.written = 0;
        self.finish();
    }

    fn finish(&mut self) {
        self.finished = true;
        self.ping = false;
        self.pongs = VecDeque::new();
        self.event = None;
        self.close = None;
    }

    fn note_spill(&mut self) {
        #[cfg(test)]
        {
            self.spill_bytes_peak = self.spill_bytes_peak.max(self.spill.capacity());
        }
    }
}
