//! The scanner itself: headers, message state, text, the event type.

use crate::event_type::{EventType, TypeFinder};
use crate::header::{Header, HeaderReader, OpCode, is_close_code_legal};
use crate::utf8::Utf8;
use crate::{Direction, Violation, wide};

/// Bytes of masked payload that are unmasked at a time, on the stack, to be looked at.
const BLOCK_BYTES: usize = 1024;

/// What one direction of a connection may send. Every limit is decided on a header, before the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Longest payload of one frame, in bytes. Defaults to 24 MiB, room for the 15 MiB of audio that
    /// one `input_audio_buffer.append` may carry, in base64 and with its JSON around it.
    pub frame_bytes_max: u64,
    /// Longest message, in bytes, summed over its frames. Defaults to 24 MiB.
    pub message_bytes_max: u64,
    /// Most frames that one message may be cut into. Defaults to 1,024. Zero is read as one.
    pub fragments_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 24 << 20,
            message_bytes_max: 24 << 20,
            fragments_max: 1024,
        }
    }
}

/// Whether a message is text or binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// UTF-8, checked.
    Text,
    /// Any bytes.
    Binary,
}

/// What the scanner came to; see [`Scanner::step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The input is used up.
    NeedMore,
    /// The bytes consumed end a header; its payload follows.
    Header(Header),
    /// The bytes consumed are payload of the current frame.
    Payload,
    /// The current frame is complete; no byte was consumed.
    FrameEnd(FrameEnd),
}

/// A complete frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameEnd {
    /// What the frame was for.
    pub opcode: OpCode,
    /// Length of its payload.
    pub payload_bytes: u64,
    /// The code of a close frame; `None` when it carried none, and on other frames.
    pub close_code: Option<u16>,
    /// The message that this frame completed.
    pub message: Option<MessageEnd>,
}

/// A complete message. Its type is [`Scanner::event_type`] until the next header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageEnd {
    /// Text or binary.
    pub kind: MessageKind,
    /// Length of its payload over all frames.
    pub payload_bytes: u64,
    /// How many frames it came in.
    pub fragments: u32,
}

/// A frame whose header has been read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    header: Header,
    /// Payload bytes seen.
    seen: u64,
}

/// A data message of which at least one header has been read.
#[derive(Clone, Copy, Debug)]
struct Message {
    kind: MessageKind,
    bytes: u64,
    fragments: u32,
    utf8: Utf8,
}

/// What a close frame has said so far.
#[derive(Clone, Copy, Debug, Default)]
struct Close {
    code: u16,
    utf8: Utf8,
}

/// Checks one direction of a WebSocket connection; see the [crate documentation](crate).
///
/// Cloning one forks the check at that byte.
// In this order: what every frame needs stands in neighbouring cache lines, for thousands of sessions share the
// caches.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Scanner {
    frame: Option<Frame>,
    message: Option<Message>,
    limits: Limits,
    direction: Direction,
    failed: Option<Violation>,
    close: Close,
    reader: HeaderReader,
    finder: TypeFinder,
}

impl Scanner {
    /// A scanner for the first byte behind the opening handshake.
    #[must_use]
    pub const fn new(direction: Direction, limits: Limits) -> Self {
        Self {
            direction,
            limits,
            reader: HeaderReader::new(),
            frame: None,
            message: None,
            close: Close {
                code: 0,
                utf8: Utf8::new(),
            },
            finder: TypeFinder::new(),
            failed: None,
        }
    }

    /// Looks at the next bytes and stops at the first thing worth telling.
    ///
    /// Returns how many bytes of `input` were used and what they came to. Call again with the rest
    /// until [`Step::NeedMore`], also when the rest is empty: the end of a frame is told in a step of
    /// its own. A frame gives one [`Step::Header`], any number of [`Step::Payload`] and one
    /// [`Step::FrameEnd`].
    ///
    /// # Errors
    ///
    /// The rule that the peer broke; every later call returns it again. Steps that came before it
    /// stand: what they covered is valid.
    pub fn step(&mut self, input: &[u8]) -> Result<(usize, Step), Violation> {
        if let Some(violation) = self.failed {
            return Err(violation);
        }
        let stepped = match self.frame {
            None => self.step_header(input),
            Some(frame) => self.step_payload(frame, input),
        };
        stepped.inspect_err(|&violation| self.failed = Some(violation))
    }

