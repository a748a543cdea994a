//! Where the live counts of clients are kept.

use std::sync::Arc;

use talkline_auth::LimitStore;
use talkline_config::LimitStoreConfig;

use crate::exit::Exit;

/// The store that the configuration names; `None` for the gateway's own, in memory. Connects to nothing
/// yet: with a server that is away the relay starts, and does what `limitStore.onOutage` says.
pub(crate) fn open(config: &LimitStoreConfig) -> Result<Option<Arc<dyn LimitStore>>, Exit> {
    match config {
        LimitStoreConfig::Memory => Ok(None),
        LimitStoreConfig::Redis(redis) => shared(redis).map(Some),
    }
}

#[cfg(feature = "redis")]
fn shared(config: &talkline_config::RedisConfig) -> Result<Arc<dyn LimitStore>, Exit> {
    use anyhow::Context as _;
    use talkline_redis::{OnOutage, RedisStore, Server, Settings};

    let tls = talkline_gateway::tls::client_config().context("TLS cannot be set up")?;
    let server = Server::parse(&config.url, Some(tls))
        .map_err(|error| Exit::Configuration(format!("error: limitStore.url: {error}")))?;
    let settings = Settings {
        prefix: config.prefix.clone(),
        timeout: config.timeout,
        lease_time: config.lease_time,
        on_outage: match config.fail_open {
            true => OnOutage::Open,
            false => OnOutage::Closed,
        },
        ..Settings::default()
    };
    tracing::info!(%server, on_outage = ?settings.on_outage, "clients are counted together with other replicas");
    Ok(Arc::new(RedisStore::new(server, settings)))
}

#[cfg(not(feature = "redis"))]
fn shared(_: &talkline_config::RedisConfig) -> Result<Arc<dyn LimitStore>, Exit> {
    Err(Exit::Configuration(
        "error: limitStore.kind: this build has no Redis; build it with the feature `redis`".into(),
    ))
}
