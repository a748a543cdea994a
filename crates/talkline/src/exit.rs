//! How the process ends.

use std::fmt;

/// A failure with its exit code. The codes above 64 are those of BSD's `sysexits.h`.
#[derive(Debug)]
pub(crate) enum Exit {
    /// Something was found, or a turn failed: 1.
    Findings(String),
    /// It could not be done at all: 2.
    CouldNotRun(String),
    /// A service or an address is not available: 69.
    Unavailable(String),
    /// The upstream refused the credential: 77.
    NoPermission(String),
    /// The configuration is wrong: 78. The text is already rendered.
    Configuration(String),
    /// The reader of our output went away: nothing is said, 0.
    NobodyListens,
}

impl Exit {
    pub(crate) fn status(&self) -> u8 {
        match self {
            Exit::NobodyListens => 0,
            Exit::Findings(_) => 1,
            Exit::CouldNotRun(_) => 2,
            Exit::Unavailable(_) => 69,
            Exit::NoPermission(_) => 77,
            Exit::Configuration(_) => 78,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What was found stands in the report already.
            Exit::Findings(text) if text.is_empty() => Ok(()),
            Exit::Findings(text)
            | Exit::CouldNotRun(text)
            | Exit::Unavailable(text)
            | Exit::NoPermission(text) => write!(f, "error: {text}"),
            Exit::Configuration(text) => f.write_str(text),
            Exit::NobodyListens => Ok(()),
        }
    }
}

impl From<anyhow::Error> for Exit {
    fn from(error: anyhow::Error) -> Self {
        Exit::CouldNotRun(format!("{error:#}"))
    }
}