    /// What is known of the `type` of the current message, or of the last one while no other has begun.
    #[must_use]
    pub fn event_type(&self) -> EventType<'_> {
        self.finder.event_type()
    }

    /// Whether two parsers may disagree about the event's type: the object has a second top-level
    /// `type`, or stops being JSON behind the first one.
    #[must_use]
    pub const fn is_event_type_ambiguous(&self) -> bool {
        self.finder.is_ambiguous()
    }

    /// Whether the last byte seen ended a frame (or none has been seen).
    #[must_use]
    pub const fn is_at_frame_boundary(&self) -> bool {
        self.frame.is_none() && self.reader.is_empty()
    }

    /// Whether a fragmented message has begun and not ended; between its frames only control frames
    /// may stand (RFC 6455 section 5.4).
    #[must_use]
    pub const fn is_inside_message(&self) -> bool {
        self.message.is_some()
    }

    fn step_header(&mut self, input: &[u8]) -> Result<(usize, Step), Violation> {
        // Nearly every header comes in one piece, with payload behind it.
        if let Some(front) = input.first_chunk()
            && self.reader.is_empty()
        {
            let header = HeaderReader::read(*front, self.direction, self.message.is_some())?;
            self.begin_frame(header)?;
            return Ok((usize::from(header.header_bytes), Step::Header(header)));
        }
        for (at, &byte) in input.iter().enumerate() {
            let header = self
                .reader
                .push(byte, self.direction, self.message.is_some())?;
            if let Some(header) = header {
                self.begin_frame(header)?;
                return Ok((at + 1, Step::Header(header)));
            }
        }
        Ok((input.len(), Step::NeedMore))
    }

    fn begin_frame(&mut self, header: Header) -> Result<(), Violation> {
        match header.opcode {
            OpCode::Close => self.close = Close::default(),
            OpCode::Ping | OpCode::Pong => {}
            OpCode::Text => self.begin_message(MessageKind::Text, header)?,
            OpCode::Binary => self.begin_message(MessageKind::Binary, header)?,
            OpCode::Continuation => {
                let message = self.message.ok_or(Violation::ContinuationOrphan)?;
                self.message = Some(self.extended(message, header)?);
            }
        }
        self.frame = Some(Frame { header, seen: 0 });
        Ok(())
    }

    fn begin_message(&mut self, kind: MessageKind, header: Header) -> Result<(), Violation> {
        let message = Message {
            kind,
            bytes: 0,
            fragments: 0,
            utf8: Utf8::new(),
        };
        self.message = Some(self.extended(message, header)?);
        match kind {
            MessageKind::Text => self.finder.reset(),
            MessageKind::Binary => self.finder.skip_message(),
        }
        Ok(())
    }

    fn extended(&self, mut message: Message, header: Header) -> Result<Message, Violation> {
        if header.payload_bytes > self.limits.frame_bytes_max {
            return Err(Violation::FrameTooLong);
        }
        message.bytes = message.bytes.saturating_add(header.payload_bytes);
        if message.bytes > self.limits.message_bytes_max {
            return Err(Violation::MessageTooLong);
        }
        message.fragments += 1;
        if message.fragments > self.limits.fragments_max.max(1) {
            return Err(Violation::TooManyFragments);
        }
        Ok(message)
    }

    fn step_payload(&mut self, frame: Frame, input: &[u8]) -> Result<(usize, Step), Violation> {
        let owed = frame.header.payload_bytes - frame.seen;
        if owed == 0 {
            return self
                .end_frame(frame.header)
                .map(|end| (0, Step::FrameEnd(end)));
        }
        if input.is_empty() {
            return Ok((0, Step::NeedMore));
        }
        let taken = usize::try_from(owed).map_or(input.len(), |owed| owed.min(input.len()));
        self.look_at(frame, &input[..taken])?;
        self.frame = Some(Frame {
            seen: frame.seen + taken as u64,
            ..frame
        });
        Ok((taken, Step::Payload))
    }

    fn look_at(&mut self, frame: Frame, payload: &[u8]) -> Result<(), Violation> {
        let text = matches!(
            self.message,
            Some(Message {
                kind: MessageKind::Text,
                ..
            })
        );
        match frame.header.opcode {
            OpCode::Ping | OpCode::Pong => return Ok(()),
            OpCode::Text | OpCode::Binary | OpCode::Continuation if !text => return Ok(()),
            _ => {}
        }
        let Some(key) = frame.header.mask else {
            let is_ascii = wide::is_ascii(payload);
            return self.look_at_plain(frame.header.opcode, frame.seen, payload, is_ascii);
        };
        let mut block = [0; BLOCK_BYTES];
        let mut seen = frame.seen;
        for masked in payload.chunks(BLOCK_BYTES) {
            let (plain, is_ascii) = unmask_into(&mut block, masked, key, seen);
            self.look_at_plain(frame.header.opcode, seen, plain, is_ascii)?;
            seen += masked.len() as u64;
        }
        Ok(())
    }

    fn look_at_plain(
        &mut self,
        opcode: OpCode,
        seen: u64,
        plain: &[u8],
        is_ascii: bool,
    ) -> Result<(), Violation> {
        if opcode == OpCode::Close {
            return self.close.feed(seen, plain);
        }
        let Some(message) = self.message.as_mut() else {
            return Ok(());
        };
        // Nearly all text is, base64 audio above all.
        if !is_ascii || !message.utf8.is_complete() {
            message.utf8.feed(plain).map_err(|_| Violation::TextUtf8)?;
        }
        self.finder.feed(plain);
        Ok(())
    }

    fn end_frame(&mut self, header: Header) -> Result<FrameEnd, Violation> {
        self.frame = None;
        let close_code = match header.opcode {
            OpCode::Close => self.close.end(header.payload_bytes)?,
            _ => None,
        };
        let message = match header.opcode.is_control() || !header.fin {
            true => None,
            false => self.end_message()?,
        };
        let payload_bytes = header.payload_bytes;
        Ok(FrameEnd {
            opcode: header.opcode,
            payload_bytes,
            close_code,
            message,
        })
    }

    fn end_message(&mut self) -> Result<Option<MessageEnd>, Violation> {
        let Some(message) = self.message.take() else {
            return Ok(None);
        };
        if !message.utf8.is_complete() {
            return Err(Violation::TextUtf8);
        }
        self.finder.finish();
        let Message {
            kind,
            bytes: payload_bytes,
            fragments,
            ..
        } = message;
        Ok(Some(MessageEnd {
            kind,
            payload_bytes,
            fragments,
        }))
    }
}

