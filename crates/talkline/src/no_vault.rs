//! Stands in for `vault.rs` where the feature `key-vault` is off.

use talkline_config::Config;
use talkline_entra::{Environment, Network};
use tokio::task::JoinSet;

use crate::exit::Exit;

/// Nothing: this build does not read Key Vault.
pub(crate) struct VaultKeys;

impl VaultKeys {
    pub(crate) fn new(config: &Config, _: &Environment, _: &Network) -> Result<Self, Exit> {
        match &config.vault_identity {
            None => Ok(Self),
            Some(_) => Err(Exit::Configuration(
                "error: a key is kept in Key Vault, which this build does not read\n\
                 hint: build with the feature `key-vault`, or let the platform put the key into a file"
                    .into(),
            )),
        }
    }

    pub(crate) async fn fill(&mut self) -> Result<(), Exit> {
        Ok(())
    }

    pub(crate) fn watch(self) -> JoinSet<()> {
        JoinSet::new()
    }
}
