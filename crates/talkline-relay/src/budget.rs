//! Memory for bytes that wait, shared by all sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::scratch::SCRATCH_BYTES;

/// Bytes that are read at a time once memory runs short.
pub(crate) const SHORT_READ_BYTES: usize = 4 << 10;

/// A bound on the bytes that wait, over all sessions that share it: those that a slow peer has not taken
/// yet, and those of messages that are held to be inspected.
///
/// A session whose peers keep up needs none of it. When three quarters are in use everybody reads in
/// pieces of 4 KiB, so that a peer which becomes slow ties up no more than that; when nothing is left,
/// reading stops until there is, and a message that would have to be held ends its session with
/// `relay_overloaded`. The sum stays within the bound but for one piece per thread.
#[derive(Debug)]
pub struct Budget {
    bytes_max: AtomicUsize,
    used: AtomicUsize,
}

impl Budget {
    /// A budget of this many bytes. Less than a mebibyte makes sessions wait for each other.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max: AtomicUsize::new(bytes_max),
            used: AtomicUsize::new(0),
        })
    }

    /// Sets another bound. What is in use stays so.
    pub fn resize(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    fn bytes_max(&self) -> usize {
        self.bytes_max.load(Ordering::Relaxed)
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// How many bytes a session may read that has nowhere to put them but here.
    fn readable(&self) -> usize {
        let (used, bytes_max) = (self.used(), self.bytes_max());
        if used + SCRATCH_BYTES <= bytes_max / 4 * 3 {
            SCRATCH_BYTES
        } else if used + SHORT_READ_BYTES <= bytes_max {
            SHORT_READ_BYTES
        } else {
            0
        }
    }
}

/// What one buffer has taken of the budget. Given back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    budget: Option<Arc<Budget>>,
    bytes: usize,
}

impl Lease {
    pub(crate) const fn new(budget: Option<Arc<Budget>>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// See [`Budget::readable`]; without a budget there is no bound.
    pub(crate) fn readable(&self) -> usize {
        self.budget
            .as_ref()
            .map_or(usize::MAX, |budget| budget.readable())
    }

    /// Takes or gives back until it stands at `bytes`, which exist already.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes == self.bytes {
            return;
        }
        if let Some(budget) = &self.budget {
            budget.used.fetch_add(bytes, Ordering::Relaxed);
            budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// Takes until it stands at `bytes`; `false` when there is not as much.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> bool {
        let Some(budget) = &self.budget else {
            return true;
        };
        let wanted = bytes.saturating_sub(self.bytes);
        if budget.used().saturating_add(wanted) > budget.bytes_max() {
            return false;
        }
        self.set(bytes.max(self.bytes));
        true
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_takes_and_gives_back() {
        let budget = Budget::new(1000);
        let mut one = Lease::new(Some(Arc::clone(&budget)));
        let mut other = Lease::new(Some(Arc::clone(&budget)));
        one.set(600);
        assert!(!other.try_grow(500));
        assert!(other.try_grow(400));
        assert_eq!(budget.used(), 1000);
        one.set(100);
        assert_eq!(budget.used(), 500);
        drop((one, other));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn reads_become_short_and_stop() {
        let budget = Budget::new(1 << 20);
        let mut lease = Lease::new(Some(Arc::clone(&budget)));
        for (used, want) in [
            (0, SCRATCH_BYTES),
            ((768 << 10) - SCRATCH_BYTES, SCRATCH_BYTES),
            (768 << 10, SHORT_READ_BYTES),
            ((1 << 20) - SHORT_READ_BYTES, SHORT_READ_BYTES),
            ((1 << 20) - 1, 0),
            (2 << 20, 0),
        ] {
            lease.set(used);
            assert_eq!(lease.readable(), want, "{used}");
        }
    }
}
