//! Everybody who may come in: keys, hashes of keys, users who sign in elsewhere, and nobody in
//! particular.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::{
    Admission, Argon2Hash, Client, ClientIdentity, Means, PresentedKey, Secret,
    client::ANONYMOUS,
    grant::{TOKEN_PREFIX, TokenRefusal, Verified},
    oidc::{OidcIssuer, UserCheck},
};

/// One client with its key.
#[derive(Clone, Debug)]
pub struct ClientKey {
    /// Who holds the key.
    pub identity: Arc<ClientIdentity>,
    /// How the key is recognised.
    pub key: KeyForm,
}

impl ClientKey {
    /// A client that may do everything, with a key that is known in full.
    pub fn unrestricted(name: impl Into<String>, secret: Secret) -> Self {
        Self {
            identity: Arc::new(ClientIdentity::unrestricted(name)),
            key: KeyForm::Plain(secret),
        }
    }
}

/// What is known of a key.
#[derive(Clone, Debug)]
pub enum KeyForm {
    /// The key itself.
    Plain(Secret),
    /// Its SHA-256. For generated keys: one that a person made up can be found from it.
    Sha256([u8; 32]),
    /// Its Argon2id hash.
    Argon2id(Argon2Hash),
}

/// Who may come in. Holds digests only. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ClientKeys(Arc<Inner>);

#[derive(Default)]
struct Inner {
    quick: Vec<(Arc<ClientIdentity>, Digest32)>,
    slow: Vec<(Arc<ClientIdentity>, Argon2Hash)>,
    /// Keys that a slow check has recognised, so that it is paid once. Invariant: at most one for
    /// each of `slow`, by its index there.
    recognised: Mutex<HashMap<usize, Digest32>>,
    issuers: Vec<Arc<OidcIssuer>>,
    anonymous: Option<Arc<ClientIdentity>>,
}

/// What a presented key turns out to be.
#[derive(Debug)]
#[must_use = "whoever is looked up is not admitted yet"]
pub enum Lookup {
    /// A client that is let in.
    Admitted(Client),
    /// An `ek_` token, for [`KeyRing::verify`](crate::KeyRing::verify) to read.
    Token(Secret),
    /// A key that only a slow check can tell. To be run where it keeps nobody waiting, and few at a
    /// time.
    Slow(SlowCheck),
    /// A user's token, for which the issuer's keys are needed.
    User(UserCheck),
}

impl ClientKeys {
    /// Accepts the given keys and nobody else.
    pub fn new(keys: Vec<ClientKey>) -> Self {
        let (mut quick, mut slow) = (Vec::new(), Vec::new());
        for ClientKey { identity, key } in keys {
            match key {
                KeyForm::Plain(secret) => quick.push((identity, Digest32::of(secret.expose()))),
                KeyForm::Sha256(digest) => quick.push((identity, Digest32(digest))),
                KeyForm::Argon2id(hash) => slow.push((identity, hash)),
            }
        }
        Self(Arc::new(Inner {
            quick,
            slow,
            ..Inner::default()
        }))
    }

    /// Lets users of these issuers in as well.
    #[must_use]
    pub fn with_issuers(self, issuers: Vec<Arc<OidcIssuer>>) -> Self {
        self.changed(|inner| inner.issuers = issuers)
    }

    /// Lets clients in that present no key; and, when nobody else is known, any client.
    ///
    /// SDKs always send some key, so "no key configured" must mean "whatever is presented".
    #[must_use]
    pub fn with_anonymous(self, allow: bool) -> Self {
        let identity = allow.then(|| Arc::new(ClientIdentity::unrestricted(ANONYMOUS)));
        self.with_anonymous_as(identity)
    }

    /// The same, with what they may do. `None` lets none in.
    #[must_use]
    pub fn with_anonymous_as(self, identity: Option<Arc<ClientIdentity>>) -> Self {
        self.changed(|inner| inner.anonymous = identity)
    }

