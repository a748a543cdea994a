//! One client connection, from its first byte to its last.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use talkline_auth::{Client, Lease, Source, SourcePermit};
use talkline_config::{Refusals, RouteMatch, UnknownModel};
use talkline_dialect::{Ask, Diagnosis, REALTIME_SUBPROTOCOL};
use talkline_relay::{Leg, Options as RelayOptions, UpstreamMasking, refuse, relay};
use talkline_session::{
    Session, Summary,
    policy::{Guard, Policy, Setup},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};
use tracing::debug;

use crate::{
    admit::{Admitted, Arrival, Peer, admit, check_route},
    dial::{Answer, Phases, Upstream},
    endpoints::{self, Endpoint},
    handshake,
    head::{HeadError, Rewound, read_head},
    limits::{self, Meter, Notices, Watched},
    metrics::ActiveSession,
    places::Place,
    refusal::{HttpRefusal, problem},
    report::{self, DialTimes, SessionLabels},
    rules,
    server::Shared,
    ui,
};

/// Time that a client has to take its last frames when it is refused in band.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(2);
/// Time for a refused client to read its answer and hang up.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes that a refused client may still send before it is hung up on.
const LINGER_BYTES_MAX: usize = 64 * 1024;

/// What every session is told of. One channel for both, because each one that a session listens to costs it
/// memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Notice {
    pub(crate) lifecycle: Lifecycle,
    /// How often this process has revoked something.
    pub(crate) revocations: u64,
}

/// Where the service stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lifecycle {
    /// New sessions are welcome.
    #[default]
    Serving,
    /// Not ready; sessions run on.
    Draining,
    /// Sessions are told to end.
    Ending,
}

/// A connection that nobody has been admitted on yet.
pub(crate) struct Entry {
    pub(crate) peer: Peer,
    /// One of the places for strangers.
    pub(crate) _place: Place,
    /// One of the places of its source. A trusted proxy is no source.
    pub(crate) source: Option<SourcePermit>,
}

/// A request that hyper is answering with 101, and what follows the 101.
struct Opening {
    on_upgrade: OnUpgrade,
    labels: SessionLabels,
    outcome: Outcome,
    seat: Seat,
}

/// What a session holds until it is over, on whichever way it ends.
struct Seat {
    client: Client,
    lease: Lease,
    policy: Arc<Policy>,
    /// `None` when there is no session to guard.
    setup: Option<Setup>,
    /// What was revoked before the lease was taken does not concern it.
    notices: Notices,
    _permit: Place,
}

/// What a connection and the service that answers on it share.
struct Slot {
    /// Held until the client has been admitted, or refused.
    entry: Option<Entry>,
    /// Filled by a successful upgrade.
    opening: Option<Opening>,
}

enum Outcome {
    Open(Upstream),
    Refused(Box<Diagnosis>),
}

