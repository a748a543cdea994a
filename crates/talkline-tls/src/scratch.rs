//! Memory that the streams of a thread share while they are polled.
//!
//! Nothing in it outlives a poll. It is not wiped: it holds what the process' other buffers hold.

use std::cell::Cell;
use std::thread::LocalKey;

/// Bytes that a thread keeps for records: what is read or written at a time.
pub(crate) const RECORDS_BYTES: usize = 64 << 10;

/// Plaintext of one record (RFC 8446 section 5.1).
pub(crate) const RECORD_PLAIN_BYTES_MAX: usize = 16 << 10;

/// A record as it goes over the wire: header, plaintext, and as much on top as TLS 1.2 allows
/// (RFC 5246 section 6.2.3).
pub(crate) const RECORD_WIRE_BYTES_MAX: usize = 5 + RECORD_PLAIN_BYTES_MAX + 2048;

thread_local! {
    static RECORDS: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static GATHER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Lends at least `size` bytes for records, [`RECORDS_BYTES`] or more.
pub(crate) fn with_records<R>(size: usize, borrow: impl FnOnce(&mut [u8]) -> R) -> R {
    lend(&RECORDS, size, RECORDS_BYTES, borrow)
}

/// Lends room for the plaintext of one record.
pub(crate) fn with_gather<R>(borrow: impl FnOnce(&mut [u8]) -> R) -> R {
    lend(&GATHER, 0, RECORD_PLAIN_BYTES_MAX, borrow)
}

/// The buffer is taken, not borrowed: a stream inside a stream gets one of its own.
fn lend<R>(
    buffer: &'static LocalKey<Cell<Vec<u8>>>,
    size: usize,
    kept: usize,
    borrow: impl FnOnce(&mut [u8]) -> R,
) -> R {
    let mut bytes = buffer.take();
    let size = size.max(kept);
    if bytes.len() < size {
        bytes.resize(size, 0);
    }
    let result = borrow(&mut bytes);
    if bytes.len() > kept {
        bytes.truncate(kept);
        bytes.shrink_to_fit();
    }
    buffer.set(bytes);
    result
}
