//! Sends sessions to an OpenTelemetry collector: a span and token counts for each, by OTLP over HTTP.
//!
//! Off unless a collector is named in the variables that OpenTelemetry has for it
//! (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>): `OTEL_EXPORTER_OTLP_ENDPOINT` and
//! those beside it. Names are those of the GenAI conventions
//! (<https://github.com/open-telemetry/semantic-conventions-genai>, status: development), which know no
//! session yet; `realtime_session` is a name of our own, in the manner of theirs.
//!
//! Nothing here holds a session up: spans wait in a queue of a fixed length and are dropped when it is
//! full, and sending has a thread of its own.

mod client;
mod record;

use std::{env, sync::mpsc, thread, time::Duration};

use anyhow::Context as _;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider, trace::SdkTracerProvider};
use talkline_gateway::Metrics;
use tokio::runtime::Runtime;
use tracing::{info, warn};

use self::{client::Client, record::Recorder};
use crate::exit::Exit;

/// How long the end of the process waits for what has not been sent.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// What sends, while it is kept.
pub(crate) struct Otlp {
    traces: SdkTracerProvider,
    meters: SdkMeterProvider,
    /// Where requests run. The SDK's threads wait for it.
    runtime: Runtime,
}

/// Begins to send what the gateway counts, if a collector is configured.
pub(crate) fn start(metrics: &Metrics) -> Result<Option<Otlp>, Exit> {
    let named = |name: &str| env::var(name).is_ok_and(|value| !value.trim().is_empty());
    let wanted = |own: &str| named("OTEL_EXPORTER_OTLP_ENDPOINT") || named(own);
    let traces = wanted("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let meters = wanted("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT");
    let is_disabled =
        env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.trim().eq_ignore_ascii_case("true"));
    if is_disabled || !(traces || meters) {
        return Ok(None);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("talkline-otlp")
        .enable_all()
        .build()
        .context("the runtime of the OpenTelemetry exporter cannot be started")?;
    let tls = talkline_gateway::tls::client_config().context("TLS cannot be set up")?;
    let client = || Client::new(runtime.handle().clone(), tls.clone());
    let wrong = |error| Exit::Configuration(format!("error: OpenTelemetry: {error}"));
    let mut trace_builder = SdkTracerProvider::builder().with_resource(resource());
    if traces {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client())
            .build()
            .map_err(wrong)?;
        trace_builder = trace_builder.with_batch_exporter(exporter);
    }
    let mut meter_builder = SdkMeterProvider::builder().with_resource(resource());
    if meters {
        let exporter = MetricExporter::builder()
            .with_http()
            .with_http_client(client())
            .build()
            .map_err(wrong)?;
        meter_builder = meter_builder.with_periodic_exporter(exporter);
    }
    let otlp = Otlp {
        traces: trace_builder.build(),
        meters: meter_builder.build(),
        runtime,
    };
    let recorder = Recorder::new(&otlp.traces, &otlp.meters);
    metrics.observe_sessions(move |session| recorder.record(session));
    info!(
        traces,
        metrics = meters,
        "sessions are told to an OpenTelemetry collector"
    );
    Ok(Some(otlp))
}

impl Otlp {
    /// Sends what has not been sent, if that is quick.
    pub(crate) fn stop(self) {
        let (done, is_done) = mpsc::channel();
        let (traces, meters) = (self.traces.clone(), self.meters.clone());
        thread::spawn(move || {
            let ended = (traces.shutdown(), meters.shutdown());
            // Nobody listens once the time is over.
            let _ = done.send(ended);
        });
        if is_done.recv_timeout(FLUSH_MAX).is_err() {
            warn!("the OpenTelemetry collector did not take everything in time");
        }
        // A look-up of a name may hang, and nobody waits for it.
        self.runtime.shutdown_background();
    }
}

/// Who sends: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, or the program.
fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let builder = Resource::builder().with_attribute(version);
    let names_service = env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty())
        || env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|text| text.contains("service.name="));
    match names_service {
        true => builder.build(),
        false => builder.with_service_name("talkline").build(),
    }
}
