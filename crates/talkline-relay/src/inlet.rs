//! The reading side of a leg: the scanner, and the bytes that are held until their fate is known.

use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use bytes::Bytes;
use fastwebsockets::unmask;
use talkline_frame::{
    Direction, EventType, FrameEnd, Header, MessageKind, OpCode, Scanner, Step, apply_mask,
};
use talkline_session::policy::{Breach, Decision, Look, Watch};
use talkline_session::{Close, Control, Message, Session, Side, Verdict};
use tokio::io::AsyncWrite;

use crate::budget::Budget;
use crate::outlet::{Outlet, Position};
use crate::scratch::SCRATCH_BYTES;
use crate::watch::{self, Stage, Watched, refresh_key, turned};
use crate::{UpstreamMasking, frames};

/// Capacity that an empty hold keeps.
const HELD_BYTES_KEPT: usize = 512;

/// Longest hold that leaves room to read into.
const HOLD_BYTES_LIMIT: usize = SCRATCH_BYTES / 2;

/// See the [module documentation](self).
// In this order: what every frame needs stands in neighbouring cache lines.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Inlet {
    side: Side,
    masking: UpstreamMasking,
    /// What comes is thrown away: a close frame or a violation came.
    pub(crate) deaf: bool,
    /// The stream is over.
    pub(crate) ended: bool,
    /// The session was told that this side is not read.
    pub(crate) paused: bool,
    hold_bytes_max: u64,
    /// Bytes of a frame that has not been passed on; the scanner has seen them.
    held: Vec<u8>,
    frame: Option<Frame>,
    scanner: Scanner,
    /// What a guard looks at. Boxed, and made when it is needed: most sessions have no guard.
    watched: Option<Box<Watched>>,
    budget: Option<Arc<Budget>>,
    /// Bytes that came with the handshake. Boxed: most legs have none, and no leg has for long.
    early: Option<Box<Bytes>>,
}

/// The frame that is being read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    header: Header,
    fate: Fate,
    seen: u64,
    /// What turns the client's masking into a fresh one; zero to leave it.
    remask: [u8; 4],
    /// Where the output stands when all that came before the frame has been passed on.
    before: Position,
    /// The guard sees every piece before it goes out.
    is_shown: bool,
    /// A watched frame of which an earlier buffer had a part; that is kept apart.
    is_kept: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// A data frame of which nothing has been passed on yet.
    Hold,
    /// A data frame that is passed on as it comes.
    Pass,
    /// A data frame of a message that the guard has yet to judge.
    Watch,
    /// A data frame that nobody wants any more.
    Discard,
    /// A control frame: read, never passed on.
    Control,
}

/// Where bytes go.
pub(crate) struct Exit<'a, W> {
    pub(crate) io: &'a mut W,
    pub(crate) outlet: &'a mut Outlet,
}

impl<W: AsyncWrite + Unpin> Exit<'_, W> {
    fn pass(&mut self, cx: &mut Context<'_>, bytes: &[u8], position: Position) {
        self.outlet.pass(cx, self.io, bytes, position);
    }
}

/// The buffer that is being looked at. `start..frame_start` are whole frames that may be passed on,
/// `frame_start..at` is what there is of the frame being read.
struct Window<'a> {
    buffer: &'a mut [u8],
    start: usize,
    frame_start: usize,
    at: usize,
}

impl Window<'_> {
    fn whole_frames(&self) -> &[u8] {
        &self.buffer[self.start..self.frame_start]
    }

    fn frame(&self) -> &[u8] {
        &self.buffer[self.frame_start..self.at]
    }
}

/// Whom to tell, and when it is.
pub(crate) struct Scene<'a, 'c, W> {
    pub(crate) cx: &'a mut Context<'c>,
    pub(crate) session: &'a mut Session,
    pub(crate) exit: Exit<'a, W>,
    pub(crate) now: Instant,
}

impl Inlet {
    pub(crate) fn new(
        side: Side,
        early: Bytes,
        session: &Session,
        masking: UpstreamMasking,
        budget: Option<Arc<Budget>>,
    ) -> Self {
        let limits = session.limits();
        let direction = match side {
            Side::Client => Direction::ClientToUpstream,
            Side::Upstream => Direction::UpstreamToClient,
        };
        Self {
            side,
            scanner: Scanner::new(direction, limits.frames),
            masking,
            hold_bytes_max: limits.hold_bytes_max.min(HOLD_BYTES_LIMIT) as u64,
            held: Vec::new(),
            frame: None,
            watched: None,
            budget,
            // An empty `Bytes` may still pin the buffer it was cut from.
            early: (!early.is_empty()).then(|| Box::new(early)),
            deaf: false,
            ended: false,
            paused: false,
        }
    }

