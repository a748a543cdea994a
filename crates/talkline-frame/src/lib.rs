//! Decides whether WebSocket bytes are well formed: a strict, streaming, sans-IO scanner that yields frame metadata and the event type.
#![forbid(unsafe_code)]
