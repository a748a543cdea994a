//! Accepts connections and binds each to the rules.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::http::{HeaderValue, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::auth::Access;
use crate::client_secrets;
use crate::clock::now_unix;
use crate::handshake::{self, Opening, Transport, Verdict};
use crate::ids;
use crate::misbehaviour::{Misbehaviour, Scenario};
use crate::record::{Recorder, SeenRequest};
use crate::refusal::Refusal;
use crate::simulator::{Pace, Profile, Reply};
use crate::ws;

mod held;
mod line;

use held::{Held, Hold};

/// The simulator's settings.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) profile: Profile,
    pub(crate) access: RwLock<Access>,
    pub(crate) pace: Pace,
    pub(crate) reply: Reply,
    pub(crate) deployments: Option<Vec<String>>,
    pub(crate) transcription_models: Vec<String>,
    pub(crate) api_versions: Vec<String>,
    pub(crate) region: String,
    pub(crate) always: Option<Scenario>,
    pub(crate) session_life: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            profile: Profile::default(),
            access: RwLock::default(),
            pace: Pace::default(),
            reply: Reply::default(),
            deployments: None,
            transcription_models: owned(&[
                "whisper-1",
                "gpt-4o-transcribe",
                "gpt-4o-mini-transcribe",
                "gpt-4o-transcribe-diarize",
                "gpt-realtime-whisper",
                "gpt-live-transcribe",
            ]),
            api_versions: owned(&["2024-12-17", "2025-04-01-preview", "2025-08-28"]),
            region: "East US 2".to_owned(),
            always: None,
            session_life: Duration::from_secs(60 * 60),
        }
    }
}

impl Rules {
    pub(crate) fn access(&self) -> RwLockReadGuard<'_, Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn access_mut(&self) -> RwLockWriteGuard<'_, Access> {
        self.access.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections at a time; further ones are dropped.
const CONNECTIONS_MAX: usize = 1024;
/// Longest wait for a TLS handshake, a request's head and its body.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// Longest body that is read.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What every connection of a simulator shares.
#[derive(Debug)]
struct Shared {
    rules: Arc<Rules>,
    recorder: Arc<Recorder>,
    transport: Transport,
}

/// Serves until told to stop, then ends every session.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    rules: Arc<Rules>,
    recorder: Arc<Recorder>,
    mut stopped: watch::Receiver<()>,
) {
    let transport = if tls.is_some() {
        Transport::Tls
    } else {
        Transport::Plain
    };
    let shared = Arc::new(Shared {
        rules,
        recorder,
        transport,
    });
    let acceptor = tls.map(TlsAcceptor::from);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(connection(stream, acceptor.clone(), Arc::clone(&shared)));
                }
                Ok(_) => tracing::debug!("too many connections, one dropped"),
                // Running out of descriptors passes; asking again at once would spin.
                Err(error) => {
                    tracing::debug!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

/// Serves the requests of one connection, and the session that one of them may open.
async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    // Deltas are to leave when they are due.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = acceptor else {
        return requests(stream, shared).await;
    };
    match timeout(REQUEST_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => requests(stream, shared).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake timed out"),
    }
}

async fn requests<S>(stream: S, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let hold = Hold::default();
    let (opened, mut openings) = mpsc::channel(1);
    let service =
        service_fn(|request| answer(request, Arc::clone(&shared), hold.clone(), opened.clone()));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_MAX)
        .serve_connection(TokioIo::new(Held::new(stream, hold.clone())), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "HTTP connection ended");
    }
    let Ok((upgrade, opening)) = openings.try_recv() else {
        return;
    };
    let upgrade: OnUpgrade = upgrade;
    let Ok(upgraded) = upgrade.await else {
        return;
    };
    // The downcast names the very type given to the connection above.
    let Ok(parts) = upgraded.downcast::<TokioIo<Held<S>>>() else {
        return;
    };
    let (stream, first_bytes) = parts.io.into_inner().into_parts();
    line::hold(
        stream,
        first_bytes,
        &parts.read_buf,
        opening.terms,
        Arc::clone(&shared.rules),
    )
    .await;
}

type Opened = mpsc::Sender<(OnUpgrade, Opening)>;

