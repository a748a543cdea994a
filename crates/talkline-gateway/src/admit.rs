//! Strict admission: whether a request may become a session, and whose it is.
//!
//! For every request, whatever it asks for, the order is: the host it was sent to, the origin of the
//! page that sent it, how often its source has failed, its credential, then what it asks for. Who is
//! not admitted learns nothing about models or upstreams. Cookies are never read, and no address is
//! privileged, loopback included.

use std::{
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use base64::Engine as _;
use http::{HeaderMap, Method, Request, StatusCode, header};
use talkline_auth::{
    Admission, Attempt, Client, ClientKeys, FailureLimiter, FailureRules, KeyRing, Lookup,
    PresentedKey, SlowCheck, Source, TokenRefusal, TooManyFailures, grant::Verified,
};
use talkline_config::RouteMatch;
use talkline_dialect::{Ask, Correlation};
use tokio::sync::Semaphore;

use crate::{
    handshake::lists,
    jwks::Jwks,
    proxies::{Reached, Sender, TrustedProxies},
    refusal::HttpRefusal,
    server::Shared,
};

/// Slow hashes that are computed at one time. Each takes a core and some 20 MiB for tens of
/// milliseconds, so strangers must not have many.
const SLOW_CHECKS_MAX: usize = 2;

/// Which pages may open sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct OriginPolicy {
    /// Exact origins beside the relay's own.
    pub(crate) allowed: Vec<String>,
    /// Host names under which the relay is reached, beside loopback ones.
    pub(crate) own_hosts: Vec<String>,
}

/// Whether the names under which a relay is reached are known in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// It is bound to loopback: a request for another name comes from a rebound DNS name.
    Known,
    /// Whatever leads here.
    Any,
}

/// Where a request came from, before anybody has asked who sent it.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) sender: Sender,
    /// `Host` as it came: letters, digits and `.-:[]_` only.
    pub(crate) host: String,
    /// `Origin` as it came. `None` when no page sent the request.
    pub(crate) origin: Option<String>,
}

/// The connection that a request came on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Whether the relay itself speaks TLS on it.
    pub(crate) tls: bool,
}

/// Somebody who showed who they are.
#[derive(Debug)]
pub(crate) struct Authenticated {
    pub(crate) client: Client,
    /// The `ek_` token that it came with, not yet used up.
    pub(crate) token: Option<Verified>,
    /// To be reported if the token turns out to be used, or bound to something else.
    attempt: Attempt,
}

/// A request that may become a session.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) ask: Ask,
    pub(crate) who: Authenticated,
    pub(crate) correlation: Correlation,
    /// `Sec-WebSocket-Key` as it came.
    pub(crate) websocket_key: String,
}

/// Decides who comes in.
pub(crate) struct Gate {
    pub(crate) clients: ClientKeys,
    pub(crate) ring: KeyRing,
    /// How long a token that the relay makes can be used.
    pub(crate) token_lifetime: Duration,
    pub(crate) origins: OriginPolicy,
    pub(crate) names: Names,
    pub(crate) proxies: TrustedProxies,
    pub(crate) jwks: Jwks,
    failures: FailureLimiter,
    slow: Semaphore,
}

/// What [`Gate`] is made of.
pub(crate) struct GateParts {
    pub(crate) clients: ClientKeys,
    pub(crate) ring: KeyRing,
    pub(crate) token_lifetime: Duration,
    pub(crate) origins: OriginPolicy,
    pub(crate) names: Names,
    pub(crate) proxies: TrustedProxies,
    pub(crate) jwks: Jwks,
    pub(crate) failures: FailureRules,
}

/// Why somebody was not recognised.
enum Unrecognised {
    /// By their own fault: a failure that is counted.
    Theirs(HttpRefusal),
    /// Something that is needed to tell was not there.
    Ours(HttpRefusal),
}

impl From<Admission> for Unrecognised {
    fn from(refusal: Admission) -> Self {
        Self::Theirs(unauthorised(
            refusal.status(),
            refusal.code(),
            refusal.to_string(),
        ))
    }
}

impl From<TokenRefusal> for Unrecognised {
    fn from(refusal: TokenRefusal) -> Self {
        Self::Theirs(refused_token(refusal))
    }
}

fn refused_token(refusal: TokenRefusal) -> HttpRefusal {
    unauthorised(refusal.status(), refusal.code(), refusal.to_string())
}

/// 401 names the scheme that is spoken (RFC 9110 section 15.5.2).
pub(crate) fn unauthorised(status: u16, code: &'static str, message: String) -> HttpRefusal {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::UNAUTHORIZED);
    let refusal = HttpRefusal::new(status, code, message);
    match status {
        StatusCode::UNAUTHORIZED => refusal.with_header(header::WWW_AUTHENTICATE, "Bearer"),
        _ => refusal,
    }
}

