//! The way to one upstream: DNS, TCP, TLS, upgrade, session, one after the other.

use std::{
    future::Future as _,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use talkline_auth::{Scheme, Secret, TokenError};
use talkline_dialect::{
    Ask, ClientDialect, Correlation, Diagnosis, Intent, Phase, Refusal, Upstream, UpstreamRequest,
};
use talkline_relay::Leg;

use super::{
    Check, DoctorOptions, TokenClaims, alternatives,
    board::{Board, Probe},
    certificate::{Certificate, Presented, noting_client_config},
    regions,
    report::{Finding, Severity, millis},
    session::{Io, Session},
};
use crate::{
    dial::{Answer, DialTimeouts, Dialer, Observed, Presenting},
    direct::Direct,
};

mod conversation;
#[cfg(test)]
mod tests;

/// Longest waits: short of the relay's own, so that later checks have time left.
const TIMEOUTS: DialTimeouts = DialTimeouts {
    dns: Duration::from_secs(3),
    tcp: Duration::from_secs(3),
    tls: Duration::from_secs(3),
    upgrade: Duration::from_secs(5),
};
/// Difference of clocks that is worth a finding.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);
/// A certificate that ends sooner is worth a finding.
const CERTIFICATE_DAYS_MIN: i64 = 14;
/// A token that ends sooner is worth a finding.
const TOKEN_SECONDS_MIN: u64 = 300;

/// One upstream under diagnosis.
pub(super) struct Line<'a> {
    board: &'a Board<'a>,
    provider: &'a str,
    upstream: &'a Arc<Upstream>,
    request: UpstreamRequest,
    dialer: Option<Dialer>,
    presented: Presented,
    other_scope: Option<alternatives::OtherScope>,
}

/// A `Date` of the upstream, and this machine's clock when it came.
type Dated = (String, SystemTime);

