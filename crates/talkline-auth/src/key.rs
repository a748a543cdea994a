//! API keys that are replaced while the relay runs.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use crate::{Secret, admission::KEY_BYTES_MAX};

/// One of the two keys of a resource. Azure calls them `KEY1` and `KEY2`: while one is regenerated
/// the other goes on being accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySlot {
    /// `apiKey`.
    Primary,
    /// `apiKeySecondary`.
    Secondary,
}

impl KeySlot {
    /// The slot as a word, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            KeySlot::Primary => "primary",
            KeySlot::Secondary => "secondary",
        }
    }

    fn other(self) -> Self {
        match self {
            KeySlot::Primary => KeySlot::Secondary,
            KeySlot::Secondary => KeySlot::Primary,
        }
    }
}

/// The key that is presented, and which of the two it is. Cheap to clone.
#[derive(Clone)]
pub struct LiveKey {
    secret: Arc<Secret>,
    slot: KeySlot,
}

impl LiveKey {
    /// The key itself.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Which of the two it is.
    pub fn slot(&self) -> KeySlot {
        self.slot
    }

    fn is(&self, other: &Secret) -> bool {
        self.secret.expose() == other.expose()
    }
}

impl fmt::Debug for LiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slot = self.slot.as_str();
        write!(f, "LiveKey({slot}, {})", self.secret.fingerprint())
    }
}

/// A handle to the keys of one resource, of which one is live.
///
/// Cloning it gives another handle to the same keys. A key is replaced whole; sessions that are open
/// are not touched, because a key matters only in a handshake.
#[derive(Clone)]
pub struct KeyCell(Arc<RwLock<Keys>>);

struct Keys {
    primary: Arc<Secret>,
    secondary: Option<Arc<Secret>>,
    live: KeySlot,
}

impl Keys {
    fn key(&self, slot: KeySlot) -> Option<&Arc<Secret>> {
        match slot {
            KeySlot::Primary => Some(&self.primary),
            KeySlot::Secondary => self.secondary.as_ref(),
        }
    }

    fn live(&self) -> LiveKey {
        // Invariant: the secondary is live only while there is one.
        let secret = self.key(self.live).unwrap_or(&self.primary);
        LiveKey {
            secret: Arc::clone(secret),
            slot: self.live,
        }
    }
}

impl KeyCell {
    /// Keys of which the primary one is live.
    pub fn new(primary: Secret, secondary: Option<Secret>) -> Self {
        Self(Arc::new(RwLock::new(Keys {
            primary: Arc::new(primary),
            secondary: secondary.map(Arc::new),
            live: KeySlot::Primary,
        })))
    }

    /// The key to present.
    pub fn live(&self) -> LiveKey {
        self.read().live()
    }

    /// The key that is not presented, where there is another one.
    pub fn spare(&self) -> Option<Secret> {
        let keys = self.read();
        let live = keys.live();
        let spare = keys.key(keys.live.other())?;
        (!live.is(spare)).then(|| Secret::clone(spare))
    }

    /// Replaces one key. Says whether it differs from the one before.
    pub fn replace(&self, slot: KeySlot, key: Secret) -> bool {
        let mut keys = self.write();
        if keys
            .key(slot)
            .is_some_and(|old| old.expose() == key.expose())
        {
            return false;
        }
        match slot {
            KeySlot::Primary => keys.primary = Arc::new(key),
            KeySlot::Secondary => keys.secondary = Some(Arc::new(key)),
        }
        true
    }

    /// The upstream said that `refused` is no key of it: makes the other one live.
    ///
    /// Says whether another key is live than the one that was refused, so that trying again makes
    /// sense. Many sessions may report the same refusal; the first of them switches.
    pub fn switch_from(&self, refused: &LiveKey) -> bool {
        let mut keys = self.write();
        if !keys.live().is(&refused.secret) {
            return true;
        }
        let other = keys.live.other();
        let differs = keys.key(other).is_some_and(|key| !refused.is(key));
        if differs {
            keys.live = other;
        }
        differs
    }

    /// Whether `key` is what stands in `slot`.
    pub fn holds(&self, slot: KeySlot, key: &Secret) -> bool {
        self.read()
            .key(slot)
            .is_some_and(|held| held.expose() == key.expose())
    }

    /// Whether `key` is the one to present.
    pub fn is_live(&self, key: &LiveKey) -> bool {
        self.read().live().is(&key.secret)
    }

    /// The [`Secret::fingerprint`] of a key, for logs.
    pub fn fingerprint(&self, slot: KeySlot) -> Option<String> {
        self.read().key(slot).map(|key| key.fingerprint())
    }

    /// Whether both are handles to the same keys.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn read(&self) -> RwLockReadGuard<'_, Keys> {
        // Every write is one assignment, so a panic elsewhere leaves the keys sound.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Keys> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for KeyCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyCell({:?})", self.live())
    }
}

/// The files that the keys of one [`KeyCell`] were read from. A key that came from elsewhere has
/// none and never changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFiles {
    /// File of the primary key.
    pub primary: Option<PathBuf>,
    /// File of the secondary key.
    pub secondary: Option<PathBuf>,
}

