//! The endpoints that identity comes from: Entra, managed identity, Key Vault and the Azure command lines.
//!
//! Each fake serves on loopback, checks requests as strictly as the real endpoint does, records what it saw, and
//! fails in any way that has a name here. Modes can be changed while it runs. Tokens are JWTs whose signature is not one; a
//! [`crate::Simulator`] takes them, so that whole sessions can be opened with them.
//!
//! ```
//! use std::time::Duration;
//! use talkline_sim::identity::{Fault, IdentityMode, Imds, TokenSpec};
//!
//! # async fn outage() -> std::io::Result<()> {
//! let imds = Imds::builder().token(TokenSpec::new().ttl(Duration::from_secs(600))).start().await?;
//! // … the program under test fetches its first token from imds.addr(), then:
//! imds.set_mode(IdentityMode::Throttled { retry_after: Duration::from_secs(86_400) });
//! imds.set_modes([Fault::Hangs.into(), IdentityMode::NotFound], IdentityMode::Works);
//! assert!(imds.requests().iter().all(|request| request.header("metadata") == Some("true")));
//! # Ok(())
//! # }
//! ```
//!
//! Time is [`now_unix`]: the wall clock's, or the runtime's where a test has advanced it beyond.

mod answer;
mod ca;
mod calendar;
#[cfg(unix)]
mod cli;
mod entra;
mod fault;
mod form;
mod host;
mod managed;
mod token;
mod vault;

pub use crate::clock::now_unix;
pub use ca::TestCa;
#[cfg(unix)]
pub use cli::{CliCall, CliMode, FakeAz};
pub use entra::{
    App, ClientProof, EntraAuthority, EntraBuilder, EntraMode, EntraRefusal, LOGIN_HOST,
    LineBreaks, TokenRequest,
};
pub use fault::Fault;
pub use managed::{AppService, IdentityBuilder, IdentityMode, Imds, ManagedIdentity};
pub use token::{Expiry, Jwt, TENANT, TokenSpec};
pub use vault::{KeyVault, SecretState, VaultBuilder, VaultMode};