/// Answers one request; a 101 sends what is needed for its session to `opened`.
async fn answer(
    mut request: Request<Incoming>,
    shared: Arc<Shared>,
    hold: Hold,
    opened: Opened,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let body = match head.method {
        Method::GET | Method::HEAD => None,
        _ => Some(read_body(body).await),
    };
    if let Some(made) = client_secrets::answer(&head, body.as_deref(), &shared.rules) {
        let (status, answer) = match made {
            Ok(answer) => (200, answer),
            Err(refusal) => (refusal.status, refusal.body.unwrap_or_default()),
        };
        shared.recorder.record(seen(&head, body, status));
        let builder = base(status, &shared.rules).header("content-type", "application/json");
        return Ok(finish(builder, answer));
    }
    let verdict = handshake::decide(&head, &shared.rules, shared.transport, now_unix());
    let (status, opening) = match &verdict {
        Verdict::Refuse(refusal) => (refusal.status, None),
        Verdict::Open(opening)
            if opening.terms.misbehaviour == Some(Misbehaviour::StallsBefore101) =>
        {
            (0, Some(opening))
        }
        Verdict::Open(opening) => (101, Some(opening)),
    };
    shared.recorder.record(seen(&head, body, status));
    if let (0, Some(_)) = (status, opening) {
        std::future::pending::<()>().await;
    }
    let response = match &verdict {
        Verdict::Refuse(refusal) => refuse(refusal, &shared.rules),
        Verdict::Open(opening) => switch(opening, &shared.rules),
    };
    if let Verdict::Open(opening) = verdict {
        hold.set(opening.terms.misbehaviour == Some(Misbehaviour::SessionCreatedWith101));
        // There is room for the one session that a connection can become.
        let _ = opened.try_send((upgrade, opening));
    }
    Ok(response)
}

/// The headers that Azure puts on every answer, 101 included.
fn base(status: u16, rules: &Rules) -> hyper::http::response::Builder {
    let builder = Response::builder().status(status);
    if rules.profile == Profile::OpenAi {
        return builder.header(
            "x-request-id",
            format!("req_{}", ids::uuid().replace('-', "")),
        );
    }
    builder.header("apim-request-id", ids::uuid())
}

fn refuse(refusal: &Refusal, rules: &Rules) -> Response<Full<Bytes>> {
    let mut builder = base(refusal.status, rules);
    for (name, value) in &refusal.headers {
        builder = builder.header(*name, value);
    }
    let has = |name: &str| refusal.headers.iter().any(|(each, _)| *each == name);
    if refusal.body.is_some() && !has("content-type") {
        builder = builder.header("content-type", "application/json");
    }
    if rules.profile != Profile::OpenAi && !has("x-ms-region") {
        builder = builder.header("x-ms-region", &rules.region);
    }
    finish(builder, refusal.body.clone().unwrap_or_default())
}

fn switch(opening: &Opening, rules: &Rules) -> Response<Full<Bytes>> {
    let accept = match opening.terms.misbehaviour {
        Some(Misbehaviour::WrongAccept) => ws::accept_for("another key"),
        _ => opening.accept.clone(),
    };
    let mut builder = base(101, rules)
        .header("upgrade", "websocket")
        .header("connection", "Upgrade")
        .header("sec-websocket-accept", accept);
    if rules.profile != Profile::OpenAi {
        builder = builder.header("x-ms-region", &rules.region);
    }
    if opening.offers_realtime {
        builder = builder.header("sec-websocket-protocol", "realtime");
    }
    if opening.terms.misbehaviour == Some(Misbehaviour::UnrequestedExtension) {
        builder = builder.header("sec-websocket-extensions", "permessage-deflate");
    }
    finish(builder, String::new())
}

/// Falls back to 500 if a configured region or a caller's host is no header value.
fn finish(builder: hyper::http::response::Builder, body: String) -> Response<Full<Bytes>> {
    builder.body(Full::from(body)).unwrap_or_else(|error| {
        tracing::warn!(%error, "the answer could not be formed");
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

pub(crate) fn seen(head: &Parts, body: Option<String>, status: u16) -> SeenRequest {
    let lossy = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), lossy(value)));
    SeenRequest {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: headers.collect(),
        status,
        body,
    }
}

/// The body as far as it comes in time and fits.
async fn read_body(body: Incoming) -> String {
    let collected = timeout(REQUEST_MAX, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    match collected {
        Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Ok(Err(_)) | Err(_) => "[not received]".to_owned(),
    }
}
