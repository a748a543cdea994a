//! Counts what may only be had so many times at once.
//!
//! A semaphore that a reload can make larger or smaller: the number of places is an argument of taking one, those
//! that are taken stay taken.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How many places are taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(Arc<AtomicUsize>);

/// A place that is taken; given back when dropped, by a panic as well.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Places {
    /// Takes one of `max` places, if one is free.
    pub(crate) fn take(&self, max: usize) -> Option<Place> {
        let more = |taken: usize| (taken < max).then_some(taken + 1);
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .ok()
            .map(|_| Place(Arc::clone(&self.0)))
    }

    pub(crate) fn taken(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_up_to_the_number_that_holds_at_the_time() {
        let places = Places::default();
        let first = places.take(2).unwrap();
        let _second = places.take(2).unwrap();
        assert!(places.take(2).is_none());
        let _third = places.take(3).unwrap();
        // Fewer than are taken: nobody is put out, and nobody comes in.
        assert!(places.take(1).is_none());
        assert_eq!(places.taken(), 3);
        drop(first);
        assert_eq!(places.taken(), 2);
        assert!(places.take(2).is_none());
    }
}
