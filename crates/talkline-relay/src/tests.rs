//! The relay between two in-memory streams, on paused time.

mod closing;
mod moving;
mod testkit;
mod timing;
mod watching;
