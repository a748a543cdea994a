//! What the requests of every source share: TLS, limits, and a resolver for tests.

use std::{collections::HashMap, fmt, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ClientConfig;

use crate::SetupError;

/// How long a token request may take and how much it may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest wait for name resolution and a TCP connection. Defaults to 2 seconds: an identity
    /// endpoint is on the same machine or answers nobody.
    pub connect: Duration,
    /// Longest HTTP exchange, counted from before name resolution to the last byte of the answer;
    /// TLS is inside. Defaults to 10 seconds.
    pub exchange: Duration,
    /// Longest [`fetch`](talkline_auth::TokenSource::fetch) altogether. Defaults to 15 seconds.
    pub fetch: Duration,
    /// Largest answer body. A longer token is refused; of a longer error page the beginning is
    /// read. Defaults to 64 KiB; real tokens are 1.5 to 8 KiB.
    pub body_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            exchange: Duration::from_secs(10),
            fetch: Duration::from_secs(15),
            body_bytes_max: 64 * 1024,
        }
    }
}

/// How sources reach identity services: over TLS as configured here, within [`Limits`], directly.
///
/// No proxy is ever used, whatever `HTTP_PROXY` says: a request to an identity endpoint carries the
/// `IDENTITY_HEADER` secret in plain text. No redirect is followed.
#[derive(Clone)]
pub struct Network {
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) limits: Limits,
    pub(crate) overrides: HashMap<(String, u16), SocketAddr>,
}

impl Network {
    /// Uses the roots and the crypto provider of `tls`; the process default provider is never
    /// asked for. ALPN is set to HTTP/1.1, whatever `tls` says.
    pub fn new(tls: &ClientConfig) -> Self {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            tls: Arc::new(tls),
            limits: Limits::default(),
            overrides: HashMap::new(),
        }
    }

    /// Replaces the limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// For tests: connects to `address` where `host` and `port` are asked for. URL, `Host` header
    /// and TLS server name stay those of the real service.
    ///
    /// # Errors
    ///
    /// [`SetupError::Override`] unless `address` is loopback, so that the setting cannot send a
    /// credential anywhere.
    pub fn with_override(
        mut self,
        host: &str,
        port: u16,
        address: SocketAddr,
    ) -> Result<Self, SetupError> {
        if !address.ip().is_loopback() {
            return Err(SetupError::Override);
        }
        self.overrides
            .insert((host.to_ascii_lowercase(), port), address);
        Ok(self)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("limits", &self.limits)
            .field("overrides", &self.overrides)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_can_stand_in_for_a_service() {
        fn check(address: &str, good: bool) {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let tls = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            let network =
                Network::new(&tls).with_override("169.254.169.254", 80, address.parse().unwrap());
            assert_eq!(network.is_ok(), good, "{address}");
        }
        check("127.0.0.1:1", true);
        check("127.3.2.1:1", true);
        check("[::1]:1", true);
        check("10.0.0.1:1", false);
        check("0.0.0.0:1", false);
        check("169.254.169.254:80", false);
        check("[::ffff:10.0.0.1]:1", false);
    }
}
