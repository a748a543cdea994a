//! What the simulator was asked, kept for assertions.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

/// Requests kept in memory; older ones are forgotten first.
const SEEN_MAX: usize = 4096;

/// One HTTP request as the simulator received it, and the status it was given.
///
/// Holds the caller's credentials in plain text: that is what a test asserts on. `Debug` shows them too, so use
/// test credentials only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeenRequest {
    /// The method, such as `GET`.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query as sent, without the question mark; empty if there was none.
    pub query: String,
    /// The headers in the order received, names in lower case. Bytes beyond UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
    /// The status of the answer; 0 if the scenario gives none.
    pub status: u16,
    /// The body, for requests other than GET that had one; cut at 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

impl SeenRequest {
    /// The value of the first header of that name, which must be in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(each, _)| each == name);
        found.next().map(|(_, value)| value.as_str())
    }
}

/// Keeps requests in memory and, if a path was given, in a file of JSON lines.
#[derive(Debug)]
pub(crate) struct Recorder {
    seen: Mutex<Vec<SeenRequest>>,
    file: Option<Mutex<File>>,
}

impl Recorder {
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(open_private).transpose()?.map(Mutex::new);
        Ok(Self {
            seen: Mutex::default(),
            file,
        })
    }

    /// Keeps one request; it is in the file when this returns.
    pub(crate) fn record(&self, request: SeenRequest) {
        if let Some(file) = &self.file {
            let mut line = serde_json::to_vec(&request).unwrap_or_default();
            line.push(b'\n');
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = file.write_all(&line).and_then(|()| file.flush()) {
                tracing::warn!(%error, "a request could not be recorded");
            }
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() == SEEN_MAX {
            seen.remove(0);
        }
        seen.push(request);
    }

    pub(crate) fn seen(&self) -> Vec<SeenRequest> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }
}

/// Opens a file to append to that only its owner can read: the records hold credentials.
fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}
