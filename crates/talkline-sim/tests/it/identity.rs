//! The fakes of identity endpoints, asked over real sockets by a client of the tests' own.

mod ask;
mod authority;
#[cfg(unix)]
mod cli;
mod faults;
mod managed;
mod sessions;
mod vault;