/// Runs the checks of all upstreams at the same time.
pub(super) async fn run_all(lines: &[Line<'_>]) {
    // Polled together in this task: they borrow the board, and they only wait for the network.
    let mut running: Vec<_> = lines.iter().map(|line| Box::pin(line.run())).collect();
    std::future::poll_fn(|context| {
        running.retain_mut(|line| line.as_mut().poll(context).is_pending());
        if running.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

/// What a caller that names no model asks for.
pub(super) fn plain_ask() -> Ask {
    Ask {
        alias: None,
        intent: Intent::Conversation,
        dialect: ClientDialect::Ga,
        offers_realtime: false,
    }
}

/// Without a token there is no request, and nothing further to try.
pub(super) fn note_missing_token(board: &Board<'_>, provider: &str, error: &TokenError) {
    board.note(Check::Credential, Some(provider), || {
        let message = format!("{} gave no token: {}", error.source_name, error.detail);
        let finding = Finding::new(Check::Credential, Severity::Error, error.code, message);
        let hint = error.hint.as_deref();
        Probe::<()>::failed(
            finding.fix(hint.unwrap_or("look at the identity service's answer above")),
        )
        .with("kind", error.source_name)
    });
}

impl<'a> Line<'a> {
    /// `None` when the request cannot be built, which resolved configurations do not know.
    pub(super) fn new(
        board: &'a Board<'a>,
        provider: &'a str,
        upstream: &'a Arc<Upstream>,
        options: &DoctorOptions,
    ) -> Option<Self> {
        let request = upstream
            .request(&plain_ask(), &Correlation::default())
            .ok()?;
        let (dialer, presented) = match noting_client_config() {
            Ok((tls, presented)) => {
                let dialer = Dialer::new(tls, TIMEOUTS, options.resolve.clone());
                (Some(dialer), presented)
            }
            Err(_) => (None, Presented::default()),
        };
        let other_scope = upstream.token_cell().and_then(|cell| {
            let mut others = options.other_scopes.iter();
            let (_, scope, source) = others.find(|(of, ..)| of.is_same(cell))?;
            Some((scope.clone(), Arc::clone(source)))
        });
        Some(Self {
            board,
            provider,
            upstream,
            request,
            dialer,
            presented,
            other_scope,
        })
    }

    pub(super) fn provider(&self) -> &'a str {
        self.provider
    }

    /// The text without a trace of this upstream's credential.
    pub(super) fn scrub(&self, text: &str) -> String {
        self.request.target().scrub(text)
    }

    /// The dotted name of one of the provider's keys.
    pub(super) fn key(&self, key: &str) -> String {
        format!("talk.realtime.providers.{}.{key}", self.provider)
    }

    /// Whether the host is a resource of Azure, not a gateway or a simulator in front of one.
    pub(super) fn is_azure_host(&self) -> bool {
        let host = self.request.target().host();
        matches!(**self.upstream, Upstream::Azure(_))
            && [".azure.com", ".azure.us", ".azure.cn", ".microsoft.com"]
                .iter()
                .any(|suffix| host.ends_with(suffix))
    }

    /// The API key, unless the credential is a token or there is none.
    pub(super) fn static_key(&self) -> Option<Secret> {
        let value = self.presented_value()?;
        TokenClaims::of(value.expose()).is_none().then_some(value)
    }

    /// The credential as it stands behind the name of its header and the word `Bearer`.
    fn presented_value(&self) -> Option<Secret> {
        let (_, value) = self.request.target().authentication()?;
        let text = value.expose();
        Some(Secret::new(text.strip_prefix("Bearer ").unwrap_or(text)))
    }

    async fn run(&self) {
        self.cloud();
        self.credential();
        let Some(addresses) = self.dns().await else {
            return;
        };
        let Some(tcp) = self.tcp(&addresses).await else {
            return;
        };
        let Some(io) = self.tls(tcp).await else {
            return;
        };
        let (strangers, ours) = tokio::join!(self.unauthenticated(io), self.session(&addresses));
        self.clock(ours.or(strangers));
    }

    fn cloud(&self) {
        let host = self.request.target().host();
        self.board.note(Check::Cloud, Some(self.provider), || {
            if !matches!(**self.upstream, Upstream::Azure(_)) {
                return Probe::skipped((), "the upstream is not Azure");
            }
            let finding = |code: &str, message: &str| {
                Finding::new(Check::Cloud, Severity::Warning, code, message)
                    .path(self.key("azureEndpoint"))
                    .fix("use a resource in the public cloud, or ask Microsoft for the model's availability")
            };
            if host.ends_with(".azure.us") {
                Probe::passed(()).with("cloud", "AzureGovernment").finding(finding(
                    "cloud_government",
                    "Azure Government has no Realtime model in Microsoft's list of 2026-04-03",
                ))
            } else if host.ends_with(".azure.cn") {
                Probe::passed(()).with("cloud", "AzureChina").finding(finding(
                    "cloud_china",
                    "no Realtime model is documented for Azure in China",
                ))
            } else {
                Probe::passed(()).with("cloud", if self.is_azure_host() { "AzurePublic" } else { "unknown" })
            }
        });
    }

    fn credential(&self) {
        self.board.note(Check::Credential, Some(self.provider), || {
            let authentication = self.request.target().authentication();
            let Some(((header, _), value)) = authentication.zip(self.presented_value()) else {
                return Probe::passed(()).with("kind", "none");
            };
            let probe = Probe::passed(()).with("header", header);
            let Some(claims) = TokenClaims::of(value.expose()) else {
                return probe
                    .with("kind", "api-key")
                    .with("fingerprint", value.fingerprint());
            };
            let now = unix_now();
            let mut probe = probe.with("kind", "bearer-token");
            probe.evidence.extend(claims.evidence(now));
            probe.findings =
                token_findings(&claims, now, matches!(**self.upstream, Upstream::Azure(_)));
            probe
        });
    }

    async fn dns(&self) -> Option<Vec<SocketAddr>> {
        let target = self.request.target();
        self.board
            .check(Check::Dns, Some(self.provider), async {
                let Some(dialer) = &self.dialer else {
                    return Probe::failed(
                        Finding::new(Check::Dns, Severity::Error, "roots_unreadable", "the platform's root certificates cannot be loaded")
                            .fix("install the ca-certificates package, or name a bundle with SSL_CERT_FILE"),
                    );
                };
                let addresses = match dialer.resolve(target).await {
                    Ok(addresses) => addresses,
                    Err(refusal) => return self.refused(Check::Dns, &refusal).with("host", target.host()),
                };
                let kinds: Vec<_> = addresses.iter().map(|address| kind_of(address.ip())).collect();
                let shown = addresses.iter().zip(&kinds).map(|(address, kind)| {
                    json!({"address": address.ip().to_string(), "kind": kind})
                });
                let shown: Vec<Value> = shown.collect();
                let mut probe = Probe::passed(addresses)
                    .with("host", target.host())
                    .with("addresses", shown);
                if self.is_azure_host() && kinds.contains(&"private") {
                    probe = probe.with("note", "a private address: a private endpoint or a split DNS; the CNAME to privatelink.* is not visible to this lookup");
                    if kinds.contains(&"public") {
                        probe = probe.finding(
                            Finding::new(Check::Dns, Severity::Warning, "dns_mixed", "the name has private and public addresses")
                                .path(self.key("azureEndpoint"))
                                .fix("link the privatelink zone to the relay's network and remove other records of the name there"),
                        );
                    }
                }
                probe
            })
            .await
    }

    async fn tcp(&self, addresses: &[SocketAddr]) -> Option<Direct> {
        let dialer = self.dialer.as_ref()?;
        self.board
            .check(Check::Tcp, Some(self.provider), async {
                match dialer.connect(addresses.to_vec()).await {
                    Ok(stream) => {
                        let peer = stream.peer_addr().map_or_else(|_| "unknown".to_owned(), |peer| peer.to_string());
                        Probe::passed(stream).with("peer", peer)
                    }
                    Err(refusal) => {
                        let mut probe = self.refused(Check::Tcp, &refusal);
                        if addresses.iter().any(|address| kind_of(address.ip()) == "private") {
                            probe = probe.with("note", "the address is private: this machine must be in the private endpoint's network or connected to it");
                        }
                        probe
                    }
                }
            })
            .await
    }

    async fn tls(&self, tcp: Direct) -> Option<Box<dyn Io>> {
        let dialer = self.dialer.as_ref()?;
        let target = self.request.target();
        self.board
            .check(Check::Tls, Some(self.provider), async {
                if target.scheme() == Scheme::Plain {
                    return Probe::skipped(
                        Box::new(tcp) as Box<dyn Io>,
                        "the upstream is reached in plain text",
                    );
                }
                match dialer.handshake(target, tcp).await {
                    Ok(stream) => {
                        let connection = stream.connection();
                        let version = connection
                            .protocol_version()
                            .map(|version| format!("{version:?}"));
                        let mut probe = Probe::passed(()).with("protocol", version);
                        if let Some(certificate) = self.presented.certificate() {
                            probe = with_certificate(probe, &certificate);
                            probe.findings = self.certificate_findings(&certificate);
                        }
                        Probe {
                            value: Some(Box::new(stream) as Box<dyn Io>),
                            evidence: probe.evidence,
                            findings: probe.findings,
                            skipped: None,
                        }
                    }
                    Err(refusal) => {
                        let mut probe = self.refused(Check::Tls, &refusal);
                        if let Some(certificate) = self.presented.certificate() {
                            probe = with_certificate(probe, &certificate);
                            for finding in &mut probe.findings {
                                let reason = self.why_refused(&certificate);
                                finding.message.push_str(&reason);
                            }
                        }
                        probe
                    }
                }
            })
            .await
    }

    /// What a person sees in a certificate that was not accepted.
    fn why_refused(&self, certificate: &Certificate) -> String {
        let now = i64::try_from(unix_now()).unwrap_or(i64::MAX);
        let mut text = String::new();
        if certificate.not_after < now {
            text.push_str(" The certificate has expired.");
        } else if certificate.not_before > now {
            text.push_str(" The certificate is not valid yet: check this machine's clock.");
        }
        text.push_str(&format!(" It was issued by {}", certificate.issuer));
        if !certificate.names.is_empty() {
            text.push_str(&format!(" for {}", certificate.names.join(", ")));
        }
        text.push('.');
        if let Some(product) = certificate.inspecting_proxy() {
            text.push_str(&format!(
                " That is {product}, which inspects TLS: add its CA to the bundle that SSL_CERT_FILE names, or have the host excepted."
            ));
        } else if self.is_azure_host() && !certificate.is_issued_for_azure() {
            text.push_str(
                " Azure's certificates are issued by Microsoft or DigiCert: something between here and Azure answers in its place.",
            );
        }
        text
    }

    /// What is worth saying about a certificate that was accepted.
    fn certificate_findings(&self, certificate: &Certificate) -> Vec<Finding> {
        let mut findings = Vec::new();
        let left = certificate.not_after - i64::try_from(unix_now()).unwrap_or(i64::MAX);
        let days = left / 86_400;
        if days < CERTIFICATE_DAYS_MIN {
            let message = format!("the upstream's certificate expires in {days} days");
            findings.push(
                Finding::new(
                    Check::Tls,
                    Severity::Warning,
                    "certificate_expires",
                    message,
                )
                .fix("have the certificate renewed; Azure renews its own"),
            );
        }
        if let Some(product) = certificate.inspecting_proxy() {
            let message =
                format!("{product} inspects the connection: it sees the credential and the audio");
            findings.push(
                Finding::new(Check::Tls, Severity::Info, "tls_inspected", message)
                    .fix("have the host excepted from inspection"),
            );
        }
        findings
    }

    /// Sends the upgrade request without the credential. Returns the date of the answer.
    async fn unauthenticated(&self, io: Box<dyn Io>) -> Option<Dated> {
        let dialer = self.dialer.as_ref()?;
        let target = self.request.target();
        self.board
            .check(Check::Unauthenticated, Some(self.provider), async {
                if target.authentication().is_none() {
                    return Probe::skipped(None, "the upstream is configured without a credential");
                }
                let mut observed = Observed::default();
                let answer = dialer
                    .exchange(io, &self.request, Presenting::Nothing, &mut observed)
                    .await;
                let dated = observed.date.map(|date| (date, SystemTime::now()));
                let probe = match answer {
                    Ok((leg, _)) => {
                        Session::new(leg.io, &leg.early).close().await;
                        Probe::passed(dated).finding(
                            Finding::new(Check::Unauthenticated, Severity::Warning, "upstream_open", "the upstream opens sessions for everyone, without a credential")
                                .fix("if that is not meant, configure the gateway in front of it to ask for one"),
                        )
                    }
                    // An upstream that asks for a credential: as it should be.
                    Err(Refusal::Answered(answer)) if answer.status == 401 => Probe::passed(dated),
                    Err(refusal) => {
                        let mut probe = self.refused(Check::Unauthenticated, &refusal);
                        // What counts is whether the relay's own upgrade works.
                        for finding in &mut probe.findings {
                            finding.severity = Severity::Warning;
                            finding.message.push_str(" This is the answer to a request without a credential.");
                        }
                        Probe { value: Some(dated), ..probe }
                    }
                };
                probe.with("status", observed.status)
            })
            .await
            .flatten()
    }

    /// The upgrade as the relay makes it, and what comes after it. Returns the date of the answer.
    async fn session(&self, addresses: &[SocketAddr]) -> Option<Dated> {
        let mut dated = None;
        let mut refused = None;
        let opened = self
            .board
            .check(Check::Upgrade, Some(self.provider), async {
                let mut observed = Observed::default();
                let opened = self.open(addresses, &mut observed).await;
                dated = observed.date.map(|date| (date, SystemTime::now()));
                match opened {
                    Ok((leg, answer)) => {
                        let probe = Probe::passed(()).with("status", observed.status);
                        let probe = probe.with("requestId", answer.request_id.clone());
                        let probe = probe.with("region", answer.region.clone());
                        Probe {
                            value: Some((leg, answer)),
                            evidence: probe.evidence,
                            findings: Vec::new(),
                            skipped: None,
                        }
                    }
                    Err(refusal) => {
                        let probe = self
                            .refused(Check::Upgrade, &refusal)
                            .with("status", observed.status);
                        refused = Some(refusal);
                        probe
                    }
                }
            })
            .await;
        match opened {
            Some((leg, answer)) => {
                self.region(answer.region.as_deref());
                self.no_alternatives("the upgrade works as it is configured");
                self.converse(Session::new(leg.io, &leg.early)).await;
            }
            None => self.alternatives(refused).await,
        }
        dated
    }

    /// A second connection: the first one went to the probe without a credential.
    async fn open(
        &self,
        addresses: &[SocketAddr],
        observed: &mut Observed,
    ) -> Result<(Leg<Box<dyn Io>>, Answer), Refusal> {
        let failed =
            || Refusal::Failed(Phase::Tls, "the root certificates cannot be loaded".into());
        let dialer = self.dialer.as_ref().ok_or_else(failed)?;
        let target = self.request.target();
        let tcp = dialer.connect(addresses.to_vec()).await?;
        let io: Box<dyn Io> = match target.scheme() {
            Scheme::Plain => Box::new(tcp),
            Scheme::Tls => Box::new(dialer.handshake(target, tcp).await?),
        };
        dialer
            .exchange(io, &self.request, Presenting::Credential, observed)
            .await
    }

    fn region(&self, region: Option<&str>) {
        self.board.note(Check::Region, Some(self.provider), || {
            let Some(region) = region else {
                return Probe::skipped((), "the upstream named no region");
            };
            let probe = Probe::passed(()).with("region", region).with("listOf", regions::AS_OF);
            if regions::has_realtime(region) {
                return probe;
            }
            let message = format!(
                "{region} is not among the regions with Realtime models that Microsoft listed on {}",
                regions::AS_OF
            );
            probe.finding(
                Finding::new(Check::Region, Severity::Info, "region_unlisted", message)
                    .fix(format!("if a model is missing there, deploy in one of {}", regions::all())),
            )
        });
    }

    fn no_alternatives(&self, reason: &str) {
        self.board
            .note(Check::Alternatives, Some(self.provider), || {
                Probe::skipped((), reason)
            });
    }

    async fn alternatives(&self, refused: Option<Refusal>) {
        let status = match &refused {
            Some(Refusal::Answered(answer)) => Some(answer.status),
            _ => None,
        };
        let dialer = self.dialer.as_ref();
        // A limit, a firewall, a service that is down or a way that is blocked is the same under
        // every name.
        let may_help = |status: &u16| matches!(status, 300..=399 | 400 | 401 | 404);
        let (Some(dialer), Some(_)) = (dialer, status.filter(may_help)) else {
            if refused.is_some() {
                self.no_alternatives("another name or path would not help with this refusal");
            }
            return;
        };
        self.board
            .check(Check::Alternatives, Some(self.provider), async {
                let tried = alternatives::try_all(
                    self.upstream,
                    self.other_scope.as_ref(),
                    dialer,
                    self.board.deadline(),
                )
                .await;
                let mut probe = match tried.is_empty() {
                    true => Probe::skipped(
                        (),
                        "there is no other host name or path of the same resource",
                    ),
                    false => Probe::passed(()),
                };
                for attempt in tried.iter().filter(|attempt| attempt.works()) {
                    probe = probe.finding(
                        Finding::new(
                            Check::Alternatives,
                            Severity::Info,
                            "alternative_works",
                            format!("{} would work", attempt.what),
                        )
                        .path(self.key(attempt.key))
                        .fix(attempt.fix.clone()),
                    );
                }
                let tried = tried
                    .iter()
                    .map(|attempt| json!({"tried": attempt.what, "outcome": attempt.outcome}));
                probe.with("tried", tried.collect::<Vec<_>>())
            })
            .await;
    }

    fn clock(&self, dated: Option<Dated>) {
        let Some((date, local)) = dated else { return };
        self.board.note(Check::Clock, Some(self.provider), || {
            let Ok(theirs) = httpdate::parse_http_date(&date) else {
                return Probe::skipped((), "the upstream's Date is not one");
            };
            let (skew, ahead) = match local.duration_since(theirs) {
                Ok(skew) => (skew, true),
                Err(error) => (error.duration(), false),
            };
            let signed = if ahead { skew.as_secs_f64() } else { -skew.as_secs_f64() };
            let probe = Probe::passed(()).with("aheadSeconds", signed.round());
            if skew <= CLOCK_SKEW_MAX {
                return probe;
            }
            let way = if ahead { "ahead of" } else { "behind" };
            let message = format!("this machine's clock is {} seconds {way} the upstream's", skew.as_secs());
            probe.finding(
                Finding::new(Check::Clock, Severity::Warning, "clock_skew", message)
                    .fix("synchronise the clock (timedatectl, chrony): tokens and certificates are judged by it"),
            )
        });
    }

    /// A failed phase as a finding.
    fn refused<T>(&self, check: Check, refusal: &Refusal) -> Probe<T> {
        let target = self.request.target();
        let diagnosis = Diagnosis::of(refusal, self.upstream, Intent::Conversation, target);
        let mut finding = Finding::new(
            check,
            Severity::Error,
            diagnosis.code,
            diagnosis.summary.clone(),
        )
        .fix(diagnosis.next_step.clone())
        .path(self.path_of(diagnosis.code));
        finding
            .evidence
            .insert("blame".into(), diagnosis.blame.as_str().into());
        let permanence = format!("{:?}", diagnosis.permanence).to_lowercase();
        finding
            .evidence
            .insert("permanence".into(), permanence.into());
        if let Some(answer) = &diagnosis.answer {
            for (name, value) in [
                ("upstreamCode", &answer.code),
                ("upstreamMessage", &answer.message),
                ("requestId", &answer.request_id),
                ("region", &answer.region),
            ] {
                if let Some(value) = value {
                    finding.evidence.insert(name.into(), value.as_str().into());
                }
            }
        }
        if let Some(wait) = diagnosis.retry_after {
            finding
                .evidence
                .insert("retryAfterMs".into(), millis(wait).into());
        }
        Probe::failed(finding)
    }

    /// The configuration key that a refusal is about.
    fn path_of(&self, code: &str) -> String {
        let azure = matches!(**self.upstream, Upstream::Azure(_));
        let about = |part: &str| code.contains(part);
        match azure {
            _ if about("key_") => self.key("apiKey"),
            true if about("deployment") || about("model") => self.key("azureDeployment"),
            true if about("api_version") => self.key("azureApiVersion"),
            true => self.key("azureEndpoint"),
            false if about("deployment") || about("model") => self.key("model"),
            false => self.key("baseUrl"),
        }
    }
}

fn token_findings(claims: &TokenClaims, now: u64, azure: bool) -> Vec<Finding> {
    let finding = |severity, code: &str, message: String, hint: &str| {
        Finding::new(Check::Credential, severity, code, message).fix(hint)
    };
    let mut findings = Vec::new();
    match claims.expires {
        Some(expires) if expires <= now => findings.push(finding(
            Severity::Error,
            "token_expired",
            format!("the token expired {} seconds ago", now - expires),
            "fetch a new one; a token that was pasted into a file ends within the hour or the day",
        )),
        Some(expires) if expires - now < TOKEN_SECONDS_MIN => findings.push(finding(
            Severity::Warning,
            "token_expires",
            format!("the token expires in {} seconds", expires - now),
            "fetch a new one",
        )),
        _ => {}
    }
    if let Some(not_before) = claims.not_before.filter(|not_before| *not_before > now) {
        findings.push(finding(
            Severity::Error,
            "token_not_yet_valid",
            format!("the token becomes valid in {} seconds", not_before - now),
            "synchronise this machine's clock",
        ));
    }
    if azure && claims.audience.is_some() && !claims.is_for_azure_openai() {
        let audience = claims.audience.as_deref().unwrap_or_default();
        findings.push(finding(
            Severity::Warning,
            "token_audience",
            format!("the token is for {audience}, which Azure OpenAI does not know"),
            "ask for the scope https://cognitiveservices.azure.com/.default",
        ));
    }
    findings
}

fn with_certificate<T>(probe: Probe<T>, certificate: &Certificate) -> Probe<T> {
    let left = certificate.not_after - i64::try_from(unix_now()).unwrap_or(i64::MAX);
    probe
        .with("issuer", certificate.issuer.as_str())
        .with("names", certificate.names.clone())
        .with("expiresUnix", certificate.not_after)
        .with("expiresInDays", left / 86_400)
}

/// Whether an address belongs to a private network. Private endpoints have addresses of RFC 1918,
/// or RFC 4193 with IPv6.
fn kind_of(address: IpAddr) -> &'static str {
    let address = address.to_canonical();
    let private = match address {
        IpAddr::V4(v4) => {
            // 100.64.0.0/10 is shared address space (RFC 6598).
            let [first, second, ..] = v4.octets();
            v4.is_private() || v4.is_link_local() || (first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    match address {
        address if address.is_loopback() => "loopback",
        _ if private => "private",
        _ => "public",
    }
}

fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// At most 300 characters, none of which moves a cursor.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}
