//! The state machine of a session.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use talkline_dialect::{Diagnosis, Incident, UpstreamLoss};
use talkline_frame::{EventType, MessageKind, Violation};

use crate::account::Ledger;
use crate::close::{Close, ErrorEvent, sanitize_reason};
use crate::incidents::Observer;
use crate::inspect::Inspect;
use crate::keep_alive::{Alarm, KeepAlive};
use crate::limits::Limits;
use crate::pace::{Allowance, Stall, Trickle};
use crate::policy::Farewell;
use crate::stalls::StallClock;
use crate::summary::{End, EndKind, EndedBy, ResponseUsage, Summary, Traffic};
use crate::timing::{Cue, Stopwatch, Timing};

/// Most pongs that wait for one side.
pub const PONGS_MAX: usize = 16;

/// Of so many frames one is timed on its way through the relay.
pub const FRAMES_PER_SAMPLE: u64 = 64;

/// Where a session stood before bytes were read; see [`Session::mark`].
#[derive(Clone, Copy, Debug)]
pub struct RelayMark(u64);

/// One of the two parties that the relay stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The browser, app or SDK that opened the session.
    Client,
    /// The Realtime endpoint.
    Upstream,
}

impl Side {
    /// The party on the other side.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream => Self::Client,
        }
    }
}

/// A complete control frame, unmasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control<'a> {
    /// A ping and its payload.
    Ping(&'a [u8]),
    /// A pong, asked for or not.
    Pong,
    /// A close.
    Close(Close),
}

/// A complete message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Text or binary.
    pub kind: MessageKind,
    /// Its type, when it is an event.
    pub event_type: EventType<'a>,
}

/// What to do with a data frame, decided on its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Pass it on.
    Forward,
    /// Drop it: its receiver has been told that the session is over, or its sender has.
    Discard,
}

/// How a connection was lost without a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The peer ended its stream.
    EndOfStream,
    /// Reading or writing failed.
    Broken,
}

/// The caller's wish to end a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Close code for the client: 1001 when the service goes away, 1012 when it restarts, 1008 when
    /// the session is no longer permitted.
    pub code: u16,
    /// Reason in the close frame; at most 123 bytes are used.
    pub reason: String,
    /// Event that the client is sent first, as JSON; see [`ErrorEvent`].
    pub event: Option<String>,
}

/// How an upstream is left that counts what a session cost when it closes: it is asked to close and heard
/// out, though its client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parting {
    /// Event that asks for the end, as JSON. Without one the upstream is left to finish what it does.
    pub ask: Option<&'static str>,
    /// Type of the upstream's event that nothing follows.
    pub last_event: &'static str,
    /// Longest silence of the upstream in which it may still be at work.
    pub quiet_max: Duration,
    /// Longest time that all of it may take.
    pub wait_max: Duration,
}

/// What the caller has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a ping without payload.
    Ping(Side),
    /// Send a pong with this payload. When [`PONGS_MAX`] wait to be sent already, the oldest may be
    /// left out (RFC 6455 section 5.5.3).
    Pong(Side, Vec<u8>),
    /// Send a text message, once no other is under way on that leg; never, when the rest of that one will
    /// never come. Events of one leg keep their order.
    Event(Side, String),
    /// Send a close frame at the next frame boundary, then nothing more.
    Close(Side, Close),
    /// Once everything has been sent, end the stream of that leg; reading goes on.
    Shutdown(Side),
    /// Drop both legs at once.
    End,
}

/// Where a session stands on its way down.
#[derive(Clone, Debug)]
enum Phase {
    Open,
    /// `closer` began to close and its peer has been told; messages still flow towards `closer`, which
    /// gets `reply` when the peer has answered, or at the deadline.
    Closing {
        closer: Side,
        reply: Box<Close>,
        reply_fixed: bool,
        deadline: Instant,
    },
    /// The upstream broke a rule. What the client owes it for what it sent before still goes there;
    /// at the deadline both are told.
    Failing {
        reply: Box<Close>,
        deadline: Instant,
    },
    /// The client is gone, or has said goodbye; the upstream is heard out.
    Parting {
        how: &'static Parting,
        quiet_until: Instant,
        deadline: Instant,
    },
    /// Both sides have been told.
    Ending {
        deadline: Instant,
    },
    Ended,
}

/// One leg, as far as the session has to know it.
// In the order of [`Session`]: what a frame changes first, what a silence does last.
#[derive(Debug)]
#[repr(C)]
struct Leg {
    /// No more frames are expected: a close frame, a violation or the end of the stream came.
    silent: bool,
    /// The stream is over.
    lost: bool,
    close_sent: Option<Option<u16>>,
    traffic: Traffic,
    trickle: Trickle,
    keep_alive: KeepAlive,
    stall: Stall,
}

