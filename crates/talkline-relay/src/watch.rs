//! A message that is shown to the session's guard before any of it goes out.

use std::sync::Arc;

use fastwebsockets::unmask;
use talkline_frame::{Header, MessageKind, apply_mask};
use talkline_session::policy::{HEAD_BYTES_MAX, Look};
use talkline_session::{Inspect, Side};

use crate::budget::{Budget, Lease};
use crate::scratch::fresh_key;

/// Bytes that are unmasked at a time, on the stack, to be shown.
const BLOCK_BYTES: usize = 1024;

/// How far the guard has come with the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There is no message, or one that it does not look at.
    Idle,
    /// It wants to see more of the beginning.
    Looking,
    /// It lets the message go on and sees every piece.
    Streaming,
    /// It wants to see all of it.
    Holding,
    /// It has decided; what still comes is thrown away.
    Dropping,
}

/// A frame, as far as it is held.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// Where its header begins.
    start: usize,
    header: Header,
}

/// The message of one side that its guard looks at, and what is held of it. Made once a session and used
/// again; there is none where there is no guard.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) stage: Stage,
    pub(crate) kind: MessageKind,
    /// Payload that the headers so far have announced.
    announced: u64,
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: usize,
    /// The frames as they came.
    raw: Vec<u8>,
    parts: Vec<Part>,
    lease: Lease,
}

impl Watched {
    pub(crate) const fn new(budget: Option<Arc<Budget>>) -> Self {
        Self {
            stage: Stage::Idle,
            kind: MessageKind::Text,
            announced: 0,
            head: [0; HEAD_BYTES_MAX],
            head_bytes: 0,
            raw: Vec::new(),
            parts: Vec::new(),
            lease: Lease::new(budget),
        }
    }

    pub(crate) fn begin(&mut self, kind: MessageKind) {
        self.release();
        self.stage = Stage::Looking;
        self.kind = kind;
        self.announced = 0;
        self.head_bytes = 0;
    }

    /// Counts a frame of the message; returns how long the message is by now.
    pub(crate) const fn announce(&mut self, header: Header) -> u64 {
        self.announced = self.announced.saturating_add(header.payload_bytes);
        self.announced
    }

    pub(crate) const fn announced(&self) -> u64 {
        self.announced
    }

    pub(crate) const fn is_holding_any(&self) -> bool {
        !self.raw.is_empty()
    }

    /// Shows the beginning, a piece at `seen` of its frame included. Returns what the guard says, and how
    /// many bytes of the piece it has been shown.
    pub(crate) fn look(
        &mut self,
        from: Side,
        guard: &mut dyn Inspect,
        piece: &[u8],
        mask: Option<[u8; 4]>,
        seen: u64,
        complete: bool,
    ) -> (Look, usize) {
        let shown = piece.len().min(HEAD_BYTES_MAX - self.head_bytes);
        let room = &mut self.head[self.head_bytes..self.head_bytes + shown];
        room.copy_from_slice(&piece[..shown]);
        if let Some(key) = mask {
            unmask(room, turned(key, seen));
        }
        self.head_bytes += shown;
        let complete = complete && shown == piece.len();
        let look = guard.look(from, &self.head[..self.head_bytes], complete);
        let all_seen = complete || self.head_bytes == HEAD_BYTES_MAX;
        match look {
            // It has seen all that it will see before it decides.
            Look::More if all_seen => (Look::Hold, shown),
            look => (look, shown),
        }
    }

    /// Keeps bytes of the frame that is being read, its header first. `false` when there is no memory for
    /// them.
    pub(crate) fn keep(&mut self, bytes: &[u8], begins: Option<Header>) -> bool {
        if !self.lease.try_grow(self.raw.len() + bytes.len()) {
            return false;
        }
        if let Some(header) = begins {
            let start = self.raw.len();
            self.parts.push(Part { start, header });
        }
        self.raw.extend_from_slice(bytes);
        self.lease.set(self.raw.capacity());
        true
    }

    /// The message as its sender wrote it.
    pub(crate) fn plain(&self) -> Vec<u8> {
        let mut plain = Vec::with_capacity(self.raw.len());
        for (i, part) in self.parts.iter().enumerate() {
            let end = self
                .parts
                .get(i + 1)
                .map_or(self.raw.len(), |next| next.start);
            let payload = &self.raw[part.start + usize::from(part.header.header_bytes)..end];
            let from = plain.len();
            plain.extend_from_slice(payload);
            if let Some(key) = part.header.mask {
                unmask(&mut plain[from..], key);
            }
        }
        plain
    }

    /// The frames as they came.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Gives every held frame a fresh key. Returns what turns the rest of the last one into it.
    pub(crate) fn remask(&mut self) -> [u8; 4] {
        let mut change = [0; 4];
        let mut end = self.raw.len();
        for part in self.parts.iter().rev() {
            let frame = &mut self.raw[part.start..end];
            let (header, payload) = frame.split_at_mut(usize::from(part.header.header_bytes));
            let remask = refresh_key(header, part.header);
            apply_mask(payload, remask);
            if end == self.raw.len() {
                change = remask;
            }
            end = part.start;
        }
        change
    }

    /// Lets go of what is held.
    pub(crate) fn release(&mut self) {
        self.raw = Vec::new();
        self.parts = Vec::new();
        self.lease.set(0);
    }
}

/// Shows a piece at `seen` of its frame to the guard, unmasked a block at a time.
///
/// # Errors
///
/// The guard's breach; the piece must not go out.
pub(crate) fn show(
    from: Side,
    guard: &mut dyn Inspect,
    piece: &[u8],
    mask: Option<[u8; 4]>,
    mut seen: u64,
) -> Result<(), talkline_session::policy::Breach> {
    let Some(key) = mask else {
        return guard.stream(from, piece);
    };
    let mut block = [0; BLOCK_BYTES];
    for masked in piece.chunks(BLOCK_BYTES) {
        let plain = &mut block[..masked.len()];
        plain.copy_from_slice(masked);
        unmask(plain, turned(key, seen));
        guard.stream(from, plain)?;
        seen += masked.len() as u64;
    }
    Ok(())
}

/// Puts a fresh key into a header, if it has one and the system has randomness. Returns what turns the
/// payload into the new masking.
pub(crate) fn refresh_key(bytes: &mut [u8], header: Header) -> [u8; 4] {
    if let (Some(old), Some(fresh), Some(key)) =
        (header.mask, fresh_key(), bytes.last_chunk_mut::<4>())
    {
        *key = fresh;
        return [0, 1, 2, 3].map(|i| old[i] ^ fresh[i]);
    }
    [0; 4]
}

/// A key as it applies `seen` bytes into the payload (RFC 6455 section 5.3).
pub(crate) fn turned(key: [u8; 4], seen: u64) -> [u8; 4] {
    let phase = (seen & 3) as usize;
    [0, 1, 2, 3].map(|i| key[(i + phase) & 3])
}
