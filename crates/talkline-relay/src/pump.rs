//! The loop that obeys the session: both directions of one session, polled from one task.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use talkline_session::{Action, Lost, Session, Side, Stop};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use crate::bell::{Bells, Part, Rings};
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

/// Longest time for which nobody looks at a session that has no deadline.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// One leg: its stream, its reading and its writing side.
// In the order of [`Pump`]: a frame needs one leg's reading side and the other's writing side.
#[derive(Debug)]
#[repr(C)]
struct End<S> {
    /// Not read for want of memory.
    is_starved: bool,
    /// Not read because of the events that wait for it.
    is_crowded: bool,
    /// To be polled in the next turn, though its bell was not rung.
    is_due: bool,
    io: S,
    outlet: Outlet,
    inlet: Inlet,
}

/// See the [module documentation](self).
// In this order: what every turn needs stands in neighbouring cache lines.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Pump<C, U> {
    /// When the timer goes off; no deadline is earlier.
    alarm: Instant,
    is_over: bool,
    session: Session,
    client: End<C>,
    upstream: End<U>,
    /// Allocated once a session: a timer is large, and the only thing here that must not move.
    sleep: Option<Pin<Box<Sleep>>>,
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
            alarm: now(),
            is_over: false,
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
    ///
    /// A turn looks at what rang, and at both streams when anything is unusual: most turns pass one frame on
    /// in one direction, and what they need not touch need not come back from memory.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, bells: &Bells, rings: Rings) -> Poll<()> {
        let now = now();
        let mark = self.session.mark();
        let [rang_client, rang_upstream] = [Part::Client, Part::Upstream].map(|it| rings.of(it));
        // A new waker has to reach the timer as well.
        let is_alarmed = self.alarm <= now || rings.is_new_task;
        let is_unusual = is_alarmed || !(rang_client || rang_upstream);
        let [reads_client, reads_upstream] = [
            std::mem::take(&mut self.client.is_due) || is_unusual || rang_client,
            std::mem::take(&mut self.upstream.is_due) || is_unusual || rang_upstream,
        ];
        let mut client_cx = Context::from_waker(bells.waker(Part::Client));
        let mut upstream_cx = Context::from_waker(bells.waker(Part::Upstream));
        if reads_client {
            with_scratch(|scratch| {
                let (from, to) = (&mut client_cx, &mut upstream_cx);
                self.pass_on(Side::Client, from, to, scratch, now);
            });
        }
        if reads_upstream {
            with_scratch(|scratch| {
                let (from, to) = (&mut upstream_cx, &mut client_cx);
                self.pass_on(Side::Upstream, from, to, scratch, now);
            });
        }
        let is_pressed = self.session.take_pressed() || is_alarmed;
        if is_pressed {
            self.session.on_timeout(now);
        }
        self.obey();
        if reads_client || self.client.is_busy() {
            self.drain(Side::Client, &mut client_cx, now);
        }
        if reads_upstream || self.upstream.is_busy() {
            self.drain(Side::Upstream, &mut upstream_cx, now);
        }
        self.session.on_relayed(mark, now, self::now);
        if self.is_over {
            return Poll::Ready(());
        }
        if self.client.is_due || self.upstream.is_due {
            cx.waker().wake_by_ref();
        }
        if self.session.take_pressed() || is_pressed || self.is_starved() {
            self.arm(cx);
        }
        Poll::Pending
    }

    fn is_starved(&self) -> bool {
        self.client.is_starved || self.upstream.is_starved
    }

    /// Reads from one side and passes on to the other, until there is nothing or others have their turn.
    fn pass_on(
        &mut self,
        side: Side,
        from: &mut Context<'_>,
        to: &mut Context<'_>,
        scratch: &mut [u8],
        now: Instant,
    ) {
        for _ in 0..READS_PER_POLL {
            let Self {
                client,
                upstream,
                session,
                ..
            } = self;
            let turn = match side {
                Side::Client => client.turn(from, to, scratch, upstream, session, now),
                Side::Upstream => upstream.turn(from, to, scratch, client, session, now),
            };
            match turn {
                Turn::Waits => return,
                Turn::Continues => self.obey(),
            }
        }
        match side {
            Side::Client => self.client.is_due = true,
            Side::Upstream => self.upstream.is_due = true,
        }
    }

    /// Hands the session's actions to the legs they concern.
    fn obey(&mut self) {
        while let Some(action) = self.session.poll_action() {
            // Whatever it is, both directions may be affected.
            self.look_at_both();
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

    const fn look_at_both(&mut self) {
        self.client.is_due = true;
        self.upstream.is_due = true;
    }

    fn outlet(&mut self, side: Side) -> &mut Outlet {
        match side {
            Side::Client => &mut self.client.outlet,
            Side::Upstream => &mut self.upstream.outlet,
        }
    }

    /// Writes and flushes what the other direction and the relay itself left behind for one leg.
    fn drain(&mut self, side: Side, cx: &mut Context<'_>, now: Instant) {
        let drained = match side {
            Side::Client => self.client.drain(cx, &mut self.session, now),
            Side::Upstream => self.upstream.drain(cx, &mut self.session, now),
        };
        if drained == Turn::Continues {
            self.look_at_both();
        }
    }

    /// Sets the timer. It is not moved for every frame: when it goes off too early, which the session
    /// does not mind, it is set anew.
    fn arm(&mut self, cx: &mut Context<'_>) {
        let starved = self.is_starved().then(|| now() + STARVED_PAUSE);
        let deadlines = [self.session.poll_timeout(), starved];
        let Some(deadline) = deadlines.into_iter().flatten().min() else {
            self.alarm = now() + LOOK_EVERY;
            return;
        };
        let deadline = tokio::time::Instant::from(deadline);
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.is_elapsed() || deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        self.alarm = sleep.deadline().into_std();
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
            is_due: false,
        }
    }

    /// Whether something waits to be written, or to be told of what was.
    fn is_busy(&self) -> bool {
        self.is_crowded || self.outlet.is_busy()
    }

    fn side(&self) -> Side {
        self.outlet.side()
    }

    /// Reads once from this leg and passes on to the other one.
    fn turn<P: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        from: &mut Context<'_>,
        to: &mut Context<'_>,
        scratch: &mut [u8],
        peer: &mut End<P>,
        session: &mut Session,
        now: Instant,
    ) -> Turn {
        if self.inlet.ended {
            return Turn::Waits;
        }
        if !self.inlet.deaf && peer.outlet.is_blocked() {
            peer.drain(to, session, now);
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
        let read = match self.read(from, &mut scratch[held..held + room]) {
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
            cx: to,
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
        match self.inlet.take_early(buffer) {
            0 => {}
            taken => return Poll::Ready(Ok(taken)),
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
