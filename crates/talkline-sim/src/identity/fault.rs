//! What any endpoint can do wrong, whatever it serves, and which mode is next.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A failure of an endpoint, or of what stands before it, that has nothing to do with the request.
///
/// An endpoint that is not there at all is a fake that was shut down: its port refuses connections.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Takes the connection, reads nothing and says nothing, not even in TLS. No request is recorded; see
    /// `connections()`.
    BlackHole,
    /// Takes the connection and closes it at once.
    Closes,
    /// Reads the request and never answers it.
    Hangs,
    /// Sends the head of a 200 and half of a body, then nothing more, and keeps the connection.
    StallsMidBody,
    /// Answers properly, this much later.
    Slow(Duration),
    /// The page of a proxy in the way: this status, `text/html`.
    Html(u16),
    /// A 200 of type `application/json` whose body is none.
    Garbage,
    /// A 200 of type `application/json` with an empty body.
    Empty,
    /// A 500 with a body that says nothing.
    ServerError,
    /// A 503 with a body that says nothing.
    Unavailable,
    /// A 302 to that address, which must be a valid header value; a test names a server that must see nothing.
    Redirect(String),
    /// A 200 of type `application/json` whose body is this many bytes long: an array of numbers.
    HugeBody(usize),
}

impl Fault {
    /// Whether it strikes before anything is read.
    fn strikes_at_once(&self) -> bool {
        matches!(self, Self::BlackHole | Self::Closes)
    }
}

/// What a fake does with a request.
pub(super) trait Mode: Clone {
    /// The fault that it is, if it is one.
    fn fault(&self) -> Option<&Fault>;
}

/// The modes that requests meet, in turn; the last one stays.
#[derive(Debug)]
pub(super) struct Modes<M> {
    state: Mutex<State<M>>,
}

#[derive(Debug)]
struct State<M> {
    /// Never empty.
    queue: VecDeque<M>,
    /// When the front was first met.
    met: Option<Instant>,
}

impl<M: Clone> Modes<M> {
    pub(super) fn new(mode: M) -> Self {
        let state = State {
            queue: VecDeque::from([mode]),
            met: None,
        };
        Self {
            state: Mutex::new(state),
        }
    }

    pub(super) fn set(&self, mode: M) {
        self.set_all([], mode);
    }

    /// The first requests meet `first`, one each; all others meet `then`.
    pub(super) fn set_all(&self, first: impl IntoIterator<Item = M>, then: M) {
        let mut state = self.lock();
        state.queue = first.into_iter().chain([then]).collect();
        state.met = None;
    }

    /// The mode for one request, and how long ago the first request met it.
    pub(super) fn take(&self) -> (M, Duration) {
        self.lock().take()
    }

    /// As [`Modes::take`], if the next mode is one of these.
    pub(super) fn take_if(&self, is_meant: impl FnOnce(&M) -> bool) -> Option<M> {
        let mut state = self.lock();
        let meant = state.queue.front().is_some_and(is_meant);
        meant.then(|| state.take().0)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Mode> Modes<M> {
    /// The fault that a connection meets before anything is read, if it meets one.
    pub(super) fn greet(&self) -> Option<Fault> {
        let at_once = |mode: &M| mode.fault().is_some_and(Fault::strikes_at_once);
        self.take_if(at_once)?.fault().cloned()
    }
}

impl<M: Clone> State<M> {
    fn take(&mut self) -> (M, Duration) {
        let since = self.met.get_or_insert_with(Instant::now).elapsed();
        let mode = self.queue.front().cloned();
        if self.queue.len() > 1 {
            self.queue.pop_front();
            self.met = None;
        }
        (mode.expect("the queue is never empty"), since)
    }
}
