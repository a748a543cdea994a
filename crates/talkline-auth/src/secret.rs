//! A value that must not be shown.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// A key or token. Its `Debug` prints a fixed word; it has no `Display` and no `Serialize`; its
/// memory is overwritten when it is dropped.
///
/// What is not overwritten: the buffer that a value was read into and a `String` that had to be
/// shortened before it came here, the header value that is made of it for one handshake, and the
/// write buffers of HTTP and TLS. They are freed as soon as the handshake is over.
///
/// ```
/// # use talkline_auth::Secret;
/// assert_eq!(format!("{:?}", Secret::new("k-123")), "[redacted]");
/// ```
///
/// ```compile_fail
/// # use talkline_auth::Secret;
/// println!("{}", Secret::new("k-123"));
/// ```
///
/// ```compile_fail
/// # use talkline_auth::Secret;
/// let text: String = Secret::new("k-123").into();
/// ```
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes ownership of a secret value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// The value itself. Every call is a place where a secret may leak: keep them few.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Eight hexadecimal digits that tell two secrets apart without telling either.
    ///
    /// The first four bytes of SHA-256 over the value: enough to see in a log that a key was
    /// rotated, too little to search for it.
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(self.expose().as_bytes());
        digest[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// `text` with every occurrence of this secret replaced by `[redacted]`.
    ///
    /// An upstream may echo a request header in its error body; such a body passes here before
    /// anyone sees it. The percent-encoded and the base64 form are looked for as well.
    pub fn scrub(&self, text: &str) -> String {
        use base64::Engine as _;

        let value = self.expose();
        if value.len() < 4 {
            return text.to_owned();
        }
        let encoded =
            percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC)
                .to_string();
        let base64 = base64::engine::general_purpose::STANDARD_NO_PAD.encode(value);
        text.replace(value, "[redacted]")
            .replace(&encoded, "[redacted]")
            .replace(&base64, "[redacted]")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_tell_secrets_apart() {
        assert_eq!(Secret::new("a").fingerprint(), "ca978112");
        assert_ne!(
            Secret::new("a").fingerprint(),
            Secret::new("b").fingerprint()
        );
    }

    #[test]
    fn scrub_finds_plain_and_encoded_forms() {
        let secret = Secret::new("k/ey+123");
        assert_eq!(secret.scrub("got k/ey+123."), "got [redacted].");
        assert_eq!(secret.scrub("?api-key=k%2Fey%2B123"), "?api-key=[redacted]");
        assert_eq!(secret.scrub("basic ay9leSsxMjM="), "basic [redacted]=");
        assert_eq!(secret.scrub("nothing here"), "nothing here");
    }
}
