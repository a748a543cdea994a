//! Which part of a session woke its task.
//!
//! A session is one task and wakes for every frame, nearly always because of one of its two streams. To poll
//! the other one, and what ends the session from outside, takes locks and memory that has long left the
//! caches; that costs more than looking at the frame. So each part has a waker of its own, which wakes the
//! task and remembers that it did.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

/// What may wake a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Part {
    Client,
    Upstream,
    /// What ends the session from outside.
    Stop,
}

const PARTS: usize = 3;

/// What is rung from outside, and the client's waker itself: most frames are the client's, and one piece of memory
/// less has to come from afar for each.
#[derive(Debug)]
struct Board {
    task: Waker,
    rung: [AtomicBool; PARTS],
}

impl Board {
    fn ring(&self, part: Part) {
        // First of all: the task may run before this returns.
        self.rung[part as usize].store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl Wake for Board {
    fn wake(self: Arc<Self>) {
        self.ring(Part::Client);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring(Part::Client);
    }
}

/// The waker of another part.
#[derive(Debug)]
struct Clapper {
    board: Arc<Board>,
    part: Part,
}

impl Wake for Clapper {
    fn wake(self: Arc<Self>) {
        self.board.ring(self.part);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.board.ring(self.part);
    }
}

/// The bells of a session's parts. All have rung when they are asked for the first time.
#[derive(Debug, Default)]
pub(crate) struct Bells(Option<(Arc<Board>, [Waker; PARTS])>);

/// What the bells say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rings {
    rung: [bool; PARTS],
    /// The task has another waker than before, so wakers that the parts kept wake nobody. All are to be polled.
    pub(crate) is_new_task: bool,
}

impl Rings {
    /// Whether a part has woken the task since the bells were last asked.
    pub(crate) const fn of(self, part: Part) -> bool {
        self.rung[part as usize]
    }
}

impl Bells {
    /// Which have rung since they were last asked.
    pub(crate) fn answer(&mut self, cx: &Context<'_>) -> Rings {
        match &self.0 {
            Some((board, _)) if board.task.will_wake(cx.waker()) => Rings {
                // Who rings from here on wakes the task again.
                rung: board
                    .rung
                    .each_ref()
                    .map(|rung| rung.load(Ordering::Relaxed) && rung.swap(false, Ordering::AcqRel)),
                is_new_task: false,
            },
            _ => {
                let board = Arc::new(Board {
                    task: cx.waker().clone(),
                    rung: Default::default(),
                });
                let other = |part| {
                    let board = Arc::clone(&board);
                    Waker::from(Arc::new(Clapper { board, part }))
                };
                let wakers = [
                    Waker::from(Arc::clone(&board)),
                    other(Part::Upstream),
                    other(Part::Stop),
                ];
                self.0 = Some((board, wakers));
                Rings {
                    rung: [true; PARTS],
                    is_new_task: true,
                }
            }
        }
    }

    /// What rings the bell of a part.
    pub(crate) fn waker(&self, part: Part) -> &Waker {
        self.0
            .as_ref()
            .map_or_else(|| Waker::noop(), |(_, wakers)| &wakers[part as usize])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn taken(&self) -> usize {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

    const ALL: [Part; PARTS] = [Part::Client, Part::Upstream, Part::Stop];

    fn answered(rings: Rings) -> Vec<Part> {
        assert!(!rings.is_new_task);
        ALL.into_iter().filter(|&part| rings.of(part)).collect()
    }

    #[test]
    fn bells_tell_of_each_ring_once() {
        let task = Arc::<Count>::default();
        let waker = Waker::from(task.clone());
        let cx = Context::from_waker(&waker);
        let mut bells = Bells::default();
        let first = bells.answer(&cx);
        assert!(first.is_new_task && ALL.iter().all(|&part| first.of(part)));
        assert_eq!(answered(bells.answer(&cx)), []);
        for part in ALL {
            let kept = bells.waker(part).clone();
            kept.wake_by_ref();
            kept.wake();
            assert_eq!(task.taken(), 2);
            assert_eq!(answered(bells.answer(&cx)), [part]);
            assert_eq!(answered(bells.answer(&cx)), []);
        }
        bells.waker(Part::Upstream).wake_by_ref();
        bells.waker(Part::Client).wake_by_ref();
        assert_eq!(answered(bells.answer(&cx)), [Part::Client, Part::Upstream]);
    }

    #[test]
    fn a_new_task_is_told_of_everything_once() {
        let (first, second) = (Arc::<Count>::default(), Arc::<Count>::default());
        let (one, two) = (Waker::from(first.clone()), Waker::from(second.clone()));
        let (one, two) = (Context::from_waker(&one), Context::from_waker(&two));
        let mut bells = Bells::default();
        bells.answer(&one);
        let kept = ALL.map(|part| bells.waker(part).clone());
        assert!(bells.answer(&two).is_new_task);
        // What was kept wakes the old one, and does not count.
        kept.into_iter().for_each(Waker::wake);
        assert_eq!(answered(bells.answer(&two)), []);
        assert_eq!((first.taken(), second.taken()), (3, 0));
        bells.waker(Part::Stop).wake_by_ref();
        assert_eq!(second.taken(), 1);
        assert_eq!(answered(bells.answer(&two)), [Part::Stop]);
    }
}
