//! Client keys that the configuration holds as Argon2id hashes.

use std::{fmt, str::FromStr};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{Output, PasswordHash, Salt},
};
use subtle::ConstantTimeEq as _;

/// Most memory that one check may take.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
/// Most passes over that memory.
const PASSES_MAX: u32 = 10;
/// Most lanes.
const LANES_MAX: u32 = 16;

/// An Argon2id hash (RFC 9106) in the PHC string form: `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
///
/// To check a key against it takes as long as its parameters say, by design.
#[derive(Clone)]
pub struct Argon2Hash {
    params: Params,
    salt: Vec<u8>,
    output: Output,
}

/// Why a text is no hash that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Argon2HashError {
    /// It is not in the form `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
    #[error("it is not in the form $argon2id$v=19$m=…,t=…,p=…$salt$hash")]
    Form,
    /// It is Argon2i, Argon2d, or another algorithm altogether.
    #[error("the algorithm is not argon2id, version 19")]
    Algorithm,
    /// It asks for more than 256 MiB, 10 passes or 16 lanes.
    #[error("a check would take more than 256 MiB, 10 passes or 16 lanes")]
    Expensive,
}

impl Argon2Hash {
    /// Memory that one check takes, in KiB.
    pub fn memory_kib(&self) -> u32 {
        self.params.m_cost()
    }

    /// Whether this is the hash of `key`. Takes long: never on an asynchronous runtime's thread.
    pub fn matches(&self, key: &[u8]) -> bool {
        let mut computed = vec![0; self.output.len()];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone());
        argon2
            .hash_password_into(key, &self.salt, &mut computed)
            .is_ok()
            && bool::from(computed.as_slice().ct_eq(self.output.as_bytes()))
    }
}

impl FromStr for Argon2Hash {
    type Err = Argon2HashError;

    fn from_str(text: &str) -> Result<Self, Argon2HashError> {
        let form = Argon2HashError::Form;
        let hash = PasswordHash::new(text).map_err(|_| form)?;
        if hash.algorithm.as_str() != "argon2id" || hash.version != Some(0x13) {
            return Err(Argon2HashError::Algorithm);
        }
        // Left out they would mean the library's defaults, which may change.
        let written = |name| hash.params.get_decimal(name).is_some();
        if !["m", "t", "p"].into_iter().all(written) {
            return Err(form);
        }
        let params = Params::try_from(&hash).map_err(|_| form)?;
        if params.m_cost() > MEMORY_KIB_MAX
            || params.t_cost() > PASSES_MAX
            || params.p_cost() > LANES_MAX
        {
            return Err(Argon2HashError::Expensive);
        }
        let mut salt = [0; Salt::MAX_LENGTH];
        let salt = hash
            .salt
            .ok_or(form)?
            .decode_b64(&mut salt)
            .map_err(|_| form)?
            .to_vec();
        let output = hash.hash.ok_or(form)?;
        if salt.len() < 8 || output.len() < 16 {
            return Err(form);
        }
        Ok(Self {
            params,
            salt,
            output,
        })
    }
}

impl fmt::Debug for Argon2Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Argon2Hash(m={} KiB)", self.memory_kib())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A hash of `key` that is quick to check.
    pub(crate) fn quick_hash(key: &str) -> String {
        let params = Params::new(64, 1, 1, Some(32)).unwrap();
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut output = [0; 32];
        argon2
            .hash_password_into(key.as_bytes(), b"somesalt", &mut output)
            .unwrap();
        let base64 = |bytes: &[u8]| {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)
        };
        format!(
            "$argon2id$v=19$m=64,t=1,p=1${}${}",
            base64(b"somesalt"),
            base64(&output)
        )
    }

    #[test]
    fn a_hash_knows_its_key() {
        let hash: Argon2Hash = quick_hash("correct horse").parse().unwrap();
        assert!(hash.matches(b"correct horse"));
        assert!(!hash.matches(b"correct horsf") && !hash.matches(b""));
    }

    /// What the `argon2` command of the reference implementation prints for
    /// `echo -n password | argon2 somesalt -id -t 2 -m 16 -p 1 -l 32 -e`.
    #[test]
    fn hashes_of_the_reference_implementation_are_read() {
        let hash: Argon2Hash =
            "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
                .parse()
                .unwrap();
        assert!(hash.matches(b"password"));
        assert_eq!(hash.memory_kib(), 65_536);
    }

    #[test]
    fn what_is_no_affordable_argon2id_is_refused() {
        let check = |text: &str, expected: Argon2HashError| {
            assert_eq!(text.parse::<Argon2Hash>().err(), Some(expected), "{text}");
        };
        let good = quick_hash("k");
        check("", Argon2HashError::Form);
        check("k", Argon2HashError::Form);
        check(
            &good.replace("argon2id", "argon2i"),
            Argon2HashError::Algorithm,
        );
        check(&good.replace("v=19", "v=16"), Argon2HashError::Algorithm);
        check(&good.replace("$v=19", ""), Argon2HashError::Algorithm);
        check(
            &good.replace("m=64", "m=4194304"),
            Argon2HashError::Expensive,
        );
        check(&good.replace("t=1", "t=1000"), Argon2HashError::Expensive);
        check(&good.replace("m=64,", ""), Argon2HashError::Form);
        check(&good.replace("t=1", "t=0"), Argon2HashError::Form);
        check(good.rsplit_once('$').unwrap().0, Argon2HashError::Form);
    }
}