/// Why the content of a file or variable is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Nothing, or nothing but a newline.
    #[error("it is empty")]
    Empty,
    /// Longer than [`KEY_BYTES_MAX`] bytes.
    #[error("it is longer than {KEY_BYTES_MAX} bytes")]
    TooLong,
    /// White space, a second line, control characters or bytes beyond ASCII.
    #[error("it holds white space or characters that no key has")]
    NotAKey,
}

/// Reads a key as files hold it: visible ASCII, one trailing newline (`\n` or `\r\n`) allowed.
///
/// # Errors
///
/// [`KeyError`], which never shows the content.
pub fn parse_key(content: &[u8]) -> Result<Secret, KeyError> {
    let line = content.strip_suffix(b"\n").unwrap_or(content);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(KeyError::Empty);
    }
    if line.len() > KEY_BYTES_MAX {
        return Err(KeyError::TooLong);
    }
    match std::str::from_utf8(line) {
        Ok(key) if line.iter().all(u8::is_ascii_graphic) => Ok(Secret::new(key)),
        _ => Err(KeyError::NotAKey),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(primary: &str, secondary: Option<&str>) -> KeyCell {
        KeyCell::new(Secret::new(primary), secondary.map(Secret::new))
    }

    #[track_caller]
    fn live(cell: &KeyCell) -> String {
        let live = cell.live();
        format!("{} {}", live.slot().as_str(), live.secret().expose())
    }

    #[test]
    fn the_other_key_is_remembered() {
        let keys = cell("k1", Some("k2"));
        let first = keys.live();
        assert_eq!(live(&keys), "primary k1");
        assert!(keys.switch_from(&first));
        assert_eq!(live(&keys), "secondary k2");
        // The same refusal reported by another session does not switch back.
        assert!(keys.switch_from(&first));
        assert_eq!(live(&keys), "secondary k2");
        // The rotation goes on: a new first key, then the second one is regenerated.
        assert!(keys.replace(KeySlot::Primary, Secret::new("k1b")));
        assert_eq!(live(&keys), "secondary k2");
        assert!(keys.switch_from(&keys.live()));
        assert_eq!(live(&keys), "primary k1b");
    }

    #[test]
    fn without_another_key_there_is_nothing_to_turn_to() {
        let alone = cell("k1", None);
        assert!(!alone.switch_from(&alone.live()));
        let twice = cell("k1", Some("k1"));
        assert!(!twice.switch_from(&twice.live()));
        assert_eq!(live(&twice), "primary k1");
    }

    #[test]
    fn a_replaced_key_is_another_one() {
        let keys = cell("k1", None);
        let other = keys.clone();
        let refused = keys.live();
        assert!(!keys.replace(KeySlot::Primary, Secret::new("k1")));
        assert!(keys.is_live(&refused));
        assert!(keys.replace(KeySlot::Primary, Secret::new("k1b")));
        assert!(!other.is_live(&refused) && other.switch_from(&refused));
        assert_eq!(live(&other), "primary k1b");
        assert!(keys.replace(KeySlot::Secondary, Secret::new("k2")));
        assert!(keys.holds(KeySlot::Secondary, &Secret::new("k2")));
        assert!(other.is_same(&keys) && !other.is_same(&cell("k1b", None)));
    }

    #[test]
    fn keys_as_files_hold_them() {
        let check = |content: &[u8], expected: Result<&str, KeyError>| {
            let found = parse_key(content);
            let found = found.as_ref().map(Secret::expose).map_err(|error| *error);
            assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(content));
        };
        check(b"k-123", Ok("k-123"));
        check(b"k-123\n", Ok("k-123"));
        check(b"k-123\r\n", Ok("k-123"));
        check(b"k-123\n\n", Err(KeyError::NotAKey));
        check(b"k-123\nk-456\n", Err(KeyError::NotAKey));
        check(b" k-123", Err(KeyError::NotAKey));
        check(b"k-123 \n", Err(KeyError::NotAKey));
        check(b"\xef\xbb\xbfk-123", Err(KeyError::NotAKey));
        check(b"k\0\0\0", Err(KeyError::NotAKey));
        check("schl\u{fc}ssel".as_bytes(), Err(KeyError::NotAKey));
        check(b"", Err(KeyError::Empty));
        check(b"\n", Err(KeyError::Empty));
        check(b"\r\n", Err(KeyError::Empty));
        check(&[b'k'; KEY_BYTES_MAX + 1], Err(KeyError::TooLong));
        assert!(parse_key(&[b'k'; KEY_BYTES_MAX]).is_ok());
    }

    #[test]
    fn nothing_shows_a_key() {
        let keys = cell("CANARY-1", Some("CANARY-2"));
        let shown = format!("{keys:?} {:?}", keys.live());
        assert!(!shown.contains("CANARY"), "{shown}");
        assert_eq!(
            keys.fingerprint(KeySlot::Secondary),
            Some(Secret::new("CANARY-2").fingerprint())
        );
    }
}
