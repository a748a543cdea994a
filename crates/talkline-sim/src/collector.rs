//! A receiver of OpenTelemetry's OTLP over HTTP with protobuf bodies, which keeps what it is sent.
//!
//! It reads the wire format by itself, with the field numbers of
//! <https://github.com/open-telemetry/opentelemetry-proto> (v1): a fault of the sender's encoder is not
//! repeated here.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

use self::wire::{Fields, Value};

mod wire;

/// Attributes, with numbers and truth values as text.
pub type Attributes = BTreeMap<String, String>;

/// A span, as far as tests look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectedSpan {
    /// Its name.
    pub name: String,
    /// `SpanKind`: 3 is a client's.
    pub kind: u64,
    /// From its start to its end, in nanoseconds.
    pub nanoseconds: u64,
    /// Its attributes.
    pub attributes: Attributes,
    /// Those of the resource that it is of.
    pub resource: Attributes,
    /// `StatusCode`: 2 is an error.
    pub status: u64,
}

/// One data point of a metric.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectedPoint {
    /// The metric's name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// The value of a sum, or how many values a histogram has seen.
    pub value: u64,
    /// Its attributes.
    pub attributes: Attributes,
}

#[derive(Debug, Default)]
struct Kept {
    spans: Vec<CollectedSpan>,
    points: Vec<CollectedPoint>,
    headers: Vec<(String, String)>,
    malformed: usize,
}

/// The receiver, running. Stops when dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    requests: watch::Receiver<usize>,
    accepting: JoinHandle<()>,
}

impl Collector {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let kept = Arc::<Mutex<Kept>>::default();
        let (count, requests) = watch::channel(0);
        let accepting = tokio::spawn(accept(listener, Arc::clone(&kept), count));
        Ok(Self {
            address,
            kept,
            requests,
            accepting,
        })
    }

    /// The value of `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until this many requests have come.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn requests(&self, count: usize) {
        // The sender lives as long as the receiver does.
        let _ = self
            .requests
            .clone()
            .wait_for(|&requests| requests >= count)
            .await;
    }

    /// All spans, in the order in which they came.
    #[must_use]
    pub fn spans(&self) -> Vec<CollectedSpan> {
        self.locked(|kept| kept.spans.clone())
    }

    /// All data points, in the order in which they came. A later one of the same attributes replaces an
    /// earlier one: sums are cumulative.
    #[must_use]
    pub fn points(&self) -> Vec<CollectedPoint> {
        self.locked(|kept| kept.points.clone())
    }

    /// The values of a header of all requests.
    #[must_use]
    pub fn header(&self, name: &str) -> Vec<String> {
        self.locked(|kept| {
            let of_name = kept.headers.iter().filter(|(known, _)| known == name);
            of_name.map(|(_, value)| value.clone()).collect()
        })
    }

    /// Requests that were not what OTLP says.
    #[must_use]
    pub fn malformed(&self) -> usize {
        self.locked(|kept| kept.malformed)
    }

    fn locked<T>(&self, look: impl FnOnce(&Kept) -> T) -> T {
        look(&self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, kept: Arc<Mutex<Kept>>, count: watch::Sender<usize>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                let (kept, count) = (Arc::clone(&kept), count.clone());
                connections.spawn(async move {
                    let service = service_fn(async |request| {
                        let answer = answer(request, &kept).await;
                        count.send_modify(|count| *count += 1);
                        Ok::<_, Infallible>(answer)
                    });
                    // A sender that goes away has said what it said.
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        }
    }
}

async fn answer(request: Request<Incoming>, kept: &Mutex<Kept>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes());
    let is_protobuf = parts
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/x-protobuf");
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        kept.headers.push((name.as_str().to_owned(), value));
    }
    let read = match (parts.uri.path(), &body) {
        ("/v1/traces", Ok(body)) if is_protobuf => read_traces(body, &mut kept.spans),
        ("/v1/metrics", Ok(body)) if is_protobuf => read_metrics(body, &mut kept.points),
        _ => None,
    };
    let status = match read {
        Some(()) => StatusCode::OK,
        None => {
            kept.malformed += 1;
            StatusCode::BAD_REQUEST
        }
    };
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/x-protobuf"),
    );
    response
}

/// `ExportTraceServiceRequest`.
fn read_traces(body: &[u8], spans: &mut Vec<CollectedSpan>) -> Option<()> {
    for of_resource in Fields::read(body)?.messages(1) {
        let of_resource = Fields::read(of_resource)?;
        let resource = read_resource(&of_resource)?;
        for of_scope in of_resource.messages(2) {
            for span in Fields::read(of_scope)?.messages(2) {
                let span = Fields::read(span)?;
                let status = span.messages(15).next().map(Fields::read);
                spans.push(CollectedSpan {
                    name: span.text(5)?,
                    kind: span.number(6).unwrap_or_default(),
                    nanoseconds: span.number(8)?.checked_sub(span.number(7)?)?,
                    attributes: read_attributes(&span, 9)?,
                    resource: resource.clone(),
                    status: match status {
                        Some(status) => status?.number(3).unwrap_or_default(),
                        None => 0,
                    },
                });
            }
        }
    }
    Some(())
}

/// `ExportMetricsServiceRequest`: its sums and histograms.
fn read_metrics(body: &[u8], points: &mut Vec<CollectedPoint>) -> Option<()> {
    const SUM: (u32, u32, u32) = (7, 7, 6);
    const HISTOGRAM: (u32, u32, u32) = (9, 9, 4);
    for of_resource in Fields::read(body)?.messages(1) {
        for of_scope in Fields::read(of_resource)?.messages(2) {
            for metric in Fields::read(of_scope)?.messages(2) {
                let metric = Fields::read(metric)?;
                for (data, attributes, value) in [SUM, HISTOGRAM] {
                    let Some(data) = metric.messages(data).next() else {
                        continue;
                    };
                    for point in Fields::read(data)?.messages(1) {
                        let point = Fields::read(point)?;
                        let point = CollectedPoint {
                            name: metric.text(1)?,
                            unit: metric.text(3).unwrap_or_default(),
                            value: point.number(value)?,
                            attributes: read_attributes(&point, attributes)?,
                        };
                        points.retain(|known| {
                            (&known.name, &known.attributes) != (&point.name, &point.attributes)
                        });
                        points.push(point);
                    }
                }
            }
        }
    }
    Some(())
}

fn read_resource(of_resource: &Fields<'_>) -> Option<Attributes> {
    match of_resource.messages(1).next() {
        Some(resource) => read_attributes(&Fields::read(resource)?, 1),
        None => Some(Attributes::new()),
    }
}

/// `KeyValue` messages in the field `number`.
fn read_attributes(fields: &Fields<'_>, number: u32) -> Option<Attributes> {
    let mut attributes = Attributes::new();
    for pair in fields.messages(number) {
        let pair = Fields::read(pair)?;
        let value = Fields::read(pair.messages(2).next()?)?;
        let text = match value.first()? {
            (1, Value::Bytes(text)) => String::from_utf8(text.to_vec()).ok()?,
            (2, Value::Number(truth)) => (truth != 0).to_string(),
            (3, Value::Number(number)) => number.cast_signed().to_string(),
            (4, Value::Number(bits)) => f64::from_bits(bits).to_string(),
            _ => return None,
        };
        attributes.insert(pair.text(1)?, text);
    }
    Some(attributes)
}
