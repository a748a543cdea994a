//! The reading side of a leg: the scanner, and the bytes that are held until their fate is known.

use std::task::Context;
use std::time::Instant;

use bytes::Bytes;
use fastwebsockets::unmask;
use talkline_frame::{Direction, EventType, FrameEnd, Header, MessageKind, OpCode, Scanner, Step};
use talkline_session::{Close, Control, Message, Session, Side, Verdict};
use tokio::io::AsyncWrite;

use crate::UpstreamMasking;
use crate::outlet::{Outlet, Position};
use crate::scratch::{SCRATCH_BYTES, fresh_key};

/// Capacity that an empty hold keeps.
const HELD_BYTES_KEPT: usize = 512;

/// Longest hold that leaves room to read into.
const HOLD_BYTES_LIMIT: usize = SCRATCH_BYTES / 2;

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Inlet {
    side: Side,
    scanner: Scanner,
    masking: UpstreamMasking,
    hold_bytes_max: u64,
    /// Bytes of a frame that has not been passed on; the scanner has seen them.
    held: Vec<u8>,
    frame: Option<Frame>,
    /// Bytes that came with the handshake.
    pub(crate) early: Bytes,
    /// What comes is thrown away: a close frame or a violation came.
    pub(crate) deaf: bool,
    /// The stream is over.
    pub(crate) ended: bool,
    /// The session was told that this side is not read.
    pub(crate) paused: bool,
}

