//! The listener: accepts connections, bounds them, and drains them at the end.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::ServerConfig;
use talkline_auth::{
    KeyCell, KeyFiles, KeyRing, LimitStore, MemoryBounds, MemoryStore, Moment, RingKey, Source,
    SourcePermits, TokenCell, TokenSource,
};
use talkline_config::{Config, Prices, Refusals, Routes, Transport};
use talkline_dialect::{Ask, ClientDialect, Correlation, Diagnosis, Intent};
use talkline_session::{Limits as SessionLimits, Stop};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::{
    admit::{Gate, GateParts, Names, OriginPolicy, Peer},
    connection::{self, Entry, Lifecycle},
    dial::{DialTimeouts, Dialer, ResolveOverride},
    endpoints::admin::{self, Admin},
    head::HeadLimits,
    jwks::Jwks,
    keys::{KeyReader, Keys},
    limits,
    metrics::Metrics,
    proxies::TrustedProxies,
    reach::Reach,
    tls::{self, TlsError},
    tokens::Tokens,
};

/// Header lines of a request.
const HEADERS_MAX: usize = 64;
/// Bytes of a request target: 2 KiB of query and some path.
const TARGET_BYTES_MAX: usize = 2048 + 256;
/// Pause after a failed accept, so that running out of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time that sessions have for their close frames once the grace is over.
const FAREWELL: Duration = Duration::from_millis(900);

/// What comes from somewhere other than the configuration.
#[derive(Clone, Default)]
pub struct Options {
    /// TLS towards clients; overrides the certificate files of the configuration.
    pub tls: Option<Arc<ServerConfig>>,
    /// Loopback addresses that stand in for upstream names, for tests.
    pub resolve: Vec<ResolveOverride>,
    /// For each [`TokenCell`] of the configuration, the source that its tokens come from.
    pub token_sources: Vec<(TokenCell, Arc<dyn TokenSource>)>,
    /// For each [`KeyCell`] of the configuration, the files that its keys were read from.
    pub watched_keys: Vec<(KeyCell, KeyFiles)>,
    /// Whom to ask for a newer key when an upstream refuses one that does not come from a file.
    pub key_readers: Vec<(KeyCell, KeyReader)>,
    /// What the gateway counts. Keep a clone to show it.
    pub metrics: Metrics,
    /// Where clients' live counts are kept. Without one, in this process alone.
    pub limit_store: Option<Arc<dyn LimitStore>>,
}

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] TlsError),
    /// The configuration signs in to a provider with Entra ID, and [`Options::token_sources`] has
    /// no source for it.
    #[error("provider `{0}` signs in with Entra ID, but nothing was given that fetches its tokens")]
    NoTokenSource(String),
}

/// The relay as a service.
pub struct Gateway {
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    handshakes: Arc<Semaphore>,
    admin: Option<(TcpListener, Arc<Admin>)>,
    drain_grace: Duration,
    /// What keeps credentials fresh. Started by the first that needs it, aborted with the gateway.
    background: Mutex<JoinSet<()>>,
}

/// What every connection needs to know. Never changes after the start.
pub(crate) struct Shared {
    pub(crate) gate: Gate,
    /// Connections of each source that are not admitted yet.
    pub(crate) sources: SourcePermits,
    pub(crate) store: Arc<dyn LimitStore>,
    /// Counts what this process has revoked, so that its sessions look whether they are meant.
    pub(crate) revocations: watch::Sender<u64>,
    pub(crate) transport: Transport,
    pub(crate) routes: Routes,
    pub(crate) reach: Reach,
    pub(crate) refusals: Refusals,
    pub(crate) sessions: Arc<Semaphore>,
    pub(crate) session_limits: SessionLimits,
    pub(crate) head_limits: HeadLimits,
    pub(crate) handshake_timeout: Duration,
    pub(crate) metrics: Metrics,
    pub(crate) prices: Prices,
}

impl Shared {
    /// The time as limits want it.
    pub(crate) fn now(&self) -> Moment {
        limits::now()
    }
}

