//! Keys that are kept in Azure Key Vault: read before the relay listens, and again from time to time.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use talkline_auth::{KeyCell, KeySlot, Secret, TokenSource, parse_key};
use talkline_config::{Config, KeyPlace, KeyVaultReference, VaultIdentity, WatchedKey};
use talkline_entra::{Environment, KeyVault, Network, Scope, VaultReference};
use talkline_gateway::KeyReader;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tracing::{info, warn};

use crate::{
    credentials::{refusal, source, warn_of_developer},
    exit::Exit,
};

/// Between two readings of a secret; Microsoft's limits lie far away from it
/// (<https://learn.microsoft.com/azure/key-vault/general/service-limits>).
const INTERVAL: Duration = Duration::from_secs(600);
/// After a reading that failed while the relay runs.
const INTERVAL_AFTER_FAILURE: Duration = Duration::from_secs(60);
/// How long the start waits for a vault that may come back by itself.
const FIRST_READING_MAX: Duration = Duration::from_secs(30);
/// Between two readings that refused sessions ask for.
const DEMANDED_INTERVAL: Duration = Duration::from_secs(30);
/// Sessions that can wait for the same reading.
const REQUESTS_MAX: usize = 64;
/// Doubled after each failure.
const FIRST_READING_PAUSE: Duration = Duration::from_secs(1);
/// A secret that expires within this time is worth a word.
const EXPIRY_NOTICE: Duration = Duration::from_secs(14 * 24 * 3600);

/// The keys of a configuration that are kept in Key Vault.
pub(crate) struct VaultKeys(Vec<VaultKey>);

struct VaultKey {
    provider: String,
    cell: KeyCell,
    slot: KeySlot,
    vault: KeyVault,
    /// Whether there is nothing more to read: a version never changes.
    is_final: bool,
    /// Sessions whose key was refused wait here for another reading.
    requests: mpsc::Receiver<oneshot::Sender<()>>,
    ask: KeyReader,
}

impl VaultKeys {
    /// Builds a reader for each key; sends nothing.
    pub(crate) fn new(
        config: &Config,
        environment: &Environment,
        network: &Network,
    ) -> Result<Self, Exit> {
        let Some(identity) = &config.vault_identity else {
            return Ok(Self(Vec::new()));
        };
        let mut keys = Vec::new();
        for key in &config.watched_keys {
            let places = [
                (KeySlot::Primary, Some(&key.primary)),
                (KeySlot::Secondary, key.secondary.as_ref()),
            ];
            for (slot, place) in places {
                if let Some(KeyPlace::KeyVault(reference)) = place {
                    let scope = Scope::parse(reference.scope())
                        .map_err(|error| refusal("Key Vault", &error))?;
                    let source = source(&identity.kind, scope, environment, network.clone())
                        .map_err(|error| refusal("Key Vault", &error))?;
                    log(key, slot, reference, identity);
                    keys.push(VaultKey::new(key, slot, reference, source, network)?);
                }
            }
        }
        if !keys.is_empty() {
            warn_of_developer(&identity.kind);
        }
        Ok(Self(keys))
    }

    /// Reads every key, so that the relay does not listen without one.
    ///
    /// A secondary key that cannot be read is left to [`watch`](Self::watch).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future keeps the keys that were read.
    pub(crate) async fn fill(&mut self) -> Result<(), Exit> {
        for key in &mut self.0 {
            match (key.slot, key.read_first().await) {
                (_, Ok(())) => {}
                (KeySlot::Primary, Err(failure)) => return Err(failure.exit(key)),
                (KeySlot::Secondary, Err(failure)) => {
                    failure.log(key, "the relay starts without its secondary key");
                }
            }
        }
        Ok(())
    }

    /// Whom the gateway asks when an upstream refuses one of these keys.
    pub(crate) fn readers(&self) -> Vec<(KeyCell, KeyReader)> {
        let reader = |key: &VaultKey| (key.cell.clone(), key.ask.clone());
        self.0.iter().map(reader).collect()
    }

    /// Reads keys again that may change, until the set is dropped.
    pub(crate) fn watch(self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for key in self.0.into_iter().filter(|key| !key.is_final) {
            tasks.spawn(key.watch());
        }
        tasks
    }
}

impl VaultKey {
    fn new(
        key: &WatchedKey,
        slot: KeySlot,
        reference: &KeyVaultReference,
        source: Arc<dyn TokenSource>,
        network: &Network,
    ) -> Result<Self, Exit> {
        let reference = VaultReference::parse(&reference.to_string())
            .map_err(|error| refusal("Key Vault", &error))?;
        let vault = KeyVault::new(reference, source, network.clone());
        let (ask, requests) = mpsc::channel(REQUESTS_MAX);
        Ok(Self {
            provider: key.provider.clone(),
            cell: key.cell.clone(),
            slot,
            vault,
            is_final: false,
            requests,
            ask,
        })
    }

