//! Keys that are read from files, and read again when the files change.
//!
//! Files are looked at every few seconds rather than watched: notifications miss the symlink swaps by
//! which Kubernetes replaces secrets. A file that is missing, empty, half-written or no key leaves
//! the last good key in use.

use std::{
    fs::Metadata,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use talkline_auth::{KeyCell, KeyFiles, KeySlot, LiveKey, Secret, parse_key};
use tokio::{
    fs::File,
    io::AsyncReadExt as _,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tracing::{info, warn};

/// How often files are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// A new content is believed when it is still the same after this time.
const SETTLE: Duration = Duration::from_millis(200);
/// Bytes of a file that are read; a key is much shorter.
const FILE_BYTES_MAX: u64 = 8 * 1024;
/// Longest wait of a refused session for the files to be read again.
const REREAD_MAX: Duration = Duration::from_secs(2);
/// Sessions that can wait for the same reading.
const REQUESTS_MAX: usize = 64;

/// Asks whoever keeps a key fresh, in a place that is no file, to read it again. The sender that is
/// sent along is used or dropped when that is done.
pub type KeyReader = mpsc::Sender<oneshot::Sender<()>>;

/// The rotating keys, and whom to ask for newer ones.
#[derive(Clone)]
pub(crate) struct Keys(Arc<[Watched]>);

struct Watched {
    cell: KeyCell,
    reread: KeyReader,
    /// Of files; taken when it is started.
    watcher: Mutex<Option<Watcher>>,
}

impl Keys {
    pub(crate) fn new(
        watched: Vec<(KeyCell, KeyFiles)>,
        readers: Vec<(KeyCell, KeyReader)>,
    ) -> Self {
        let watch = |(cell, files)| {
            let (reread, requests) = mpsc::channel(REQUESTS_MAX);
            let watcher = Watcher::new(KeyCell::clone(&cell), files, requests);
            Watched {
                cell,
                reread,
                watcher: Mutex::new(Some(watcher)),
            }
        };
        let files = watched.into_iter().map(watch);
        let others = readers.into_iter().map(|(cell, reread)| Watched {
            cell,
            reread,
            watcher: Mutex::new(None),
        });
        Self(files.chain(others).collect())
    }

    /// Every rotating key.
    pub(crate) fn cells(&self) -> Vec<KeyCell> {
        self.0.iter().map(|watched| watched.cell.clone()).collect()
    }

    /// Starts the watcher of each pair of files on `tasks`.
    pub(crate) fn drive(&self, tasks: &mut JoinSet<()>) {
        for watched in &*self.0 {
            let mut watcher = watched
                .watcher
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(watcher) = watcher.take() {
                tasks.spawn(watcher.run());
            }
        }
    }

    /// The upstream said that `refused` is no key of it: has the keys read again, then turns to the
    /// other key. Says whether there is a key that was not refused.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: what was read is kept.
    pub(crate) async fn replaced(&self, cell: &KeyCell, refused: &LiveKey) -> bool {
        if !cell.is_live(refused) {
            return true;
        }
        let reread = async {
            for watched in self.0.iter().filter(|watched| watched.cell.is_same(cell)) {
                let (done, read) = oneshot::channel();
                if watched.reread.send(done).await.is_ok() {
                    // An error means that nothing was read.
                    let _ = read.await;
                }
            }
        };
        // A file system or a vault that hangs does not keep the other key from being tried.
        let _ = timeout(REREAD_MAX, reread).await;
        let before = cell.live();
        let replaced = cell.switch_from(refused);
        let live = cell.live();
        if live.slot() != before.slot() {
            warn!(
                refused = before.secret().fingerprint(),
                live = live.secret().fingerprint(),
                slot = live.slot().as_str(),
                "an upstream refused the key; the other one is in use"
            );
        }
        replaced
    }
}

struct Watcher {
    cell: KeyCell,
    files: Vec<KeyFile>,
    requests: mpsc::Receiver<oneshot::Sender<()>>,
}

impl Watcher {
    fn new(cell: KeyCell, files: KeyFiles, requests: mpsc::Receiver<oneshot::Sender<()>>) -> Self {
        let slots = [
            (KeySlot::Primary, files.primary),
            (KeySlot::Secondary, files.secondary),
        ];
        let file = |(slot, path): (_, Option<_>)| Some(KeyFile::new(slot, path?));
        Self {
            cell,
            files: slots.into_iter().filter_map(file).collect(),
            requests,
        }
    }

    async fn run(mut self) {
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                asked = self.requests.recv_many(&mut waiting, REQUESTS_MAX) => {
                    if asked == 0 {
                        return;
                    }
                }
                _ = ticks.tick() => {}
            }
            let asked = !waiting.is_empty();
            for file in &mut self.files {
                if asked {
                    // Network file systems may report metadata that are a minute old.
                    file.stamp = None;
                }
                if let Some(key) = file.look(&self.cell).await {
                    adopt(&self.cell, file.slot, key);
                }
            }
            for done in waiting {
                // Whoever asked may be gone.
                let _ = done.send(());
            }
        }
    }
}

