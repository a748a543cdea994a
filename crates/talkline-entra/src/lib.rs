//! Decides how a Microsoft Entra ID token is obtained: azure_identity over our own HTTP transport,
//! behind the [`TokenSource`](talkline_auth::TokenSource) trait.
//!
//! Each source asks the identity service once per fetch, within [`Limits`], and says what went
//! wrong in the service's own words. It deliberately knows nothing of caching, refreshing and
//! retrying, which need one view of all sessions and belong to the caller; nor of the requests that
//! a token is for. No type of the Azure SDK appears in its API.
//!
//! ```
//! use std::sync::Arc;
//!
//! use talkline_auth::TokenSource;
//! use talkline_entra::{Environment, Identity, ManagedIdentity, Network, Scope};
//!
//! # let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
//! #     .with_safe_default_protocol_versions()?
//! #     .with_root_certificates(rustls::RootCertStore::empty())
//! #     .with_no_client_auth();
//! // On a Container App; a program passes `|name| std::env::var(name).ok()`.
//! let environment = Environment::read(|name| match name {
//!     "IDENTITY_ENDPOINT" => Some("http://localhost:42356/msi/token".into()),
//!     "IDENTITY_HEADER" => Some("853b9a84-5bfa-4b22-a3f3-0b9a43d9ad8a".into()),
//!     _ => None,
//! });
//! let scope = Scope::for_host("voice.openai.azure.com");
//! let source = ManagedIdentity::new(Identity::System, scope, &environment, Network::new(&tls))?;
//! assert_eq!(source.endpoint(), "localhost:42356");
//!
//! let source: Arc<dyn TokenSource> = Arc::new(source);
//! assert_eq!(source.name(), "managed-identity");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What cannot be wiped
//!
//! [`Secret`](talkline_auth::Secret) overwrites its memory. The copies that azure_core, hyper and
//! rustls make on the way (the SDK's own secret type, request and answer bodies, header values,
//! record buffers) are freed without that.
#![forbid(unsafe_code)]

mod answer;
mod application;
mod authority;
mod certificate;
mod claims;
mod diagnosis;
mod environment;
mod fetch;
mod file;
mod managed_identity;
mod network;
mod redact;
mod scope;
mod select;
mod setup_error;
mod tool;
mod transport;
#[cfg(feature = "key-vault")]
mod vault;

pub use application::{ClientSecret, WorkloadIdentity};
pub use authority::{Application, Authority};
pub use certificate::{CertificateFiles, ClientAssertion};
pub use environment::Environment;
pub use managed_identity::{Identity, ManagedIdentity};
pub use network::{Limits, Network};
pub use scope::{Scope, scope_for_host};
pub use select::{DeveloperTools, Kind, Selection, select};
pub use setup_error::SetupError;
pub use tool::{AzureCli, AzureDeveloperCli};
#[cfg(feature = "key-vault")]
pub use vault::{KeyVault, VaultError, VaultReference, VaultSecret};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
