//! A certificate authority of a test's own.

use std::fmt;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A certificate authority that exists in this process only, with a fresh key each time.
///
/// Clones are the same authority, so that one root given to the program under test makes it trust the authority,
/// the vault and the endpoint of one test.
///
/// ```
/// let ca = talkline_sim::identity::TestCa::new()?;
/// let tls = ca.server_config(&["voice.openai.azure.com", "127.0.0.1"])?;
/// let simulator = talkline_sim::Simulator::builder().tls(tls);
/// # drop(simulator);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct TestCa {
    issuer: Arc<CertifiedIssuer<'static, KeyPair>>,
}

impl TestCa {
    /// A new authority.
    ///
    /// # Errors
    /// If no key could be made.
    pub fn new() -> std::io::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(
            DnType::CommonName,
            "Talkline simulator, trusted by tests only",
        );
        let key = KeyPair::generate().map_err(std::io::Error::other)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(std::io::Error::other)?;
        Ok(Self {
            issuer: Arc::new(issuer),
        })
    }

    /// The root certificate, in DER.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        self.issuer.der()
    }

    /// The root certificate, in PEM: what `SSL_CERT_FILE` or a setting for extra roots would hold.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// TLS 1.2 and 1.3 with a new certificate for these DNS names (`*.` allowed) and IP addresses.
    ///
    /// # Errors
    /// If a name is none.
    pub fn server_config(&self, names: &[&str]) -> std::io::Result<Arc<ServerConfig>> {
        let owned: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(owned).map_err(std::io::Error::other)?;
        let key = KeyPair::generate().map_err(std::io::Error::other)?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(std::io::Error::other)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .with_no_client_auth()
                    .with_single_cert(vec![certificate.der().clone()], key)
            });
        Ok(Arc::new(config.map_err(std::io::Error::other)?))
    }
}

impl fmt::Debug for TestCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestCa").finish_non_exhaustive()
    }
}