/// How long each side was not read.
#[derive(Debug, Default)]
struct Stalls {
    client: StallClock,
    upstream: StallClock,
}

/// What measures a session.
#[derive(Debug, Default)]
struct Instruments {
    stopwatch: Option<Stopwatch>,
    /// Made when a side has stalled once.
    stalls: Option<Box<Stalls>>,
}

/// The rules of one relayed session; see the [crate documentation](crate).
// In this order: what every frame needs stands in neighbouring cache lines, for thousands of sessions share the
// caches.
#[derive(Debug)]
#[repr(C)]
pub struct Session {
    actions: VecDeque<Action>,
    phase: Phase,
    /// See [`Session::take_pressed`].
    pressed: bool,
    /// Of both sides together, so that a mark needs neither side's count.
    frames: u64,
    events_sent: u32,
    guard: Option<Box<dyn Inspect>>,
    /// When the client last began a data frame.
    client_spoke: Instant,
    allowance: Allowance,
    client: Leg,
    upstream: Leg,
    /// Those of many sessions are the same.
    limits: Arc<Limits>,
    /// Made when somebody listens or a side stalls: a session is to stay small.
    instruments: Option<Box<Instruments>>,
    ledger: Ledger,
    start: Instant,
    parting: Option<&'static Parting>,
    end: Option<End>,
}

impl Session {
    /// A session that begins now, both handshakes done.
    #[must_use]
    pub fn new(limits: impl Into<Arc<Limits>>, now: Instant) -> Self {
        let limits = limits.into();
        let leg = || Leg {
            keep_alive: KeepAlive::new(limits.ping_interval, limits.pong_timeout, now),
            stall: Stall::default(),
            trickle: Trickle::default(),
            traffic: Traffic::default(),
            silent: false,
            lost: false,
            close_sent: None,
        };
        Self {
            start: now,
            phase: Phase::Open,
            client: leg(),
            upstream: leg(),
            actions: VecDeque::new(),
            ledger: Ledger::new(limits.inspect_bytes_max, now),
            instruments: None,
            allowance: Allowance::new(limits.client_rate, now),
            client_spoke: now,
            guard: None,
            parting: None,
            end: None,
            events_sent: 0,
            frames: 0,
            pressed: true,
            limits,
        }
    }

