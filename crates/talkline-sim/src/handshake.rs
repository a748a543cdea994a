//! Which requests become sessions.
