//! Which part of a session woke its task.
//!
//! A session is one task and wakes for every frame, nearly always because of one of its two streams. To poll
//! the other one, and what ends the session from outside, takes locks and memory that has long left the
//! caches; that costs more than looking at the frame. So each part has a waker of its own, which wakes the
//! task and remembers that it did.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// What is rung from outside.
#[derive(Debug)]
struct Clapper {
    rung: AtomicBool,
    task: Waker,
}

impl Wake for Clapper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // First of all: the task may run before this returns.
        self.rung.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

/// The bell of one part. Silent until it was asked for the first time.
#[derive(Debug, Default)]
pub(crate) struct Bell(Option<(Arc<Clapper>, Waker)>);

/// What a bell says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ring {
    /// The part has not woken the task since it was last asked.
    Silent,
    /// It has.
    Rung,
    /// The task has another waker than before, so wakers that the part kept wake nobody.
    NewTask,
}

impl Bell {
    /// Whether it was rung since it was last asked.
    pub(crate) fn answer(&mut self, cx: &Context<'_>) -> Ring {
        match &self.0 {
            Some((clapper, _)) if clapper.task.will_wake(cx.waker()) => {
                // Who rings from here on wakes the task again.
                if clapper.rung.load(Ordering::Relaxed)
                    && clapper.rung.swap(false, Ordering::AcqRel)
                {
                    Ring::Rung
                } else {
                    Ring::Silent
                }
            }
            _ => {
                let clapper = Arc::new(Clapper {
                    rung: AtomicBool::new(false),
                    task: cx.waker().clone(),
                });
                self.0 = Some((Arc::clone(&clapper), Waker::from(clapper)));
                Ring::NewTask
            }
        }
    }

    /// What rings it.
    pub(crate) fn waker(&self) -> &Waker {
        self.0
            .as_ref()
            .map_or_else(|| Waker::noop(), |(_, waker)| waker)
    }
}

/// A future beside the streams that is polled only when it asked to be.
#[derive(Debug)]
pub(crate) struct Seldom<F> {
    inner: F,
    bell: Bell,
}

impl<F: Future + Unpin> Seldom<F> {
    pub(crate) fn new(inner: F) -> Self {
        Self {
            inner,
            bell: Bell::default(),
        }
    }

    /// Polls the future if it was woken since; not again after it was ready.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<F::Output> {
        match self.bell.answer(cx) {
            Ring::Silent => Poll::Pending,
            Ring::Rung | Ring::NewTask => {
                let mut cx = Context::from_waker(self.bell.waker());
                Pin::new(&mut self.inner).poll(&mut cx)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_bell_tells_of_each_ring_once_and_of_a_new_task() {
        let (first, second) = (Arc::<Count>::default(), Arc::<Count>::default());
        let (one, two) = (Waker::from(first.clone()), Waker::from(second.clone()));
        let (one, two) = (Context::from_waker(&one), Context::from_waker(&two));
        let mut bell = Bell::default();
        assert_eq!(bell.answer(&one), Ring::NewTask);
        assert_eq!(bell.answer(&one), Ring::Silent);
        let kept = bell.waker().clone();
        kept.wake_by_ref();
        kept.wake_by_ref();
        assert_eq!(first.0.load(Ordering::Relaxed), 2);
        assert_eq!(bell.answer(&one), Ring::Rung);
        assert_eq!(bell.answer(&one), Ring::Silent);
        // The task has moved: what was kept wakes the old one, and does not count.
        assert_eq!(bell.answer(&two), Ring::NewTask);
        kept.wake();
        assert_eq!(bell.answer(&two), Ring::Silent);
        bell.waker().wake_by_ref();
        assert_eq!(second.0.load(Ordering::Relaxed), 1);
        assert_eq!(bell.answer(&two), Ring::Rung);
    }

    #[test]
    fn a_seldom_future_is_polled_when_it_was_woken() {
        let (polls, inner) = (Cell::new(0), Cell::new(None::<Waker>));
        let mut seldom = Seldom::new(std::future::poll_fn(|cx| {
            polls.set(polls.get() + 1);
            inner.set(Some(cx.waker().clone()));
            Poll::<()>::Pending
        }));
        let task = Waker::from(Arc::<Count>::default());
        let cx = Context::from_waker(&task);
        for _ in 0..3 {
            assert!(seldom.poll(&cx).is_pending());
        }
        assert_eq!(polls.get(), 1);
        inner.take().expect("it was polled").wake();
        for _ in 0..3 {
            assert!(seldom.poll(&cx).is_pending());
        }
        assert_eq!(polls.get(), 2);
    }

    #[test]
    fn what_is_ready_at_once_is() {
        let mut seldom = Seldom::new(std::future::ready(7));
        let polled = seldom.poll(&Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(7));
    }
}
