//! Bytes that wait in a stream, in memory that goes when they do.

/// A queue of bytes. Empty, it owns nothing.
#[derive(Default)]
pub(crate) struct Carry {
    bytes: Vec<u8>,
    /// How many at the front are gone already.
    start: usize,
}

impl Carry {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What waits.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Bytes of memory that are owned.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Room for `size` more bytes behind the last one.
    pub(crate) fn extend(&mut self, size: usize) -> &mut [u8] {
        let end = self.bytes.len();
        self.bytes.resize(end + size, 0);
        &mut self.bytes[end..]
    }

    /// Drops the first `count` bytes of [`Self::rest`].
    pub(crate) fn advance(&mut self, count: usize) {
        self.start += count.min(self.bytes.len() - self.start);
        if self.start == self.bytes.len() {
            *self = Self::default();
        }
    }
}