impl Gateway {
    /// Makes a gateway of a configuration. Opens no socket yet.
    ///
    /// # Errors
    ///
    /// [`StartError::Tls`] when a certificate, a key or the platform's roots cannot be loaded.
    pub fn new(config: Config, options: Options) -> Result<Self, StartError> {
        let server_tls = match (options.tls, &config.server.tls) {
            (Some(tls), _) => Some(tls),
            (None, Some(files)) => {
                Some(tls::server_config(files.cert.as_ref(), files.key.as_ref())?)
            }
            (None, None) => None,
        };
        let limits = &config.limits;
        let timeouts = DialTimeouts {
            dns: limits.dns_timeout,
            tcp: limits.connect_timeout,
            tls: limits.tls_timeout,
            upgrade: limits.upgrade_timeout,
        };
        let session_limits = SessionLimits {
            frames: talkline_session::FrameLimits {
                frame_bytes_max: limits.frame_bytes_max,
                message_bytes_max: limits.message_bytes_max,
                fragments_max: u32::try_from(limits.fragments_max).unwrap_or(u32::MAX),
            },
            ping_interval: some_unless_zero(limits.ping_interval),
            pong_timeout: limits.pong_timeout,
            session_max: some_unless_zero(limits.session_duration_max),
            close_wait: limits.close_timeout,
            inspect_bytes_max: limits.inspected_event_bytes_max,
            ..SessionLimits::default()
        };
        let tokens = Tokens::new(options.token_sources);
        for (name, upstream) in config.routes.providers() {
            let orphan = |cell| !tokens.know(cell);
            if upstream.token_cell().is_some_and(orphan) {
                return Err(StartError::NoTokenSource(name.to_owned()));
            }
        }
        let dialer = Dialer::new(tls::client_config()?, timeouts, options.resolve);
        let clients = config.clients.keys;
        let gate = Gate::new(GateParts {
            ring: KeyRing::new(config.tokens.keys, config.tokens.audience.as_str())
                .unwrap_or_else(|| own_ring(&config.tokens.audience)),
            token_lifetime: config.tokens.lifetime,
            origins: OriginPolicy {
                allowed: config.server.allowed_origins,
                own_hosts: config.server.allowed_hosts,
            },
            names: match config.server.listen.ip().is_loopback() {
                true => Names::Known,
                false => Names::Any,
            },
            proxies: TrustedProxies::new(config.server.trusted_proxies),
            jwks: Jwks::new(clients.issuers(), dialer.clone()),
            failures: limits.failures,
            clients,
        });
        let per_source = u32::try_from(limits.handshakes_per_source_max).unwrap_or(u32::MAX);
        let shared = Shared {
            gate,
            sources: SourcePermits::new(per_source),
            store: options
                .limit_store
                .unwrap_or_else(|| Arc::new(MemoryStore::new(MemoryBounds::default()))),
            revocations: watch::Sender::new(0),
            transport: config.transport,
            routes: config.routes,
            reach: Reach {
                dialer,
                tokens,
                keys: Keys::new(options.watched_keys, options.key_readers),
                token_wait_max: limits.upgrade_timeout,
            },
            refusals: config.server.refusals,
            sessions: Arc::new(Semaphore::new(limits.sessions_max)),
            session_limits,
            head_limits: HeadLimits {
                head_bytes_max: limits.request_header_bytes_max,
                headers_max: HEADERS_MAX,
                target_bytes_max: TARGET_BYTES_MAX,
            },
            handshake_timeout: limits.client_handshake_timeout,
            metrics: options.metrics,
            prices: config.prices,
        };
        let keys = shared.reach.keys.cells();
        shared
            .metrics
            .watch_credentials(shared.reach.tokens.clone(), keys);
        shared.metrics.sessions_max(limits.sessions_max);
        Ok(Self {
            shared: Arc::new(shared),
            tls: server_tls.map(TlsAcceptor::from),
            handshakes: Arc::new(Semaphore::new(limits.handshakes_max)),
            admin: None,
            drain_grace: limits.drain_grace,
            background: Mutex::default(),
        })
    }

    /// Whether clients connect with TLS.
    pub fn uses_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Serves operators on a listener of their own while [`Self::serve`] serves clients. Does
    /// nothing without a `key` in `config` but tell the service's health.
    #[must_use]
    pub fn with_admin(mut self, listener: TcpListener, config: &talkline_config::Admin) -> Self {
        self.admin = Some((listener, Arc::new(Admin::new(config))));
        self
    }

    /// Opens a session with every upstream and closes it again at once; returns those that refused,
    /// by the name that the configuration gives them. Begins to keep tokens and keys fresh, if
    /// nothing has yet.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes what was open.
    pub async fn probe(&self) -> Vec<(String, Diagnosis)> {
        let mut refusals = Vec::new();
        let ask = Ask {
            alias: None,
            intent: Intent::Conversation,
            dialect: ClientDialect::Ga,
            offers_realtime: false,
        };
        self.start_background();
        let correlation = Correlation::default();
        for (name, upstream) in self.shared.routes.providers() {
            if let Err(diagnosis) = self.shared.reach.open(upstream, &ask, &correlation).await {
                refusals.push((name.to_owned(), *diagnosis));
            }
        }
        refusals
    }

    /// Starts what keeps credentials fresh, unless it runs.
    fn start_background(&self) {
        let mut background = self
            .background
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if background.is_empty() {
            self.shared.reach.tokens.drive(&mut background);
            self.shared.reach.keys.drive(&mut background);
        }
    }