/// A session from its first frame to its line in the log.
///
/// On the heap by itself, so that a task keeps no room for the handshake that is over.
pub(crate) type Relayed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Serves one request on `io`; returns the session that comes of it, if one does.
///
/// # Cancel safety
///
/// Dropping the future drops both sockets.
pub(crate) async fn serve<IO>(
    mut io: IO,
    shared: Arc<Shared>,
    deadline: Instant,
    entry: Entry,
) -> Option<Relayed>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let head = match timeout_at(deadline, read_head(&mut io, shared.head_limits)).await {
        Ok(Ok(head)) => head,
        Ok(Err(HeadError::Refused(refusal))) => {
            report::client_refused(&shared.metrics, refusal.status().as_u16(), refusal.code());
            answer_and_close(io, &refusal).await;
            return None;
        }
        Ok(Err(HeadError::Gone)) => return None,
        Err(_) => {
            debug!("a client sent no request in time");
            return None;
        }
    };
    let peer = entry.peer;
    let slot = Arc::new(Mutex::new(Slot {
        entry: Some(entry),
        opening: None,
    }));
    let service = service_fn(|request| {
        let shared = Arc::clone(&shared);
        let slot = Arc::clone(&slot);
        let state = shared.notices.borrow().lifecycle;
        async move {
            let answered = respond(request, peer, &shared, state, &slot, deadline);
            Ok::<_, Infallible>(answered.await)
        }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .half_close(false)
        .max_headers(128)
        .timer(TokioTimer::new())
        .header_read_timeout(shared.handshake_timeout)
        .serve_connection(TokioIo::new(Rewound::new(head, io)), service)
        .with_upgrades()
        .await;
    let opening = lock(&slot).opening.take();
    drop(slot);
    match (served, opening) {
        (Ok(()), Some(opening)) => open::<IO>(opening, shared).await,
        (Ok(()), None) => None,
        (Err(error), _) => {
            debug!(%error, "a client connection failed before its session");
            None
        }
    }
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    // Nobody panics while holding it; if somebody did, both fields would still be sound.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers one request. A successful upgrade leaves its [`Opening`] in `slot`.
async fn respond(
    request: Request<Incoming>,
    peer: Peer,
    shared: &Shared,
    lifecycle: Lifecycle,
    slot: &Mutex<Slot>,
    deadline: Instant,
) -> Response<Full<Bytes>> {
    let answered = match request.uri().path() {
        // Probes ask by whatever address they have, and are told nothing that matters.
        "/healthz" | "/readyz" => health(&request, shared, lifecycle),
        _ => match arrive(&request, peer, shared, slot) {
            Ok(arrival) => route(request, &arrival, shared, lifecycle, slot, deadline).await,
            Err(refusal) => Err(refusal),
        },
    };
    answered.unwrap_or_else(|refusal| {
        report::client_refused(&shared.metrics, refusal.status().as_u16(), refusal.code());
        refusal.into_response()
    })
}

/// Reads where a request came from. What came through a trusted proxy gets a place of its source.
fn arrive<B>(
    request: &Request<B>,
    peer: Peer,
    shared: &Shared,
    slot: &Mutex<Slot>,
) -> Result<Arrival, HttpRefusal> {
    let arrival = shared.gate.arrive(request.headers(), peer)?;
    if let Some(entry) = &mut lock(slot).entry
        && entry.source.is_none()
    {
        let source = Source::of(arrival.sender.address);
        let permit = shared.sources.acquire(source).ok_or_else(|| {
            HttpRefusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_connections",
                "too many connections of this address are opening at once",
            )
            .with_header(header::RETRY_AFTER, "1")
        })?;
        entry.source = Some(permit);
    }
    Ok(arrival)
}

async fn route(
    request: Request<Incoming>,
    arrival: &Arrival,
    shared: &Shared,
    lifecycle: Lifecycle,
    slot: &Mutex<Slot>,
    deadline: Instant,
) -> Result<Response<Full<Bytes>>, HttpRefusal> {
    let path = request.uri().path();
    if Ask::is_realtime_path(path) {
        upgrade(request, arrival, shared, lifecycle, slot).await
    } else if let Some(endpoint) = Endpoint::of(path) {
        endpoints::answer(endpoint, request, arrival, shared, deadline).await
    } else if shared.ui.enabled && ui::is_page(path) {
        ui::respond(&request)
    } else {
        Err(HttpRefusal::new(
            StatusCode::NOT_FOUND,
            "unknown_path",
            "there is nothing at this path; sessions are opened at /v1/realtime",
        ))
    }
}

pub(crate) fn health<B>(
    request: &Request<B>,
    shared: &Shared,
    lifecycle: Lifecycle,
) -> Result<Response<Full<Bytes>>, HttpRefusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(HttpRefusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "health is asked by GET",
        )
        .with_header(header::ALLOW, "GET, HEAD"));
    }
    let (status, body) = match request.uri().path() {
        "/healthz" => (StatusCode::OK, "ok\n"),
        _ if lifecycle != Lifecycle::Serving => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        _ if !shared.reach.tokens.all_usable() => {
            (StatusCode::SERVICE_UNAVAILABLE, "no upstream token\n")
        }
        _ => (StatusCode::OK, "ok\n"),
    };
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn upgrade(
    mut request: Request<Incoming>,
    arrival: &Arrival,
    shared: &Shared,
    lifecycle: Lifecycle,
    slot: &Mutex<Slot>,
) -> Result<Response<Full<Bytes>>, HttpRefusal> {
    let Admitted {
        ask,
        who,
        mut correlation,
        websocket_key,
    } = admit(&request, arrival, &shared.gate).await?;
    let (client, token, attempt) = who.into_parts();
    let resolved = shared.routes.resolve(ask.alias.as_deref());
    let setup = match &resolved {
        Ok(route) => {
            check_route(&client, route)?;
            Some(rules::setup(route, &ask))
        }
        // Told in band, once the client has been let in.
        Err(_) => None,
    };
    let settings = token
        .as_ref()
        .and_then(|token| token.grant.session.as_deref());
    let policy = rules::policy(&client, settings, shared)?;
    // The listener is closed while draining: whoever asks then was accepted before, and nobody else
    // will answer. The session has the rest of the grace.
    if lifecycle == Lifecycle::Ending {
        return busy(shared, &Diagnosis::relay_shutting_down());
    }
    if let Some(budget) = shared.overload() {
        shared.metrics.full(budget);
        return busy(shared, &Diagnosis::relay_full());
    }
    let Some(permit) = shared.sessions.take(shared.sessions_max) else {
        shared.metrics.full("sessions");
        return busy(shared, &Diagnosis::relay_full());
    };
    // Not before: a relay without room must not cost a client its token.
    if let Some(token) = &token {
        shared.gate.use_token(token, attempt, shared).await?;
    }
    // Strangers are few at a time; whoever was let in counts as a session.
    lock(slot).entry = None;

    let mut labels = SessionLabels::new(&client, &ask);
    let notices = Notices::from_now_on(shared);
    let lease = limits::lease(&client, &labels.session, shared).await?;
    correlation
        .client_request_id
        .get_or_insert_with(|| labels.session.to_string());
    let outcome = match resolved {
        Ok(route) => dial(shared, &route, &ask, &correlation, &mut labels).await,
        Err(unknown) => Outcome::Refused(Box::new(unknown_model(&unknown))),
    };
    if let (Refusals::Http, Outcome::Refused(diagnosis)) = (shared.refusals, &outcome) {
        report::session_refused(&shared.metrics, &labels, shared.refusals, diagnosis);
        return Ok(problem(diagnosis));
    }
    let response = switching_protocols(&websocket_key, &ask, &labels);
    let on_upgrade = hyper::upgrade::on(&mut request);
    let opening = Opening {
        on_upgrade,
        labels,
        outcome,
        seat: Seat {
            client,
            lease,
            policy,
            setup,
            notices,
            _permit: permit,
        },
    };
    lock(slot).opening = Some(opening);
    Ok(response)
}