    fn changed(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Inner {
            quick: self.0.quick.clone(),
            slow: self.0.slow.clone(),
            recognised: Mutex::default(),
            issuers: self.0.issuers.clone(),
            anonymous: self.0.anonymous.clone(),
        };
        change(&mut inner);
        Self(Arc::new(inner))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.quick.len() + self.0.slow.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is neither a key nor an issuer.
    pub fn knows_nobody(&self) -> bool {
        self.is_empty() && self.0.issuers.is_empty()
    }

    /// Whether clients without a key are let in.
    pub fn allows_anonymous(&self) -> bool {
        self.0.anonymous.is_some()
    }

    /// The issuers whose users are let in.
    pub fn issuers(&self) -> &[Arc<OidcIssuer>] {
        &self.0.issuers
    }

    /// Looks a presented key up.
    ///
    /// Every quick key is compared in full, whichever matches, so that the time taken tells nothing
    /// about the keys.
    ///
    /// # Errors
    ///
    /// [`Admission::KeyMissing`] or [`Admission::KeyUnknown`].
    pub fn look_up(&self, presented: Option<&PresentedKey>) -> Result<Lookup, Admission> {
        let inner = &self.0;
        let anonymous = |identity: &Arc<ClientIdentity>| {
            Lookup::Admitted(Client::new(Arc::clone(identity), Means::Anonymous))
        };
        let Some(key) = presented.map(PresentedKey::secret) else {
            let identity = inner.anonymous.as_ref();
            return identity.map(anonymous).ok_or(Admission::KeyMissing);
        };
        if is_own_token(key.expose()) {
            return Ok(Lookup::Token(key.clone()));
        }
        if let (Some(identity), true) = (&inner.anonymous, self.knows_nobody()) {
            return Ok(anonymous(identity));
        }
        let digest = Digest32::of(key.expose());
        if let Some(identity) = inner.find(&digest) {
            return Ok(Lookup::Admitted(Client::new(identity, Means::Key)));
        }
        if let Some(check) = UserCheck::find(key, &inner.issuers) {
            return Ok(Lookup::User(check));
        }
        if inner.slow.is_empty() {
            return Err(Admission::KeyUnknown);
        }
        Ok(Lookup::Slow(SlowCheck {
            clients: Arc::clone(inner),
            key: key.clone(),
            digest,
        }))
    }

    /// The client that an `ek_` token stands for. Its identity is looked up by name, so that a client
    /// that has left the configuration takes its tokens along.
    ///
    /// # Errors
    ///
    /// [`TokenRefusal::Client`].
    pub fn client_of(&self, token: &Verified) -> Result<Client, TokenRefusal> {
        let identity = self
            .identity(&token.grant.client)
            .ok_or(TokenRefusal::Client)?;
        Ok(Client::of_token(&identity, token))
    }

    /// The identity of this name: a key's, an issuer's user's (`<issuer>:<user>`), or the anonymous
    /// one.
    pub fn identity(&self, name: &str) -> Option<Arc<ClientIdentity>> {
        let inner = &self.0;
        let quick = inner.quick.iter().map(|(identity, _)| identity);
        let slow = inner.slow.iter().map(|(identity, _)| identity);
        let named = quick
            .chain(slow)
            .chain(&inner.anonymous)
            .find(|identity| identity.name == name);
        if let Some(identity) = named {
            return Some(Arc::clone(identity));
        }
        inner.issuers.iter().find_map(|issuer| {
            let user = name.strip_prefix(issuer.name())?.strip_prefix(':')?;
            issuer.identity_of(user).ok().map(Arc::new)
        })
    }
}

/// Whether a key is an `ek_` token of a relay's, and not one of OpenAI's, which begin with `ek_` too:
/// every JWT begins with `ey`.
fn is_own_token(key: &str) -> bool {
    key.strip_prefix(TOKEN_PREFIX)
        .is_some_and(|rest| rest.starts_with("ey"))
}

impl Inner {
    /// The client whose key has this digest, among the keys that are known by their digests.
    fn find(&self, digest: &Digest32) -> Option<Arc<ClientIdentity>> {
        let mut found = None;
        for (identity, expected) in &self.quick {
            if bool::from(expected.equals(digest)) {
                found = Some(identity);
            }
        }
        let recognised = self
            .recognised
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (index, expected) in recognised.iter() {
            if bool::from(expected.equals(digest)) {
                found = self.slow.get(*index).map(|(identity, _)| identity);
            }
        }
        found.map(Arc::clone)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |keys: Vec<&Arc<ClientIdentity>>| -> Vec<String> {
            keys.iter().map(|identity| identity.name.clone()).collect()
        };
        f.debug_struct("ClientKeys")
            .field(
                "quick",
                &names(self.quick.iter().map(|(it, _)| it).collect()),
            )
            .field("slow", &names(self.slow.iter().map(|(it, _)| it).collect()))
            .field("issuers", &self.issuers)
            .field("anonymous", &self.anonymous.is_some())
            .finish()
    }
}

/// A key that may be one of those that are known by their Argon2id hashes.
pub struct SlowCheck {
    clients: Arc<Inner>,
    key: Secret,
    digest: Digest32,
}

impl SlowCheck {
    /// Compares the key with every hash. Takes as long as all of them together and as much memory as
    /// the largest; blocks the thread.
    ///
    /// # Errors
    ///
    /// [`Admission::KeyUnknown`].
    pub fn run(self) -> Result<Client, Admission> {
        // Somebody may have recognised it while this check waited for its turn.
        if let Some(identity) = self.clients.find(&self.digest) {
            return Ok(Client::new(identity, Means::Key));
        }
        let key = self.key.expose().as_bytes();
        let found = self
            .clients
            .slow
            .iter()
            .position(|(_, hash)| hash.matches(key));
        let index = found.ok_or(Admission::KeyUnknown)?;
        let mut recognised = self
            .clients
            .recognised
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        recognised.insert(index, self.digest);
        let (identity, _) = &self.clients.slow[index];
        Ok(Client::new(Arc::clone(identity), Means::Key))
    }
}

impl fmt::Debug for SlowCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlowCheck({} hashes)", self.clients.slow.len())
    }
}

#[derive(Clone, Debug)]
struct Digest32([u8; 32]);

impl Digest32 {
    fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    fn equals(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

#[cfg(test)]
mod tests;
