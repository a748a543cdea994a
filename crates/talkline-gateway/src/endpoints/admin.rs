//! The listener for operators: health, and taking access away.
//!
//! It is a socket of its own so that a front end which publishes the relay does not publish this.
//! Loopback is no privilege here either: whatever runs on the machine, a page in its browser
//! included, can reach a loopback port. Changing anything takes the admin key, and a request that a
//! browser made for a page is refused whatever it carries.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde_json::json;
use talkline_auth::{
    ClientKey, ClientKeys, FailureLimiter, FailureRules, Lookup, PresentedKey, REVOCATION_MAX,
    Revocation, Secret, Source, StoreError, TokenId,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tracing::{debug, info, warn};

use super::{body, json};
use crate::{
    admit::{fields, is_loopback_name, too_many_failures},
    connection::{self, Lifecycle},
    head::{HeadError, Rewound, read_head},
    metrics,
    refusal::HttpRefusal,
    reload::Live,
    server::Shared,
};

/// Requests that are answered at one time.
const REQUESTS_MAX: usize = 16;
/// From accepting a connection to the end of its answer.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// Pause after a failed accept, so that running out of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the listener for operators needs beside what all listeners share.
#[derive(Debug)]
pub(crate) struct Admin {
    /// For a configuration that does not speak of operators.
    keys: ClientKeys,
    /// Of its own: whoever guesses at clients' keys from the operators' address must not keep them
    /// from taking access away.
    failures: FailureLimiter,
    /// Whether it is bound to loopback, where a rebound DNS name leads as well.
    on_loopback: bool,
}

/// The admin key alone; empty when there is none.
pub(crate) fn keys(config: &talkline_config::Admin) -> ClientKeys {
    let key = |secret: &Secret| ClientKey::unrestricted("admin", secret.clone());
    ClientKeys::new(config.key.iter().map(key).collect())
}

impl Admin {
    pub(crate) fn new(config: &talkline_config::Admin) -> Self {
        Self {
            keys: keys(config),
            failures: FailureLimiter::new(FailureRules::default()),
            on_loopback: config.listen.ip().is_loopback(),
        }
    }
}

/// Serves operators until the service ends.
///
/// # Cancel safety
///
/// Dropping the future cuts the requests that are being answered.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>, live: Arc<Live>) {
    let mut ending = live.carried.notices.subscribe();
    let room = Arc::new(Semaphore::new(REQUESTS_MAX));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = async { drop(ending.wait_for(|notice| notice.lifecycle == Lifecycle::Ending).await) } => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                        warn!("too many admin requests at once; one was dropped");
                        continue;
                    };
                    let (admin, shared) = (Arc::clone(&admin), Arc::clone(&live.now().shared));
                    let lifecycle = shared.notices.borrow().lifecycle;
                    connections.spawn(async move {
                        let answered = answer_one(stream, peer, &admin, &shared, lifecycle);
                        if timeout(REQUEST_TIME_MAX, answered).await.is_err() {
                            debug!("an admin request took too long");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "accepting an admin connection failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

async fn answer_one(
    mut stream: TcpStream,
    peer: SocketAddr,
    admin: &Admin,
    shared: &Shared,
    lifecycle: Lifecycle,
) {
    let head = match read_head(&mut stream, shared.head_limits).await {
        Ok(head) => head,
        Err(HeadError::Gone) => return,
        Err(HeadError::Refused(refusal)) => {
            return connection::answer_and_close(stream, &refusal).await;
        }
    };
    let service = service_fn(async |request| {
        Ok::<_, Infallible>(respond(request, peer, admin, shared, lifecycle).await)
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .half_close(false)
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(Rewound::new(head, stream)), service)
        .await;
    if let Err(error) = served {
        debug!(%error, "an admin connection failed");
    }
}

/// The routes. Each is one arm.
async fn respond(
    request: Request<Incoming>,
    peer: SocketAddr,
    admin: &Admin,
    shared: &Shared,
    lifecycle: Lifecycle,
) -> Response<Full<Bytes>> {
    let answered = match check_caller(request.headers(), admin) {
        Err(refusal) => Err(refusal),
        Ok(()) => match request.uri().path() {
            "/healthz" | "/readyz" => connection::health(&request, shared, lifecycle),
            "/metrics" => metrics::respond(&request, &shared.metrics),
            "/admin/revoke" => revoke(request, peer, admin, shared).await,
            _ => Err(HttpRefusal::new(
                StatusCode::NOT_FOUND,
                "unknown_path",
                "there is nothing at this path; operators have /healthz, /readyz, /metrics and /admin/revoke",
            )),
        },
    };
    answered.unwrap_or_else(HttpRefusal::into_response)
}

/// Refuses what a page in a browser can send, and what a rebound DNS name would bring.
fn check_caller(headers: &HeaderMap, admin: &Admin) -> Result<(), HttpRefusal> {
    let from_page = headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site");
    if from_page {
        return Err(HttpRefusal::new(
            StatusCode::FORBIDDEN,
            "not_for_browsers",
            "the listener for operators answers no browser",
        ));
    }
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    if admin.on_loopback && !is_loopback_name(host) {
        return Err(HttpRefusal::new(
            StatusCode::FORBIDDEN,
            "host_not_allowed",
            "the listener for operators is reached as localhost or by its address",
        ));
    }
    Ok(())
}

/// Who is to lose access: exactly one of the three.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeRequest {
    /// The id of an `ek_` token, as `talkline token inspect` prints it.
    token: Option<String>,
    /// The id of a session, as logs have it.
    session: Option<String>,
    /// The name of a client.
    client: Option<String>,
    /// How long; without it as long as any session can last.
    seconds: Option<u64>,
}

impl RevokeRequest {
    fn target(self) -> Result<(Revocation, Duration), HttpRefusal> {
        let bad = |message: &'static str| {
            HttpRefusal::new(StatusCode::BAD_REQUEST, "invalid_body", message)
        };
        let time = self.seconds.map_or(REVOCATION_MAX, Duration::from_secs);
        if time.is_zero() || time > REVOCATION_MAX {
            return Err(bad("`seconds` is 1 to 86400"));
        }
        let revocation = match (self.token, self.session, self.client) {
            (Some(id), None, None) => Revocation::Token(
                TokenId::parse(&id).ok_or_else(|| bad("`token` is no id of a token"))?,
            ),
            (None, Some(session), None) => Revocation::Session(session),
            (None, None, Some(client)) => Revocation::Client(client),
            _ => return Err(bad("name one of `token`, `session` and `client`")),
        };
        Ok((revocation, time))
    }
}

async fn revoke(
    request: Request<Incoming>,
    peer: SocketAddr,
    admin: &Admin,
    shared: &Shared,
) -> Result<Response<Full<Bytes>>, HttpRefusal> {
    if request.method() != Method::POST {
        return Err(HttpRefusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "access is taken away by POST",
        )
        .with_header(header::ALLOW, "POST"));
    }
    let keys = shared.admin_keys.as_ref().unwrap_or(&admin.keys);
    if keys.is_empty() {
        return Err(HttpRefusal::new(
            StatusCode::FORBIDDEN,
            "admin_key_not_configured",
            "nothing can be revoked without an admin key; the operator configures admin.key",
        ));
    }
    authenticate(&request, peer, admin, keys)?;
    let (parts, body) = request.into_parts();
    let deadline = Instant::now() + REQUEST_TIME_MAX;
    let asked: RevokeRequest = body::read(&parts.headers, body, deadline).await?;
    let (revocation, time) = asked.target()?;
    let now = shared.now();
    let revoked = timeout_at(deadline, shared.store.revoke(revocation.clone(), time, now));
    let stored = revoked
        .await
        .unwrap_or_else(|_| Err(StoreError::Unavailable("it does not answer".into())));
    stored.map_err(|error| {
        HttpRefusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "limit_store_unavailable",
            error.to_string(),
        )
    })?;
    let (kind, id) = match &revocation {
        Revocation::Token(id) => ("token", id.to_string()),
        Revocation::Session(id) => ("session", id.clone()),
        Revocation::Client(name) => ("client", name.clone()),
    };
    info!(kind, id, seconds = time.as_secs(), "access revoked");
    shared.notices.send_modify(|notice| notice.revocations += 1);
    Ok(json(
        StatusCode::OK,
        &json!({"revoked": {kind: id}, "seconds": time.as_secs()}),
    ))
}

/// The admin key, behind a limiter of failures as clients have one.
fn authenticate<B>(
    request: &Request<B>,
    peer: SocketAddr,
    admin: &Admin,
    keys: &ClientKeys,
) -> Result<(), HttpRefusal> {
    let now = std::time::Instant::now();
    let attempt = admin
        .failures
        .attempt(Source::of(peer.ip()), now)
        .map_err(|refusal| too_many_failures(&refusal))?;
    let presented = PresentedKey::find(fields(request.headers()), request.uri().query());
    match presented.and_then(|key| keys.look_up(key.as_ref())) {
        Ok(Lookup::Admitted(_)) => Ok(()),
        Ok(_) | Err(_) => {
            admin.failures.failed(attempt, now);
            Err(HttpRefusal::new(
                StatusCode::UNAUTHORIZED,
                "admin_key_wrong",
                "send the admin key as Authorization: Bearer",
            )
            .with_header(header::WWW_AUTHENTICATE, "Bearer"))
        }
    }
}