/// The relay itself has no room. Told before the 101 whatever the delivery, so that a full relay does
/// little for whom it cannot serve, and so that a load balancer can see it.
fn busy(shared: &Shared, diagnosis: &Diagnosis) -> Result<Response<Full<Bytes>>, HttpRefusal> {
    match shared.refusals {
        Refusals::InBand => Err(HttpRefusal::busy(diagnosis)),
        Refusals::Http => {
            let status = diagnosis.permanence.http_status();
            report::client_refused(&shared.metrics, status, diagnosis.code);
            Ok(problem(diagnosis))
        }
    }
}

/// Dials before the client is answered: the success path costs nothing by it, and a failure can be
/// explained.
async fn dial(
    shared: &Shared,
    route: &RouteMatch<'_>,
    ask: &Ask,
    correlation: &talkline_dialect::Correlation,
    labels: &mut SessionLabels,
) -> Outcome {
    labels.routed(route);
    let started = Instant::now();
    let opened = shared.reach.open(route.upstream, ask, correlation).await;
    let dialled = started.elapsed();
    match opened {
        Ok((upstream, answer)) => {
            let Answer {
                request_id,
                region,
                phases,
            } = answer;
            labels.request_id = request_id.map(Into::into);
            labels.region = region.map(Into::into);
            labels.times = DialTimes::new(dialled, &phases);
            shared.metrics.dialled(dialled, &phases);
            Outcome::Open(upstream)
        }
        Err(diagnosis) => {
            labels.times = DialTimes::new(dialled, &Phases::default());
            if let Some(answer) = &diagnosis.answer {
                labels.request_id = answer.request_id.as_deref().map(Into::into);
                labels.region = answer.region.as_deref().map(Into::into);
            }
            Outcome::Refused(diagnosis)
        }
    }
}

