//! A resolved configuration: everything present, everything in domain types.

use std::{net::SocketAddr, time::Duration};

use ipnet::IpNet;
use talkline_auth::{ClientKeys, FailureRules, RingKey, Secret};

use crate::{Identity, Policies, Prices, Routes, VaultIdentity, WatchedKey};

/// A configuration that can be run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where and how to listen.
    pub server: Server,
    /// Who may open a session.
    pub clients: Clients,
    /// The Talk page.
    pub ui: Ui,
    /// How browsers' tokens are made.
    pub tokens: Tokens,
    /// Where the live counts of clients are kept.
    pub limit_store: LimitStoreConfig,
    /// The listener for operators, where there is one.
    pub admin: Option<Admin>,
    /// Which upstream a client's model name leads to.
    pub routes: Routes,
    /// How a browser or app is told to reach Talk.
    pub transport: Transport,
    /// What sessions may say, by the names that clients' identities have for it.
    pub policies: Policies,
    /// Every bound.
    pub limits: Limits,
    /// When the configuration is read again without being told.
    pub reload: Reload,
    /// What tokens cost.
    pub prices: Prices,
    /// The Entra identities of Azure providers, each with the cell that its tokens are put in.
    pub identities: Vec<Identity>,
    /// The keys that may change while the relay runs, each with the cell that they are put in.
    pub watched_keys: Vec<WatchedKey>,
    /// Who opens Key Vault; there when one of `watched_keys` is kept there.
    pub vault_identity: Option<VaultIdentity>,
}

/// When the configuration is read again without being told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// How often the files are looked at, the configuration's and those that it names. Zero: never.
    pub watch: std::time::Duration,
}

/// Where and how to listen.
#[derive(Clone, Debug)]
pub struct Server {
    /// Address and port. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Certificate and key, when Talkline itself speaks TLS.
    pub tls: Option<TlsFiles>,
    /// Threads that serve clients, each with its own listener. Zero is one for each core.
    pub threads: usize,
    /// How a client is told that the upstream gives no session.
    pub refusals: Refusals,
    /// Web origins whose pages may connect, exact, such as `https://talk.example.com`.
    pub allowed_origins: Vec<String>,
    /// Host names under which the relay is reached, beside the loopback ones: pages of these hosts
    /// may connect to it, and a relay on loopback is reached under no other name. A guard against
    /// DNS rebinding.
    pub allowed_hosts: Vec<String>,
    /// Networks of the front ends whose forwarded headers are believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// Where the live counts of clients are kept.
#[derive(Clone, Debug, Default)]
pub enum LimitStoreConfig {
    /// In this process.
    #[default]
    Memory,
    /// In Redis or Valkey, where all replicas count together.
    Redis(RedisConfig),
}

/// How Redis or Valkey is used.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// URL of the server; it may hold a password.
    pub url: Secret,
    /// What every key begins with.
    pub prefix: String,
    /// Whether each replica goes on by itself while the server is away.
    pub fail_open: bool,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// How long a place is kept for a session of which nothing is heard.
    pub lease_time: Duration,
}

/// The listener for operators: health and revocation, apart from clients.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Address and port. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// What an operator presents as `Authorization: Bearer`. Without it nothing can be changed.
    pub key: Option<Secret>,
}

/// How a client is told that the upstream gives no session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refusals {
    /// After its 101, by an `error` event and a close frame.
    #[default]
    InBand,
    /// In place of its 101, by a problem document (RFC 9457).
    Http,
}

/// PEM files, as paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, leaf first.
    pub cert: String,
    /// Private key of the leaf.
    pub key: String,
}

/// Who may open a session.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Keys, issuers of user tokens, and anonymous clients, each with what it may do. Knows nobody
    /// only with `allow_anonymous`.
    pub keys: ClientKeys,
    /// Whether a client without a key is let in. True only with a loopback `listen`.
    pub allow_anonymous: bool,
}

/// `ui.*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ui {
    /// Whether the Talk page is served, at `/talk/`.
    pub enabled: bool,
}

