//! Decides how a client connection becomes a session: listen, admit, dial, relay, drain and report.
#![forbid(unsafe_code)]
