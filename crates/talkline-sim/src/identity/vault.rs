//! Azure Key Vault, as far as reading secrets goes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::now_unix;
use crate::ids;

use super::ca::TestCa;
use super::fault::{Fault, Mode, Modes};
use super::host::{Host, serving};

mod rules;

use rules::{Rules, Version};

/// What the vault does with a request that carries a token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum VaultMode {
    /// Checks the token and gives the secret.
    Works,
    /// 403: the caller lacks a role; the text has `\r\n` in it, as the real one has.
    ForbiddenByRbac,
    /// 403: public network access is off.
    ForbiddenByConnection,
    /// 403: the firewall does not let the caller's address in.
    ForbiddenByFirewall,
    /// 403: the secret is disabled. [`KeyVault::set_enabled`] does it for one.
    SecretDisabled,
    /// 404: there is no such secret. [`KeyVault::remove_secret`] does it for one.
    SecretNotFound,
    /// 429.
    Throttled {
        /// The value of `Retry-After`, in whole seconds.
        retry_after: Duration,
    },
    /// The challenge names this resource in place of the vault's own: a lure for a token. Requests with a token
    /// are answered properly.
    ChallengesFor(String),
    /// Refuses every token with another challenge.
    RefusesTokens,
    /// Fails, before the challenge already.
    Fault(Fault),
}

impl From<Fault> for VaultMode {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Mode for VaultMode {
    fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Fault(fault) => Some(fault),
            Self::Works
            | Self::ForbiddenByRbac
            | Self::ForbiddenByConnection
            | Self::ForbiddenByFirewall
            | Self::SecretDisabled
            | Self::SecretNotFound
            | Self::Throttled { .. }
            | Self::ChallengesFor(_)
            | Self::RefusesTokens => None,
        }
    }
}

/// A vault, over TLS, under its real name.
///
/// A client must be made to reach it as [`KeyVault::vault_host`], port 443, by a resolver of the test's own: clients
/// check that the name ends like a vault's. Serves `GET /secrets/{name}[/{version}]?api-version=7.x` ("Get Secret",
/// Key Vault REST API), after a challenge to the request without a token.
#[derive(Debug)]
pub struct KeyVault {
    host: Host,
    rules: Arc<Rules>,
    ca: TestCa,
}

/// Settings of a vault that has not started.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct VaultBuilder {
    ca: Option<TestCa>,
    name: String,
    suffix: String,
    mode: VaultMode,
    secrets: Vec<(String, String)>,
}

impl VaultBuilder {
    /// Who signs its certificate. Defaults to an authority of its own.
    pub fn ca(mut self, ca: &TestCa) -> Self {
        self.ca = Some(ca.clone());
        self
    }

    /// The vault's name. Defaults to `talkline-test`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// What follows the vault's name and a dot. Defaults to `vault.azure.net`, the public cloud's.
    pub fn suffix(mut self, suffix: impl Into<String>) -> Self {
        self.suffix = suffix.into();
        self
    }

    /// What it does at first. Defaults to [`VaultMode::Works`].
    pub fn mode(mut self, mode: impl Into<VaultMode>) -> Self {
        self.mode = mode.into();
        self
    }

    /// A secret that is there from the start.
    pub fn secret(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.secrets.push((name.into(), value.into()));
        self
    }

    /// Listens on a free loopback port and begins to serve. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What binding or making the certificate said.
    ///
    /// # Cancel safety
    /// Dropping the future frees the port.
    pub async fn start(self) -> io::Result<KeyVault> {
        let ca = self.ca.map_or_else(TestCa::new, Ok)?;
        let host_name = format!("{}.{}", self.name, self.suffix);
        let tls = ca.server_config(&[&host_name, &format!("*.{}", self.suffix)])?;
        let rules = Arc::new(Rules {
            modes: Modes::new(self.mode),
            resource: format!("https://{}", self.suffix),
            host_name,
            secrets: Mutex::default(),
        });
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let host = Host::start(listen, Some(tls), Arc::clone(&rules)).await?;
        let vault = KeyVault { host, rules, ca };
        for (name, value) in self.secrets {
            vault.set_secret(&name, value);
        }
        Ok(vault)
    }
}

impl KeyVault {
    /// Starts from the defaults.
    pub fn builder() -> VaultBuilder {
        VaultBuilder {
            ca: None,
            name: "talkline-test".to_owned(),
            suffix: "vault.azure.net".to_owned(),
            mode: VaultMode::Works,
            secrets: Vec::new(),
        }
    }

    /// The name under which it must be reached, such as `talkline-test.vault.azure.net`.
    #[must_use]
    pub fn vault_host(&self) -> &str {
        &self.rules.host_name
    }

    /// The versionless address of a secret, as a reference in a configuration would have it.
    #[must_use]
    pub fn secret_url(&self, name: &str) -> String {
        format!("https://{}/secrets/{name}", self.vault_host())
    }

    /// Who signed its certificate.
    #[must_use]
    pub fn ca(&self) -> &TestCa {
        &self.ca
    }

    /// Does this from the next request (or connection) on.
    pub fn set_mode(&self, mode: impl Into<VaultMode>) {
        self.rules.modes.set(mode.into());
    }

    /// Does each of `first` for one request, then `then` for all others. Requests without a token count for
    /// [`VaultMode::Fault`] and [`VaultMode::ChallengesFor`] only.
    pub fn set_modes(
        &self,
        first: impl IntoIterator<Item = VaultMode>,
        then: impl Into<VaultMode>,
    ) {
        self.rules.modes.set_all(first, then.into());
    }

    /// Adds a version of a secret, which is the current one from now on, and returns its id: 32 hexadecimal digits.
    pub fn set_secret(&self, name: &str, value: impl Into<String>) -> String {
        let version = ids::uuid().replace('-', "");
        let now_unix = now_unix();
        let added = Version {
            id: version.clone(),
            value: value.into(),
            enabled: true,
            created_unix: now_unix,
            expires_unix: None,
        };
        self.rules
            .secrets()
            .entry(name.to_ascii_lowercase())
            .or_default()
            .push(added);
        version
    }

    /// Enables or disables the current version of a secret, if there is one.
    pub fn set_enabled(&self, name: &str, state: SecretState) {
        self.change(name, |version| {
            version.enabled = state == SecretState::Enabled
        });
    }

    /// Dates the current version of a secret, if there is one: its attribute `exp`, in seconds since 1970. The
    /// vault gives the value beyond that time too, as the real one does.
    pub fn set_expiry(&self, name: &str, at_unix: Option<u64>) {
        self.change(name, |version| version.expires_unix = at_unix);
    }

    /// Deletes a secret with all versions.
    pub fn remove_secret(&self, name: &str) {
        self.rules.secrets().remove(&name.to_ascii_lowercase());
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Version)) {
        let mut secrets = self.rules.secrets();
        if let Some(version) = secrets
            .get_mut(&name.to_ascii_lowercase())
            .and_then(|all| all.last_mut())
        {
            change(version);
        }
    }
}

serving!(KeyVault);

/// Whether a secret may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretState {
    /// It may.
    Enabled,
    /// It may not: 403, `SecretDisabled`.
    Disabled,
}
