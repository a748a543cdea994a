//! Decides how a conformant Azure Realtime endpoint behaves, and misbehaves, on loopback: for the demo, for tests and for the CI of users.
#![forbid(unsafe_code)]
