//! Why there is no session with an upstream, as the dialler sees it.

use std::time::Duration;

use super::{
    AzureAnswer, Circumstances, Diagnosis,
    facts::Facts,
    rules,
    said::{Said, clean, host_and_path, without_credentials},
    table::Row,
};
use crate::Upstream;

/// A step of reaching the upstream. Each has its own deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Resolving the host name.
    Dns,
    /// Opening the TCP connection.
    Tcp,
    /// The TLS handshake.
    Tls,
    /// Waiting for the answer to the upgrade request.
    Upgrade,
}

impl Phase {
    /// The phase as a word, for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Dns => "dns",
            Phase::Tcp => "tcp",
            Phase::Tls => "tls",
            Phase::Upgrade => "upgrade",
        }
    }
}

/// Why there is no session with the upstream. Texts are the operating system's or the TLS library's.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// A phase did not end in time.
    TimedOut(Phase),
    /// A phase failed in a way that is known no closer.
    Failed(Phase, String),
    /// The TCP connection could not be opened.
    Tcp(TcpFault, String),
    /// The TLS handshake failed.
    Tls(TlsFault, String),
    /// The upstream answered the upgrade with something other than 101.
    Answered(UpstreamAnswer),
    /// The upstream answered 101 in a way that RFC 6455 section 4.1 tells a client to refuse.
    BadHandshake(HandshakeFault),
}

/// Why a TCP connection could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpFault {
    /// Nothing listens there.
    Refused,
    /// There is no route.
    Unreachable,
    /// Anything else.
    Other,
}

/// Why a TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// The certificate is too old, by the relay's clock.
    Expired,
    /// The certificate is too young, by the relay's clock.
    NotYetValid,
    /// The certificate is for other names.
    WrongName,
    /// No trusted authority issued the certificate.
    UnknownCa,
    /// The certificate is revoked, malformed, or not for servers.
    Certificate,
    /// What came is not TLS.
    NotTls,
    /// Anything else: no version or cipher in common, an alert, an early end.
    Other,
}

/// A 101 answer that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFault {
    /// `Sec-WebSocket-Accept` is missing or does not answer our key.
    WrongAccept,
    /// `Upgrade: websocket` or `Connection: Upgrade` is missing.
    NotAnUpgrade,
    /// An extension that was not asked for.
    UnrequestedExtension,
    /// A subprotocol that was not asked for.
    UnrequestedSubprotocol,
}

/// An upstream's answer to the upgrade request.
#[derive(Clone, Debug, Default)]
pub struct UpstreamAnswer {
    /// HTTP status.
    pub status: u16,
    /// `apim-request-id`, or `x-request-id`: what Azure's support asks for.
    pub request_id: Option<String>,
    /// `x-ms-region`: the region that served the request.
    pub region: Option<String>,
    /// `retry-after-ms` or `retry-after` in seconds.
    pub retry_after: Option<Duration>,
    /// Host and path of `location`, never its query: Azure has been seen to put the key there.
    pub location: Option<String>,
    /// The body, as far as it was read.
    pub body: Vec<u8>,
}

impl UpstreamAnswer {
    /// Reads the parts that a diagnosis needs out of status, headers and body.
    pub fn new<'a>(
        status: u16,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        body: Vec<u8>,
    ) -> Self {
        let mut answer = Self {
            status,
            body,
            ..Self::default()
        };
        for (name, value) in headers {
            let Ok(value) = std::str::from_utf8(value) else {
                continue;
            };
            match name.to_ascii_lowercase().as_str() {
                "apim-request-id" => answer.request_id = Some(clean(value, 80)),
                "x-request-id" if answer.request_id.is_none() => {
                    answer.request_id = Some(clean(value, 80));
                }
                "x-ms-region" => answer.region = Some(clean(value, 40)),
                "retry-after-ms" => answer.retry_after = millis(value, 1).or(answer.retry_after),
                "retry-after" if answer.retry_after.is_none() => {
                    answer.retry_after = millis(value, 1000);
                }
                "location" => answer.location = Some(host_and_path(value)),
                _ => {}
            }
        }
        answer
    }
}

/// Milliseconds, from a whole number of `unit` milliseconds. Dates and nonsense count as absent; a
/// day is the longest that is believed.
fn millis(value: &str, unit: u64) -> Option<Duration> {
    let number: u64 = value.trim().parse().ok()?;
    Some(Duration::from_millis(
        number.saturating_mul(unit).min(86_400_000),
    ))
}

