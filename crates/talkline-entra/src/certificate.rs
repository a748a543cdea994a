//! An application that proves who it is with a certificate.

use std::{fmt, path::PathBuf, sync::Arc, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::{
    SignatureAlgorithm, SignatureScheme,
    crypto::CryptoProvider,
    sign::{CertifiedKey, SigningKey},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use talkline_auth::{Secret, TokenError, TokenFuture, TokenSource};

use crate::{
    Application, Network, Scope, SetupError,
    application::{fetch_with_assertion, fetcher},
    diagnosis::Proof,
    fetch::Fetcher,
    file::{FileProblem, read},
};

/// How long an assertion is good for. Entra allows for five minutes of difference between clocks.
const ASSERTION_SECONDS: u64 = 300;

/// Tokens for an application that has a certificate
/// (<https://learn.microsoft.com/entra/identity-platform/certificate-credentials>).
///
/// Every fetch signs an assertion of its own with the RSA key (PS256, RFC 7518), good for five
/// minutes. The private key never leaves the process.
#[derive(Debug)]
pub struct ClientAssertion {
    fetcher: Fetcher,
    application: Application,
    origin: Origin,
    provider: Arc<CryptoProvider>,
}

/// Where key and certificate come from.
enum Origin {
    Given(Signer),
    Files(CertificateFiles),
}

/// Two PEM files; they may be one and the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Holds the certificate, and perhaps those of its issuers after it.
    pub certificate: PathBuf,
    /// Holds the private key.
    pub key: PathBuf,
}

impl ClientAssertion {
    /// With a certificate and its unencrypted RSA key in one PEM text.
    ///
    /// # Errors
    ///
    /// [`SetupError::Certificate`] for a text that does not hold both, for a key of another kind,
    /// and for a key that does not belong to the certificate; [`SetupError::Id`].
    pub fn new(
        application: Application,
        pem: &Secret,
        scope: Scope,
        network: Network,
    ) -> Result<Self, SetupError> {
        let provider = Arc::clone(network.tls.crypto_provider());
        let pem = pem.expose().as_bytes();
        let signer = Signer::read(pem, pem, &provider).map_err(SetupError::Certificate)?;
        Self::with(application, Origin::Given(signer), scope, network)
    }

    /// With files that are read at every fetch, so that a renewed certificate is taken up.
    ///
    /// # Errors
    ///
    /// [`SetupError::Id`] for an id that is none. The files are not opened yet.
    pub fn from_files(
        application: Application,
        files: CertificateFiles,
        scope: Scope,
        network: Network,
    ) -> Result<Self, SetupError> {
        Self::with(application, Origin::Files(files), scope, network)
    }

    fn with(
        application: Application,
        origin: Origin,
        scope: Scope,
        network: Network,
    ) -> Result<Self, SetupError> {
        let proof = Proof::Certificate { thumbprint: None };
        Ok(Self {
            provider: Arc::clone(network.tls.crypto_provider()),
            fetcher: fetcher("client-assertion", &application, proof, scope, network)?,
            application,
            origin,
        })
    }

    async fn sign(&self, signer: &Signer) -> Result<Secret, TokenError> {
        signer
            .assertion(&self.application, &self.provider)
            .map_err(|why| self.fetcher.subject.refused("entra_signature", why, true))
    }

    async fn signer(&self, files: &CertificateFiles) -> Result<Signer, TokenError> {
        let subject = &self.fetcher.subject;
        let certificate = read(&files.certificate)
            .await
            .map_err(|why| why.into_error(subject, "the certificate file", &files.certificate))?;
        let key = read(&files.key)
            .await
            .map_err(|why| why.into_error(subject, "the key file", &files.key))?;
        let (certificate, key) = (certificate.expose(), key.expose());
        Signer::read(certificate.as_bytes(), key.as_bytes(), &self.provider).map_err(|why| {
            // Two files that are renewed one after the other do not fit for a moment.
            FileProblem::transient(format!("is of no use: {why}")).into_error(
                subject,
                "the certificate file",
                &files.certificate,
            )
        })
    }
}

impl TokenSource for ClientAssertion {
    fn name(&self) -> &'static str {
        self.fetcher.subject.source_name
    }

    fn fetch(&self) -> TokenFuture<'_> {
        Box::pin(async {
            let (assertion, thumbprint) = match &self.origin {
                Origin::Given(signer) => (self.sign(signer).await?, signer.hexadecimal()),
                Origin::Files(files) => {
                    let signer = self.signer(files).await?;
                    (self.sign(&signer).await?, signer.hexadecimal())
                }
            };
            let proof = Proof::Certificate {
                thumbprint: Some(thumbprint),
            };
            fetch_with_assertion(&self.fetcher, &self.application, proof, assertion).await
        })
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(signer) => f.debug_tuple("Given").field(&signer.hexadecimal()).finish(),
            Self::Files(files) => files.fmt(f),
        }
    }
}

