//! Files that hold a proof of identity.

use std::{borrow::Cow, path::Path};

use talkline_auth::{Secret, TokenError};
use tokio::io::AsyncReadExt as _;

use crate::diagnosis::Subject;

/// A service account token is about 1 KiB, a key with its chain of certificates about 10 KiB.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// What is the matter with a file, as the end of a sentence about it.
pub(crate) struct FileProblem {
    what: Cow<'static, str>,
    permanent: bool,
}

impl FileProblem {
    pub(crate) fn transient(what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            what: what.into(),
            permanent: false,
        }
    }

    pub(crate) fn permanent(what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            permanent: true,
            ..Self::transient(what)
        }
    }

    pub(crate) fn into_error(self, subject: &Subject, kind: &str, path: &Path) -> TokenError {
        let what = format!("{kind} {} {}", path.display(), self.what);
        subject.refused("entra_proof_file", &what, self.permanent)
    }
}

/// The text of a small file; empty when it is no text.
pub(crate) async fn read(path: &Path) -> Result<Secret, FileProblem> {
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| FileProblem::permanent(format!("cannot be opened: {error}")))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(|error| FileProblem::transient(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(FileProblem::permanent(format!(
            "is longer than {FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(Secret::new(String::from_utf8(bytes).unwrap_or_default()))
}