impl Close {
    /// Takes payload that begins `seen` bytes into the frame.
    fn feed(&mut self, seen: u64, plain: &[u8]) -> Result<(), Violation> {
        let code_bytes = usize::try_from(2u64.saturating_sub(seen))
            .unwrap_or(0)
            .min(plain.len());
        let (code, reason) = plain.split_at(code_bytes);
        for &byte in code {
            self.code = self.code << 8 | u16::from(byte);
        }
        if seen < 2 && seen + code_bytes as u64 == 2 && !is_close_code_legal(self.code) {
            return Err(Violation::CloseCode);
        }
        self.utf8
            .feed(reason)
            .map_err(|_| Violation::CloseReasonUtf8)
    }

    fn end(self, payload_bytes: u64) -> Result<Option<u16>, Violation> {
        match payload_bytes {
            0 => Ok(None),
            1 => Err(Violation::CloseTruncated),
            _ if !self.utf8.is_complete() => Err(Violation::CloseReasonUtf8),
            _ => Ok(Some(self.code)),
        }
    }
}

/// Unmasks a piece that begins `seen` bytes into its frame (RFC 6455 section 5.3), and says whether it is ASCII.
///
/// The block stays in the first-level cache, which is what makes looking at masked text cheap: a copy
/// to memory that is not there costs more than everything else the scanner does.
fn unmask_into<'a>(
    block: &'a mut [u8; BLOCK_BYTES],
    masked: &[u8],
    key: [u8; 4],
    seen: u64,
) -> (&'a [u8], bool) {
    let phase = (seen & 3) as usize;
    let turned = [0, 1, 2, 3].map(|i| key[(i + phase) & 3]);
    let plain = &mut block[..masked.len()];
    let is_ascii = wide::unmask_into(plain, masked, turned);
    (plain, is_ascii)
}
