//! Files that are looked at from time to time, and what they were like when they were read.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf, time::Duration};

use tokio::time::sleep;

/// What tells one state of a file from another; Kubernetes swaps links, which changes the inode.
type Fingerprint = Option<(u64, u64, i64, i64)>;

/// Files, each with its state when it was added.
#[derive(Debug, Default)]
pub(super) struct Watched {
    files: Vec<PathBuf>,
    seen: Vec<Fingerprint>,
}

impl Watched {
    /// Notes the state that these files are in.
    pub(super) fn add(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        for file in files {
            self.seen.push(fingerprint(&file));
            self.files.push(file);
        }
    }

    /// Waits until the files are not as they were, and are the same at two looks in a row: a file that is being
    /// written is left alone.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(super) async fn changed(&self, every: Duration) {
        let mut last = self.seen.clone();
        loop {
            sleep(every).await;
            let now: Vec<_> = self.files.iter().map(fingerprint).collect();
            if now == last && now != self.seen {
                return;
            }
            last = now;
        }
    }
}

fn fingerprint(file: &PathBuf) -> Fingerprint {
    let metadata = fs::metadata(file).ok()?;
    Some((
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_change_counts_once_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let [file, absent] = ["talkline.toml", "absent.toml"].map(|name| folder.path().join(name));
        fs::write(&file, "a").unwrap();
        let every = Duration::from_secs(5);
        let watch = || {
            let mut watched = Watched::default();
            watched.add([file.clone(), absent.clone()]);
            watched
        };
        let waits = async |watched: &Watched| {
            let begun = tokio::time::Instant::now();
            let long = Duration::from_secs(3600);
            let changed = tokio::time::timeout(long, watched.changed(every)).await;
            changed.ok().map(|()| begun.elapsed())
        };
        let watched = watch();
        assert_eq!(waits(&watched).await, None);
        fs::write(&file, "another").unwrap();
        assert_eq!(waits(&watched).await, Some(2 * every));
        fs::remove_file(&file).unwrap();
        assert_eq!(waits(&watched).await, Some(2 * every));
        let watched = watch();
        fs::write(&absent, "there").unwrap();
        assert_eq!(waits(&watched).await, Some(2 * every));
        assert_eq!(waits(&watch()).await, None);
    }
}
