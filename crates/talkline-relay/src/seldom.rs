//! A future beside the hot path that is polled only when it asked to be.
//!
//! A session wakes for every frame; what ends it from outside wakes once. Polling that one each time takes
//! locks and costs more than looking at the frame.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Passes a wake-up on to the task, and remembers whom it was for.
#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    task: Mutex<Waker>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        let task = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        task.wake();
    }
}

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Seldom<F> {
    inner: F,
    bell: Arc<Bell>,
    /// That of [`Bell::task`], to be compared without a lock.
    task: Waker,
}

impl<F: Future> Seldom<F> {
    pub(crate) fn new(inner: F) -> Self {
        Self {
            inner,
            bell: Arc::new(Bell {
                rung: AtomicBool::new(true),
                task: Mutex::new(Waker::noop().clone()),
            }),
            task: Waker::noop().clone(),
        }
    }

    /// Polls the future if it was woken since; not again after it was ready.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<F::Output>
    where
        F: Unpin,
    {
        // First of all: a bell that rings from here on wakes the task that there is now.
        if !self.task.will_wake(cx.waker()) {
            self.task.clone_from(cx.waker());
            let mut task = self
                .bell
                .task
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            task.clone_from(cx.waker());
        }
        if !self.bell.rung.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        // Before the future looks: what comes in between rings again.
        self.bell.rung.swap(false, Ordering::AcqRel);
        let waker = Waker::from(Arc::clone(&self.bell));
        Pin::new(&mut self.inner).poll(&mut Context::from_waker(&waker))
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
    fn it_is_polled_when_it_was_woken_and_wakes_the_task_of_the_time() {
        let (polls, inner) = (Cell::new(0), Cell::new(None::<Waker>));
        let mut seldom = Seldom::new(std::future::poll_fn(|cx| {
            polls.set(polls.get() + 1);
            inner.set(Some(cx.waker().clone()));
            Poll::<()>::Pending
        }));
        let (first, second) = (Arc::<Count>::default(), Arc::<Count>::default());
        let (one, two) = (Waker::from(first.clone()), Waker::from(second.clone()));
        for _ in 0..3 {
            assert!(seldom.poll(&Context::from_waker(&one)).is_pending());
        }
        assert_eq!(polls.get(), 1);

        // The task has moved: the new one is woken, and only then is the future asked.
        assert!(seldom.poll(&Context::from_waker(&two)).is_pending());
        assert_eq!(polls.get(), 1);
        inner.take().expect("it was polled").wake();
        assert_eq!(first.0.load(Ordering::Relaxed), 0);
        assert_eq!(second.0.load(Ordering::Relaxed), 1);
        assert!(seldom.poll(&Context::from_waker(&two)).is_pending());
        assert_eq!(polls.get(), 2);
        assert!(seldom.poll(&Context::from_waker(&two)).is_pending());
        assert_eq!(polls.get(), 2);
    }

    #[test]
    fn what_is_ready_at_once_is() {
        let mut seldom = Seldom::new(std::future::ready(7));
        let polled = seldom.poll(&Context::from_waker(Waker::noop()));
        assert_eq!(polled, Poll::Ready(7));
    }
}
