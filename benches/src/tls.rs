//! A certificate authority of one run, and the server behind it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

/// Makes an authority, writes its certificate to `ca_file`, and a server for loopback that it vouches for.
///
/// # Errors
/// When the file cannot be written or a key cannot be made.
pub fn server(ca_file: &Path) -> Result<Arc<ServerConfig>> {
    let mut authority = CertificateParams::new(Vec::new())?;
    // OpenSSL takes a certificate whose issuer has its own name for one that signed itself.
    authority
        .distinguished_name
        .push(DnType::CommonName, "authority of one benchmark");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    fs::write(ca_file, authority.pem())?;
    let key = KeyPair::generate()?;
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let configuration = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?,
        )?;
    Ok(Arc::new(configuration))
}
