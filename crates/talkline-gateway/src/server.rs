//! The listener: accepts connections, bounds them, and drains them at the end.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use talkline_auth::{
    ClientKeys, KeyCell, KeyFiles, KeyRing, LimitStore, Moment, RingKey, Source, SourcePermits,
    TokenCell, TokenSource,
};
use talkline_config::{Config, Policies, Prices, Refusals, Routes, Transport, Ui};
use talkline_dialect::{Ask, ClientDialect, Correlation, Diagnosis, Intent};
use talkline_relay::Budget;
use talkline_session::{Limits as SessionLimits, Rate, Stop};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::{
    admit::{Gate, GateParts, Names, OriginPolicy, Peer},
    connection::{self, Entry, Lifecycle, Notice},
    dial::{DialTimeouts, Dialer, ResolveOverride},
    direct::Direct,
    endpoints::admin::{self, Admin},
    head::HeadLimits,
    jwks::Jwks,
    keys::{KeyReader, Keys},
    limits,
    metrics::Metrics,
    overload::{self, Load, Pressure},
    places::Places,
    proxies::TrustedProxies,
    reach::Reach,
    reload::{Carried, Live, Reloader, Snapshot},
    sockets::SocketOptions,
    tls::{self, TlsError},
    tokens::Tokens,
};

mod threads;

pub use self::threads::listeners;

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
    live: Arc<Live>,
    admin: Option<(TcpListener, Arc<Admin>)>,
}

/// What every connection needs to know. A reload makes another one.
pub(crate) struct Shared {
    pub(crate) ui: Ui,
    pub(crate) gate: Gate,
    /// Connections of each source that are not admitted yet.
    pub(crate) sources: SourcePermits,
    pub(crate) store: Arc<dyn LimitStore>,
    /// What every session is told of; the same channel for as long as the process lives.
    pub(crate) notices: watch::Sender<Notice>,
    pub(crate) transport: Transport,
    pub(crate) policies: Policies,
    pub(crate) routes: Routes,
    pub(crate) reach: Reach,
    pub(crate) refusals: Refusals,
    pub(crate) sessions: Places,
    pub(crate) sessions_max: usize,
    pub(crate) handshakes: Places,
    pub(crate) handshakes_max: usize,
    pub(crate) memory_bytes_max: u64,
    pub(crate) pressure: Pressure,
    pub(crate) session_limits: Arc<SessionLimits>,
    /// Memory for bytes that wait, of all sessions together.
    pub(crate) budget: Arc<Budget>,
    buffered_bytes_max: usize,
    client_sockets: SocketOptions,
    pub(crate) head_limits: HeadLimits,
    pub(crate) handshake_timeout: Duration,
    pub(crate) metrics: Metrics,
    pub(crate) prices: Prices,
    /// What operators present, where the configuration has a listener for them.
    pub(crate) admin_keys: Option<ClientKeys>,
}

impl Shared {
    /// The time as limits want it.
    pub(crate) fn now(&self) -> Moment {
        limits::now()
    }

    /// Has what outlives a configuration follow this one.
    pub(crate) fn come_into_use(&self) {
        self.budget.resize(self.buffered_bytes_max);
        let keys = self.reach.keys.cells();
        self.metrics
            .watch_credentials(self.reach.tokens.clone(), keys);
        self.metrics.sessions_max(self.sessions_max);
        self.metrics
            .watch_buffers(Arc::clone(&self.budget), self.buffered_bytes_max);
        let store = Arc::clone(&self.store);
        self.metrics.watch_limit_store(move || store.health());
    }

    /// What another session would endanger those that there are by.
    pub(crate) fn overload(&self) -> Option<&'static str> {
        let load = Load {
            sessions: self.sessions.taken(),
            handshakes: self.handshakes.taken(),
            memory_bytes_max: self.memory_bytes_max,
        };
        self.pressure.exceeded(load).map(overload::Budget::as_str)
    }
}

impl Gateway {
    /// Makes a gateway of a configuration. Opens no socket yet.
    ///
    /// # Errors
    ///
    /// [`StartError::Tls`] when a certificate, a key or the platform's roots cannot be loaded.
    pub fn new(config: Config, options: Options) -> Result<Self, StartError> {
        let carried = Carried::new();
        let snapshot = Snapshot::build(config, options, &carried)?;
        let live = Arc::new(Live::new(carried, snapshot));
        Ok(Self { live, admin: None })
    }