fn adopt(cell: &KeyCell, slot: KeySlot, key: Secret) {
    let old = cell.fingerprint(slot);
    let new = key.fingerprint();
    if cell.replace(slot, key) {
        let slot = slot.as_str();
        info!(slot, old, new, "a key was replaced");
    }
}

struct KeyFile {
    slot: KeySlot,
    path: PathBuf,
    /// The metadata with which the file was read last.
    stamp: Option<Stamp>,
    /// The file was read twice with this stamp: time stamps are coarse, and a change right after the
    /// first reading may not show in them.
    confirmed: bool,
    /// What was wrong last, so that it is said once.
    complaint: Option<String>,
}

impl KeyFile {
    fn new(slot: KeySlot, path: PathBuf) -> Self {
        Self {
            slot,
            path,
            stamp: None,
            confirmed: false,
            complaint: None,
        }
    }

    /// The file's key, if it is another one than the cell's.
    async fn look(&mut self, cell: &KeyCell) -> Option<Secret> {
        match self.read_if_new(cell).await {
            Ok(key) => {
                self.complaint = None;
                key
            }
            Err(complaint) => {
                self.stamp = None;
                if self.complaint.as_ref() != Some(&complaint) {
                    let slot = self.slot.as_str();
                    let path = self.path.display();
                    warn!(slot, %path, complaint, "a key file cannot be used; the last good key stays");
                    self.complaint = Some(complaint);
                }
                None
            }
        }
    }

    async fn read_if_new(&mut self, cell: &KeyCell) -> Result<Option<Secret>, String> {
        let stamp = stamp(&self.path).await.map_err(|error| error.to_string())?;
        let known = self.stamp == Some(stamp);
        if known && self.confirmed {
            return Ok(None);
        }
        let key = read_key(&self.path).await?;
        self.confirmed = known;
        self.stamp = Some(stamp);
        if cell.holds(self.slot, &key) {
            return Ok(None);
        }
        sleep(SETTLE).await;
        if read_key(&self.path).await?.expose() != key.expose() {
            return Err("it is being written".into());
        }
        Ok(Some(key))
    }
}

async fn read_key(path: &Path) -> Result<Secret, String> {
    let mut content = Vec::new();
    let read = async {
        let file = File::open(path).await?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut content).await
    };
    read.await.map_err(|error| error.to_string())?;
    parse_key(&content).map_err(|error| error.to_string())
}

/// What tells one state of a file from another without reading it. Symlinks are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<std::time::SystemTime>,
    identity: Identity,
}

#[cfg(unix)]
type Identity = (u64, u64, i64, i64);
#[cfg(not(unix))]
type Identity = ();

async fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = tokio::fs::metadata(path).await?;
    Ok(Stamp {
        bytes: metadata.len(),
        modified: metadata.modified().ok(),
        identity: identity(&metadata),
    })
}

/// Device, inode and time of change, which no tool sets back.
#[cfg(unix)]
fn identity(metadata: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt as _;

    (
        metadata.dev(),
        metadata.ino(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    )
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Identity {}

#[cfg(test)]
mod tests;
