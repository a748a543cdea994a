//! Keys that are read from files, and read again when the files change.

use std::path::PathBuf;

/// The files that the keys of one [`KeyCell`](talkline_auth::KeyCell) were read from. A key that
/// came from elsewhere has none and never changes.
#[derive(Clone, Debug, Default)]
pub struct KeyFiles {
    /// File of the primary key.
    pub primary: Option<PathBuf>,
    /// File of the secondary key.
    pub secondary: Option<PathBuf>,
}