/// The frame that is being read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    header: Header,
    fate: Fate,
    seen: u64,
    /// What turns the client's masking into a fresh one; zero to leave it.
    remask: [u8; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// A data frame of which nothing has been passed on yet.
    Hold,
    /// A data frame that is passed on as it comes.
    Pass,
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

impl Inlet {
    pub(crate) fn new(
        side: Side,
        early: Bytes,
        session: &Session,
        masking: UpstreamMasking,
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
            // An empty `Bytes` may still pin the buffer it was cut from.
            early: if early.is_empty() {
                Bytes::new()
            } else {
                early
            },
            deaf: false,
            ended: false,
            paused: false,
        }
    }

    /// Puts the held bytes at the front of the buffer to read into; returns how many.
    pub(crate) fn restore(&self, buffer: &mut [u8]) -> usize {
        buffer[..self.held.len()].copy_from_slice(&self.held);
        self.held.len()
    }

    /// No more frames will be read: drops what is held.
    pub(crate) fn stop_listening(&mut self, outlet: &mut Outlet) {
        self.deaf = true;
        self.held = Vec::new();
        self.frame = None;
        outlet.source_ended();
    }

    /// Looks at a buffer of which the first `scanned` bytes were held, and passes on what may go out.
    ///
    /// Frames that stand side by side are passed on together; the session's actions are left for the
    /// caller to obey. Returns early, with the rest of the buffer, after a control frame.
    pub(crate) fn admit<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        scanned: usize,
        session: &mut Session,
        exit: &mut Exit<'_, W>,
        now: Instant,
    ) -> usize {
        // `start..frame_start` are whole frames to pass on; `frame_start..at` is the frame being read.
        let (mut start, mut frame_start, mut at) = (0, 0, scanned);
        loop {
            let (consumed, step) = match self.scanner.step(&buffer[at..]) {
                Ok(stepped) => stepped,
                Err(violation) => {
                    exit.outlet.pass(
                        cx,
                        exit.io,
                        &buffer[start..frame_start],
                        self.boundary_before(),
                    );
                    self.stop_listening(exit.outlet);
                    session.on_violation(self.side, violation, now);
                    return buffer.len();
                }
            };
            let piece = at..at + consumed;
            at += consumed;
            match step {
                Step::NeedMore => break,
                Step::Header(header) => {
                    let header_start = at - usize::from(header.header_bytes);
                    self.begin(header, &mut buffer[header_start..at], session);
                }
                Step::Payload => self.go_on(&mut buffer[piece], session),
                Step::FrameEnd(end) => {
                    let Some(frame) = self.frame.take() else {
                        continue;
                    };
                    match frame.fate {
                        Fate::Hold | Fate::Pass => {
                            self.end_data(end, session, now);
                            if exit.outlet.wants_boundary() {
                                exit.outlet
                                    .pass(cx, exit.io, &buffer[start..at], self.boundary());
                                exit.outlet.speak();
                                start = at;
                            }
                        }
                        Fate::Discard => {
                            self.end_data(end, session, now);
                            // Its message may have been begun: only control frames may follow.
                            let position = Position::BetweenFrames;
                            exit.outlet
                                .pass(cx, exit.io, &buffer[start..frame_start], position);
                            start = at;
                        }
                        Fate::Control => {
                            exit.outlet.pass(
                                cx,
                                exit.io,
                                &buffer[start..frame_start],
                                self.boundary(),
                            );
                            let payload = frame_start + usize::from(frame.header.header_bytes)..at;
                            self.end_control(
                                end,
                                frame.header,
                                &buffer[payload],
                                session,
                                exit.outlet,
                                now,
                            );
                            self.held.clear();
                            return at;
                        }
                    }
                    frame_start = at;
                }
            }
        }
        self.keep(cx, buffer, start, frame_start, exit);
        buffer.len()
    }

    fn begin(&mut self, header: Header, bytes: &mut [u8], session: &mut Session) {
        let fate = if header.opcode.is_control() {
            Fate::Control
        } else {
            match session.on_data_header(self.side) {
                Verdict::Forward => Fate::Hold,
                Verdict::Discard => Fate::Discard,
            }
        };
        let mut remask = [0; 4];
        if fate == Fate::Hold
            && self.masking == UpstreamMasking::Fresh
            && let (Some(old), Some(fresh), Some(key)) =
                (header.mask, fresh_key(), bytes.last_chunk_mut::<4>())
        {
            remask = [0, 1, 2, 3].map(|i| old[i] ^ fresh[i]);
            *key = fresh;
        }
        self.frame = Some(Frame {
            header,
            fate,
            seen: 0,
            remask,
        });
    }

    fn go_on(&mut self, piece: &mut [u8], session: &mut Session) {
        let Some(frame) = self.frame.as_mut() else {
            return;
        };
        if frame.header.mask.is_none() && !frame.header.opcode.is_control() {
            session.on_text(self.side, self.scanner.event_type(), piece);
        }
        if frame.remask != [0; 4] {
            let phase = (frame.seen & 3) as usize;
            unmask(piece, [0, 1, 2, 3].map(|i| frame.remask[(i + phase) & 3]));
        }
        frame.seen += piece.len() as u64;
        if frame.fate == Fate::Hold && frame.seen >= self.hold_bytes_max {
            frame.fate = Fate::Pass;
        }
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

    fn end_control(
        &mut self,
        end: FrameEnd,
        header: Header,
        masked: &[u8],
        session: &mut Session,
        outlet: &mut Outlet,
        now: Instant,
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
                self.stop_listening(outlet);
                Control::Close(Close {
                    code: end.close_code,
                    reason,
                })
            }
            _ => Control::Pong,
        };
        session.on_control(self.side, control, now);
    }

    /// Passes on what may go out at the end of a buffer, and holds the rest.
    fn keep<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &[u8],
        start: usize,
        frame_start: usize,
        exit: &mut Exit<'_, W>,
    ) {
        self.held.clear();
        match self.frame.map(|frame| frame.fate) {
            Some(Fate::Pass) => exit
                .outlet
                .pass(cx, exit.io, &buffer[start..], Position::InFrame),
            Some(Fate::Discard) => {
                exit.outlet.pass(
                    cx,
                    exit.io,
                    &buffer[start..frame_start],
                    self.boundary_before(),
                );
            }
            Some(Fate::Hold | Fate::Control) | None => {
                exit.outlet.pass(
                    cx,
                    exit.io,
                    &buffer[start..frame_start],
                    self.boundary_before(),
                );
                self.held.extend_from_slice(&buffer[frame_start..]);
            }
        }
        if self.held.is_empty() && self.held.capacity() > HELD_BYTES_KEPT {
            self.held = Vec::new();
        }
    }

    /// Where the output stands behind a complete frame.
    fn boundary(&self) -> Position {
        if self.scanner.is_inside_message() {
            Position::BetweenFrames
        } else {
            Position::BetweenMessages
        }
    }

    /// Where the output stands before the frame that is being read.
    fn boundary_before(&self) -> Position {
        let begins = self
            .frame
            .is_some_and(|frame| matches!(frame.header.opcode, OpCode::Text | OpCode::Binary));
        if begins {
            Position::BetweenMessages
        } else {
            self.boundary()
        }
    }
}