    /// Takes some of the bytes that came with the handshake; returns how many.
    pub(crate) fn take_early(&mut self, buffer: &mut [u8]) -> usize {
        let Some(early) = &mut self.early else {
            return 0;
        };
        let taken = early.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&early.split_to(taken));
        if early.is_empty() {
            self.early = None;
        }
        taken
    }

    /// Puts the held bytes at the front of the buffer to read into; returns how many.
    pub(crate) fn restore(&self, buffer: &mut [u8]) -> usize {
        buffer[..self.held.len()].copy_from_slice(&self.held);
        self.held.len()
    }

    /// Whether the bytes so far end inside a frame.
    pub(crate) const fn is_in_frame(&self) -> bool {
        !self.deaf && !self.scanner.is_at_frame_boundary()
    }

    /// Whether part of a message waits for the guard to judge it.
    pub(crate) fn is_holding(&self) -> bool {
        self.watched
            .as_ref()
            .is_some_and(|watched| watched.is_holding_any())
    }

    /// No more frames will be read: drops what is held.
    pub(crate) fn stop_listening(&mut self, outlet: &mut Outlet) {
        self.deaf = true;
        self.held = Vec::new();
        self.frame = None;
        self.watched = None;
        outlet.source_ended();
    }

    /// Looks at a buffer of which the first `scanned` bytes were held, and passes on what may go out.
    ///
    /// Frames that stand side by side are passed on together; the session's actions are left for the
    /// caller to obey. Returns early, with the rest of the buffer, after a control frame.
    pub(crate) fn admit<W: AsyncWrite + Unpin>(
        &mut self,
        buffer: &mut [u8],
        scanned: usize,
        scene: &mut Scene<'_, '_, W>,
    ) -> usize {
        let mut window = Window {
            buffer,
            start: 0,
            frame_start: 0,
            at: scanned,
        };
        while !self.deaf {
            let stepped = self.scanner.step(&window.buffer[window.at..]);
            let (consumed, step) = match stepped {
                Ok(stepped) => stepped,
                Err(violation) => {
                    self.give_up(&window, scene);
                    let (side, now) = (self.side, scene.now);
                    scene.session.on_violation(side, violation, now);
                    break;
                }
            };
            window.at += consumed;
            let judged = match step {
                Step::NeedMore => {
                    self.keep(&window, scene);
                    break;
                }
                Step::Header(header) => {
                    self.begin(header, &mut window, scene);
                    Ok(())
                }
                Step::Payload => self.go_on(consumed, &mut window, scene),
                Step::FrameEnd(end) => match self.end(end, &mut window, scene) {
                    Ok(Fate::Control) => return window.at,
                    judged => judged.map(|_| ()),
                },
            };
            if let Err(Breach(farewell)) = judged {
                self.give_up(&window, scene);
                scene.session.on_forbidden(farewell, scene.now);
            }
        }
        window.buffer.len()
    }

    /// Passes on the whole frames before the one being read, and never the rest.
    fn give_up<W: AsyncWrite + Unpin>(
        &mut self,
        window: &Window<'_>,
        scene: &mut Scene<'_, '_, W>,
    ) {
        let before = self.before();
        scene.exit.pass(scene.cx, window.whole_frames(), before);
        self.stop_listening(scene.exit.outlet);
    }

    fn begin<W: AsyncWrite + Unpin>(
        &mut self,
        header: Header,
        window: &mut Window<'_>,
        scene: &mut Scene<'_, '_, W>,
    ) {
        let before = match header.opcode {
            OpCode::Text | OpCode::Binary => Position::BetweenMessages,
            _ => self.boundary(),
        };
        let fate = self.fate(header, scene.session, scene.now);
        let mut frame = Frame {
            header,
            fate,
            seen: 0,
            remask: [0; 4],
            before,
            is_shown: false,
            is_kept: false,
        };
        if fate == Fate::Hold {
            if !matches!(header.opcode, OpCode::Text | OpCode::Binary) {
                frame.is_shown = self.stage() == Stage::Streaming;
            }
            if self.masking == UpstreamMasking::Fresh {
                let start = window.at - usize::from(header.header_bytes);
                frame.remask = refresh_key(&mut window.buffer[start..window.at], header);
            }
        }
        self.frame = Some(frame);
        self.check_size(window, scene);
    }

    fn fate(&mut self, header: Header, session: &mut Session, now: Instant) -> Fate {
        if header.opcode.is_control() {
            return Fate::Control;
        }
        if session.on_data_header(self.side, now) == Verdict::Discard {
            if let Some(watched) = &mut self.watched {
                watched.release();
                watched.stage = Stage::Dropping;
            }
            return Fate::Discard;
        }
        let Some(guard) = session.guard() else {
            return Fate::Hold;
        };
        let kind = match header.opcode {
            OpCode::Text => MessageKind::Text,
            OpCode::Binary => MessageKind::Binary,
            _ => return self.fate_of_continuation(header),
        };
        match guard.begin(self.side, kind) {
            Watch::Pass => {
                if let Some(watched) = &mut self.watched {
                    watched.stage = Stage::Idle;
                }
                Fate::Hold
            }
            Watch::Look => {
                let budget = &self.budget;
                let watched = self
                    .watched
                    .get_or_insert_with(|| Box::new(Watched::new(budget.clone())));
                watched.begin(kind);
                watched.announce(header);
                Fate::Watch
            }
        }
    }

    fn fate_of_continuation(&mut self, header: Header) -> Fate {
        let Some(watched) = &mut self.watched else {
            return Fate::Hold;
        };
        match watched.stage {
            Stage::Idle | Stage::Streaming => Fate::Hold,
            Stage::Dropping => Fate::Discard,
            Stage::Looking | Stage::Holding => {
                watched.announce(header);
                Fate::Watch
            }
        }
    }

    fn go_on<W: AsyncWrite + Unpin>(
        &mut self,
        consumed: usize,
        window: &mut Window<'_>,
        scene: &mut Scene<'_, '_, W>,
    ) -> Result<(), Breach> {
        let Some(mut frame) = self.frame else {
            return Ok(());
        };
        let piece_start = window.at - consumed;
        let piece = &mut window.buffer[piece_start..window.at];
        if frame.header.mask.is_none() && !frame.header.opcode.is_control() {
            let event_type = self.scanner.event_type();
            scene.session.on_text(self.side, event_type, piece);
        }
        if frame.fate == Fate::Watch {
            return self.look(frame, consumed, window, scene);
        }
        if frame.is_shown
            && let Some(guard) = scene.session.guard()
        {
            watch::show(self.side, guard, piece, frame.header.mask, frame.seen)?;
        }
        if frame.remask != [0; 4] {
            apply_mask(piece, turned(frame.remask, frame.seen));
        }
        frame.seen += consumed as u64;
        if frame.fate == Fate::Hold && frame.seen >= self.hold_bytes_max {
            frame.fate = Fate::Pass;
        }
        self.frame = Some(frame);
        Ok(())
    }

    /// Shows the beginning of a watched message to the guard: the last `consumed` bytes are new.
    fn look<W: AsyncWrite + Unpin>(
        &mut self,
        mut frame: Frame,
        consumed: usize,
        window: &mut Window<'_>,
        scene: &mut Scene<'_, '_, W>,
    ) -> Result<(), Breach> {
        let (Some(watched), Some(guard)) = (&mut self.watched, scene.session.guard()) else {
            return Ok(());
        };
        let seen = frame.seen;
        frame.seen += consumed as u64;
        self.frame = Some(frame);
        if watched.stage != Stage::Looking {
            return Ok(());
        }
        let piece_start = window.at - consumed;
        let piece = &window.buffer[piece_start..window.at];
        let mask = frame.header.mask;
        let complete = frame.header.fin && frame.seen == frame.header.payload_bytes;
        let (look, shown) = watched.look(self.side, guard, piece, mask, seen, complete);
        match look {
            Look::More => return Ok(()),
            Look::Hold => {
                watched.stage = Stage::Holding;
                self.check_size(window, scene);
                return Ok(());
            }
            Look::Stream => watched.stage = Stage::Streaming,
        }
        let rest_seen = seen + shown as u64;
        watch::show(self.side, guard, &piece[shown..], mask, rest_seen)?;
        frame.is_shown = true;
        if self.masking == UpstreamMasking::Fresh {
            frame.remask = watched.remask();
            let header_bytes = usize::from(frame.header.header_bytes);
            let (header, payload) = window.buffer[window.frame_start..window.at].split_at_mut(
                // A kept frame has its header there, and its next piece here.
                if frame.is_kept { 0 } else { header_bytes },
            );
            if !frame.is_kept {
                frame.remask = refresh_key(header, frame.header);
            }
            let payload_seen = frame.seen - payload.len() as u64;
            apply_mask(payload, turned(frame.remask, payload_seen));
        }
        if watched.is_holding_any() {
            // Whole frames before it were passed on when it began to be kept.
            let position = match frame.is_kept {
                true => Position::InFrame,
                false => Position::BetweenFrames,
            };
            scene.exit.pass(scene.cx, watched.raw(), position);
            watched.release();
        }
        frame.fate = match frame.is_kept || frame.seen >= self.hold_bytes_max {
            true => Fate::Pass,
            false => Fate::Hold,
        };
        self.frame = Some(frame);
        Ok(())
    }

    /// Ends the frame; returns what its fate was.
    fn end<W: AsyncWrite + Unpin>(
        &mut self,
        end: FrameEnd,
        window: &mut Window<'_>,
        scene: &mut Scene<'_, '_, W>,
    ) -> Result<Fate, Breach> {
        if end.message.is_some() {
            self.complete(window, scene)?;
        }
        let Some(frame) = self.frame else {
            return Ok(Fate::Discard);
        };
        match frame.fate {
            Fate::Hold | Fate::Pass => {
                self.end_data(end, scene.session, scene.now);
                if scene.exit.outlet.wants_boundary() {
                    let whole = &window.buffer[window.start..window.at];
                    scene.exit.pass(scene.cx, whole, self.boundary());
                    scene.exit.outlet.speak();
                    window.start = window.at;
                }
            }
            Fate::Watch => {
                scene
                    .exit
                    .pass(scene.cx, window.whole_frames(), frame.before);
                window.start = window.at;
                self.end_data(end, scene.session, scene.now);
                if self.keep_watched(window, scene) && end.message.is_some() {
                    self.decide(scene);
                }
            }
            Fate::Discard => {
                self.end_data(end, scene.session, scene.now);
                scene
                    .exit
                    .pass(scene.cx, window.whole_frames(), frame.before);
                window.start = window.at;
            }
            Fate::Control => {
                scene
                    .exit
                    .pass(scene.cx, window.whole_frames(), frame.before);
                self.frame = None;
                self.held.clear();
                let payload = &window.frame()[usize::from(frame.header.header_bytes)..];
                self.end_control(end, frame.header, payload, scene);
                return Ok(Fate::Control);
            }
        }
        if end.message.is_some()
            && let Some(watched) = &mut self.watched
        {
            watched.stage = Stage::Idle;
        }
        window.frame_start = window.at;
        self.frame = None;
        Ok(frame.fate)
    }

    /// The message of the current frame is complete: the guard is asked what it has not been asked yet.
    fn complete<W: AsyncWrite + Unpin>(
        &mut self,
        window: &mut Window<'_>,
        scene: &mut Scene<'_, '_, W>,
    ) -> Result<(), Breach> {
        // Of a message that ends with an empty frame the guard has not seen that it is complete.
        if let Some(frame) = self.frame
            && frame.fate == Fate::Watch
        {
            self.look(frame, 0, window, scene)?;
        }
        let is_shown = self.frame.is_some_and(|frame| frame.is_shown);
        match scene.session.guard() {
            Some(guard) if is_shown => guard.stream_end(self.side),
            _ => Ok(()),
        }
    }

    /// Refuses a message that is held once it is known to be too long.
    fn check_size<W: AsyncWrite + Unpin>(
        &mut self,
        window: &mut Window<'_>,
        scene: &mut Scene<'_, '_, W>,
    ) {
        let bytes_max = scene.session.limits().inspect_bytes_max as u64;
        let (Some(watched), Some(frame)) = (&mut self.watched, &mut self.frame) else {
            return;
        };
        if watched.stage != Stage::Holding || watched.announced() <= bytes_max {
            return;
        }
        scene
            .exit
            .pass(scene.cx, window.whole_frames(), frame.before);
        window.start = window.frame_start;
        watched.release();
        watched.stage = Stage::Dropping;
        frame.fate = Fate::Discard;
        let kind = watched.kind;
        let decision = match scene.session.guard() {
            Some(guard) => guard.oversize(self.side),
            None => Decision::Drop,
        };
        self.obey(decision, kind, scene);
    }

    /// Has the guard judge a held message that is complete.
    fn decide<W: AsyncWrite + Unpin>(&mut self, scene: &mut Scene<'_, '_, W>) {
        let (Some(watched), Some(guard)) = (&mut self.watched, scene.session.guard()) else {
            return;
        };
        let kind = watched.kind;
        let decision = guard.decide(self.side, kind, &watched.plain());
        if decision == Decision::Forward {
            if self.masking == UpstreamMasking::Fresh {
                watched.remask();
            }
            let position = Position::BetweenMessages;
            scene.exit.pass(scene.cx, watched.raw(), position);
        }
        watched.release();
        self.obey(decision, kind, scene);
    }

    /// Does what was decided about a message of which nothing has gone out, or all that may.
    fn obey<W: AsyncWrite + Unpin>(
        &mut self,
        decision: Decision,
        kind: MessageKind,
        scene: &mut Scene<'_, '_, W>,
    ) {
        match decision {
            Decision::Forward | Decision::Drop => {}
            Decision::Rewrite(payload) => {
                let mut frame = Vec::new();
                frames::append_message(&mut frame, self.side.peer(), kind, payload);
                scene.exit.pass(scene.cx, &frame, Position::BetweenMessages);
            }
            Decision::Answer(event) => scene.session.on_answer(event),
            Decision::Close(farewell) => {
                self.stop_listening(scene.exit.outlet);
                scene.session.on_forbidden(farewell, scene.now);
            }
        }
    }

    /// Keeps what the window has of a watched frame. `false` when there was no memory, which ends the
    /// session.
    fn keep_watched<W: AsyncWrite + Unpin>(
        &mut self,
        window: &Window<'_>,
        scene: &mut Scene<'_, '_, W>,
    ) -> bool {
        let (Some(watched), Some(frame)) = (&mut self.watched, &mut self.frame) else {
            return false;
        };
        let begins = (!frame.is_kept).then_some(frame.header);
        frame.is_kept = true;
        if watched.keep(window.frame(), begins) {
            return true;
        }
        self.stop_listening(scene.exit.outlet);
        scene.session.on_overload(scene.now);
        false
    }

    fn end_data(&mut self, end: FrameEnd, session: &mut Session, now: Instant) {
        let message = end.message.map(|message| Message {
            kind: message.kind,
            event_type: match message.kind {
                MessageKind::Text => self.scanner.event_type(),
                MessageKind::Binary => EventType::Absent,
            },
        });
        session.on_data_end(self.side, message, now);
    }

    fn end_control<W: AsyncWrite + Unpin>(
        &mut self,
        end: FrameEnd,
        header: Header,
        masked: &[u8],
        scene: &mut Scene<'_, '_, W>,
    ) {
        let mut payload = [0; 125];
        let payload = &mut payload[..masked.len().min(125)];
        payload.copy_from_slice(&masked[..payload.len()]);
        if let Some(key) = header.mask {
            unmask(payload, key);
        }
        let control = match end.opcode {
            OpCode::Ping => Control::Ping(payload),
            OpCode::Close => {
                let reason = payload.get(2..).unwrap_or_default();
                let reason = String::from_utf8_lossy(reason).into_owned();
                self.stop_listening(scene.exit.outlet);
                Control::Close(Close {
                    code: end.close_code,
                    reason,
                })
            }
            _ => Control::Pong,
        };
        scene.session.on_control(self.side, control, scene.now);
    }

    /// Passes on what may go out at the end of a buffer, and holds the rest.
    fn keep<W: AsyncWrite + Unpin>(&mut self, window: &Window<'_>, scene: &mut Scene<'_, '_, W>) {
        self.held.clear();
        match self.frame.map(|frame| frame.fate) {
            Some(Fate::Pass) => {
                let rest = &window.buffer[window.start..];
                scene.exit.pass(scene.cx, rest, Position::InFrame);
            }
            fate => {
                let before = self.before();
                scene.exit.pass(scene.cx, window.whole_frames(), before);
                match fate {
                    Some(Fate::Discard) => {}
                    Some(Fate::Watch) => {
                        self.keep_watched(window, scene);
                    }
                    _ => self.held.extend_from_slice(window.frame()),
                }
            }
        }
        if self.held.is_empty() && self.held.capacity() > HELD_BYTES_KEPT {
            self.held = Vec::new();
        }
    }

    fn stage(&self) -> Stage {
        self.watched
            .as_ref()
            .map_or(Stage::Idle, |watched| watched.stage)
    }

    /// Where the output stands behind a complete frame.
    fn boundary(&self) -> Position {
        let is_withheld = matches!(
            self.stage(),
            Stage::Looking | Stage::Holding | Stage::Dropping
        );
        if self.scanner.is_inside_message() && !is_withheld {
            Position::BetweenFrames
        } else {
            Position::BetweenMessages
        }
    }

    /// Where the output stands before the frame that is being read.
    fn before(&self) -> Position {
        self.frame
            .map_or_else(|| self.boundary(), |frame| frame.before)
    }
}
