//! What a session becomes: a span, and what it adds to counters.

use std::time::SystemTime;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, MeterProvider as _},
    trace::{Span as _, SpanKind, Status, Tracer as _, TracerProvider as _},
};
use opentelemetry_sdk::{
    metrics::SdkMeterProvider,
    trace::{SdkTracer, SdkTracerProvider},
};
use talkline_gateway::SessionRecord;

const SCOPE: &str = "talkline";
const OPERATION: &str = "realtime_session";

/// The instruments.
pub(super) struct Recorder {
    tracer: SdkTracer,
    duration: Histogram<f64>,
    input: Counter<u64>,
    output: Counter<u64>,
    cached: Counter<u64>,
}

impl Recorder {
    pub(super) fn new(traces: &SdkTracerProvider, meters: &SdkMeterProvider) -> Self {
        let meter = meters.meter(SCOPE);
        let tokens = |name: &'static str, what: &'static str| {
            let counter = meter.u64_counter(name).with_unit("{token}");
            counter.with_description(what).build()
        };
        Self {
            tracer: traces.tracer(SCOPE),
            duration: meter
                .f64_histogram("gen_ai.client.operation.duration")
                .with_unit("s")
                .with_description("Length of sessions, dialling included")
                // Realtime sessions end after 60 minutes.
                .with_boundaries(vec![
                    1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0,
                ])
                .build(),
            input: tokens(
                "gen_ai.client.inference.usage.input_tokens",
                "Tokens read, cached ones included",
            ),
            output: tokens(
                "gen_ai.client.inference.usage.output_tokens",
                "Tokens written",
            ),
            cached: tokens(
                "gen_ai.client.inference.usage.cache_read.input_tokens",
                "Tokens read from the cache",
            ),
        }
    }

    /// Records a session that is over.
    pub(super) fn record(&self, session: &SessionRecord<'_>) {
        let common = common(session);
        let seconds = (session.dialled + session.duration).as_secs_f64();
        let mut of_duration = common.clone();
        of_duration.extend(session.error.map(error_type));
        self.duration.record(seconds, &of_duration);
        if let Some(usage) = session.usage {
            for (counter, tokens) in [
                (&self.input, &usage.input),
                (&self.output, &usage.output),
                (&self.cached, &usage.cached),
            ] {
                for (modality, count) in [
                    ("text", tokens.text),
                    ("audio", tokens.audio),
                    ("image", tokens.image),
                ] {
                    if count > 0 {
                        let mut attributes = common.clone();
                        attributes.push(KeyValue::new("gen_ai.token.modality", modality));
                        counter.add(count, &attributes);
                    }
                }
            }
        }
        self.span(session, common);
    }

    fn span(&self, session: &SessionRecord<'_>, mut attributes: Vec<KeyValue>) {
        attributes.extend(details(session));
        let name = match model(session) {
            Some(model) => format!("{OPERATION} {model}"),
            None => OPERATION.to_owned(),
        };
        let end = SystemTime::now();
        let start = end
            .checked_sub(session.dialled + session.duration)
            .unwrap_or(end);
        let mut span = self
            .tracer
            .span_builder(name)
            .with_kind(SpanKind::Client)
            .with_start_time(start)
            .with_attributes(attributes)
            .start(&self.tracer);
        if let Some(error) = session.error {
            span.set_status(Status::error(error));
        }
        span.end_with_timestamp(end);
    }
}

fn model<'a>(session: &SessionRecord<'a>) -> Option<&'a str> {
    [session.deployment, session.model]
        .into_iter()
        .find(|name| !name.is_empty())
}

fn error_type(error: &'static str) -> KeyValue {
    KeyValue::new("error.type", error)
}

/// What metrics and spans have in common.
fn common(session: &SessionRecord<'_>) -> Vec<KeyValue> {
    let provider = match session.kind {
        "azure" => "azure.ai.openai",
        other => other,
    };
    let mut attributes = vec![
        KeyValue::new("gen_ai.operation.name", OPERATION),
        KeyValue::new("gen_ai.provider.name", provider),
    ];
    attributes.extend(
        model(session).map(|model| KeyValue::new("gen_ai.request.model", model.to_owned())),
    );
    if let Some((host, port)) = server(session.upstream) {
        attributes.push(KeyValue::new("server.address", host));
        attributes.push(KeyValue::new("server.port", i64::from(port)));
    }
    attributes
}

/// Host and port of an origin such as `https://contoso.openai.azure.com`.
fn server(origin: &str) -> Option<(String, u16)> {
    let uri: http::Uri = origin.parse().ok()?;
    let usual = match uri.scheme_str()? {
        "https" | "wss" => 443,
        _ => 80,
    };
    let port = uri.port_u16().unwrap_or(usual);
    Some((uri.host()?.to_owned(), port))
}

/// What is too much for a metric.
fn details(session: &SessionRecord<'_>) -> Vec<KeyValue> {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut attributes = Vec::new();
    let mut text = |name: &'static str, value: Option<&str>| {
        let value = value.filter(|value| !value.is_empty());
        attributes.extend(value.map(|value| KeyValue::new(name, value.to_owned())));
    };
    text("gen_ai.conversation.id", session.upstream_session);
    text("talkline.session.id", Some(session.session));
    text("talkline.client", Some(session.client));
    text("talkline.outcome", Some(session.outcome));
    text("talkline.provider", Some(session.provider));
    text("azure.service.request.id", session.request_id);
    text("cloud.region", session.region);
    attributes.extend(session.error.map(error_type));
    let mut count = |name: &'static str, value: Option<u64>| {
        attributes.extend(value.map(|value| KeyValue::new(name, number(value))));
    };
    count("talkline.close_code", session.close_code.map(u64::from));
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    count("talkline.dial_ms", Some(millis(session.dialled)));
    count("talkline.first_audio_ms", session.first_audio.map(millis));
    if let Some(usage) = session.usage {
        let input = [usage.input.text, usage.input.audio, usage.input.image];
        let output = [usage.output.text, usage.output.audio, usage.output.image];
        for (name, value) in [
            (
                "gen_ai.usage.input_tokens",
                usage.input_tokens.max(input.iter().sum()),
            ),
            (
                "gen_ai.usage.output_tokens",
                usage.output_tokens.max(output.iter().sum()),
            ),
            ("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens),
            ("gen_ai.usage.text.input_tokens", usage.input.text),
            ("gen_ai.usage.audio.input_tokens", usage.input.audio),
            ("gen_ai.usage.text.output_tokens", usage.output.text),
            ("gen_ai.usage.audio.output_tokens", usage.output.audio),
            (
                "gen_ai.usage.audio.cache_read.input_tokens",
                usage.cached.audio,
            ),
        ] {
            count(name, Some(value));
        }
    }
    attributes
}