fn switching_protocols(key: &str, ask: &Ask, labels: &SessionLabels) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&handshake::accept(key)) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if ask.offers_realtime {
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(REALTIME_SUBPROTOCOL),
        );
    }
    if let Ok(session) = HeaderValue::from_str(&labels.session) {
        headers.insert("x-request-id", session);
    }
    response
}

/// What follows the 101: the session, or the reason why there is none.
async fn open<IO>(opening: Opening, shared: Arc<Shared>) -> Option<Relayed>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Opening {
        on_upgrade,
        labels,
        outcome,
        seat,
    } = opening;
    let client = match on_upgrade.await {
        Ok(upgraded) => match upgraded.downcast::<TokioIo<Rewound<IO>>>() {
            Ok(parts) => {
                let (front, io) = parts.io.into_inner().into_parts();
                // Both are empty unless a client sends frames before it has its 101. Copying what
                // they hold frees hyper's 8 KiB buffer.
                let early = Bytes::from([&front[..], &parts.read_buf[..]].concat());
                Leg { io, early }
            }
            Err(_) => {
                debug!("the client stream changed its type");
                return None;
            }
        },
        Err(error) => {
            debug!(%error, "a client went away before its 101");
            return None;
        }
    };
    let opened = Opened {
        labels,
        seat,
        shared,
    };
    match outcome {
        Outcome::Open(Upstream::Plain(upstream)) => {
            Some(opened.session(client, upstream, UpstreamMasking::Fresh))
        }
        Outcome::Open(Upstream::Tls(upstream)) => {
            Some(opened.session(client, upstream, UpstreamMasking::Verbatim))
        }
        Outcome::Refused(diagnosis) => {
            let Opened { labels, shared, .. } = &opened;
            report::session_refused(&shared.metrics, labels, shared.refusals, &diagnosis);
            let code = diagnosis.permanence.close_code();
            refuse(
                client,
                &[diagnosis.error_event()],
                code,
                diagnosis.code,
                REFUSAL_DEADLINE,
            )
            .await;
            None
        }
    }
}

/// Both handshakes are done.
struct Opened {
    labels: SessionLabels,
    seat: Seat,
    shared: Arc<Shared>,
}

/// What a session is held to while it runs, and what its end is told with.
struct Held {
    labels: SessionLabels,
    client: Client,
    lease: Lease,
    /// Of a client that has a budget.
    meter: Option<Meter>,
    shared: Arc<Shared>,
    _active: ActiveSession,
    _permit: Place,
}