impl Gate {
    pub(crate) fn new(parts: GateParts) -> Self {
        let GateParts {
            clients,
            ring,
            token_lifetime,
            origins,
            names,
            proxies,
            jwks,
            failures,
        } = parts;
        Self {
            clients,
            ring,
            token_lifetime,
            origins,
            names,
            proxies,
            jwks,
            failures: FailureLimiter::new(failures),
            slow: Semaphore::new(SLOW_CHECKS_MAX),
        }
    }

    /// Reads where a request came from, and refuses it when it was sent to a name that is not the
    /// relay's.
    pub(crate) fn arrive(&self, headers: &HeaderMap, peer: Peer) -> Result<Arrival, HttpRefusal> {
        let bad_host = || {
            HttpRefusal::new(
                StatusCode::BAD_REQUEST,
                "malformed_request",
                "the Host header is no host",
            )
        };
        let host = one(headers, &header::HOST)
            .map_err(|()| bad_host())?
            .filter(|host| is_authority(host))
            .ok_or_else(bad_host)?;
        if self.names == Names::Known && !is_own_host(host, &self.origins) {
            return Err(HttpRefusal::new(
                StatusCode::FORBIDDEN,
                "host_not_allowed",
                "the relay is not known under this name; the operator adds it to server.allowedHosts",
            ));
        }
        let sender = self.proxies.sender(peer.address, peer.tls, headers)?;
        let origin =
            one(headers, &header::ORIGIN).map_err(|()| HttpRefusal::origin_not_allowed())?;
        Ok(Arrival {
            sender,
            host: host.to_owned(),
            origin: origin.map(str::to_owned),
        })
    }

    /// Cross-site WebSocket hijacking is stopped here, because browsers do not apply CORS to
    /// WebSockets. The same rule decides which pages may read what the HTTP endpoints answer.
    ///
    /// A page is let in when its origin is on the list, or when it was served under the same host
    /// and either a key was presented (a page elsewhere cannot know it) or the host is one of the
    /// relay's own names (a rebound DNS name is not).
    pub(crate) fn check_origin(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        arrival: &Arrival,
    ) -> Result<(), HttpRefusal> {
        let Some(origin) = &arrival.origin else {
            // Not a page. Its credential decides.
            return Ok(());
        };
        let vouched = || {
            let presented = PresentedKey::find(fields(headers), query);
            matches!(presented, Ok(Some(_))) && !self.clients.knows_nobody()
        };
        let allowed = self.is_listed(origin)
            || (self.is_same(origin, arrival)
                && (is_own_host(&arrival.host, &self.origins) || vouched()));
        allowed
            .then_some(())
            .ok_or_else(HttpRefusal::origin_not_allowed)
    }

    /// Whether a token may be bound to this origin.
    pub(crate) fn may_come_from(&self, origin: &str, arrival: &Arrival) -> bool {
        self.is_listed(origin) || self.is_same(origin, arrival)
    }

    fn is_listed(&self, origin: &str) -> bool {
        self.origins.allowed.iter().any(|allowed| allowed == origin)
    }

    /// Whether the page was served by the host that it asks, by the scheme that it asks with.
    fn is_same(&self, origin: &str, arrival: &Arrival) -> bool {
        let Some((scheme, host)) = origin.split_once("://") else {
            return false;
        };
        let by_scheme = match arrival.sender.reached {
            Reached::Https => scheme == "https",
            Reached::Http => scheme == "http",
            Reached::Unknown => matches!(scheme, "http" | "https"),
        };
        // Who lists an origin of this very host has said which scheme is meant.
        let is_listed_otherwise = || {
            let rest = |listed: &String| listed.split_once("://").map(|(_, host)| host.to_owned());
            let mut listed = self.origins.allowed.iter().filter_map(rest);
            listed.any(|listed| listed.eq_ignore_ascii_case(host))
        };
        by_scheme && host.eq_ignore_ascii_case(&arrival.host) && !is_listed_otherwise()
    }

