//! The loop that obeys the session: both directions of one session, polled from one task.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use talkline_session::{Action, Lost, Session, Side, Stop};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use crate::budget::{Budget, Lease, SHORT_READ_BYTES};
use crate::inlet::{Exit, Inlet, Scene};
use crate::outlet::{Drained, Outlet};
use crate::scratch::with_scratch;
use crate::{Leg, Options, UpstreamMasking};

/// Reads of one direction in one poll. Past it the other direction has its turn, and then the other
/// tasks of the thread.
const READS_PER_POLL: usize = 8;

/// Pause of a session that does not read for want of memory.
const STARVED_PAUSE: Duration = Duration::from_millis(20);

/// One leg: its stream, its reading and its writing side.
#[derive(Debug)]
struct End<S> {
    io: S,
    inlet: Inlet,
    outlet: Outlet,
    /// Not read for want of memory.
    is_starved: bool,
    /// Not read because of the events that wait for it.
    is_crowded: bool,
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Pump<C, U> {
    client: End<C>,
    upstream: End<U>,
    session: Session,
    /// Allocated once a session: a timer is large, and the only thing here that must not move.
    sleep: Option<Pin<Box<Sleep>>>,
    is_over: bool,
    /// There was no memory for what might have to wait.
    is_starved: bool,
}

/// What one turn of a direction came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Everything that can be done is done, and a waker is set for the rest.
    Waits,
    /// There is more to read.
    Continues,
}

