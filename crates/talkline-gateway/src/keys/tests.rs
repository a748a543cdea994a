//! Key files that change, in paused time; the files are real.

use std::fs;

use tempfile::TempDir;

use super::*;

/// When every session that starts must have the new key.
const NOTICED: Duration = Duration::from_secs(6);

struct Rig {
    directory: TempDir,
    cell: KeyCell,
    keys: Keys,
    _tasks: JoinSet<()>,
}

impl Rig {
    /// Watches the files `key1` and, when there is a second key, `key2`.
    fn new(primary: &str, secondary: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        fs::write(path("key1"), primary).unwrap();
        if let Some(secondary) = secondary {
            fs::write(path("key2"), secondary).unwrap();
        }
        let files = KeyFiles {
            primary: Some(path("key1")),
            secondary: secondary.map(|_| path("key2")),
        };
        Self::watch(directory, files, primary, secondary)
    }

    fn watch(directory: TempDir, files: KeyFiles, primary: &str, secondary: Option<&str>) -> Self {
        let cell = KeyCell::new(Secret::new(primary), secondary.map(Secret::new));
        let keys = Keys::new(vec![(cell.clone(), files)], Vec::new());
        let mut tasks = JoinSet::new();
        keys.drive(&mut tasks);
        Self {
            directory,
            cell,
            keys,
            _tasks: tasks,
        }
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.directory.path().join(name), content).unwrap();
    }

    fn live(&self) -> String {
        self.cell.live().secret().expose().to_owned()
    }

    /// Changes the primary file and waits as long as it may take until that is noticed.
    #[track_caller]
    fn check(&self, content: &[u8], expected: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        self.write("key1", content);
        async move {
            sleep(NOTICED).await;
            assert_eq!(self.live(), expected, "{caller}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_is_a_new_key() {
    let rig = Rig::new("key-one", None);
    sleep(NOTICED).await;
    assert_eq!(rig.live(), "key-one");
    rig.check(b"key-two\n", "key-two").await;
    rig.check(b"key-three\r\n", "key-three").await;
    // The same length, written at once after the last reading.
    rig.check(b"key-four!", "key-four!").await;
    rig.check(b"key-five!", "key-five!").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_key_leaves_the_last_good_one() {
    let rig = Rig::new("key-one", None);
    rig.check(b"", "key-one").await;
    rig.check(b"\n", "key-one").await;
    rig.check(b"key-\0\0\0", "key-one").await;
    rig.check(b"key one", "key-one").await;
    rig.check(b"key-one\nkey-two\n", "key-one").await;
    rig.check(&[b'k'; 5000], "key-one").await;
    rig.check(&[b'k'; 50_000], "key-one").await;
    rig.check("schl\u{fc}ssel".as_bytes(), "key-one").await;
    fs::remove_file(rig.directory.path().join("key1")).unwrap();
    sleep(NOTICED).await;
    assert_eq!(rig.live(), "key-one");
    fs::create_dir(rig.directory.path().join("key1")).unwrap();
    sleep(NOTICED).await;
    assert_eq!(rig.live(), "key-one");
    fs::remove_dir(rig.directory.path().join("key1")).unwrap();
    rig.check(b"key-two", "key-two").await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_being_written_is_read_when_it_is_whole() {
    let rig = Rig::new("key-one", None);
    sleep(NOTICED).await;
    // The watcher looks every 5 s from the start on: it finds the first half, and 100 ms later the
    // second half comes.
    sleep(Duration::from_millis(3_950)).await;
    rig.write("key1", b"first-half");
    sleep(Duration::from_millis(150)).await;
    rig.write("key1", b"first-half-and-second");
    for _ in 0..60 {
        let live = rig.live();
        assert!(live != "first-half", "half a key was used");
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(rig.live(), "first-half-and-second");
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn symlink_swaps_are_followed() {
    use std::os::unix::fs::symlink;

    // As Kubernetes mounts a secret: key -> ..data/key, ..data -> ..<time>.
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for (version, key) in [("..v1", "key-one"), ("..v2", "key-two")] {
        fs::create_dir(path(version)).unwrap();
        fs::write(path(version).join("key"), key).unwrap();
    }
    symlink("..v1", path("..data")).unwrap();
    symlink("..data/key", path("key")).unwrap();
    let files = KeyFiles {
        primary: Some(path("key")),
        secondary: None,
    };
    let swapped = (path("..new"), path("..data"));
    let rig = Rig::watch(directory, files, "key-one", None);
    sleep(NOTICED).await;
    assert_eq!(rig.live(), "key-one");
    symlink("..v2", &swapped.0).unwrap();
    fs::rename(&swapped.0, &swapped.1).unwrap();
    sleep(NOTICED).await;
    assert_eq!(rig.live(), "key-two");
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_read_again_first() {
    let rig = Rig::new("key-one", Some("spare"));
    sleep(NOTICED).await;
    let refused = rig.cell.live();
    rig.write("key1", b"key-two");
    let asked = tokio::time::Instant::now();
    assert!(rig.keys.replaced(&rig.cell, &refused).await);
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert_eq!(rig.live(), "key-two");
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_gives_way_to_the_other() {
    let rig = Rig::new("key-one", Some("spare"));
    let refused = rig.cell.live();
    assert!(rig.keys.replaced(&rig.cell, &refused).await);
    assert_eq!(rig.live(), "spare");
    // The one that is live stays it while its file and the other's change.
    rig.check(b"key-two", "spare").await;
    let refused = rig.cell.live();
    assert!(rig.keys.replaced(&rig.cell, &refused).await);
    assert_eq!(rig.live(), "key-two");
    rig.write("key2", b"spare-two");
    sleep(NOTICED).await;
    assert!(rig.keys.replaced(&rig.cell, &rig.cell.live()).await);
    assert_eq!(rig.live(), "spare-two");
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_without_another_is_the_end() {
    let rig = Rig::new("key-one", None);
    let refused = rig.cell.live();
    assert!(!rig.keys.replaced(&rig.cell, &refused).await);
    assert_eq!(rig.live(), "key-one");
    // Keys without files have at least each other.
    let keys = Keys::new(Vec::new(), Vec::new());
    let pair = KeyCell::new(Secret::new("a"), Some(Secret::new("b")));
    assert!(keys.replaced(&pair, &pair.live()).await);
    assert_eq!(pair.live().slot(), KeySlot::Secondary);
}
