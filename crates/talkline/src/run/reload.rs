//! Reads the configuration again: on SIGHUP, and when its files change if it says so.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::Context as _;
use rustls::ServerConfig;
use talkline_config::Config;
use talkline_gateway::{Metrics, Reloader};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};
use tracing::{error, info, warn};

use super::{
    fixed::Fixed,
    notify,
    prepared::{self, Prepared, Reading, Wrong},
    watched::Watched,
};
use crate::{cli::RunArguments, exit::Exit};

/// The configuration that the process has started with.
pub(super) struct Began {
    pub(super) fixed: Fixed,
    pub(super) every: Duration,
    pub(super) files: Watched,
    pub(super) vault: JoinSet<()>,
}

impl Began {
    pub(super) fn with(config: &Config, files: Watched, vault: JoinSet<()>) -> Self {
        Self {
            fixed: Fixed::of(config),
            every: config.reload.watch,
            files,
            vault,
        }
    }
}

/// What reloading needs, and the parts of the running configuration that are its own.
pub(super) struct Reloads {
    arguments: Arc<RunArguments>,
    tls: Option<Arc<ServerConfig>>,
    reloader: Reloader,
    metrics: Metrics,
    hang_up: Signal,
    /// What the process was started with, whatever a later configuration says.
    fixed: Fixed,
    every: Duration,
    files: Watched,
    /// Keeps the keys of the running configuration fresh.
    vault: JoinSet<()>,
}

impl Reloads {
    /// Installs the handler of SIGHUP, which would end the process otherwise.
    pub(super) fn new(
        arguments: RunArguments,
        tls: Option<Arc<ServerConfig>>,
        reloader: Reloader,
        metrics: Metrics,
        began_with: Began,
    ) -> Result<Self, Exit> {
        Ok(Self {
            arguments: Arc::new(arguments),
            tls,
            reloader,
            metrics,
            hang_up: signal(SignalKind::hangup()).context("SIGHUP cannot be handled")?,
            fixed: began_with.fixed,
            every: began_with.every,
            files: began_with.files,
            vault: began_with.vault,
        })
    }

    /// Reloads whenever there is a reason to, for ever.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            let watched = async {
                match self.every {
                    Duration::ZERO => std::future::pending().await,
                    every => self.files.changed(every).await,
                }
            };
            let reason = tokio::select! {
                _ = self.hang_up.recv() => "SIGHUP",
                () = watched => "a file has changed",
            };
            info!(reason, "reading the configuration again");
            notify::reloading();
            let reloaded = self.reload().await;
            self.metrics.config_reloaded(reloaded.is_ok());
            match reloaded {
                Ok(()) => info!("the configuration was reloaded"),
                Err(wrong) => {
                    log(&wrong);
                    error!("the configuration was not reloaded; the last one stays in use");
                }
            }
            notify::ready();
        }
    }

    async fn reload(&mut self) -> Result<(), Wrong> {
        let (arguments, tls) = (Arc::clone(&self.arguments), self.tls.clone());
        // Files may lie on a disk that is slow, and sessions go on.
        let read = tokio::task::spawn_blocking(move || prepared::read(&arguments, tls.as_ref()));
        let Reading { outcome, files } = read
            .await
            .context("reading the configuration ended badly")
            .map_err(|error| Wrong::Other(error.into()))?;
        // The files that a broken configuration names are those that will mend it.
        self.files = files;
        let Prepared {
            config,
            options,
            mut vault,
        } = outcome?;
        vault.fill().await.map_err(Wrong::Other)?;
        let (fixed, every) = (Fixed::of(&config), config.reload.watch);
        self.reloader
            .reload(config, options)
            .await
            .map_err(|error| Wrong::Other(Exit::Configuration(format!("error: {error}"))))?;
        for key in self.fixed.changed(&fixed) {
            warn!(
                key,
                "a setting has changed that is taken over at the next start"
            );
        }
        self.every = every;
        self.vault = vault.watch();
        Ok(())
    }
}

fn log(wrong: &Wrong) {
    match wrong {
        Wrong::Configuration(report) => prepared::log_errors(report),
        Wrong::Other(exit) => {
            let text = exit.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            match text.split_once("\nhint: ") {
                Some((message, hint)) => error!(hint, "{message}"),
                None => error!("{}", text.trim_end()),
            }
        }
    }
}