/// See [`Diagnosis::explain`].
pub(super) fn explain(refusal: &Refusal, circumstances: Circumstances<'_>) -> Diagnosis {
    let facts = Facts::of(&circumstances);
    match refusal {
        Refusal::TimedOut(phase) => row(timed_out(*phase), facts, &circumstances),
        Refusal::Failed(phase, detail) => said(failed(*phase), detail, facts, &circumstances),
        Refusal::Tcp(fault, detail) => said(tcp(*fault), detail, facts, &circumstances),
        Refusal::Tls(fault, detail) => said(tls(*fault), detail, facts, &circumstances),
        Refusal::BadHandshake(fault) => row(
            "azure_bad_handshake",
            facts.with("fault", bad_handshake(*fault).to_owned()),
            &circumstances,
        ),
        Refusal::Answered(answer) => answered(answer, facts, &circumstances),
    }
}

fn row(code: &str, facts: Facts, circumstances: &Circumstances<'_>) -> Diagnosis {
    let row = Row::named(code);
    match circumstances.upstream {
        Upstream::Azure(_) => row.diagnose(&facts),
        Upstream::OpenAi(_) | Upstream::Custom(_) => row.diagnose_twin(&facts),
    }
}

/// A row with what the operating system or a library said of it.
fn said(code: &str, detail: &str, facts: Facts, circumstances: &Circumstances<'_>) -> Diagnosis {
    let mut diagnosis = row(code, facts, circumstances);
    let detail = clean(&without_credentials(detail, circumstances.target), 200);
    if !detail.is_empty() {
        diagnosis.summary = format!("{} ({detail})", diagnosis.summary);
    }
    diagnosis
}

const fn timed_out(phase: Phase) -> &'static str {
    match phase {
        Phase::Dns => "azure_dns_timeout",
        Phase::Tcp => "azure_tcp_timeout",
        Phase::Tls => "azure_tls_timeout",
        Phase::Upgrade => "azure_upgrade_timeout",
    }
}

const fn failed(phase: Phase) -> &'static str {
    match phase {
        Phase::Dns => "azure_dns",
        Phase::Tcp => "azure_tcp",
        Phase::Tls => "azure_tls",
        Phase::Upgrade => "azure_connection_lost",
    }
}

const fn tcp(fault: TcpFault) -> &'static str {
    match fault {
        TcpFault::Refused => "azure_tcp_refused",
        TcpFault::Unreachable => "azure_tcp_unreachable",
        TcpFault::Other => "azure_tcp",
    }
}

const fn tls(fault: TlsFault) -> &'static str {
    match fault {
        TlsFault::Expired => "azure_tls_expired",
        TlsFault::NotYetValid => "azure_tls_not_yet_valid",
        TlsFault::WrongName => "azure_tls_wrong_name",
        TlsFault::UnknownCa => "azure_tls_unknown_ca",
        TlsFault::Certificate => "azure_tls_certificate",
        TlsFault::NotTls => "azure_tls_not_tls",
        TlsFault::Other => "azure_tls",
    }
}

const fn bad_handshake(fault: HandshakeFault) -> &'static str {
    match fault {
        HandshakeFault::WrongAccept => "its Sec-WebSocket-Accept does not answer our key",
        HandshakeFault::NotAnUpgrade => "Upgrade or Connection is missing",
        HandshakeFault::UnrequestedExtension => "it turned on an extension that was not asked for",
        HandshakeFault::UnrequestedSubprotocol => "it chose a subprotocol that was not asked for",
    }
}

fn answered(answer: &UpstreamAnswer, facts: Facts, circumstances: &Circumstances<'_>) -> Diagnosis {
    let Circumstances {
        upstream,
        intent,
        target,
        ..
    } = *circumstances;
    let said = Said::read(&answer.body, target);
    let path = target.path_and_query();
    let code = rules::code_of(answer.status, &said, upstream, intent, path);
    let shown = |text: &String| without_credentials(text, target);
    let region = answer.region.as_ref().map(shown);
    let facts = facts
        .maybe("region", region.clone())
        .maybe("location-name", region.as_deref().and_then(location_name))
        .maybe("location", answer.location.as_ref().map(shown));
    Diagnosis {
        retry_after: answer.retry_after,
        answer: Some(AzureAnswer {
            status: answer.status,
            code: said.code,
            message: said.message,
            request_id: answer.request_id.as_ref().map(shown),
            region,
        }),
        ..row(code, facts, circumstances)
    }
}

/// `swedencentral` for `Sweden Central`, as commands want it.
fn location_name(region: &str) -> Option<String> {
    let name = region.replace(' ', "").to_ascii_lowercase();
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then_some(name)
}
