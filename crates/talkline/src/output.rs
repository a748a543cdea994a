//! Data goes to standard output, diagnostics to standard error.

use std::io::{self, Write as _};

use crate::exit::Exit;

/// Prints one line of data.
pub(crate) fn line(text: &str) -> Result<(), Exit> {
    bytes(format!("{}\n", text.trim_end_matches('\n')).as_bytes())
}

/// Prints data as it is.
pub(crate) fn bytes(data: &[u8]) -> Result<(), Exit> {
    let mut stdout = io::stdout().lock();
    // A pipe whose reader left, as in `talkline config show | head -1`, is no failure.
    stdout
        .write_all(data)
        .and_then(|()| stdout.flush())
        .map_err(|_| Exit::NobodyListens)
}

/// Prints a line that is not data.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints why the process ends.
pub(crate) fn failure(exit: &Exit) {
    let text = exit.to_string();
    if !text.is_empty() {
        note(text.trim_end_matches('\n'));
    }
}
