//! What an upstream's refusal means: a stable code, whose fault it is, and what to do next.
//!
//! Sources for the Azure rows: Microsoft Learn, "Troubleshoot errors" of Azure OpenAI, "Configure
//! Entra ID", the Realtime preview-to-GA migration guide, and refusals that users have published.
//! Azure's bodies come in two shapes, its codes are sometimes numbers in quotes, and one of them is
//! misspelt (`OpperationNotSupported`), so rows match on status, code and pieces of the message
//! together.

mod identity;

use std::time::Duration;

use serde_json::{Value, json};
use talkline_auth::Sealed;

use crate::{AzureApi, Intent, Upstream};

/// The longest part of an upstream's message that is handed on, in characters.
const MESSAGE_CHARS_MAX: usize = 400;

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
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Dns => "dns",
            Phase::Tcp => "tcp",
            Phase::Tls => "tls",
            Phase::Upgrade => "upgrade",
        }
    }
}

/// Why there is no session with the upstream.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// A phase did not end in time.
    TimedOut(Phase),
    /// A phase failed; the text is the operating system's or the TLS library's.
    Failed(Phase, String),
    /// The upstream answered the upgrade with something other than 101.
    Answered(UpstreamAnswer),
    /// The upstream answered 101 in a way that RFC 6455 section 4.1 tells a client to refuse.
    BadHandshake(HandshakeFault),
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
                "retry-after-ms" => answer.retry_after = millis(value, 1),
                "retry-after" if answer.retry_after.is_none() => {
                    answer.retry_after = millis(value, 1000);
                }
                "location" => answer.location = Some(without_query(value)),
                _ => {}
            }
        }
        answer
    }
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

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client's request.
    Client,
    /// The relay's configuration, or a setting of the upstream's resource.
    Operator,
    /// The upstream service.
    Upstream,
    /// The way between relay and upstream.
    Network,
}

impl Blame {
    /// The party as a word, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Blame::Client => "client",
            Blame::Operator => "operator",
            Blame::Upstream => "upstream",
            Blame::Network => "network",
        }
    }
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permanence {
    /// Not before somebody changes something.
    Permanent,
    /// Later: a limit was reached.
    Throttled,
    /// Soon: something was briefly unavailable.
    Transient,
}

impl Permanence {
    /// Close code that makes SDKs do the right thing: 1008 is not retried by openai-python and
    /// openai-node; 1013 and 1011 are.
    pub fn close_code(self) -> u16 {
        match self {
            Permanence::Permanent => 1008,
            Permanence::Throttled => 1013,
            Permanence::Transient => 1011,
        }
    }
}

/// What the upstream itself said, cleaned of control characters and of the credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AzureAnswer {
    /// HTTP status.
    pub status: u16,
    /// Its error code, if the body named one.
    pub code: Option<String>,
    /// Its message, if the body had one.
    pub message: Option<String>,
    /// The request id for a support case.
    pub request_id: Option<String>,
    /// The region that answered.
    pub region: Option<String>,
}

/// A failure with its cause and its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// Stable code: an anchor in the documentation, a label in metrics, the close reason.
    pub code: &'static str,
    /// Whose fault it is.
    pub blame: Blame,
    /// Whether trying again can help.
    pub permanence: Permanence,
    /// What happened, as one sentence.
    pub summary: String,
    /// What to do next, as one sentence or two.
    pub next_step: String,
    /// What the upstream said.
    pub answer: Option<AzureAnswer>,
    /// How long the upstream asks to wait.
    pub retry_after: Option<Duration>,
}

impl Diagnosis {
    /// Explains why `upstream` gave no session. `target` is what was dialled: its credential is
    /// removed from everything the upstream said.
    pub fn of(refusal: &Refusal, upstream: &Upstream, intent: Intent, target: &Sealed) -> Self {
        let mut diagnosis = match refusal {
            Refusal::Failed(phase, detail) => failed(*phase, &target.scrub(detail), target),
            Refusal::TimedOut(phase) => timed_out(*phase, target),
            Refusal::BadHandshake(fault) => bad_handshake(*fault, target),
            Refusal::Answered(answer) => answered(answer, upstream, intent, target),
        };
        if let Upstream::OpenAi(_) | Upstream::Custom(_) = upstream {
            diagnosis.code = generic_code(diagnosis.code);
        }
        diagnosis
    }

