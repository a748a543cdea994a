//! TLS on both sides, with one crypto provider that is passed explicitly.
//!
//! rustls panics when it has to guess among several compiled-in providers, so its process default is
//! never used.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ClientConfig, ServerConfig, crypto::CryptoProvider};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A certificate or key file cannot be read or holds no PEM of the right kind.
    #[error("{path}: {detail}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Certificate and key do not fit, or the platform's roots cannot be loaded.
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
}

/// aws-lc-rs: the only crypto provider of Talkline.
pub fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// TLS towards upstreams: the platform's root certificates (`SSL_CERT_FILE` and `SSL_CERT_DIR` are
/// honoured), TLS 1.2 and 1.3, no client certificate. There is no way to turn verification off.
///
/// # Errors
///
/// When the platform's roots cannot be loaded.
pub fn client_config() -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    // WebSocket is HTTP/1.1; without this a front end could choose HTTP/2.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// TLS towards clients, from a certificate chain and a key in PEM files.
///
/// # Errors
///
/// When a file cannot be read, holds no certificate or key, or they do not belong together.
pub fn server_config(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let file = |path: &Path, detail: String| TlsError::File {
        path: path.to_owned(),
        detail,
    };
    let read = |path: &Path| -> Result<Vec<u8>, TlsError> {
        std::fs::read(path).map_err(|error: io::Error| file(path, error.to_string()))
    };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(cert)?)
        .collect::<Result<_, _>>()
        .map_err(|error| file(cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(file(cert, "no certificate in PEM form".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| file(key, "no private key in PEM form".into()))?;
    server_config_from(chain, key)
}

/// TLS towards clients, from a parsed chain and key.
///
/// # Errors
///
/// When chain and key do not belong together.
pub fn server_config_from(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
