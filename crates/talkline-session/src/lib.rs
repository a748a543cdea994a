//! Decides what a session does at each event: forward, answer, close; limits, keep-alive, close codes and usage accounting.
#![forbid(unsafe_code)]
