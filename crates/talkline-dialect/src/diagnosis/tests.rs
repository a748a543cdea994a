use talkline_auth::{Credential, Origin, OriginRules, Secret, TokenError};

use super::*;
use crate::{Ask, AzureUpstream, Correlation, CustomUpstream, OpenAiUpstream};

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
    check(429, "", "azure_rate_limited 1013");
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
            .contains("wss://r.cognitiveservices.azure.com/v1/realtime."),
        "{}",
        diagnosis.summary
    );
    let event = diagnosis.error_event();
    assert!(
        !event.contains("api-key=") && !event.contains(KEY),
        "{event}"
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
fn other_upstreams_get_codes_that_do_not_say_azure() {
    let origin = Origin::parse("wss://voice.example", &OriginRules::default()).unwrap();
    let upstream = Upstream::Custom(CustomUpstream {
        credential: Credential::none(origin),
        base_path: String::new(),
        model: None,
    });
    for status in [200, 302, 400, 401, 403, 404, 429, 500] {
        let diagnosis = diagnose(&upstream, &answer(status, &[], ""));
        assert!(
            diagnosis.code.starts_with("upstream_"),
            "{status} {}",
            diagnosis.code
        );
    }
}

#[test]
fn a_missing_token_is_told_without_the_services_words() {
    let check = |permanent, expected: &str| {
        let diagnosis = Diagnosis::identity_unavailable(&TokenError {
            source_name: "managed-identity",
            detail: "tenant 7f3a is unknown".into(),
            permanent,
            ..TokenError::new("managed-identity", "identity_unavailable", "no answer")
        });
        let got = format!(
            "{} {} {}",
            diagnosis.code,
            diagnosis.blame.as_str(),
            diagnosis.permanence.close_code()
        );
        assert_eq!(got, expected);
        let told = diagnosis.error_event();
        assert!(told.contains("managed-identity"), "{told}");
        assert!(!told.contains("7f3a"), "{told}");
    };
    check(false, "azure_identity_unavailable network 1011");
    check(true, "azure_identity_unavailable operator 1008");
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