    /// What gives this gateway another configuration while it runs.
    pub fn reloader(&self) -> Reloader {
        Reloader(Arc::clone(&self.live))
    }
}

impl Snapshot {
    /// Makes everything of a configuration, or nothing.
    pub(crate) fn build(
        config: Config,
        options: Options,
        carried: &Carried,
    ) -> Result<Self, StartError> {
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
            stall_timeout: Some(limits.stall_timeout),
            frame_timeout: Some(limits.frame_timeout),
            idle_max: some_unless_zero(limits.idle_timeout),
            client_rate: Rate {
                frames_max: Some(limits.frames_per_second).filter(|frames| *frames > 0),
                bytes_max: Some(limits.bytes_per_second).filter(|bytes| *bytes > 0),
            },
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
        let dialer = Dialer::new(tls::client_config()?, timeouts, options.resolve)
            .with_sockets(SocketOptions::upstream(limits))
            .within(limits.dial_timeout);
        let clients = config.clients.keys;
        let gate = Gate::new(GateParts {
            ring: KeyRing::new(config.tokens.keys, config.tokens.audience.as_str())
                .unwrap_or_else(|| own_ring(&carried.ring_seed, &config.tokens.audience)),
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
            store: carried.store(options.limit_store),
            notices: carried.notices.clone(),
            transport: config.transport,
            policies: config.policies,
            ui: config.ui,
            routes: config.routes,
            reach: Reach {
                dialer,
                tokens,
                keys: Keys::new(options.watched_keys, options.key_readers),
                token_wait_max: limits.upgrade_timeout,
            },
            refusals: config.server.refusals,
            sessions: carried.sessions.clone(),
            sessions_max: limits.sessions_max,
            handshakes: carried.handshakes.clone(),
            handshakes_max: limits.handshakes_max,
            memory_bytes_max: limits.memory_bytes_max,
            pressure: carried.pressure.clone(),
            session_limits: Arc::new(session_limits),
            budget: Arc::clone(&carried.budget),
            buffered_bytes_max: limits.buffered_bytes_max,
            client_sockets: SocketOptions::client(limits),
            head_limits: HeadLimits {
                head_bytes_max: limits.request_header_bytes_max,
                headers_max: HEADERS_MAX,
                target_bytes_max: TARGET_BYTES_MAX,
            },
            handshake_timeout: limits.client_handshake_timeout,
            metrics: carried.metrics(options.metrics),
            prices: config.prices,
            admin_keys: config.admin.as_ref().map(admin::keys),
        };
        let dial_max = limits.dns_timeout
            + limits.connect_timeout
            + limits.tls_timeout
            + limits.upgrade_timeout;
        // A refused credential is tried once more, and may be waited for in between.
        let dialling_max =
            limits.client_handshake_timeout + 2 * (dial_max + limits.upgrade_timeout);
        Ok(Self::new(
            shared,
            server_tls.map(TlsAcceptor::from),
            limits.drain_grace,
            dialling_max,
        ))
    }
}

impl Gateway {
    /// Whether clients connect with TLS.
    pub fn uses_tls(&self) -> bool {
        self.live.now().tls.is_some()
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
        let now = self.live.now();
        now.start_background();
        let shared = &now.shared;
        let correlation = Correlation::default();
        for (name, upstream) in shared.routes.providers() {
            if let Err(diagnosis) = shared.reach.open(upstream, &ask, &correlation).await {
                refusals.push((name.to_owned(), *diagnosis));
            }
        }
        refusals
    }