    /// Accepts connections until `shutdown` completes, then drains: stops listening at once, lets
    /// sessions run on for the configured grace, tells the rest why they end, and returns. Tokens and
    /// keys are kept fresh meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends every session without a close frame.
    pub async fn serve(mut self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        self.start_background();
        let (lifecycle, watched) = watch::channel(Lifecycle::Serving);
        let mut connections = JoinSet::new();
        let mut operators = JoinSet::new();
        if let Some((listener, admin)) = self.admin.take() {
            let shared = Arc::clone(&self.shared);
            operators.spawn(admin::serve(listener, admin, shared, watched.clone()));
        }
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        debug!(%peer, "connection accepted");
                        self.start(&mut connections, stream, peer, watched.clone());
                    }
                    // Descriptors run out or a peer gave up in the queue: neither ends the service.
                    Err(error) => {
                        warn!(%error, "accepting a connection failed");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        self.shared.metrics.draining();
        self.drain(connections, lifecycle).await;
        operators.shutdown().await;
        let background = self.background.into_inner();
        background
            .unwrap_or_else(PoisonError::into_inner)
            .shutdown()
            .await;
    }

    fn start(
        &self,
        connections: &mut JoinSet<()>,
        stream: TcpStream,
        peer: SocketAddr,
        lifecycle: watch::Receiver<Lifecycle>,
    ) {
        let Ok(place) = Arc::clone(&self.handshakes).try_acquire_owned() else {
            warn!("too many connections are opening at once; one was dropped");
            return;
        };
        // A proxy's clients are told apart once their request is read.
        let source = match self.shared.gate.proxies.trusts(peer.ip()) {
            true => None,
            false => match self.shared.sources.acquire(Source::of(peer.ip())) {
                Some(permit) => Some(permit),
                None => return debug!("a source has too many connections that are opening"),
            },
        };
        let entry = Entry {
            peer: Peer {
                address: peer,
                tls: self.tls.is_some(),
            },
            _place: place,
            source,
        };
        let shared = Arc::clone(&self.shared);
        let tls = self.tls.clone();
        connections.spawn(async move {
            let deadline = Instant::now() + shared.handshake_timeout;
            if let Err(error) = prepare(&stream) {
                debug!(%error, "connection could not be set up");
                return;
            }
            match tls {
                None => connection::serve(stream, shared, deadline, entry, lifecycle).await,
                Some(tls) => match timeout_at(deadline, tls.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        connection::serve(Box::new(stream), shared, deadline, entry, lifecycle)
                            .await;
                    }
                    Ok(Err(error)) => debug!(%error, "TLS handshake with a client failed"),
                    Err(_) => debug!("TLS handshake with a client took too long"),
                },
            }
        });
    }

    async fn drain(&self, mut connections: JoinSet<()>, lifecycle: watch::Sender<Lifecycle>) {
        if connections.is_empty() {
            return;
        }
        info!(sessions = connections.len(), grace = ?self.drain_grace, "draining");
        lifecycle.send_replace(Lifecycle::Draining);
        let grace_over = Instant::now() + self.drain_grace;
        join_until(&mut connections, grace_over).await;
        lifecycle.send_replace(Lifecycle::Ending);
        join_until(&mut connections, Instant::now() + FAREWELL).await;
        if !connections.is_empty() {
            warn!(
                sessions = connections.len(),
                "sessions were cut off at the end of the grace"
            );
        }
        connections.shutdown().await;
    }
}

/// The end of a session by the relay, when it is going away.
pub(crate) fn farewell() -> Stop {
    Stop {
        code: 1001,
        reason: "relay_shutting_down".into(),
        event: Some(
            talkline_session::ErrorEvent {
                event_id: "event_relay_shutting_down",
                kind: "server_error",
                code: "relay_shutting_down",
                message: "The relay is shutting down. Next step: reconnect; another instance answers.",
                param: None,
            }
            .to_json(),
        ),
    }
}

async fn join_until(connections: &mut JoinSet<()>, deadline: Instant) {
    loop {
        tokio::select! {
            biased;
            ended = connections.join_next() => match ended {
                Some(ended) => report(ended),
                None => return,
            },
            () = sleep_until(deadline) => return,
        }
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        // The panic's own message went to the panic hook; the session it belonged to is gone, the
        // others are not.
        tracing::error!("a session ended in a panic");
    }
}

/// A ring of this process alone: its tokens are good for no other, and for none after a restart.
fn own_ring(audience: &str) -> KeyRing {
    let mut random = [0; 32];
    getrandom::fill(&mut random).expect("the operating system has randomness");
    KeyRing::new(vec![RingKey::ephemeral(&random)], audience).expect("there is one key")
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)
}

fn some_unless_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}
