mod credentials;
mod incidents;
mod reference;

use serde_json::Value;
use talkline_auth::{Credential, Origin, OriginRules, Secret};

use super::*;
use crate::{Ask, AzureApi, AzureUpstream, Correlation, CustomUpstream, OpenAiUpstream};

const KEY: &str = "CANARY-AZURE-KEY-0001";

fn azure(api: AzureApi) -> Upstream {
    let origin = Origin::parse("https://r.openai.azure.com", &OriginRules::default()).unwrap();
    Upstream::Azure(AzureUpstream {
        credential: Credential::api_key(origin, Secret::new(KEY)),
        base_path: String::new(),
        api,
        deployment: "voice".into(),
    })
}

fn openai() -> Upstream {
    Upstream::OpenAi(OpenAiUpstream {
        credential: Credential::platform_key(Secret::new("sk-CANARY-openai-0001")),
        model: Some("gpt-realtime".into()),
    })
}

fn custom() -> Upstream {
    let origin = Origin::parse("wss://voice.example", &OriginRules::default()).unwrap();
    Upstream::Custom(CustomUpstream {
        credential: Credential::none(origin),
        base_path: String::new(),
        model: None,
    })
}

fn diagnose(upstream: &Upstream, refusal: &Refusal) -> Diagnosis {
    let ask = Ask::parse("/v1/realtime", None, std::iter::empty()).unwrap();
    let request = upstream.request(&ask, &Correlation::default()).unwrap();
    Diagnosis::of(refusal, upstream, Intent::Conversation, request.target())
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Refusal {
    let headers = headers
        .iter()
        .map(|(name, value)| (*name, value.as_bytes()));
    Refusal::Answered(UpstreamAnswer::new(
        status,
        headers,
        body.as_bytes().to_vec(),
    ))
}

fn check(status: u16, body: &str, expected: &str) {
    let diagnosis = diagnose(&azure(AzureApi::Ga), &answer(status, &[], body));
    let got = format!("{} {}", diagnosis.code, diagnosis.permanence.close_code());
    assert_eq!(got, expected, "HTTP {status} {body}");
    assert!(!diagnosis.summary.is_empty() && !diagnosis.next_step.is_empty());
}

#[test]
fn azure_refusals_have_codes() {
    check(
        401,
        r#"{"error":{"code":"401","message":"Access denied due to invalid subscription key or wrong API endpoint."}}"#,
        "azure_key_invalid 1008",
    );
    check(
        401,
        r#"{"statusCode":401,"message":"Access denied due to invalid subscription key. Make sure"}"#,
        "azure_key_invalid 1008",
    );
    check(401, "", "azure_unauthorized 1008");
    check(
        401,
        r#"{"statusCode":401,"message":"Unauthorized. Access token is missing, invalid, audience is incorrect, or have expired."}"#,
        "azure_token_audience 1008",
    );
    check(
        401,
        r#"{"error":{"code":"PermissionDenied","message":"Principal does not have access to API/Operation."}}"#,
        "azure_rbac_missing 1008",
    );
    check(
        401,
        r#"{"error":{"code":"PermissionDenied","message":"The principal `0` lacks the required data action `x`"}}"#,
        "azure_rbac_missing 1008",
    );
    check(
        400,
        r#"{"error":{"code":"x","message":"Token tenant does not match resource tenant"}}"#,
        "azure_tenant_mismatch 1008",
    );
    check(
        403,
        r#"{"error":{"code":"AuthenticationTypeDisabled","message":"Key based authentication is disabled for this resource."}}"#,
        "azure_key_auth_disabled 1008",
    );
    check(
        403,
        r#"{"error":{"code":"403","message":"Access denied due to Virtual Network/Firewall rules."}}"#,
        "azure_firewall 1008",
    );
    check(
        401,
        r#"{"error":{"code":"AccessDenied","message":"Access denied due to Virtual Network/Firewall rules."}}"#,
        "azure_firewall 1008",
    );
    check(
        403,
        r#"{"error":{"code":"403","message":"Public access is disabled. Please configure private endpoint."}}"#,
        "azure_private_only 1008",
    );
    check(
        403,
        r#"{"error":{"code":"403","message":"The resource has been temporarily blocked because"}}"#,
        "azure_resource_suspended 1008",
    );
    check(
        404,
        r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#,
        "azure_deployment_not_found 1008",
    );
    check(
        404,
        r#"{"error":{"code":"404","message":"Resource not found"}}"#,
        "azure_path_not_found 1008",
    );
    check(404, "", "azure_path_not_found 1008");
    check(
        400,
        r#"{"error":{"code":"OpperationNotSupported","message":"The realtime operation does not work with the specified model."}}"#,
        "azure_model_not_realtime 1008",
    );
    check(
        400,
        r#"{"error":{"code":"OperationNotSupported"}}"#,
        "azure_model_not_realtime 1008",
    );
    check(
        400,
        r#"{"error":{"code":"BadRequest","message":"API version not supported"}}"#,
        "azure_api_version 1008",
    );
    check(400, "<html>", "azure_bad_request 1008");
    check(
        401,
        r#"{"statusCode":401,"message":"Access denied due to missing subscription key. Make sure to include"}"#,
        "azure_gateway_key_missing 1008",
    );
    check(429, "", "azure_rate_limited 1013");
    check(404, "<html>", "azure_path_not_found 1008");
    check(
        403,
        "<!DOCTYPE html><title>Blocked",
        "azure_answered_by_proxy 1008",
    );
    check(407, "", "azure_answered_by_proxy 1008");
    check(426, "", "azure_not_a_websocket 1008");
    check(408, "", "azure_unavailable 1011");
    check(418, "", "azure_bad_request 1008");
    check(302, "", "azure_upgrade_redirect 1008");
    check(200, "<html>", "azure_not_a_websocket 1008");
    check(500, "", "azure_unavailable 1011");
    check(503, "no healthy upstream", "azure_unavailable 1011");
}

#[test]
fn the_redirect_is_named_without_its_query() {
    let location = format!("wss://u:p@r.cognitiveservices.azure.com/v1/realtime?api-key={KEY}");
    let refusal = answer(302, &[("Location", &location)], "");
    let diagnosis = diagnose(
        &azure(AzureApi::Preview {
            api_version: "2025-04-01-preview".into(),
        }),
        &refusal,
    );
    assert!(
        diagnosis
            .summary
            .contains(" r.cognitiveservices.azure.com/v1/realtime,"),
        "{}",
        diagnosis.summary
    );
    let event = diagnosis.error_event();
    assert!(
        !event.contains("api-key=") && !event.contains(KEY) && !event.contains("u:p"),
        "{event}"
    );
    assert!(
        diagnosis.next_step.contains("GA path"),
        "{}",
        diagnosis.next_step
    );
}

#[test]
fn what_azure_said_reaches_the_client_but_not_the_key() {
    let body = format!(
        r#"{{"error":{{"code":"401","message":"invalid subscription key {KEY}\nsecond line"}}}}"#
    );
    let refusal = answer(
        401,
        &[
            ("apim-request-id", "req-7"),
            ("x-ms-region", "Sweden Central"),
        ],
        &body,
    );
    let diagnosis = diagnose(&azure(AzureApi::Ga), &refusal);
    let event: Value = serde_json::from_str(&diagnosis.error_event()).unwrap();
    assert_eq!(event["type"], "error");
    assert_eq!(event["error"]["code"], "azure_key_invalid");
    assert_eq!(event["error"]["upstream"]["region"], "Sweden Central");
    let message = event["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("invalid subscription key [redacted] second line (request id req-7)"),
        "{message}"
    );
    assert!(message.contains("Next step: "), "{message}");
}

#[test]
fn hostile_bodies_are_survived() {
    let deep = "[".repeat(100_000);
    let long = format!(r#"{{"error":{{"message":"{}"}}}}"#, "x".repeat(60_000));
    for body in [
        deep.as_bytes(),
        long.as_bytes(),
        b"\xff\xfe\x00",
        br#"{"error":null}"#,
        br#"{"error":{"code":{}}}"#,
    ] {
        let refusal =
            Refusal::Answered(UpstreamAnswer::new(500, std::iter::empty(), body.to_vec()));
        let event = diagnose(&azure(AzureApi::Ga), &refusal).error_event();
        assert!(event.len() < 2048, "{}", event.len());
    }
}

#[test]
fn retry_after_is_read_in_both_units() {
    let wait = |headers: &[(&str, &str)]| {
        diagnose(&azure(AzureApi::Ga), &answer(429, headers, ""))
            .retry_after
            .map(|d| d.as_millis())
    };
    assert_eq!(wait(&[("retry-after", "38")]), Some(38_000));
    assert_eq!(
        wait(&[("retry-after", "38"), ("retry-after-ms", "1500")]),
        Some(1500)
    );
    assert_eq!(wait(&[("retry-after", "-1")]), None);
    assert_eq!(wait(&[("retry-after", "1000000000000")]), Some(86_400_000));
    assert_eq!(
        wait(&[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")]),
        None
    );
}

#[test]
fn every_way_of_not_reaching_the_upstream_is_named() {
    let code = |refusal: Refusal| diagnose(&azure(AzureApi::Ga), &refusal).code;
    let phases = [Phase::Dns, Phase::Tcp, Phase::Tls, Phase::Upgrade];
    assert_eq!(
        phases.map(|phase| code(Refusal::Failed(phase, "x".into()))),
        [
            "azure_dns",
            "azure_tcp",
            "azure_tls",
            "azure_connection_lost"
        ]
    );
    assert_eq!(
        phases.map(|phase| code(Refusal::TimedOut(phase))),
        [
            "azure_dns_timeout",
            "azure_tcp_timeout",
            "azure_tls_timeout",
            "azure_upgrade_timeout"
        ]
    );
    assert_eq!(
        code(Refusal::BadHandshake(HandshakeFault::WrongAccept)),
        "azure_bad_handshake"
    );
}

#[test]
fn cut_off_and_odd_bodies_are_read_as_far_as_they_go() {
    let wide: Vec<u8> = "\u{feff}{\"message\":\"Public access is disabled\"}"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let deep = format!(
        r#"{{"error":{{"code":"DeploymentNotFound","innererror":{}"#,
        "[".repeat(60_000)
    );
    for (status, body, expected) in [
        (404, deep.as_bytes(), "azure_deployment_not_found"),
        (
            404,
            br#"{"error":{"code":"DeploymentNotFou"#,
            "azure_path_not_found",
        ),
        (
            404,
            br#"{"error":{"code":"DeploymentNotFound","mess"#,
            "azure_deployment_not_found",
        ),
        (
            404,
            br#"{"error": {"message" : "The API deployment for this resource does not exist. If"#,
            "azure_deployment_not_found",
        ),
        (
            403,
            br#"{"error":{"code":403,"message":"Public access is disabled"}}"#,
            "azure_private_only",
        ),
        (
            403,
            b"\xef\xbb\xbf{\"message\":\"Public access is disabled\"}",
            "azure_private_only",
        ),
        (
            403,
            br#"{"error":"Public access is disabled."}"#,
            "azure_private_only",
        ),
        (
            403,
            br#""Public access is disabled.""#,
            "azure_private_only",
        ),
        (
            403,
            b"Public access is disabled. \xff\xfe",
            "azure_private_only",
        ),
        (
            400,
            br#"{"error":{"code":"Opperati\u006fnNotSupported"}}"#,
            "azure_model_not_realtime",
        ),
        (
            400,
            br#"{"error":{"code":"Opperati\u006fnNotSupported","#,
            "azure_model_not_realtime",
        ),
        (
            400,
            br#"{"error":{"code":null,"message":null}}"#,
            "azure_bad_request",
        ),
        (401, br#"{"error":[]}"#, "azure_unauthorized"),
        (403, &wide, "azure_private_only"),
        (
            403,
            br#"{"error":"AuthenticationTypeDisabled","message":"no"}"#,
            "azure_key_auth_disabled",
        ),
        (401, b"\0\0\0", "azure_unauthorized"),
    ] {
        let refusal = Refusal::Answered(UpstreamAnswer::new(
            status,
            std::iter::empty(),
            body.to_vec(),
        ));
        let diagnosis = diagnose(&azure(AzureApi::Ga), &refusal);
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]);
        assert_eq!(diagnosis.code, expected, "{shown}");
    }
}

#[test]
fn tcp_and_tls_faults_have_their_own_codes() {
    let codes = |upstream: &Upstream, faults: &[Refusal]| -> Vec<&str> {
        faults
            .iter()
            .map(|fault| diagnose(upstream, fault).code)
            .collect()
    };
    let faults = [
        Refusal::Tcp(TcpFault::Refused, "x".into()),
        Refusal::Tcp(TcpFault::Unreachable, "x".into()),
        Refusal::Tls(TlsFault::Expired, "x".into()),
        Refusal::Tls(TlsFault::NotYetValid, "x".into()),
        Refusal::Tls(TlsFault::WrongName, "x".into()),
        Refusal::Tls(TlsFault::UnknownCa, "x".into()),
        Refusal::Tls(TlsFault::Certificate, "x".into()),
        Refusal::Tls(TlsFault::NotTls, "x".into()),
        Refusal::Tls(TlsFault::Other, "x".into()),
    ];
    assert_eq!(
        codes(&azure(AzureApi::Ga), &faults),
        [
            "azure_tcp_refused",
            "azure_tcp_unreachable",
            "azure_tls_expired",
            "azure_tls_not_yet_valid",
            "azure_tls_wrong_name",
            "azure_tls_unknown_ca",
            "azure_tls_certificate",
            "azure_tls_not_tls",
            "azure_tls",
        ]
    );
    let summary = diagnose(&azure(AzureApi::Ga), &faults[4]).summary;
    assert!(
        summary.contains("r.openai.azure.com") && summary.ends_with("(x)"),
        "{summary}"
    );
    assert_eq!(codes(&openai(), &faults[..1]), ["upstream_tcp_refused"]);
}

#[test]
fn a_handshake_that_lies_is_described() {
    for (fault, expected) in [
        (HandshakeFault::WrongAccept, "Sec-WebSocket-Accept"),
        (HandshakeFault::NotAnUpgrade, "Upgrade or Connection"),
        (HandshakeFault::UnrequestedExtension, "extension"),
        (HandshakeFault::UnrequestedSubprotocol, "subprotocol"),
    ] {
        let diagnosis = diagnose(&azure(AzureApi::Ga), &Refusal::BadHandshake(fault));
        assert_eq!(diagnosis.code, "azure_bad_handshake");
        assert!(
            diagnosis.summary.contains(expected),
            "{}",
            diagnosis.summary
        );
    }
}

#[test]
fn commands_are_filled_in() {
    let refusal = answer(404, &[], r#"{"error":{"code":"DeploymentNotFound"}}"#);
    let diagnosis = diagnose(&azure(AzureApi::Ga), &refusal);
    assert_eq!(
        diagnosis.summary,
        "The Azure resource has no deployment named `voice`."
    );
    assert!(
        diagnosis.next_step.contains(
            "az cognitiveservices account deployment list --name r --resource-group <group>"
        ),
        "{}",
        diagnosis.next_step
    );
    let refusal = answer(429, &[("x-ms-region", "Sweden Central")], "");
    assert_eq!(
        diagnose(&azure(AzureApi::Ga), &refusal).retry_after_seconds(),
        Some(1)
    );
    // A region that could be more than a word stays out of the text of a command.
    let refusal = answer(
        400,
        &[("x-ms-region", "x; rm -rf /")],
        r#"{"error":{"code":"OperationNotSupported"}}"#,
    );
    assert!(
        diagnose(&azure(AzureApi::Ga), &refusal)
            .next_step
            .contains("x; rm -rf / answered")
    );
}

#[test]
fn a_transcription_that_is_not_offered() {
    let upstream = azure(AzureApi::Ga);
    let ask = Ask::parse(
        "/v1/realtime",
        Some("intent=transcription"),
        std::iter::empty(),
    )
    .unwrap();
    let request = upstream.request(&ask, &Correlation::default()).unwrap();
    let refusal = answer(400, &[], r#"{"error":{"code":"OpperationNotSupported"}}"#);
    let diagnosis = Diagnosis::of(&refusal, &upstream, ask.intent, request.target());
    assert_eq!(diagnosis.code, "azure_transcription_not_supported");
}

#[test]
fn an_api_version_on_the_ga_path() {
    let upstream = azure(AzureApi::Ga);
    // The GA path is built without one; whatever brings it in, the answer is understood.
    let origin = Origin::<talkline_auth::Azure>::parse(
        "https://r.openai.azure.com",
        &OriginRules::default(),
    )
    .unwrap();
    let credential = Credential::api_key(origin, Secret::new(KEY));
    let target = credential
        .seal("/openai/v1/realtime?api-version=2025-04-01-preview&model=voice")
        .unwrap();
    let refusal = answer(401, &[], "");
    let diagnosis = Diagnosis::of(&refusal, &upstream, Intent::Conversation, &target);
    assert_eq!(diagnosis.code, "azure_api_version_on_ga");
    assert_eq!(diagnose(&upstream, &refusal).code, "azure_unauthorized");
}

#[test]
fn refusals_over_http_have_three_statuses() {
    let check = |refusal: Refusal, status: u64, wait: Option<u64>| {
        let diagnosis = diagnose(&azure(AzureApi::Ga), &refusal);
        let problem: Value = serde_json::from_str(&diagnosis.problem()).unwrap();
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["code"], diagnosis.code);
        assert_eq!(
            problem["type"],
            format!("docs/reference/errors.md#{}", diagnosis.code)
        );
        assert!(problem["title"].is_string() && problem["detail"].is_string());
        assert!(problem["next_step"].is_string(), "{problem}");
        assert_eq!(diagnosis.retry_after_seconds(), wait);
    };
    check(answer(401, &[], ""), 424, None);
    check(answer(401, &[("retry-after", "3")], ""), 424, None);
    check(answer(429, &[("retry-after", "38")], ""), 429, Some(38));
    check(answer(429, &[("retry-after-ms", "1500")], ""), 429, Some(2));
    check(answer(429, &[("retry-after-ms", "0")], ""), 429, Some(1));
    check(answer(503, &[], ""), 503, Some(1));
    check(Refusal::TimedOut(Phase::Tcp), 503, Some(1));
}

#[test]
fn other_upstreams_get_codes_and_words_that_do_not_say_azure() {
    for upstream in [openai(), custom()] {
        let mut refusals: Vec<_> = [
            101, 200, 302, 400, 401, 403, 404, 407, 408, 418, 426, 429, 500, 503,
        ]
        .map(|status| answer(status, &[], ""))
        .into();
        refusals.push(answer(403, &[], "<html>"));
        refusals.push(answer(
            404,
            &[],
            r#"{"error":{"code":"DeploymentNotFound"}}"#,
        ));
        refusals.extend([
            Refusal::BadHandshake(HandshakeFault::WrongAccept),
            Refusal::Tcp(TcpFault::Refused, String::new()),
            Refusal::Tcp(TcpFault::Unreachable, String::new()),
            Refusal::Tcp(TcpFault::Other, String::new()),
        ]);
        for phase in [Phase::Dns, Phase::Tcp, Phase::Tls, Phase::Upgrade] {
            refusals.extend([
                Refusal::TimedOut(phase),
                Refusal::Failed(phase, String::new()),
            ]);
        }
        for fault in [
            TlsFault::Expired,
            TlsFault::NotYetValid,
            TlsFault::WrongName,
            TlsFault::UnknownCa,
            TlsFault::Certificate,
            TlsFault::NotTls,
            TlsFault::Other,
        ] {
            refusals.push(Refusal::Tls(fault, String::new()));
        }
        for refusal in refusals {
            let diagnosis = diagnose(&upstream, &refusal);
            assert!(
                diagnosis.code.starts_with("upstream_"),
                "{refusal:?} {diagnosis:?}"
            );
            assert_ne!(diagnosis.blame, Blame::Azure);
            let words = format!("{} {}", diagnosis.summary, diagnosis.next_step).to_lowercase();
            assert!(
                !words.contains("azure") && !words.contains("az "),
                "{words}"
            );
            assert!(!words.contains(['{', '}']), "{words}");
        }
    }
}

#[test]
fn what_openai_says_is_understood() {
    let check = |status: u16, code: &str, expected: &str| {
        let body =
            format!(r#"{{"error":{{"message":"m","type":"t","param":null,"code":"{code}"}}}}"#);
        assert_eq!(
            diagnose(&openai(), &answer(status, &[], &body)).code,
            expected
        );
    };
    check(401, "invalid_api_key", "upstream_unauthorized");
    check(429, "insufficient_quota", "upstream_quota_exhausted");
    check(429, "rate_limit_exceeded", "upstream_rate_limited");
    check(404, "model_not_found", "upstream_model_not_found");
    check(403, "model_not_found", "upstream_model_not_found");
    check(
        403,
        "unsupported_country_region_territory",
        "upstream_forbidden_region",
    );
}

#[test]
fn another_credential_may_cure_some_refusals() {
    let check = |upstream: &Upstream, status, body: &str, expected| {
        let diagnosis = diagnose(upstream, &answer(status, &[], body));
        assert_eq!(diagnosis.doubts_credential(), expected, "{status} {body}");
    };
    let message = |text: &str| format!(r#"{{"error":{{"message":"{text}"}}}}"#);
    let azure = azure(AzureApi::Ga);
    check(&azure, 401, "", true);
    check(&azure, 401, &message("invalid subscription key"), true);
    check(
        &azure,
        401,
        &message("audience is incorrect, or have expired"),
        true,
    );
    check(
        &azure,
        401,
        &message("lacks the required data action"),
        false,
    );
    check(
        &azure,
        401,
        &message("Token tenant does not match resource tenant"),
        false,
    );
    check(&azure, 403, &message("invalid subscription key"), false);
    check(
        &azure,
        403,
        &message("Virtual Network/Firewall rules"),
        false,
    );
    check(&azure, 404, "", false);
    check(&azure, 429, "", false);
    let openai = Upstream::OpenAi(OpenAiUpstream {
        credential: Credential::platform_key(Secret::new("sk-1")),
        model: None,
    });
    check(&openai, 401, &message("Incorrect API key provided"), true);
    let refused = Refusal::TimedOut(Phase::Upgrade);
    assert!(!diagnose(&azure, &refused).doubts_credential());
}
