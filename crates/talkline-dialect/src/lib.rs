//! Decides how a Realtime upstream is asked for a session and what its answer means: target and credential to handshake, answer to diagnosis.
#![forbid(unsafe_code)]
