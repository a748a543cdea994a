//! Decides how frames move between two byte streams: one task a session, no reassembly, no copy while the peer keeps up.
#![forbid(unsafe_code)]