impl<C, U> Pump<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    pub(crate) fn new(
        client: Leg<C>,
        upstream: Leg<U>,
        session: Session,
        options: Options,
    ) -> Self {
        let Options {
            upstream_masking,
            budget,
        } = options;
        let verbatim = UpstreamMasking::Verbatim;
        let mut pump = Self {
            client: End::new(Side::Client, client, &session, upstream_masking, &budget),
            upstream: End::new(Side::Upstream, upstream, &session, verbatim, &budget),
            session,
            sleep: None,
            is_over: false,
            is_starved: false,
        };
        // What the session opens with goes before anything of the client's.
        pump.obey();
        pump.upstream.outlet.speak();
        pump
    }

    pub(crate) fn into_session(self) -> Session {
        self.session
    }

    /// Most bytes that a leg's spill ever had room for, and how many wait there.
    #[cfg(test)]
    pub(crate) fn spill_bytes(&self, side: Side) -> (usize, usize) {
        match side {
            Side::Client => self.client.outlet.spill_bytes(),
            Side::Upstream => self.upstream.outlet.spill_bytes(),
        }
    }

    pub(crate) fn stop(&mut self, wish: Stop) {
        self.session.on_stop(wish, now());
        self.obey();
    }

    /// Does what can be done; ready when the session is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = now();
        let mark = self.session.mark();
        let up = with_scratch(|scratch| self.client_to_upstream(cx, scratch, now));
        let down = with_scratch(|scratch| self.upstream_to_client(cx, scratch, now));
        self.session.on_timeout(now);
        self.obey();
        let drained = self.drain(cx, now);
        self.session.on_relayed(mark, now, self::now);
        self.is_starved = self.client.is_starved || self.upstream.is_starved;
        if self.is_over {
            return Poll::Ready(());
        }
        if [up, down, drained].contains(&Turn::Continues) {
            cx.waker().wake_by_ref();
        }
        self.arm(cx);
        Poll::Pending
    }

    fn client_to_upstream(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        now: Instant,
    ) -> Turn {
        for _ in 0..READS_PER_POLL {
            match self
                .client
                .turn(cx, scratch, &mut self.upstream, &mut self.session, now)
            {
                Turn::Waits => return Turn::Waits,
                Turn::Continues => self.obey(),
            }
        }
        Turn::Continues
    }

    fn upstream_to_client(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        now: Instant,
    ) -> Turn {
        for _ in 0..READS_PER_POLL {
            match self
                .upstream
                .turn(cx, scratch, &mut self.client, &mut self.session, now)
            {
                Turn::Waits => return Turn::Waits,
                Turn::Continues => self.obey(),
            }
        }
        Turn::Continues
    }

    /// Hands the session's actions to the legs they concern.
    fn obey(&mut self) {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Ping(side) => self.outlet(side).queue_ping(),
                Action::Pong(side, payload) => self.outlet(side).queue_pong(payload),
                Action::Event(side, json) => self.outlet(side).queue_event(json),
                Action::Close(side, close) => self.outlet(side).queue_close(close),
                Action::Shutdown(side) => self.outlet(side).queue_shutdown(),
                Action::End => self.is_over = true,
            }
        }
    }

    fn outlet(&mut self, side: Side) -> &mut Outlet {
        match side {
            Side::Client => &mut self.client.outlet,
            Side::Upstream => &mut self.upstream.outlet,
        }
    }

    /// Writes and flushes what both directions and the relay itself left behind.
    fn drain(&mut self, cx: &mut Context<'_>, now: Instant) -> Turn {
        let client = self.client.drain(cx, &mut self.session, now);
        let upstream = self.upstream.drain(cx, &mut self.session, now);
        if client == Turn::Continues || upstream == Turn::Continues {
            Turn::Continues
        } else {
            Turn::Waits
        }
    }

    /// Sets the timer. It is not moved for every frame: when it goes off too early, which the session
    /// does not mind, it is set anew.
    fn arm(&mut self, cx: &mut Context<'_>) {
        let starved = self.is_starved.then(|| now() + STARVED_PAUSE);
        let deadlines = [self.session.poll_timeout(), starved];
        let Some(deadline) = deadlines.into_iter().flatten().min() else {
            return;
        };
        let deadline = tokio::time::Instant::from(deadline);
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.is_elapsed() || deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        if sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> End<S> {
    fn new(
        side: Side,
        leg: Leg<S>,
        session: &Session,
        masking: UpstreamMasking,
        budget: &Option<Arc<Budget>>,
    ) -> Self {
        Self {
            io: leg.io,
            inlet: Inlet::new(side, leg.early, session, masking, budget.clone()),
            outlet: Outlet::new(side, Lease::new(budget.clone())),
            is_starved: false,
            is_crowded: false,
        }
    }

    fn side(&self) -> Side {
        self.outlet.side()
    }

    /// Reads once from this leg and passes on to the other one.
    fn turn<P: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        peer: &mut End<P>,
        session: &mut Session,
        now: Instant,
    ) -> Turn {
        if self.inlet.ended {
            return Turn::Waits;
        }
        if !self.inlet.deaf && peer.outlet.is_blocked() {
            peer.drain(cx, session, now);
        }
        let readable = self.readable(peer, session, now);
        if readable == 0 {
            self.inlet.paused = true;
            session.on_read_paused(self.side());
            return Turn::Waits;
        }
        if std::mem::take(&mut self.inlet.paused) {
            session.on_read_resumed(self.side(), now);
        }
        let held = self.inlet.restore(scratch);
        let room = (scratch.len() - held).min(readable);
        let read = match self.read(cx, &mut scratch[held..held + room]) {
            Poll::Ready(Ok(read)) => read,
            Poll::Ready(Err(_)) => return self.lost(Lost::Broken, &mut peer.outlet, session, now),
            // What the peer sent before its connection broke has been read, so it may be given up.
            Poll::Pending if self.outlet.is_broken() => {
                return self.lost(Lost::Broken, &mut peer.outlet, session, now);
            }
            Poll::Pending => return Turn::Waits,
        };
        if read == 0 {
            return self.lost(Lost::EndOfStream, &mut peer.outlet, session, now);
        }
        session.on_bytes(self.side(), read, now);
        let mut scene = Scene {
            cx,
            session,
            exit: Exit {
                io: &mut peer.io,
                outlet: &mut peer.outlet,
            },
            now,
        };
        let mut rest = &mut scratch[..held + read];
        let mut scanned = held;
        while !self.inlet.deaf && !rest.is_empty() {
            let used = self.inlet.admit(rest, scanned, &mut scene);
            rest = &mut rest[used..];
            scanned = 0;
        }
        if self.inlet.is_in_frame() {
            session.on_partial_frame(self.side(), now);
        } else {
            session.on_whole_frames(self.side());
        }
        Turn::Continues
    }

    /// How many bytes may be read: none while they have nowhere to go.
    fn readable<P>(&mut self, peer: &End<P>, session: &mut Session, now: Instant) -> usize {
        self.is_starved = false;
        // Nothing is kept of what nobody listens to.
        if self.inlet.deaf || peer.outlet.is_finished() {
            return usize::MAX;
        }
        // Events of the relay's own wait for the client alone, and it is the client that causes them.
        if peer.outlet.is_blocked() {
            return 0;
        }
        self.is_crowded = self.outlet.is_crowded();
        if self.is_crowded {
            return 0;
        }
        let room = match peer.outlet.readable() {
            // Who holds on to memory has to go on, or be refused, before others can.
            0 if self.inlet.is_holding() => SHORT_READ_BYTES,
            room => room,
        };
        self.is_starved = room == 0;
        room.min(session.readable(self.side(), now))
    }

    fn read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<std::io::Result<usize>> {
        let early = &mut self.inlet.early;
        if !early.is_empty() {
            let taken = early.len().min(buffer.len());
            buffer[..taken].copy_from_slice(&early.split_to(taken));
            return Poll::Ready(Ok(taken));
        }
        let mut buffer = ReadBuf::new(buffer);
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut buffer);
        polled.map_ok(|()| buffer.filled().len())
    }

    fn lost(&mut self, how: Lost, peer: &mut Outlet, session: &mut Session, now: Instant) -> Turn {
        self.inlet.ended = true;
        self.inlet.stop_listening(peer);
        session.on_lost(self.side(), how, now);
        Turn::Waits
    }

    fn drain(&mut self, cx: &mut Context<'_>, session: &mut Session, now: Instant) -> Turn {
        let was_blocked = self.outlet.is_blocked();
        let drained = self.outlet.drain(cx, &mut self.io);
        if self.outlet.take_ping_sent() {
            session.on_ping_sent(self.side(), now);
        }
        match self.outlet.take_spilled_bytes() {
            0 => {}
            // What waits for this leg came from the other one.
            bytes => session.on_spilled(self.side().peer(), bytes.into()),
        }
        let unblocked = was_blocked && drained == Drained::Empty;
        let has_room = std::mem::take(&mut self.is_crowded) && !self.outlet.is_crowded();
        self.is_crowded = self.outlet.is_crowded();
        if self.outlet.take_progressed() {
            session.on_write_progress(self.side(), now);
        }
        match drained {
            Drained::Blocked => session.on_write_blocked(self.side(), now),
            Drained::Empty if was_blocked => session.on_write_unblocked(self.side()),
            Drained::Empty => {}
        }
        // The direction that feeds this leg may go on. A leg whose stream broke is read to its end, for
        // a close frame may stand there, and given up then.
        let broke = self.outlet.is_broken() && !self.inlet.ended && !self.inlet.paused;
        if unblocked || has_room || broke {
            Turn::Continues
        } else {
            Turn::Waits
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