/// A key that belongs to a certificate.
struct Signer {
    key: Arc<dyn SigningKey>,
    /// SHA-256 over the certificate.
    thumbprint: [u8; 32],
}

impl Signer {
    fn read(
        certificate: &[u8],
        key: &[u8],
        provider: &CryptoProvider,
    ) -> Result<Self, &'static str> {
        let certificate = CertificateDer::from_pem_slice(certificate)
            .map_err(|_| "there is no certificate in PEM form")?;
        if key.windows(ENCRYPTED.len()).any(|part| part == ENCRYPTED) {
            return Err("the private key is encrypted; decrypt it with openssl pkey");
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| "there is no private key in PEM form")?;
        let thumbprint = Sha256::digest(&certificate).into();
        let certified = CertifiedKey::from_der(vec![certificate], key, provider).map_err(
            |error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    "the private key does not belong to the certificate"
                }
                rustls::Error::InvalidCertificate(_) => "the certificate cannot be read",
                _ => "the private key cannot be used",
            },
        )?;
        if certified.key.algorithm() != SignatureAlgorithm::RSA {
            return Err("the private key is not an RSA key, the only kind that Entra takes");
        }
        Ok(Self {
            key: certified.key,
            thumbprint,
        })
    }

    /// A JSON web token (RFC 7519) that says: this is the application.
    fn assertion(
        &self,
        application: &Application,
        provider: &CryptoProvider,
    ) -> Result<Secret, &'static str> {
        let now = SystemTime::UNIX_EPOCH
            .elapsed()
            .map_err(|_| "the clock stands before 1970")?
            .as_secs();
        let mut id = [0; 16];
        provider
            .secure_random
            .fill(&mut id)
            .map_err(|_| "there is no randomness to be had")?;
        let header = json!({
            "alg": "PS256",
            "typ": "JWT",
            "x5t#S256": URL_SAFE_NO_PAD.encode(self.thumbprint),
        });
        let claims = json!({
            "aud": application.token_endpoint(),
            "iss": application.client_id,
            "sub": application.client_id,
            "jti": URL_SAFE_NO_PAD.encode(id),
            "iat": now,
            "nbf": now,
            "exp": now + ASSERTION_SECONDS,
        });
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let signature = self
            .key
            .choose_scheme(&[SignatureScheme::RSA_PSS_SHA256])
            .and_then(|signer| signer.sign(message.as_bytes()).ok())
            .ok_or("the assertion cannot be signed with this key")?;
        Ok(Secret::new(format!(
            "{message}.{}",
            URL_SAFE_NO_PAD.encode(signature)
        )))
    }

    fn hexadecimal(&self) -> String {
        let digit = |byte: &u8| format!("{byte:02X}");
        self.thumbprint.iter().map(digit).collect()
    }
}

const ENCRYPTED: &[u8] = b"ENCRYPTED";