    /// Tries again for a while when the vault may come back by itself.
    async fn read_first(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + FIRST_READING_MAX;
        let mut pause = FIRST_READING_PAUSE;
        loop {
            let Err(failure) = self.read().await else {
                return Ok(());
            };
            if failure.permanent || Instant::now() + pause > deadline {
                return Err(failure);
            }
            failure.log(self, "a key cannot be read yet");
            sleep(pause).await;
            pause *= 2;
        }
    }

    async fn read(&mut self) -> Result<(), Failure> {
        let secret = self.vault.read().await.map_err(|error| Failure {
            code: error.code,
            detail: error.to_string(),
            hint: error.hint.as_deref().map(str::to_owned),
            permanent: error.permanent,
            refused: matches!(error.http_status, Some(401 | 403)),
        })?;
        if !secret.enabled {
            return Err(Failure::of_secret(
                "vault_secret_disabled",
                "the secret is disabled",
                "az keyvault secret set-attributes --enabled true",
            ));
        }
        let key = parse_key(secret.value.expose().as_bytes()).map_err(|error| {
            Failure::of_secret(
                "vault_secret_no_key",
                &format!("the secret is no key: {error}"),
                "store the bare key of the resource as the secret's value",
            )
        })?;
        self.warn_of_expiry(secret.expires);
        self.adopt(key);
        self.is_final = self.vault.reference().is_versioned();
        Ok(())
    }

    fn adopt(&self, key: Secret) {
        let (slot, new) = (self.slot.as_str(), key.fingerprint());
        if self.cell.replace(self.slot, key) {
            let reference = self.vault.reference();
            info!(provider = self.provider, slot, %reference, new, "a key was read from Key Vault");
        }
    }

    fn warn_of_expiry(&self, expires: Option<SystemTime>) {
        let Some(expires) = expires else { return };
        let left = expires
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        if left < EXPIRY_NOTICE {
            let days = left.as_secs() / (24 * 3600);
            warn!(
                provider = self.provider,
                reference = %self.vault.reference(),
                days,
                "the secret in Key Vault is marked to expire"
            );
        }
    }

    async fn watch(mut self) {
        let mut next = Instant::now() + jittered(INTERVAL);
        let mut demanded: Option<Instant> = None;
        while !self.is_final {
            let mut waiting = Vec::new();
            tokio::select! {
                () = sleep_until(next) => {}
                _ = self.requests.recv_many(&mut waiting, REQUESTS_MAX) => {
                    // Sessions that are refused one after another do not become readings.
                    if demanded.is_some_and(|last| last.elapsed() < DEMANDED_INTERVAL) {
                        continue;
                    }
                    demanded = Some(Instant::now());
                }
            }
            let pause = match self.read().await {
                Ok(()) => INTERVAL,
                Err(failure) => {
                    failure.log(&self, "a key cannot be read; the last good one stays");
                    match failure.permanent {
                        true => INTERVAL,
                        false => INTERVAL_AFTER_FAILURE,
                    }
                }
            };
            next = Instant::now() + jittered(pause);
            for done in waiting {
                // Whoever asked may be gone.
                let _ = done.send(());
            }
        }
    }
}

/// Why a key was not read.
struct Failure {
    code: &'static str,
    detail: String,
    hint: Option<String>,
    permanent: bool,
    refused: bool,
}

impl Failure {
    fn of_secret(code: &'static str, detail: &str, hint: &str) -> Self {
        Self {
            code,
            detail: detail.to_owned(),
            hint: Some(hint.to_owned()),
            permanent: true,
            refused: false,
        }
    }

    fn log(&self, key: &VaultKey, what: &'static str) {
        warn!(
            provider = key.provider,
            slot = key.slot.as_str(),
            reference = %key.vault.reference(),
            code = self.code,
            detail = self.detail,
            hint = self.hint,
            "{what}"
        );
    }

    fn exit(self, key: &VaultKey) -> Exit {
        let mut text = format!(
            "provider `{}`: the key at {} cannot be read: {} [{}]",
            key.provider,
            key.vault.reference(),
            self.detail,
            self.code
        );
        if let Some(hint) = self.hint {
            text.push_str(&format!("\nhint: {hint}"));
        }
        if self.refused {
            Exit::NoPermission(text)
        } else {
            Exit::Unavailable(text)
        }
    }
}

fn log(key: &WatchedKey, slot: KeySlot, reference: &KeyVaultReference, identity: &VaultIdentity) {
    info!(
        provider = key.provider,
        slot = slot.as_str(),
        %reference,
        kind = identity.kind.as_str(),
        reason = identity.reason,
        "reading a key from Key Vault"
    );
}

/// Up to a tenth more or less, so that replicas do not ask all at once.
fn jittered(pause: Duration) -> Duration {
    let mut bytes = [0; 2];
    // Without randomness, asking all at once is better than not asking.
    let _ = getrandom::fill(&mut bytes);
    let share = f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX);
    pause.mul_f64(0.9 + 0.2 * share)
}

#[cfg(test)]
mod tests;