    /// Has `observer` told of failures that the upstream reports, while the session runs: of the first
    /// one of each diagnosis code, so that a failure that repeats itself fills no log. All are counted in
    /// [`Summary::incidents`].
    #[must_use]
    pub fn on_incident(mut self, observer: impl FnMut(&Incident<'_>) + Send + 'static) -> Self {
        self.ledger.observe(Observer::new(observer));
        self
    }

    /// Has `observer` told of each [`Timing`] when it is known: a few times a minute, beside one sample of
    /// [`FRAMES_PER_SAMPLE`] frames.
    #[must_use]
    pub fn on_timing(mut self, observer: impl FnMut(Timing) + Send + 'static) -> Self {
        self.instruments.get_or_insert_default().stopwatch = Some(Stopwatch::new(observer));
        self
    }

    /// Has `observer` told of every response that ends, with what it cost: a budget is spent there. It is
    /// called while the `response.done` passes, so it must not block; to end the session, have the caller
    /// [stop](Self::on_stop) it.
    #[must_use]
    pub fn on_response(mut self, observer: impl FnMut(&ResponseUsage) + Send + 'static) -> Self {
        self.ledger.observe_responses(Box::new(observer));
        self
    }

    /// Has messages shown to `guard`, and sends the event that it opens with.
    #[must_use]
    pub fn guarded(mut self, mut guard: impl Inspect + 'static) -> Self {
        if let Some(event) = guard.opening() {
            self.actions.push_back(Action::Event(Side::Upstream, event));
        }
        self.guard = Some(Box::new(guard));
        self
    }

    /// Hears the upstream out when the client leaves.
    #[must_use]
    pub fn parting(mut self, parting: Option<&'static Parting>) -> Self {
        self.parting = parting;
        self
    }

    /// Pings each leg a little earlier than the interval says, by up to a fifth, so that sessions which
    /// began together do not ping together. `luck` are any numbers, best random ones.
    #[must_use]
    pub fn with_jitter(mut self, luck: [u32; 2]) -> Self {
        let [client, upstream] = luck;
        self.client.keep_alive.jitter(client);
        self.upstream.keep_alive.jitter(upstream);
        self
    }

    /// Whom messages have to be shown to.
    pub fn guard(&mut self) -> Option<&mut (dyn Inspect + 'static)> {
        self.guard.as_deref_mut()
    }

    /// The limits it was made with.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    // What happened.

    /// Bytes came from a side.
    pub fn on_bytes(&mut self, from: Side, bytes: usize, now: Instant) {
        let leg = self.leg(from);
        leg.traffic.bytes += bytes as u64;
        leg.keep_alive.alive(now);
        if from == Side::Client {
            self.allowance.bytes(bytes as u64, now);
        }
    }

    /// How many bytes may be read from a side. None, while it is ahead of its
    /// [rate](Limits::client_rate): then [`Self::poll_timeout`] says when to ask again.
    #[must_use]
    pub fn readable(&mut self, from: Side, now: Instant) -> usize {
        match from {
            Side::Client if self.is_listening() => {
                let bytes = self.allowance.readable(now);
                self.pressed |= bytes == 0;
                bytes
            }
            Side::Client | Side::Upstream => usize::MAX,
        }
    }

    /// The bytes read so far end inside a frame.
    pub fn on_partial_frame(&mut self, from: Side, now: Instant) {
        let leg = self.leg(from);
        if leg.trickle.pending(leg.traffic.bytes, now) {
            self.pressed = true;
        }
    }

    /// The bytes read so far end with a frame.
    pub fn on_whole_frames(&mut self, from: Side) {
        self.leg(from).trickle.whole();
    }

    /// Bytes wait for a side that takes none.
    pub fn on_write_blocked(&mut self, to: Side, now: Instant) {
        if self.leg(to).stall.blocked(now) {
            self.pressed = true;
        }
    }

    /// No bytes wait for a side any more.
    pub fn on_write_unblocked(&mut self, to: Side) {
        self.leg(to).stall.unblocked();
    }

    /// A ping that an [`Action::Ping`] asked for went out; its answer is due from here on.
    pub fn on_ping_sent(&mut self, to: Side, now: Instant) {
        self.pressed = true;
        self.leg(to).keep_alive.pinged(now);
        if let Some(stopwatch) = self.stopwatch() {
            stopwatch.on_ping_sent(to, now);
        }
    }

    /// Begins a look at how long frames take on their way through the relay. Give the mark to
    /// [`Self::on_relayed`] when what came has been passed on.
    #[must_use]
    pub const fn mark(&self) -> RelayMark {
        RelayMark(self.frames)
    }

    /// What came since the mark has been handed to the other side, as far as it took it. The clock is
    /// asked for one frame of [`FRAMES_PER_SAMPLE`] only, and only when somebody is
    /// [told](Self::on_timing).
    pub fn on_relayed(&mut self, mark: RelayMark, started: Instant, now: impl FnOnce() -> Instant) {
        if self.frames / FRAMES_PER_SAMPLE != mark.0 / FRAMES_PER_SAMPLE
            && let Some(stopwatch) = self.stopwatch()
        {
            stopwatch.on_relayed(now().saturating_duration_since(started));
        }
    }

    /// Bytes from a side had to wait in the relay.
    pub fn on_spilled(&mut self, from: Side, bytes: u64) {
        self.stalls(from).spilled(bytes);
    }

    /// A side that had stopped taking bytes took some, which is as good a sign of life as a pong: its
    /// own pongs may be minutes behind what it has yet to read.
    pub fn on_write_progress(&mut self, to: Side, now: Instant) {
        let leg = self.leg(to);
        leg.keep_alive.alive(now);
        leg.stall.progressed(now);
    }

    /// The caller stopped reading from a side, because the other one does not keep up.
    pub fn on_read_paused(&mut self, from: Side) {
        self.pressed = true;
        let leg = self.leg(from);
        leg.keep_alive.pause();
        self.stalls(from).pause();
    }

    /// The caller reads from a side again.
    pub fn on_read_resumed(&mut self, from: Side, now: Instant) {
        self.pressed = true;
        let leg = self.leg(from);
        leg.keep_alive.resume(now);
        leg.trickle.excuse(now);
        if self.known_stalls().is_some() {
            self.stalls(from).resume(now);
        }
    }

    /// The header of a data frame came; says what to do with the frame.
    #[must_use]
    pub fn on_data_header(&mut self, from: Side, now: Instant) -> Verdict {
        if from == Side::Client {
            self.client_spoke = now;
            self.count_frame(now);
        }
        let forwards = match self.phase {
            Phase::Open => true,
            Phase::Closing { closer, .. } => closer == from.peer(),
            Phase::Failing { .. } => from == Side::Client,
            Phase::Parting { .. } | Phase::Ending { .. } | Phase::Ended => false,
        };
        if forwards && !self.leg(from).silent && !self.leg(from.peer()).lost {
            Verdict::Forward
        } else {
            Verdict::Discard
        }
    }

    /// A piece of a text message came. Only the upstream's are looked at, and only control events are
    /// kept, up to [`Limits::inspect_bytes_max`].
    pub fn on_text(&mut self, from: Side, event_type: EventType<'_>, piece: &[u8]) {
        if from == Side::Upstream {
            self.ledger.on_payload(event_type, piece);
        }
    }

    /// A data frame is complete, and with it perhaps a message.
    pub fn on_data_end(&mut self, from: Side, message: Option<Message<'_>>, now: Instant) {
        self.frames += 1;
        let traffic = &mut self.leg(from).traffic;
        traffic.frames += 1;
        let Some(message) = message else { return };
        traffic.messages += 1;
        if let Some(cue) = Cue::of(from, message.event_type)
            && let Some(stopwatch) = self.stopwatch()
        {
            stopwatch.on_cue(cue, now);
        }
        if from == Side::Upstream && message.kind == MessageKind::Text {
            self.ledger.on_message(message.event_type, now);
        }
        if let (Phase::Parting { how, .. }, Side::Upstream) = (&self.phase, from)
            && message.event_type.name() == Some(how.last_event)
        {
            self.part(now);
        }
    }

    /// A control frame came. It is answered, passed on or swallowed by [actions](Self::poll_action);
    /// the frame itself is never forwarded.
    pub fn on_control(&mut self, from: Side, control: Control<'_>, now: Instant) {
        if self.leg(from).silent {
            return;
        }
        self.frames += 1;
        self.leg(from).traffic.frames += 1;
        if from == Side::Client && !matches!(control, Control::Close(_)) {
            self.count_frame(now);
        }
        match control {
            Control::Pong => {
                if let Some(stopwatch) = self.stopwatch() {
                    stopwatch.on_pong(from, now);
                }
            }
            Control::Ping(payload) if self.leg(from).close_sent.is_none() => {
                self.pong(from, payload.to_vec());
            }
            Control::Ping(_) => {}
            Control::Close(close) => self.on_close(from, close, now),
        }
    }

    /// A side broke a rule; nothing it sends is looked at any more.
    pub fn on_violation(&mut self, from: Side, violation: Violation, now: Instant) {
        let leg = self.leg(from);
        if std::mem::replace(&mut leg.silent, true) {
            return;
        }
        let code = violation.close_code();
        self.ended(
            from.into(),
            Some(code),
            violation.reason(),
            EndKind::Violation,
        );
        match (&self.phase, from) {
            (Phase::Open, Side::Client) => {
                self.close(
                    Side::Upstream,
                    Close::new(1001, "client protocol violation"),
                );
                self.phase = Phase::Closing {
                    closer: Side::Client,
                    reply: Box::new(Close::new(code, violation.reason())),
                    reply_fixed: true,
                    deadline: now + self.limits.violation_grace,
                };
            }
            (Phase::Open, Side::Upstream) => {
                self.phase = Phase::Failing {
                    reply: Box::new(Close::new(code, violation.reason())),
                    deadline: now + self.limits.violation_grace,
                };
            }
            (Phase::Failing { .. }, Side::Client) => self.finish_failing(now),
            (Phase::Closing { closer, .. }, _) if *closer == from.peer() => {
                self.finish_closing(None, now)
            }
            _ => {}
        }
    }

    /// A side is gone, or its connection broke.
    pub fn on_lost(&mut self, from: Side, how: Lost, now: Instant) {
        let broken = how == Lost::Broken;
        let leg = self.leg(from);
        leg.silent = true;
        if std::mem::replace(&mut leg.lost, true) {
            return;
        }
        if broken {
            leg.close_sent.get_or_insert(None);
        }
        let reason = if broken {
            "connection_broken"
        } else {
            "end_of_stream"
        };
        match (&self.phase, from) {
            (Phase::Open, Side::Client) => {
                self.ended(EndedBy::Client, None, reason, EndKind::Disconnected);
                self.client_gone(now);
            }
            (Phase::Open, Side::Upstream) => {
                self.ended(EndedBy::Upstream, None, reason, EndKind::Disconnected);
                self.fail_client(UpstreamLoss::Disconnected, now);
            }
            // The one that closes does not wait for the answer. It is sent all the same, for one that
            // has only ended its writing side.
            (Phase::Closing { closer, reply, .. }, _) if *closer == from => {
                let reply = Close::clone(reply);
                self.close(from, reply);
                let linger = match from {
                    Side::Client => self.limits.gone_linger,
                    Side::Upstream => self.limits.linger,
                };
                self.end_by(now + linger);
            }
            (Phase::Closing { .. }, _) => self.finish_closing(None, now),
            (Phase::Failing { .. }, _) => self.finish_failing(now),
            (Phase::Parting { .. }, Side::Upstream) => self.part(now),
            (Phase::Parting { .. } | Phase::Ending { .. } | Phase::Ended, _) => {}
        }
        self.end_if_both_lost();
    }

    /// The caller wants the session to end.
    pub fn on_stop(&mut self, stop: Stop, now: Instant) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        self.ended(
            EndedBy::Relay,
            Some(stop.code),
            &stop.reason,
            EndKind::Stopped,
        );
        self.stop_both(stop, now);
    }