/// How browsers' tokens (`ek_…`) are made.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The first signs, each verifies. Empty when none is configured: the relay then makes up one of
    /// its own, and its tokens are good at this process alone.
    pub keys: Vec<RingKey>,
    /// Relays with the same keys and the same audience accept each other's tokens.
    pub audience: String,
    /// How long a token can be used, and the longest that may be asked for.
    pub lifetime: Duration,
}

/// `talk.realtime.transport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Audio goes through the relay. The only one with Azure.
    GatewayRelay,
    /// The browser talks WebRTC to OpenAI.
    Webrtc,
    /// The browser opens the provider's WebSocket itself.
    ProviderWebsocket,
    /// A room managed elsewhere.
    ManagedRoom,
}

impl Transport {
    /// The value as it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GatewayRelay => "gateway-relay",
            Self::Webrtc => "webrtc",
            Self::ProviderWebsocket => "provider-websocket",
            Self::ManagedRoom => "managed-room",
        }
    }
}

/// What the kernel may buffer for one socket, in bytes before it doubles them. Zero leaves it to the
/// kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketBuffers {
    /// Bytes on their way out.
    pub send_bytes: u32,
    /// Bytes that came in and were not read.
    pub receive_bytes: u32,
}

/// Every bound, from `limits.*`. The defaults stand in `defaults.toml`, each with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sessions at one time, whole process.
    pub sessions_max: usize,
    /// Connections that are not yet a session (TLS, HTTP request, dialling), whole process.
    pub handshakes_max: usize,
    /// Those of them that come from one source address. A trusted proxy is no source.
    pub handshakes_per_source_max: usize,
    /// How often clients may fail to show who they are.
    pub failures: FailureRules,
    /// Bytes of a client's request line and headers.
    pub request_header_bytes_max: usize,
    /// From accepting the connection to the end of the request's headers, TLS included.
    pub client_handshake_timeout: Duration,
    /// Resolving the upstream's name.
    pub dns_timeout: Duration,
    /// Connecting to the upstream by TCP, all addresses together.
    pub connect_timeout: Duration,
    /// The TLS handshake with the upstream.
    pub tls_timeout: Duration,
    /// From sending the upgrade request to the upstream's 101.
    pub upgrade_timeout: Duration,
    /// All of these together.
    pub dial_timeout: Duration,
    /// Bytes of one message, all its frames together.
    pub message_bytes_max: u64,
    /// Bytes of one frame's payload.
    pub frame_bytes_max: u64,
    /// Frames of one message.
    pub fragments_max: usize,
    /// Bytes of an event that is held back to be looked at before it is forwarded.
    pub inspected_event_bytes_max: usize,
    /// From one ping to the next on each leg.
    pub ping_interval: Duration,
    /// Longest silence of a leg, counted from its last byte, whatever that was.
    pub pong_timeout: Duration,
    /// Longest session, counted from the client's 101.
    pub session_duration_max: Duration,
    /// From the first close frame to the moment when both sockets are cut.
    pub close_timeout: Duration,
    /// From the stop signal to the moment when sessions that are left are closed.
    pub drain_grace: Duration,
    /// How long a peer may take none of the bytes that wait for it.
    pub stall_timeout: Duration,
    /// How long a peer may take for the next 16 KiB of a frame that it has begun, or its end.
    pub frame_timeout: Duration,
    /// Longest time without an event of the client's. Zero is no limit.
    pub idle_timeout: Duration,
    /// Frames that a client may send each second. Zero is no limit.
    pub frames_per_second: u32,
    /// Bytes that are read of a client each second. Zero is no limit.
    pub bytes_per_second: u64,
    /// Bytes that wait for slow peers or are held to be inspected, whole process.
    pub buffered_bytes_max: usize,
    /// Sockets towards clients.
    pub client_buffers: SocketBuffers,
    /// Sockets towards upstreams.
    pub upstream_buffers: SocketBuffers,
    /// Resident bytes of the process at nine tenths of which new sessions are turned away; zero takes
    /// the limit of the control group.
    pub memory_bytes_max: u64,
}