    /// The `error` event that a client gets, in OpenAI's shape.
    ///
    /// The message holds the cause, the upstream's own words with its request id, and the next
    /// step: openai-python and openai-node show nothing else of it.
    pub fn error_event(&self) -> String {
        let mut message = self.summary.clone();
        if let Some(answer) = &self.answer {
            let said = match (&answer.code, &answer.message) {
                (Some(code), Some(text)) => {
                    format!(" Upstream said: HTTP {} {code}: {text}", answer.status)
                }
                (None, Some(text)) => format!(" Upstream said: HTTP {}: {text}", answer.status),
                (Some(code), None) => format!(" Upstream said: HTTP {} {code}.", answer.status),
                (None, None) => format!(" Upstream said: HTTP {}.", answer.status),
            };
            message.push_str(&said);
            if let Some(id) = &answer.request_id {
                message.push_str(&format!(" (request id {id})"));
            }
        }
        message.push_str(" Next step: ");
        message.push_str(&self.next_step);
        let kind = match (self.permanence, self.blame) {
            (Permanence::Throttled, _) => "rate_limit_error",
            (Permanence::Permanent, Blame::Client) => "invalid_request_error",
            _ => "server_error",
        };
        let param = if self.code.ends_with("deployment_not_found") {
            json!("model")
        } else {
            Value::Null
        };
        let upstream = self.answer.as_ref().map(|answer| {
            json!({
                "status": answer.status,
                "code": answer.code,
                "message": answer.message,
                "request_id": answer.request_id,
                "region": answer.region,
            })
        });
        json!({
            "type": "error",
            "event_id": Value::Null,
            "error": {
                "type": kind,
                "code": self.code,
                "message": message,
                "param": param,
                "event_id": Value::Null,
                "upstream": upstream,
            },
        })
        .to_string()
    }
}