    /// Accepts connections until `shutdown` completes, then drains: stops listening at once, lets
    /// sessions run on for the configured grace, tells the rest why they end, and returns. Tokens and
    /// keys are kept fresh meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends every session without a close frame.
    pub async fn serve(mut self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        self.live.now().start_background();
        let notices = self.live.carried.notices.clone();
        let mut connections = JoinSet::new();
        let mut operators = JoinSet::new();
        if let Some((listener, admin)) = self.admin.take() {
            let live = Arc::clone(&self.live);
            operators.spawn(admin::serve(listener, admin, live));
        }
        let mut watching = JoinSet::new();
        watching.spawn(self.live.carried.watch_pressure());
        let mut failures = AcceptFailures::default();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
                () = failures.pause() => {}
                accepted = listener.accept(), if !failures.pausing() => match accepted {
                    Ok((stream, peer)) => {
                        failures.over();
                        debug!(%peer, "connection accepted");
                        self.start(&mut connections, stream, peer);
                    }
                    // Descriptors run out or a peer gave up in the queue: neither ends the service.
                    Err(error) => failures.another(&error),
                },
            }
        }
        drop(listener);
        self.live.now().shared.metrics.draining();
        self.drain(connections, &notices).await;
        operators.shutdown().await;
        self.live.stop();
        watching.shutdown().await;
    }

    fn start(&self, connections: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr) {
        let now = self.live.now();
        let shared = Arc::clone(&now.shared);
        let Some(place) = shared.handshakes.take(shared.handshakes_max) else {
            warn!("too many connections are opening at once; one was dropped");
            return;
        };
        // A proxy's clients are told apart once their request is read.
        let source = match shared.gate.proxies.trusts(peer.ip()) {
            true => None,
            false => match shared.sources.acquire(Source::of(peer.ip())) {
                Some(permit) => Some(permit),
                None => return debug!("a source has too many connections that are opening"),
            },
        };
        let entry = Entry {
            peer: Peer {
                address: peer,
                tls: now.tls.is_some(),
            },
            _place: place,
            source,
        };
        let tls = now.tls.clone();
        // Large, and soon over: its memory is free again when the session begins.
        let handshake = Box::pin(async move {
            let deadline = Instant::now() + shared.handshake_timeout;
            if let Err(error) = shared.client_sockets.prepare(&stream) {
                debug!(%error, "connection could not be set up");
                return None;
            }
            let stream = Direct::new(stream);
            match tls {
                None => connection::serve(stream, shared, deadline, entry).await,
                Some(tls) => match timeout_at(deadline, tls.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let stream = Box::new(stream);
                        connection::serve(stream, shared, deadline, entry).await
                    }
                    Ok(Err(error)) => {
                        debug!(%error, "TLS handshake with a client failed");
                        None
                    }
                    Err(_) => {
                        debug!("TLS handshake with a client took too long");
                        None
                    }
                },
            }
        });
        connections.spawn(async move {
            let session = handshake.await;
            if let Some(session) = session {
                session.await;
            }
        });
    }

    async fn drain(&self, mut connections: JoinSet<()>, notices: &watch::Sender<Notice>) {
        if connections.is_empty() {
            return;
        }
        let grace = self.live.now().drain_grace;
        info!(sessions = connections.len(), ?grace, "draining");
        notices.send_modify(|notice| notice.lifecycle = Lifecycle::Draining);
        let grace_over = Instant::now() + grace;
        join_until(&mut connections, grace_over).await;
        notices.send_modify(|notice| notice.lifecycle = Lifecycle::Ending);
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

/// What the loop that accepts does about failures: it pauses, without being deaf to the end of the
/// service, and says so once.
#[derive(Default)]
struct AcceptFailures {
    count: u64,
    until: Option<Instant>,
}

impl AcceptFailures {
    fn another(&mut self, error: &io::Error) {
        if self.count == 0 {
            warn!(%error, "accepting a connection failed; trying again until it works");
        }
        self.count += 1;
        self.until = Some(Instant::now() + ACCEPT_PAUSE);
    }

    fn over(&mut self) {
        if self.count > 0 {
            info!(failures = self.count, "connections are accepted again");
        }
        self.count = 0;
    }

    fn pausing(&self) -> bool {
        self.until.is_some()
    }

    /// Waits for the end of the pause, if there is one; else for ever.
    async fn pause(&mut self) {
        match self.until {
            Some(until) => {
                sleep_until(until).await;
                self.until = None;
            }
            None => std::future::pending().await,
        }
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
fn own_ring(seed: &[u8; 32], audience: &str) -> KeyRing {
    KeyRing::new(vec![RingKey::ephemeral(seed)], audience).expect("there is one key")
}

fn some_unless_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}
