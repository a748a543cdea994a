//! The keys that an issuer publishes (JWK Set, RFC 7517).

use jsonwebtoken::{
    DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use super::UserAlgorithm;

/// Longest key set that is read. Entra's has a handful of keys and is 10 to 20 KB long.
const SET_BYTES_MAX: usize = 256 * 1024;
/// Most keys that are kept.
const KEYS_MAX: usize = 64;
/// Shortest RSA modulus (RFC 7518 section 3.3).
const RSA_BITS_MIN: usize = 2048;

/// The signing keys of an issuer.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<PublishedKey>);

#[derive(Clone, Debug)]
struct PublishedKey {
    id: Option<String>,
    /// The only algorithm that it is for, when it says so.
    algorithm: Option<String>,
    family: Family,
    key: DecodingKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// Why a document is no key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// It is longer than 256 KiB.
    #[error("it is longer than 256 KiB")]
    TooLong,
    /// It is not a JSON object with a list `keys`.
    #[error("it is not a JSON object with a list `keys`")]
    Form,
    /// It holds no key that signatures could be verified with.
    #[error("it holds no public key for signatures")]
    NoKeys,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a JWK Set. Keys of other kinds, for other uses, and shared secrets are passed over, as
    /// RFC 7517 section 5 asks.
    ///
    /// # Errors
    ///
    /// [`KeySetError`].
    pub fn parse(document: &[u8]) -> Result<Self, KeySetError> {
        if document.len() > SET_BYTES_MAX {
            return Err(KeySetError::TooLong);
        }
        let document: Document = serde_json::from_slice(document).map_err(|_| KeySetError::Form)?;
        let keys: Vec<PublishedKey> = document
            .keys
            .into_iter()
            .filter_map(published)
            .take(KEYS_MAX)
            .collect();
        (!keys.is_empty())
            .then_some(Self(keys))
            .ok_or(KeySetError::NoKeys)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys that a token with this header may be signed with.
    pub(super) fn find(&self, id: Option<&str>, algorithm: UserAlgorithm) -> Vec<&DecodingKey> {
        let name = UserAlgorithm::ALL
            .iter()
            .find(|(_, other)| *other == algorithm)
            .map(|(name, _)| *name);
        self.0
            .iter()
            .filter(|key| id.is_none() || key.id.as_deref() == id)
            .filter(|key| key.family == family(algorithm))
            .filter(|key| key.algorithm.is_none() || key.algorithm.as_deref() == name)
            .map(|key| &key.key)
            .collect()
    }
}

fn family(algorithm: UserAlgorithm) -> Family {
    match algorithm {
        UserAlgorithm::Rs256
        | UserAlgorithm::Rs384
        | UserAlgorithm::Rs512
        | UserAlgorithm::Ps256
        | UserAlgorithm::Ps384
        | UserAlgorithm::Ps512 => Family::Rsa,
        UserAlgorithm::Es256 => Family::P256,
        UserAlgorithm::Es384 => Family::P384,
        UserAlgorithm::EdDsa => Family::Ed25519,
    }
}

fn published(value: Value) -> Option<PublishedKey> {
    let algorithm = match value.get("alg") {
        None => None,
        Some(name) => Some(name.as_str()?.to_owned()),
    };
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    if jwk
        .common
        .public_key_use
        .as_ref()
        .is_some_and(|purpose| *purpose != PublicKeyUse::Signature)
    {
        return None;
    }
    let family = match &jwk.algorithm {
        AlgorithmParameters::RSA(key) if key.n.len() * 6 >= RSA_BITS_MIN => Family::Rsa,
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => Family::P256,
            EllipticCurve::P384 => Family::P384,
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Family::Ed25519
        }
        // A shared secret in public is nobody's key.
        _ => return None,
    };
    Some(PublishedKey {
        id: jwk.common.key_id.clone(),
        algorithm,
        family,
        key: DecodingKey::from_jwk(&jwk).ok()?,
    })
}