/// A row of the table below: code, blame, permanence, what happened, what to do.
struct Row(&'static str, Blame, Permanence, &'static str, &'static str);

impl Row {
    fn into_diagnosis(self) -> Diagnosis {
        let Row(code, blame, permanence, summary, next_step) = self;
        Diagnosis {
            code,
            blame,
            permanence,
            summary: summary.to_owned(),
            next_step: next_step.to_owned(),
            answer: None,
            retry_after: None,
        }
    }
}

use Blame::{Network, Operator};
use Permanence::{Permanent, Throttled, Transient};

fn failed(phase: Phase, detail: &str, target: &Sealed) -> Diagnosis {
    let row = match phase {
        Phase::Dns => Row(
            "azure_dns",
            Network,
            Transient,
            "The host name of the upstream could not be resolved.",
            "Check the spelling of the endpoint and the relay's DNS; with a private endpoint, that the privatelink zone is linked to the relay's network.",
        ),
        Phase::Tcp => Row(
            "azure_tcp",
            Network,
            Transient,
            "No TCP connection to the upstream could be opened.",
            "Check that the relay's network may reach the host on this port: firewall, network security group, private endpoint.",
        ),
        Phase::Tls => Row(
            "azure_tls",
            Network,
            Permanent,
            "The upstream's TLS certificate or handshake was not acceptable; no credential was sent.",
            "If a proxy inspects TLS, add its CA with SSL_CERT_FILE; otherwise check that the endpoint's name is the certificate's.",
        ),
        Phase::Upgrade => Row(
            "azure_connection_lost",
            Network,
            Transient,
            "The upstream closed the connection before it answered the upgrade.",
            "Try again; if it stays so, look for a proxy between relay and upstream that does not speak WebSocket.",
        ),
    };
    let mut diagnosis = row.into_diagnosis();
    diagnosis.summary = format!(
        "{} ({}:{}: {})",
        diagnosis.summary,
        target.host(),
        target.port(),
        clean(detail, 200)
    );
    diagnosis
}

fn timed_out(phase: Phase, target: &Sealed) -> Diagnosis {
    let row = match phase {
        Phase::Dns => Row(
            "azure_dns_timeout",
            Network,
            Transient,
            "Resolving the upstream's host name took too long.",
            "Check the relay's DNS servers.",
        ),
        Phase::Tcp => Row(
            "azure_tcp_timeout",
            Network,
            Transient,
            "Opening the TCP connection to the upstream took too long.",
            "A firewall that drops packets looks like this: check that the relay's network may reach the host on this port.",
        ),
        Phase::Tls => Row(
            "azure_tls_timeout",
            Network,
            Transient,
            "The TLS handshake with the upstream took too long.",
            "Look for a proxy between relay and upstream.",
        ),
        Phase::Upgrade => Row(
            "azure_upgrade_timeout",
            Blame::Upstream,
            Transient,
            "The upstream did not answer the upgrade in time.",
            "Try again; if it stays so, check the service's status for the region.",
        ),
    };
    let mut diagnosis = row.into_diagnosis();
    diagnosis.summary = format!(
        "{} ({}:{})",
        diagnosis.summary,
        target.host(),
        target.port()
    );
    diagnosis
}

fn bad_handshake(fault: HandshakeFault, target: &Sealed) -> Diagnosis {
    let what = match fault {
        HandshakeFault::WrongAccept => "its Sec-WebSocket-Accept does not answer our key",
        HandshakeFault::NotAnUpgrade => "Upgrade or Connection is missing",
        HandshakeFault::UnrequestedExtension => "it turned on an extension that was not asked for",
        HandshakeFault::UnrequestedSubprotocol => "it chose a subprotocol that was not asked for",
    };
    let mut diagnosis = Row("azure_bad_handshake", Blame::Upstream, Permanent, "",
        "Something between relay and upstream answers WebSocket upgrades wrongly: check gateways and proxies on the way.").into_diagnosis();
    diagnosis.summary = format!("{} answered 101, but {what}.", target.host());
    diagnosis
}

fn answered(
    answer: &UpstreamAnswer,
    upstream: &Upstream,
    intent: Intent,
    target: &Sealed,
) -> Diagnosis {
    let (code, message) = error_of(&answer.body);
    let code = code.map(|code| clean(&target.scrub(&code), 80));
    let message = message.map(|message| clean(&target.scrub(&message), MESSAGE_CHARS_MAX));
    let row = row_for(
        answer,
        code.as_deref().unwrap_or(""),
        message.as_deref().unwrap_or(""),
        upstream,
        intent,
    );
    let mut diagnosis = row.into_diagnosis();
    if let (300..400, Some(location)) = (answer.status, &answer.location) {
        let location = target.scrub(location);
        diagnosis.summary = format!(
            "{} It points to {}.",
            diagnosis.summary,
            clean(&location, 200)
        );
    }
    if diagnosis.code == "azure_deployment_not_found" {
        let name = upstream.deployment().unwrap_or_default();
        diagnosis.summary = format!(
            "The Azure resource has no deployment named `{}`.",
            clean(name, 80)
        );
    }
    diagnosis.retry_after = answer.retry_after;
    diagnosis.answer = Some(AzureAnswer {
        status: answer.status,
        code,
        message,
        request_id: answer.request_id.as_deref().map(|id| target.scrub(id)),
        region: answer.region.as_deref().map(|region| target.scrub(region)),
    });
    diagnosis
}

fn row_for(
    answer: &UpstreamAnswer,
    code: &str,
    message: &str,
    upstream: &Upstream,
    intent: Intent,
) -> Row {
    let code = code.to_ascii_lowercase();
    let message = message.to_ascii_lowercase();
    let says = |piece: &str| message.contains(piece) || code.contains(piece);
    let on_ga = matches!(upstream, Upstream::Azure(azure) if azure.api == AzureApi::Ga);

    match answer.status {
        300..=399 => Row(
            "azure_upgrade_redirect",
            Operator,
            Permanent,
            "The upstream answered with a redirect, which is never followed because the request carries a credential.",
            "Use the GA path: remove azureApiVersion, and check that azureEndpoint is the resource's own https://<resource>.openai.azure.com.",
        ),
        401 | 403
            if says("permissiondenied")
                || says("does not have access to api/operation")
                || says("lacks the required data action") =>
        {
            Row(
                "azure_rbac_missing",
                Operator,
                Permanent,
                "The identity was accepted but has no permission to use this resource.",
                "Assign it the role Cognitive Services OpenAI User on the resource (Owner and Contributor do not include it): az role assignment create --role \"Cognitive Services OpenAI User\" --assignee <object id> --scope <resource id>. It takes effect within five minutes.",
            )
        }
        401 | 403 if says("virtual network/firewall rules") => Row(
            "azure_firewall",
            Operator,
            Permanent,
            "The Azure resource's firewall does not admit the relay's address.",
            "Add the relay's outbound address or subnet to the resource's network rules, or reach it by a private endpoint. Changes take up to 30 minutes.",
        ),
        403 if says("public access is disabled") => Row(
            "azure_private_only",
            Operator,
            Permanent,
            "The Azure resource answers only through its private endpoint, and the relay came from outside.",
            "Run the relay inside the virtual network, and check that the host resolves to the private address there.",
        ),
        403 if says("authenticationtypedisabled")
            || says("key based authentication is disabled") =>
        {
            Row(
                "azure_key_auth_disabled",
                Operator,
                Permanent,
                "The Azure resource does not accept API keys.",
                "Sign in with Microsoft Entra ID instead of a key, or enable local authentication on the resource.",
            )
        }
        403 if says("temporarily blocked") => Row(
            "azure_resource_suspended",
            Operator,
            Permanent,
            "Azure has blocked this resource.",
            "Open a support request with the request id.",
        ),
        400 | 401
            if says("tenant") && says("does not match")
                || says("invalidauthenticationtokentenant") =>
        {
            Row(
                "azure_tenant_mismatch",
                Operator,
                Permanent,
                "The token was issued by another tenant than the resource's.",
                "Set the tenant id of the resource for the credential.",
            )
        }
        401 if says("audience") || says("access token is missing") => Row(
            "azure_token_audience",
            Operator,
            Permanent,
            "The access token was not accepted: wrong audience, or expired.",
            "Check the scope (https://cognitiveservices.azure.com/.default, or https://ai.azure.com/.default for services.ai.azure.com), that the endpoint uses the resource's own subdomain, and the relay's clock.",
        ),
        401 if says("subscription key") || says("wrong api endpoint") => Row(
            "azure_key_invalid",
            Operator,
            Permanent,
            "The API key is not one of this Azure resource's keys.",
            "Key and endpoint must belong to the same resource; a regenerated key is refused at once. List them: az cognitiveservices account keys list --name <resource> --resource-group <group>.",
        ),
        401 if message.is_empty() && on_ga => Row(
            "azure_unauthorized",
            Operator,
            Permanent,
            "Azure refused the credential without a reason.",
            "Check that key and endpoint belong to the same resource, and that no gateway on the way removes the api-key header or adds an api-version.",
        ),
        401 | 403 => Row(
            "azure_unauthorized",
            Operator,
            Permanent,
            "The upstream refused the relay's credential.",
            "Check that the credential and the endpoint belong together.",
        ),
        404 if says("deploymentnotfound")
            || says("deployment for this resource does not exist") =>
        {
            Row(
                "azure_deployment_not_found",
                Operator,
                Permanent,
                "",
                "azureDeployment is the name of the deployment, not of the model. List them: az cognitiveservices account deployment list --name <resource> --resource-group <group>. A new deployment takes up to five minutes to appear.",
            )
        }
        404 => Row(
            "azure_path_not_found",
            Operator,
            Permanent,
            "The upstream has no Realtime endpoint at this path.",
            "Check azureEndpoint: it is the resource's root (https://<resource>.openai.azure.com), not a project or a WebRTC URL; with azureApiVersion set, that this version exists.",
        ),
        400 if says("opperationnotsupported")
            || says("operationnotsupported")
            || says("does not work with the specified model") =>
        {
            if intent == Intent::Transcription {
                Row(
                    "azure_model_not_realtime",
                    Operator,
                    Permanent,
                    "The deployment's model does not do Realtime transcription on this path.",
                    "Use a transcription model, named in session.audio.input.transcription.model by its deployment.",
                )
            } else {
                Row(
                    "azure_model_not_realtime",
                    Operator,
                    Permanent,
                    "The deployment's model does not do Realtime on this path.",
                    "Deploy a gpt-realtime model; transcription models want ?intent=transcription, translation models their own path, and GA models the GA path (no azureApiVersion). Some regions lag behind: compare with the region in the answer.",
                )
            }
        }
        400 if says("api version not supported") || says("api-version") => Row(
            "azure_api_version",
            Operator,
            Permanent,
            "The upstream does not know this api-version.",
            "Remove azureApiVersion to use the GA path, or set a preview version that is still served (2025-04-01-preview).",
        ),
        400 => Row(
            "azure_bad_request",
            Operator,
            Permanent,
            "The upstream did not understand the handshake.",
            "Check azureDeployment and azureApiVersion; the upstream's own words follow above.",
        ),
        429 => Row(
            "azure_rate_limited",
            Operator,
            Throttled,
            "The upstream's rate limit or session quota is used up.",
            "Wait as long as the upstream asks, or raise the deployment's quota in the Azure portal.",
        ),
        200..=299 => Row(
            "azure_not_a_websocket",
            Operator,
            Permanent,
            "The upstream answered the upgrade with a page instead of a WebSocket.",
            "Check that the endpoint is the Azure resource and not a web front end.",
        ),
        _ => Row(
            "azure_unavailable",
            Blame::Upstream,
            Transient,
            "The upstream is not available at the moment.",
            "Try again; if it stays so, open a support request with the request id.",
        ),
    }
}

/// The same finding for an upstream that is not Azure.
fn generic_code(code: &'static str) -> &'static str {
    match code {
        "azure_dns" => "upstream_dns",
        "azure_dns_timeout" => "upstream_dns_timeout",
        "azure_tcp" => "upstream_tcp",
        "azure_tcp_timeout" => "upstream_tcp_timeout",
        "azure_tls" => "upstream_tls",
        "azure_tls_timeout" => "upstream_tls_timeout",
        "azure_connection_lost" => "upstream_connection_lost",
        "azure_upgrade_timeout" => "upstream_upgrade_timeout",
        "azure_bad_handshake" => "upstream_bad_handshake",
        "azure_upgrade_redirect" => "upstream_upgrade_redirect",
        "azure_rate_limited" => "upstream_rate_limited",
        "azure_unavailable" => "upstream_unavailable",
        "azure_path_not_found" | "azure_deployment_not_found" => "upstream_not_found",
        "azure_not_a_websocket" => "upstream_not_a_websocket",
        "azure_bad_request" | "azure_api_version" | "azure_model_not_realtime" => {
            "upstream_bad_request"
        }
        _ => "upstream_unauthorized",
    }
}

/// Code and message of an error body, in either of Azure's shapes.
fn error_of(body: &[u8]) -> (Option<String>, Option<String>) {
    let text = String::from_utf8_lossy(body);
    // serde_json stops at 128 levels, so a body cannot exhaust the stack.
    let Ok(value) = serde_json::from_str::<Value>(&text) else {
        let shown = text.trim();
        let html = shown.starts_with('<');
        return (None, (!shown.is_empty() && !html).then(|| shown.to_owned()));
    };
    let error = value
        .get("error")
        .filter(|error| error.is_object())
        .unwrap_or(&value);
    let field = |name: &str| match error.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    (
        field("code").or_else(|| field("statusCode")),
        field("message"),
    )
}

/// One line of printable text, at most `chars_max` long.
fn clean(text: &str, chars_max: usize) -> String {
    let printable = |c: char| {
        if c.is_control() || is_bidi_control(c) {
            ' '
        } else {
            c
        }
    };
    let mut cleaned: String = text.chars().map(printable).take(chars_max).collect();
    if text.chars().nth(chars_max).is_some() {
        cleaned.push('…');
    }
    cleaned.trim().to_owned()
}

/// Characters that reorder what follows them, and could make a log line read as another.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn without_query(location: &str) -> String {
    let end = location.find(['?', '#']).unwrap_or(location.len());
    let location = &location[..end];
    let userinfo = location.find("://").map(|at| at + 3).and_then(|start| {
        let authority = location[start..].split('/').next().unwrap_or_default();
        authority.rfind('@').map(|at| (start, start + at + 1))
    });
    let location = match userinfo {
        Some((start, end)) => format!("{}{}", &location[..start], &location[end..]),
        None => location.to_owned(),
    };
    clean(&location, 200)
}

/// Milliseconds, from a whole number of `unit` milliseconds. Dates and nonsense count as absent; a
/// day is the longest that is believed.
fn millis(value: &str, unit: u64) -> Option<Duration> {
    let number: u64 = value.trim().parse().ok()?;
    Some(Duration::from_millis(
        number.saturating_mul(unit).min(86_400_000),
    ))
}

#[cfg(test)]
mod tests;
