//! What a process has for its whole life: a configuration that says otherwise is taken over without it.

use std::net::SocketAddr;

use talkline_config::{Config, LimitStoreConfig, RedisConfig};

/// The settings of one configuration that only a start takes over.
pub(super) struct Fixed {
    listen: SocketAddr,
    threads: usize,
    admin_listen: Option<SocketAddr>,
    limit_store: LimitStoreConfig,
}

impl Fixed {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            listen: config.server.listen,
            threads: config.server.threads,
            admin_listen: config.admin.as_ref().map(|admin| admin.listen),
            limit_store: config.limit_store.clone(),
        }
    }

    /// The keys that another configuration would change. Their values stay untold: one may hold a password.
    pub(super) fn changed(&self, other: &Self) -> impl Iterator<Item = &'static str> + use<> {
        [
            ("server.listen", self.listen != other.listen),
            ("server.threads", self.threads != other.threads),
            ("admin.listen", self.admin_listen != other.admin_listen),
            (
                "limitStore",
                !is_same_store(&self.limit_store, &other.limit_store),
            ),
        ]
        .into_iter()
        .filter_map(|(key, has_changed)| has_changed.then_some(key))
    }
}

fn is_same_store(one: &LimitStoreConfig, other: &LimitStoreConfig) -> bool {
    use LimitStoreConfig::{Memory, Redis};
    match (one, other) {
        (Memory, Memory) => true,
        (Redis(one), Redis(other)) => {
            let RedisConfig {
                url,
                prefix,
                fail_open,
                timeout,
                lease_time,
            } = one;
            url.expose() == other.url.expose()
                && *prefix == other.prefix
                && *fail_open == other.fail_open
                && *timeout == other.timeout
                && *lease_time == other.lease_time
        }
        (Memory, Redis(_)) | (Redis(_), Memory) => false,
    }
}