    /// The guard does not let the session go on: the client is told, the upstream is closed.
    pub fn on_forbidden(&mut self, farewell: Farewell, now: Instant) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        let Farewell { event, close } = farewell;
        self.ended(EndedBy::Relay, close.code, &close.reason, EndKind::Policy);
        self.actions.push_back(Action::Event(Side::Client, event));
        self.close(Side::Client, close);
        self.close(Side::Upstream, Close::new(1001, "relay ends the session"));
        self.end_by(now + self.limits.linger);
    }

    /// There is no memory for a message that has to be held until the guard has judged it.
    pub fn on_overload(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Open) {
            return;
        }
        let reason = "relay_overloaded";
        self.ended(EndedBy::Relay, Some(1013), reason, EndKind::Overloaded);
        let message = "The relay has no memory left to look at a message. Next step: connect again after a pause.";
        let event = self.error_json("server_error", reason, message);
        self.stop_both(
            Stop {
                code: 1013,
                reason: reason.into(),
                event: Some(event),
            },
            now,
        );
    }

    /// The guard answers a message that goes no further.
    pub fn on_answer(&mut self, event: String) {
        if matches!(self.phase, Phase::Open) {
            self.actions.push_back(Action::Event(Side::Client, event));
        }
    }

    /// Whether anything since the last call may have made [`Self::poll_timeout`] earlier, or wants
    /// [`Self::on_timeout`]. Before it has, and before the time that was last told, neither needs to be
    /// called: both look at everything there is, and most frames change nothing about it.
    pub fn take_pressed(&mut self) -> bool {
        std::mem::take(&mut self.pressed) || !matches!(self.phase, Phase::Open)
    }

    /// Time has passed; spurious calls are harmless.
    pub fn on_timeout(&mut self, now: Instant) {
        if let Some(stalls) = self.known_stalls() {
            stalls.client.look(now);
            stalls.upstream.look(now);
        }
        self.allowance.on_timeout(now);
        match &self.phase {
            Phase::Ending { deadline } if *deadline <= now => self.end_now(),
            Phase::Closing { deadline, .. } if *deadline <= now => self.finish_closing(None, now),
            Phase::Failing { deadline, .. } if *deadline <= now => self.finish_failing(now),
            Phase::Parting { deadline, .. } if *deadline <= now => self.part(now),
            Phase::Parting {
                how, quiet_until, ..
            } if *quiet_until <= now => self.check_quiet(how.quiet_max, now),
            Phase::Open => self.check_open(now),
            Phase::Failing { .. }
            | Phase::Parting { .. }
            | Phase::Closing { .. }
            | Phase::Ending { .. }
            | Phase::Ended => {}
        }
    }

    // What to do.

    /// When [`Self::on_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Open => [
                self.client.keep_alive.deadline(),
                self.upstream.keep_alive.deadline(),
                self.client.stall.deadline(self.limits.stall_timeout),
                self.upstream.stall.deadline(self.limits.stall_timeout),
                self.trickle_deadline(Side::Client),
                self.trickle_deadline(Side::Upstream),
                self.limits.session_max.map(|longest| self.start + longest),
                self.limits.idle_max.map(|idle| self.client_spoke + idle),
                self.allowance.waits_until(),
            ]
            .into_iter()
            .flatten()
            .min(),
            Phase::Parting {
                quiet_until,
                deadline,
                ..
            } => Some(*quiet_until.min(deadline)),
            Phase::Closing { deadline, .. }
            | Phase::Failing { deadline, .. }
            | Phase::Ending { deadline } => Some(*deadline),
            Phase::Ended => None,
        }
    }

    /// The next thing to do; call until there is none after every `on_*`.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if action.is_none() && self.actions.capacity() > 0 {
            // Seconds pass until there is another one, for thousands of sessions.
            self.actions = VecDeque::new();
        }
        action
    }

    /// Whether there is nothing left but to drop both legs.
    #[must_use]
    pub const fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Sums the session up.
    #[must_use]
    pub fn into_summary(self, now: Instant) -> Summary {
        let stalls = self.instruments.and_then(|instruments| instruments.stalls);
        let stalls = stalls.map(|boxed| *boxed).unwrap_or_default();
        Summary {
            end: self.end.unwrap_or_default(),
            client_to_upstream: self.client.traffic,
            upstream_to_client: self.upstream.traffic,
            client_close_code: self.client.close_sent.flatten(),
            client_stalls: stalls.client.into_sum(now),
            upstream_stalls: stalls.upstream.into_sum(now),
            ..self.ledger.into_summary(now)
        }
    }

    // How.

    fn stopwatch(&mut self) -> Option<&mut Stopwatch> {
        self.instruments.as_mut()?.stopwatch.as_mut()
    }

    fn stalls(&mut self, from: Side) -> &mut StallClock {
        let instruments = self.instruments.get_or_insert_default();
        let stalls = instruments.stalls.get_or_insert_default();
        match from {
            Side::Client => &mut stalls.client,
            Side::Upstream => &mut stalls.upstream,
        }
    }

    fn known_stalls(&mut self) -> Option<&mut Stalls> {
        self.instruments.as_mut()?.stalls.as_deref_mut()
    }

    fn leg(&mut self, side: Side) -> &mut Leg {
        match side {
            Side::Client => &mut self.client,
            Side::Upstream => &mut self.upstream,
        }
    }

    fn leg_ref(&self, side: Side) -> &Leg {
        match side {
            Side::Client => &self.client,
            Side::Upstream => &self.upstream,
        }
    }

    /// Answers a ping. Every one, as clients that count expect it, up to a number that only a flood
    /// reaches; then the oldest go unanswered, as RFC 6455 section 5.5.3 permits.
    fn pong(&mut self, to: Side, payload: Vec<u8>) {
        let mine = |action: &Action| matches!(action, Action::Pong(side, _) if *side == to);
        if self.actions.iter().filter(|action| mine(action)).count() >= PONGS_MAX
            && let Some(oldest) = self.actions.iter().position(mine)
        {
            self.actions.remove(oldest);
        }
        self.actions.push_back(Action::Pong(to, payload));
    }

    fn on_close(&mut self, from: Side, close: Close, now: Instant) {
        self.leg(from).silent = true;
        match self.phase {
            Phase::Open => {
                self.ended(from.into(), close.code, &close.reason, EndKind::Closed);
                if let (Side::Client, Some(parting)) = (from, self.parting) {
                    let reply = Close {
                        reason: String::new(),
                        ..close
                    };
                    self.close(Side::Client, reply);
                    return self.hear_out(parting, now);
                }
                self.close(from.peer(), close.clone());
                let reply = Close {
                    reason: String::new(),
                    ..close
                };
                let deadline = now + self.limits.close_wait;
                self.phase = Phase::Closing {
                    closer: from,
                    reply: Box::new(reply),
                    reply_fixed: false,
                    deadline,
                };
            }
            Phase::Closing { closer, .. } if closer != from => {
                self.finish_closing(Some(close), now)
            }
            // The client needs no telling any more.
            Phase::Failing { .. } => {
                self.close(Side::Client, close);
                self.finish_failing(now);
            }
            Phase::Parting { .. } if from == Side::Upstream => self.part(now),
            Phase::Parting { .. } | Phase::Closing { .. } | Phase::Ending { .. } | Phase::Ended => {
            }
        }
    }

    /// Closes the upstream of a client that is gone, at once or when it has been heard out.
    fn client_gone(&mut self, now: Instant) {
        if let Some(parting) = self.parting {
            return self.hear_out(parting, now);
        }
        self.close(Side::Upstream, Close::new(1001, "client gone"));
        self.end_by(now + self.limits.gone_linger);
    }

    fn hear_out(&mut self, parting: &'static Parting, now: Instant) {
        if let Some(ask) = parting.ask {
            self.actions
                .push_back(Action::Event(Side::Upstream, ask.to_owned()));
        }
        self.actions.push_back(Action::Shutdown(Side::Client));
        self.phase = Phase::Parting {
            how: parting,
            quiet_until: now + parting.quiet_max,
            deadline: now + parting.wait_max,
        };
    }

    /// Goes on hearing an upstream that said something since.
    fn check_quiet(&mut self, longest: Duration, now: Instant) {
        let until = self.upstream.keep_alive.heard() + longest;
        if until <= now {
            return self.part(now);
        }
        if let Phase::Parting { quiet_until, .. } = &mut self.phase {
            *quiet_until = until;
        }
    }

    /// The upstream has been heard out.
    fn part(&mut self, now: Instant) {
        self.close(Side::Upstream, Close::new(1001, "client gone"));
        self.end_by(now + self.limits.gone_linger);
    }

    /// Whether what the client sends still has somewhere to go.
    const fn is_listening(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    fn count_frame(&mut self, now: Instant) {
        if !self.is_listening() || self.allowance.frame(now) {
            return;
        }
        let reason = "frame_rate_exceeded";
        self.ended(EndedBy::Client, Some(1008), reason, EndKind::RateExceeded);
        let message = "The client sent more frames in a second than the relay allows. \
                       Next step: put more audio into each frame, or have limits.framesPerSecond raised.";
        let event = self.error_json("invalid_request_error", reason, message);
        self.stop_both(
            Stop {
                code: 1008,
                reason: reason.into(),
                event: Some(event),
            },
            now,
        );
    }

    /// Answers the side that began to close, and lets both hang up.
    fn finish_closing(&mut self, answer: Option<Close>, now: Instant) {
        let Phase::Closing {
            closer,
            reply,
            reply_fixed,
            ..
        } = &self.phase
        else {
            return;
        };
        let reply = answer
            .filter(|_| !reply_fixed)
            .unwrap_or_else(|| Close::clone(reply));
        self.close(*closer, reply);
        self.end_by(now + self.limits.linger);
    }

    /// Tells both sides what the upstream did.
    fn finish_failing(&mut self, now: Instant) {
        let Phase::Failing { reply, .. } = &self.phase else {
            return;
        };
        let reply = Close::clone(reply);
        self.close(Side::Upstream, reply);
        match self.client.close_sent {
            None => self.fail_client(UpstreamLoss::ProtocolViolation, now),
            Some(_) => self.end_by(now + self.limits.linger),
        }
    }

    /// Tells the client that the upstream is of no more use, in the way that SDKs surface and retry.
    fn fail_client(&mut self, loss: UpstreamLoss, now: Instant) {
        let diagnosis = Diagnosis::upstream_lost(loss);
        let message = format!("{} Next step: {}", diagnosis.summary, diagnosis.next_step);
        self.send_error(diagnosis.code, &message);
        self.close(Side::Client, Close::new(1011, diagnosis.code));
        self.end_by(now + self.limits.linger);
    }

    fn stop_both(&mut self, stop: Stop, now: Instant) {
        if let Some(event) = stop.event {
            self.actions.push_back(Action::Event(Side::Client, event));
        }
        self.close(Side::Client, Close::new(stop.code, &stop.reason));
        self.close(Side::Upstream, Close::new(1001, "relay ends the session"));
        self.end_by(now + self.limits.linger);
    }

    fn check_open(&mut self, now: Instant) {
        if self
            .limits
            .session_max
            .is_some_and(|longest| self.start + longest <= now)
        {
            self.ended(
                EndedBy::Relay,
                Some(1001),
                "session_max",
                EndKind::SessionMax,
            );
            let event = self.error_json(
                "server_error",
                "session_expired",
                "The session reached the longest time that the relay allows.",
            );
            return self.stop_both(
                Stop {
                    code: 1001,
                    reason: "session_max".into(),
                    event: Some(event),
                },
                now,
            );
        }
        if self.is_due(
            self.limits.idle_max.map(|idle| self.client_spoke + idle),
            now,
        ) {
            return self.on_idle(now);
        }
        for side in [Side::Client, Side::Upstream] {
            let stalled = self.leg_ref(side).stall.deadline(self.limits.stall_timeout);
            if self.is_due(stalled, now) {
                return self.on_stalled(side, now);
            }
            if self.is_due(self.trickle_deadline(side), now) {
                return self.on_frame_timeout(side, now);
            }
            match self.leg(side).keep_alive.due(now) {
                Some(Alarm::Ping) => self.actions.push_back(Action::Ping(side)),
                Some(Alarm::Dead) => return self.on_dead(side, now),
                None => {}
            }
        }
    }

    fn on_dead(&mut self, side: Side, now: Instant) {
        self.ended(side.into(), None, "ping_timeout", EndKind::PingTimeout);
        self.leg(side).silent = true;
        match side {
            Side::Client => {
                self.close(Side::Client, Close::new(1011, "ping timeout"));
                self.client_gone(now);
            }
            Side::Upstream => {
                self.close(Side::Upstream, Close::new(1011, "ping timeout"));
                self.fail_client(UpstreamLoss::PingTimeout, now);
            }
        }
    }

    fn is_due(&self, deadline: Option<Instant>, now: Instant) -> bool {
        deadline.is_some_and(|deadline| deadline <= now)
    }

    fn trickle_deadline(&self, side: Side) -> Option<Instant> {
        let leg = self.leg_ref(side);
        // A leg that is not read cannot go on.
        if leg.keep_alive.is_paused() {
            return None;
        }
        leg.trickle.deadline(self.limits.frame_timeout)
    }

    fn on_idle(&mut self, now: Instant) {
        let reason = "session_idle";
        self.ended(EndedBy::Relay, Some(1001), reason, EndKind::Idle);
        let message = "The client sent nothing for as long as the relay allows. \
                       Next step: open a new session when there is something to say.";
        let event = self.error_json("server_error", reason, message);
        self.stop_both(
            Stop {
                code: 1001,
                reason: reason.into(),
                event: Some(event),
            },
            now,
        );
    }

    /// What waits for a side is given up with it. Its event and close frame stand behind those bytes, and
    /// reach it only if it takes them within the linger.
    fn on_stalled(&mut self, side: Side, now: Instant) {
        let reason = "slow_consumer";
        self.ended(side.into(), Some(1013), reason, EndKind::SlowConsumer);
        match side {
            Side::Client => {
                let message = "The client did not read what was sent to it. \
                               Next step: connect again, on a better network or with a faster reader.";
                let event = self.error_json("server_error", reason, message);
                self.actions.push_back(Action::Event(Side::Client, event));
                self.close(Side::Client, Close::new(1013, reason));
                self.close(Side::Upstream, Close::new(1001, "client too slow"));
                self.end_by(now + self.limits.linger);
            }
            Side::Upstream => {
                self.close(Side::Upstream, Close::new(1001, reason));
                self.fail_client(UpstreamLoss::Stalled, now);
            }
        }
    }

    fn on_frame_timeout(&mut self, side: Side, now: Instant) {
        let reason = "frame_timeout";
        self.ended(side.into(), Some(1008), reason, EndKind::FrameTimeout);
        self.leg(side).silent = true;
        match side {
            Side::Client => {
                let message = "The client began a frame and did not go on with it. \
                               Next step: connect again; frames are to be sent as soon as they are begun.";
                let event = self.error_json("invalid_request_error", reason, message);
                self.actions.push_back(Action::Event(Side::Client, event));
                self.close(Side::Client, Close::new(1008, reason));
                self.close(Side::Upstream, Close::new(1001, "client too slow"));
                self.end_by(now + self.limits.linger);
            }
            Side::Upstream => {
                self.close(Side::Upstream, Close::new(1008, reason));
                self.fail_client(UpstreamLoss::Stalled, now);
            }
        }
    }

    /// Keeps the first cause: what follows is its consequence.
    fn ended(&mut self, by: EndedBy, code: Option<u16>, reason: &str, kind: EndKind) {
        self.end.get_or_insert_with(|| End {
            by,
            code,
            reason: sanitize_reason(reason),
            kind,
        });
    }

    fn send_error(&mut self, code: &str, message: &str) {
        let event = self.error_json("server_error", code, message);
        self.actions.push_back(Action::Event(Side::Client, event));
    }

    fn error_json(&mut self, kind: &str, code: &str, message: &str) -> String {
        self.events_sent += 1;
        let event_id = format!("event_talkline_{}", self.events_sent);
        ErrorEvent {
            event_id: &event_id,
            kind,
            code,
            message,
            param: None,
        }
        .to_json()
    }

    fn close(&mut self, to: Side, close: Close) {
        let leg = self.leg(to);
        if leg.close_sent.is_none() {
            leg.close_sent = Some(close.code);
            self.actions.push_back(Action::Close(to, close));
        }
    }

    fn end_by(&mut self, deadline: Instant) {
        self.phase = Phase::Ending { deadline };
        self.actions.push_back(Action::Shutdown(Side::Client));
        self.actions.push_back(Action::Shutdown(Side::Upstream));
        self.end_if_both_lost();
    }

    fn end_if_both_lost(&mut self) {
        if matches!(self.phase, Phase::Ending { .. }) && self.client.lost && self.upstream.lost {
            self.end_now();
        }
    }

    fn end_now(&mut self) {
        self.phase = Phase::Ended;
        self.actions.push_back(Action::End);
    }
}

impl From<Side> for EndedBy {
    fn from(side: Side) -> Self {
        match side {
            Side::Client => Self::Client,
            Side::Upstream => Self::Upstream,
        }
    }
}
