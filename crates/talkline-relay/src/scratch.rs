//! What the sessions of a thread share: a buffer to read into, and random masking keys.

use std::cell::{Cell, RefCell};

/// Bytes that are read at a time, and most bytes that wait for a slow peer.
pub(crate) const SCRATCH_BYTES: usize = 64 << 10;

/// Random bytes that are fetched from the system at a time: 256 keys.
const POOL_BYTES: usize = 1024;

thread_local! {
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL_BYTES], used: POOL_BYTES }) };
}

/// Lends the thread's scratch buffer. Its content is whatever the last borrower left.
pub(crate) fn with_scratch<R>(borrow: impl FnOnce(&mut [u8]) -> R) -> R {
    let taken = SCRATCH.take();
    let mut buffer = taken.unwrap_or_else(|| vec![0; SCRATCH_BYTES].into_boxed_slice());
    let result = borrow(&mut buffer);
    SCRATCH.set(Some(buffer));
    result
}

struct Pool {
    bytes: [u8; POOL_BYTES],
    used: usize,
}

/// A masking key from the system's source of randomness, `None` while that fails.
pub(crate) fn fresh_key() -> Option<[u8; 4]> {
    POOL.with_borrow_mut(|pool| {
        if pool.used + 4 > POOL_BYTES {
            getrandom::fill(&mut pool.bytes).ok()?;
            pool.used = 0;
        }
        let key = pool.bytes[pool.used..].first_chunk::<4>().copied();
        pool.used += 4;
        key
    })
}
