//! What a session answers to each event.