    /// Asks whether a source may present a credential.
    pub(crate) fn attempt(&self, source: Source) -> Result<Attempt, HttpRefusal> {
        self.failures
            .attempt(source, Instant::now())
            .map_err(|refusal| {
                HttpRefusal::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    TooManyFailures::CODE,
                    refusal.to_string(),
                )
                .with_retry_after(refusal.retry_after)
            })
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, attempt: Attempt) {
        self.failures.failed(attempt, Instant::now());
    }

    /// Finds out who sent a request.
    ///
    /// # Errors
    ///
    /// 429 when its source has failed too often, else what is wrong with its credential.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost; a slow check that has begun runs to its end.
    pub(crate) async fn authenticate<B>(
        &self,
        request: &Request<B>,
        arrival: &Arrival,
    ) -> Result<Authenticated, HttpRefusal> {
        let source = Source::of(arrival.sender.address);
        let attempt = self.attempt(source)?;
        match self.recognise(request, arrival, source).await {
            Ok((client, token)) => Ok(Authenticated {
                client,
                token,
                attempt,
            }),
            Err(Unrecognised::Theirs(refusal)) => {
                self.failed(attempt);
                Err(refusal)
            }
            Err(Unrecognised::Ours(refusal)) => Err(refusal),
        }
    }

    /// As [`Self::authenticate`], for endpoints that need no more than the client.
    pub(crate) async fn identify<B>(
        &self,
        request: &Request<B>,
        arrival: &Arrival,
    ) -> Result<Client, HttpRefusal> {
        self.authenticate(request, arrival)
            .await
            .map(|who| who.client)
    }

    /// As [`Self::identify`], with `None` for a request that presents nothing where that is not
    /// enough. It asks about nothing that is worth guessing for, so it is no failure.
    pub(crate) async fn identify_if_any<B>(
        &self,
        request: &Request<B>,
        arrival: &Arrival,
    ) -> Result<Option<Client>, HttpRefusal> {
        let presented = PresentedKey::find(fields(request.headers()), request.uri().query());
        match presented {
            Ok(None) if !self.lets_anyone_in() => Ok(None),
            _ => self.identify(request, arrival).await.map(Some),
        }
    }

    /// Whether a request that presents nothing is let in.
    pub(crate) fn lets_anyone_in(&self) -> bool {
        self.clients.allows_anonymous()
    }

    async fn recognise<B>(
        &self,
        request: &Request<B>,
        arrival: &Arrival,
        source: Source,
    ) -> Result<(Client, Option<Verified>), Unrecognised> {
        let presented = PresentedKey::find(fields(request.headers()), request.uri().query())?;
        match self.clients.look_up(presented.as_ref())? {
            Lookup::Admitted(client) => Ok((client, None)),
            Lookup::Token(token) => {
                let token = self.ring.verify(token.expose(), SystemTime::now())?;
                token.grant.check_origin(arrival.origin.as_deref())?;
                let client = self.clients.client_of(&token)?;
                Ok((client, Some(token)))
            }
            Lookup::Slow(check) => self
                .slowly(check, source)
                .await
                .map(|client| (client, None)),
            Lookup::User(check) => {
                let verified = self.jwks.verify(&check).await;
                let client = verified.map_err(|error| match error.refusal() {
                    Some(refusal) => Unrecognised::Theirs(unauthorised(
                        refusal.status(),
                        refusal.code(),
                        refusal.to_string(),
                    )),
                    None => Unrecognised::Ours(error.unavailable()),
                })?;
                Ok((client, None))
            }
        }
    }

    /// Runs a slow check where it keeps nobody else waiting.
    async fn slowly(&self, check: SlowCheck, source: Source) -> Result<Client, Unrecognised> {
        let unavailable = || {
            Unrecognised::Ours(
                HttpRefusal::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "relay_full",
                    "too many keys are being checked at once",
                )
                .with_header(header::RETRY_AFTER, "1"),
            )
        };
        let _turn = self.slow.acquire().await.map_err(|_| unavailable())?;
        // Others of this source may have failed while this one waited for its turn.
        let _still = self.attempt(source).map_err(Unrecognised::Ours)?;
        let checked = tokio::task::spawn_blocking(|| check.run()).await;
        Ok(checked.map_err(|_| unavailable())??)
    }

    /// Uses the token of a session up and counts a failure when it has been used.
    pub(crate) async fn use_token(
        &self,
        token: &Verified,
        attempt: Attempt,
        shared: &Shared,
    ) -> Result<(), HttpRefusal> {
        let used = shared
            .store
            .use_once(&token.id, token.expires_at, shared.now())
            .await;
        let Err(refusal) = used else {
            return Ok(());
        };
        let answer = unauthorised(refusal.status(), refusal.code(), refusal.to_string());
        if answer.status().is_client_error() {
            self.failed(attempt);
        }
        Err(answer)
    }
}

impl Authenticated {
    /// Takes the attempt out, to be reported once more is known.
    pub(crate) fn into_parts(self) -> (Client, Option<Verified>, Attempt) {
        (self.client, self.token, self.attempt)
    }
}

