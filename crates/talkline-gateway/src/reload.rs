//! Takes a new configuration over while sessions run.
//!
//! Everything that a configuration says is one [`Snapshot`]. A connection takes the current one when it is accepted
//! and keeps what it needs of it to its end, so a session never sees half of one configuration and half of another.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use talkline_auth::{LimitStore, MemoryBounds, MemoryStore};
use talkline_config::Config;
use talkline_relay::Budget;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, interval, sleep},
};
use tokio_rustls::TlsAcceptor;
use tracing::info;

use crate::{
    connection::Notice,
    metrics::Metrics,
    overload::Pressure,
    places::Places,
    server::{Options, Shared, StartError},
};

/// How long a new configuration's identities have to come by their first tokens.
const TOKENS_MAX: Duration = Duration::from_secs(20);
const TOKENS_LOOK: Duration = Duration::from_millis(20);

/// What outlives a configuration: how many there are of what, whatever the limits say at the time.
#[derive(Clone)]
pub(crate) struct Carried {
    pub(crate) sessions: Places,
    pub(crate) handshakes: Places,
    pub(crate) pressure: Pressure,
    /// What clients have used up, and what was revoked. The first configuration chooses it.
    store: Arc<OnceLock<Arc<dyn LimitStore>>>,
    pub(crate) notices: watch::Sender<Notice>,
    /// Memory for bytes that wait, of all sessions together.
    pub(crate) budget: Arc<Budget>,
    metrics: OnceLock<Metrics>,
    /// Of the key that browser tokens are signed with when none is configured: those that were given
    /// out stay good.
    pub(crate) ring_seed: [u8; 32],
}

impl Carried {
    pub(crate) fn new() -> Self {
        let mut ring_seed = [0; 32];
        getrandom::fill(&mut ring_seed).expect("the operating system has randomness");
        Self {
            sessions: Places::default(),
            handshakes: Places::default(),
            pressure: Pressure::new(),
            store: Arc::default(),
            notices: watch::Sender::new(Notice::default()),
            budget: Budget::new(0),
            metrics: OnceLock::new(),
            ring_seed,
        }
    }

    /// Keeps an eye on what the process may use, for ever.
    pub(crate) fn watch_pressure(&self) -> impl Future<Output = ()> + Send + use<> {
        let (sessions, handshakes) = (self.sessions.clone(), self.handshakes.clone());
        self.pressure.clone().watch(sessions, handshakes)
    }

    /// The instruments: those of the first configuration.
    pub(crate) fn metrics(&self, chosen: Metrics) -> Metrics {
        self.metrics.get_or_init(|| chosen).clone()
    }

    /// Where clients' live counts are kept: where they were from the beginning.
    pub(crate) fn store(&self, chosen: Option<Arc<dyn LimitStore>>) -> Arc<dyn LimitStore> {
        let memory = || Arc::new(MemoryStore::new(MemoryBounds::default()));
        let store = self.store.get_or_init(|| match chosen {
            Some(store) => store,
            None => memory(),
        });
        Arc::clone(store)
    }
}

/// All that one configuration decides.
pub(crate) struct Snapshot {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) drain_grace: Duration,
    /// After this long no connection that was accepted under the configuration still dials.
    pub(crate) dialling_max: Duration,
    /// What keeps its credentials fresh. Started by the first that needs it, aborted with the snapshot.
    background: Mutex<JoinSet<()>>,
}

impl Snapshot {
    pub(crate) fn new(
        shared: Shared,
        tls: Option<TlsAcceptor>,
        drain_grace: Duration,
        dialling_max: Duration,
    ) -> Self {
        Self {
            shared: Arc::new(shared),
            tls,
            drain_grace,
            dialling_max,
            background: Mutex::default(),
        }
    }

    /// Starts what keeps credentials fresh, unless it runs.
    pub(crate) fn start_background(&self) {
        let mut background = self
            .background
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if background.is_empty() {
            self.shared.reach.tokens.drive(&mut background);
            self.shared.reach.keys.drive(&mut background);
        }
    }

    fn stop_background(&self) {
        self.background
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .abort_all();
    }
}

/// The configuration in use.
pub(crate) struct Live {
    pub(crate) carried: Carried,
    current: ArcSwap<Snapshot>,
    /// Configurations that connections may still be dialling under.
    retired: Mutex<JoinSet<()>>,
}

impl Live {
    pub(crate) fn new(carried: Carried, snapshot: Snapshot) -> Self {
        snapshot.shared.come_into_use();
        Self {
            carried,
            current: ArcSwap::from_pointee(snapshot),
            retired: Mutex::default(),
        }
    }

    pub(crate) fn now(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Ends everything that keeps credentials fresh.
    pub(crate) fn stop(&self) {
        self.now().stop_background();
        self.retired
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .abort_all();
    }

    fn swap(&self, next: Snapshot) {
        next.shared.come_into_use();
        let last = self.current.swap(Arc::new(next));
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        while retired.try_join_next().is_some() {}
        // A connection that was accepted a moment ago may still need a token of the last one.
        retired.spawn(async move {
            sleep(last.dialling_max).await;
            last.stop_background();
        });
    }
}

/// Why a configuration was not taken over. The one before it stays in use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// It could not have been started with either.
    #[error(transparent)]
    Start(#[from] StartError),
    /// An identity that it signs in with got no token in time.
    #[error("an identity of the new configuration got no token within {0:?}")]
    NoToken(Duration),
}

/// Gives a running gateway another configuration.
#[derive(Clone)]
pub struct Reloader(pub(crate) Arc<Live>);

impl Reloader {
    /// Takes a configuration over: connections from now on are served by it, sessions that there are keep the one that
    /// they began with. Nothing changes unless all of it works, the first tokens of its identities included.
    ///
    /// The address to listen on is the caller's, and is not changed.
    ///
    /// # Errors
    ///
    /// [`ReloadError`], after which the last configuration is still in use.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn reload(&self, config: Config, options: Options) -> Result<(), ReloadError> {
        let next = Snapshot::build(config, options, &self.0.carried)?;
        next.start_background();
        tokens_ready(&next).await?;
        self.0.swap(next);
        info!("configuration taken over");
        Ok(())
    }
}

async fn tokens_ready(next: &Snapshot) -> Result<(), ReloadError> {
    let give_up = Instant::now() + TOKENS_MAX;
    let mut looks = interval(TOKENS_LOOK);
    while !next.shared.reach.tokens.all_usable() {
        if Instant::now() >= give_up {
            return Err(ReloadError::NoToken(TOKENS_MAX));
        }
        looks.tick().await;
    }
    Ok(())
}
