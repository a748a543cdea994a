//! Who may have a token of the authority, and what a request for one says.

use rustls_pki_types::CertificateDer;

use crate::record::SeenRequest;

use super::super::form::{pairs, value};
use super::super::token::Jwt;

/// A request for a token.
///
/// Holds the caller's credentials in plain text: that is what a test asserts on.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenRequest {
    /// The tenant, from the path.
    pub tenant: String,
    /// `client_id`; empty if there was none. So are the others.
    pub client_id: String,
    /// `scope`.
    pub scope: String,
    /// `grant_type`.
    pub grant_type: String,
    /// How the client proves who it is.
    pub proof: ClientProof,
    /// The name the client used for the authority: its `Host`.
    pub host: String,
    /// `content-type`.
    pub content_type: String,
}

/// How a client proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientProof {
    /// It does not.
    None,
    /// By `client_secret`.
    Secret(String),
    /// By `client_assertion`.
    Assertion {
        /// `client_assertion_type`.
        kind: String,
        /// As sent.
        raw: String,
        /// Taken apart, if it is a JWT.
        jwt: Option<Jwt>,
    },
    /// By both, which Entra refuses.
    Both,
}

impl TokenRequest {
    pub(super) fn read(request: &SeenRequest) -> Option<Self> {
        let tenant = request
            .path
            .strip_prefix('/')?
            .strip_suffix("/oauth2/v2.0/token")?;
        if request.method != "POST" || tenant.contains('/') {
            return None;
        }
        let form = pairs(request.body.as_deref().unwrap_or_default());
        let owned = |name: &str| value(&form, name).unwrap_or_default().to_owned();
        let has = |name: &str| form.iter().any(|(each, _)| each == name);
        let proof = match (has("client_secret"), has("client_assertion")) {
            (false, false) => ClientProof::None,
            (true, true) => ClientProof::Both,
            (true, false) => ClientProof::Secret(owned("client_secret")),
            (false, true) => {
                let raw = owned("client_assertion");
                let jwt = Jwt::decode(&raw);
                ClientProof::Assertion {
                    kind: owned("client_assertion_type"),
                    raw,
                    jwt,
                }
            }
        };
        Some(Self {
            tenant: tenant.to_owned(),
            client_id: owned("client_id"),
            scope: owned("scope"),
            grant_type: owned("grant_type"),
            proof,
            host: request.header("host").unwrap_or_default().to_owned(),
            content_type: request
                .header("content-type")
                .unwrap_or_default()
                .to_owned(),
        })
    }

    /// The assertion, if the client proves itself by one and it is a JWT.
    #[must_use]
    pub fn assertion(&self) -> Option<&Jwt> {
        match &self.proof {
            ClientProof::Assertion { jwt, .. } => jwt.as_ref(),
            ClientProof::None | ClientProof::Secret(_) | ClientProof::Both => None,
        }
    }
}

/// An application as registered with the authority, and what it may prove itself by.
#[derive(Debug, Clone)]
#[must_use]
pub struct App {
    pub(super) client_id: String,
    pub(super) secrets: Vec<Registered>,
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) federated: Vec<Federated>,
}

#[derive(Debug, Clone)]
pub(super) struct Registered {
    pub(super) secret: String,
    pub(super) expired: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Federated {
    pub(super) issuer: String,
    pub(super) subject: String,
}

impl App {
    /// An application that cannot prove itself yet.
    pub fn new(client_id: impl Into<String>) -> Self {
        Self {
            client_id: client_id.into(),
            secrets: Vec::new(),
            certificates: Vec::new(),
            federated: Vec::new(),
        }
    }

    /// A secret that is good.
    pub fn secret(mut self, secret: impl Into<String>) -> Self {
        self.secrets.push(Registered {
            secret: secret.into(),
            expired: false,
        });
        self
    }

    /// A secret that was good once: [`super::EntraRefusal::SecretExpired`].
    pub fn expired_secret(mut self, secret: impl Into<String>) -> Self {
        self.secrets.push(Registered {
            secret: secret.into(),
            expired: true,
        });
        self
    }

    /// A certificate with an RSA key, whose assertions are good. **Their signature is verified** (RS256 or PS256).
    pub fn certificate(mut self, certificate: CertificateDer<'static>) -> Self {
        self.certificates.push(certificate);
        self
    }

    /// A federated credential: assertions of this issuer about this subject are good. Their signature is not
    /// verified.
    pub fn federated(mut self, issuer: impl Into<String>, subject: impl Into<String>) -> Self {
        self.federated.push(Federated {
            issuer: issuer.into(),
            subject: subject.into(),
        });
        self
    }
}