impl Opened {
    /// The session. Everything that is asked seldom lies beside it on the heap: an idle session costs what
    /// it keeps.
    fn session<C, U>(self, client: Leg<C>, upstream: Leg<U>, masking: UpstreamMasking) -> Relayed
    where
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        U: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Opened {
            labels,
            seat,
            shared,
        } = self;
        let identity = seat.client.identity();
        let limits = limits::session(&shared.session_limits, &identity.limits);
        let held = Arc::new(Held {
            _active: shared.metrics.session_opened(labels.kind()),
            labels,
            meter: Meter::new(&identity.limits),
            client: seat.client,
            lease: seat.lease,
            shared,
            _permit: seat._permit,
        });
        let shared = &held.shared;
        let mut session = Session::new(limits, std::time::Instant::now())
            .with_jitter(luck())
            .parting(held.labels.parting)
            .on_incident({
                let held = Arc::clone(&held);
                move |incident| report::incident(&held.labels, incident)
            })
            .on_timing(shared.metrics.timings());
        if let Some(meter) = &held.meter {
            session = session.on_response(meter.observer());
        }
        if let Some(guard) = seat.setup.and_then(|setup| Guard::new(seat.policy, setup)) {
            session = session.guarded(guard);
        }
        let options = RelayOptions {
            upstream_masking: masking,
            budget: Some(Arc::clone(&shared.budget)),
        };
        let notices = seat.notices;
        let stop = Box::pin({
            let held = Arc::clone(&held);
            async move { limits::watch(held.watched(), notices, &held.shared).await }
        });
        Box::pin(Life {
            relayed: relay(client, upstream, session, options, stop),
            held: Some(held),
            end: None,
        })
    }
}

pin_project! {
    /// A session, and then what is told of it. By hand: an `async` block would keep room for the session
    /// twice, or it would have to be boxed once more. In this order: what every turn looks at stands beside what the
    /// relay looks at first.
    #[repr(C)]
    struct Life<R> {
        end: Option<Relayed>,
        held: Option<Arc<Held>>,
        #[pin]
        relayed: R,
    }
}

impl<R: Future<Output = Summary>> Future for Life<R> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.held.is_some() {
            let summary = ready!(this.relayed.poll(cx));
            *this.end = this.held.take().map(|held| held.end(summary));
        }
        this.end
            .as_mut()
            .map_or(Poll::Ready(()), |end| end.as_mut().poll(cx))
    }
}

impl Held {
    fn watched(&self) -> Watched<'_> {
        Watched {
            client: &self.client,
            lease: &self.lease,
            meter: self.meter.as_ref(),
        }
    }

    fn end(self: Arc<Self>, summary: Summary) -> Relayed {
        Box::pin(async move {
            let Held { shared, labels, .. } = &*self;
            if let Some(meter) = &self.meter {
                meter.close(&self.client.identity().name, shared).await;
            }
            report::session_ended(&shared.metrics, &shared.prices, labels, &summary);
        })
    }
}

/// Answers a request that hyper never saw, and hangs up without losing the answer to a TCP reset.
pub(crate) async fn answer_and_close<IO>(mut io: IO, refusal: &HttpRefusal)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let goodbye = async {
        io.write_all(&refusal.to_bytes()).await?;
        io.shutdown().await?;
        let mut scratch = [0; 1024];
        let mut left = LINGER_BYTES_MAX;
        while left > 0 {
            match io.read(&mut scratch).await? {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        std::io::Result::Ok(())
    };
    match timeout(LINGER, goodbye).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(error)) => debug!(%error, "a refused client went away"),
    }
}

fn unknown_model(unknown: &UnknownModel) -> Diagnosis {
    let available = unknown.available.iter().map(AsRef::as_ref);
    Diagnosis::unknown_model(&unknown.asked, available)
}

/// Randomness for what only has to differ between sessions.
fn luck() -> [u32; 2] {
    let mut random = [0; 8];
    // Without randomness all sessions are alike, which is no harm.
    let _ = getrandom::fill(&mut random);
    let (client, upstream) = random.split_at(4);
    [client, upstream].map(|bytes| {
        bytes
            .iter()
            .fold(0, |luck, &byte| luck << 8 | u32::from(byte))
    })
}