/// Decides whether a request may become a session.
pub(crate) async fn admit<B>(
    request: &Request<B>,
    arrival: &Arrival,
    gate: &Gate,
) -> Result<Admitted, HttpRefusal> {
    let headers = request.headers();
    let websocket_key = check_upgrade(request.method(), headers)?;
    gate.check_origin(headers, request.uri().query(), arrival)?;
    let who = gate.authenticate(request, arrival).await?;
    let mut ask = Ask::parse(request.uri().path(), request.uri().query(), fields(headers))
        .map_err(|error| {
            HttpRefusal::new(StatusCode::BAD_REQUEST, error.code(), error.to_string())
        })?;
    if let Some(token) = &who.token {
        match token.grant.model_for(ask.alias.as_deref()) {
            Ok(model) => ask.alias = model.map(str::to_owned),
            Err(refusal) => {
                gate.failed(who.attempt);
                return Err(refused_token(refusal));
            }
        }
    }
    Ok(Admitted {
        ask,
        who,
        correlation: Correlation::from_headers(fields(headers)),
        websocket_key,
    })
}

/// The route that a client gets for a model, or for none.
///
/// # Errors
///
/// 400 for a model that nobody has configured, 403 for one that is not the client's.
pub(crate) fn routed<'a>(
    model: Option<&'a str>,
    client: &Client,
    shared: &'a Shared,
) -> Result<RouteMatch<'a>, HttpRefusal> {
    let route = shared.routes.resolve(model).map_err(|_| {
        HttpRefusal::new(
            StatusCode::BAD_REQUEST,
            "unknown_model",
            "no such model is configured at this relay",
        )
        .with_param("model")
    })?;
    check_route(client, &route)?;
    Ok(route)
}

/// Whether the client may have what the route leads to.
pub(crate) fn check_route(client: &Client, route: &RouteMatch<'_>) -> Result<(), HttpRefusal> {
    if client.identity().routes.allows(route.alias) {
        return Ok(());
    }
    Err(HttpRefusal::new(
        StatusCode::FORBIDDEN,
        "model_not_allowed",
        "this client may not use this model",
    )
    .with_param("model"))
}

pub(crate) fn fields(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
}

fn check_upgrade(method: &Method, headers: &HeaderMap) -> Result<String, HttpRefusal> {
    let bad = |message| HttpRefusal::new(StatusCode::BAD_REQUEST, "bad_upgrade", message);
    let needed = |message| {
        HttpRefusal::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", message)
            .with_header(header::SEC_WEBSOCKET_VERSION, "13")
    };
    if method != Method::GET {
        return Err(HttpRefusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "a session is opened by GET with a WebSocket upgrade",
        )
        .with_header(header::ALLOW, "GET"));
    }
    if !lists(headers, &header::UPGRADE, "websocket") {
        return Err(needed(
            "this is a WebSocket endpoint: Upgrade: websocket is missing",
        ));
    }
    if !lists(headers, &header::CONNECTION, "upgrade") {
        return Err(bad("Connection: Upgrade is missing"));
    }
    match one(headers, &header::SEC_WEBSOCKET_VERSION)
        .map_err(|()| bad("Sec-WebSocket-Version is given twice"))?
    {
        Some("13") => {}
        _ => return Err(needed("only WebSocket version 13 is spoken here")),
    }
    let key = one(headers, &header::SEC_WEBSOCKET_KEY)
        .map_err(|()| bad("Sec-WebSocket-Key is given twice"))?
        .ok_or_else(|| bad("Sec-WebSocket-Key is missing"))?;
    match base64::engine::general_purpose::STANDARD.decode(key) {
        Ok(nonce) if nonce.len() == 16 => Ok(key.to_owned()),
        _ => Err(bad("Sec-WebSocket-Key is not 16 bytes in base64")),
    }
}

fn is_authority(host: &str) -> bool {
    (1..=255).contains(&host.len())
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-:[]_".contains(&byte))
}

fn is_own_host(authority: &str, policy: &OriginPolicy) -> bool {
    let own = |own: &String| {
        own.eq_ignore_ascii_case(authority) || own.eq_ignore_ascii_case(without_port(authority))
    };
    is_loopback_name(authority) || policy.own_hosts.iter().any(own)
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Whether an authority is a name of the machine itself, which no DNS answer can lead elsewhere.
pub(crate) fn is_loopback_name(authority: &str) -> bool {
    let host = without_port(authority);
    host.eq_ignore_ascii_case("localhost")
        || host == "[::1]"
        || host
            .parse::<std::net::Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The value of a header that may stand once. `Err` when it stands more often or is not text.
fn one<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

#[cfg(test)]
mod tests;
