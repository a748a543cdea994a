use super::*;

const KEY: &str = "api-key: talkline-sim-key";

/// Puts a request with these extra header lines before the rules; the answer is `open <dialect> <model>` or
/// `<status> <name>`.
fn answer(rules: &Rules, target: &str, extra: &[&str]) -> String {
    let mut request = hyper::Request::builder()
        .uri(target)
        .header("host", "127.0.0.1:1")
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    for line in extra {
        let (name, value) = line.split_once(": ").unwrap();
        if let Some(headers) = request.headers_mut() {
            headers.remove(name);
        }
        request = request.header(name, value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    match decide(&parts, rules, Transport::Plain, 0) {
        Verdict::Open(opening) => {
            format!("open {:?} {}", opening.terms.dialect, opening.terms.model)
        }
        Verdict::Refuse(refusal) => {
            let location = refusal.headers.iter().find(|(name, _)| *name == "location");
            let location = location.map_or(String::new(), |(_, value)| format!(" {value}"));
            format!("{} {}{location}", refusal.status, refusal.name)
        }
    }
}

fn check(target: &str, extra: &[&str], expected: &str) {
    let rules = Rules::default();
    assert_eq!(
        answer(&rules, target, extra),
        expected,
        "{target} {extra:?}"
    );
}

#[test]
fn paths_and_queries() {
    check("/openai/v1/realtime?model=voice", &[KEY], "open Ga voice");
    check(
        "/openai/v1/realtime?model=my%20voice",
        &[KEY],
        "open Ga my voice",
    );
    check("/openai/v1/realtime?model=a+b%2B", &[KEY], "open Ga a b+");
    check(
        "/openai/v1/realtime?intent=transcription",
        &[KEY],
        "open Ga ",
    );
    check("/openai/v1/realtime", &[KEY], "400 missing_model");
    check("/openai/v1/realtime?model=", &[KEY], "400 missing_model");
    check(
        "/openai/v1/realtime?model=v&api-version=2025-08-28",
        &[KEY],
        "401 api_version_on_ga",
    );
    let preview = "/openai/realtime?deployment=voice";
    check(
        &format!("{preview}&api-version=2025-04-01-preview"),
        &[KEY],
        "open Preview voice",
    );
    check(
        &format!("{preview}&api-version=2019-01-01"),
        &[KEY],
        "400 api_version_bad",
    );
    check(preview, &[KEY], "404 resource_not_found");
    check(
        "/openai/realtime?api-version=2025-08-28",
        &[KEY],
        "404 deployment_not_found",
    );
    check("/", &[KEY], "404 resource_not_found");
    check(
        "/openai/v1/realtime/?model=voice",
        &[KEY],
        "404 resource_not_found",
    );
    check("/v1/realtime?model=voice", &[KEY], "404 resource_not_found");
    check("/realtime?model=voice", &[KEY], "404 resource_not_found");
}

#[test]
fn credentials() {
    let target = "/openai/v1/realtime?model=voice";
    check(target, &[], "401 no_auth");
    check(target, &["api-key: wrong"], "401 key_invalid");
    check(
        &format!("{target}&api-key=talkline-sim-key"),
        &[],
        "open Ga voice",
    );
    check(&format!("{target}&api-key=wrong"), &[], "401 key_invalid");
    check(
        target,
        &["authorization: Bearer talkline-sim-key"],
        "401 token_bad_audience_or_expired",
    );
    check(
        target,
        &[KEY, "authorization: Bearer x"],
        "401 two_credentials",
    );
    let browser = "sec-websocket-protocol: realtime, openai-insecure-api-key.talkline-sim-key";
    check(target, &[browser], "401 subprotocol_auth");
}

#[test]
fn upgrade_headers() {
    let target = "/openai/v1/realtime?model=voice";
    for line in [
        "upgrade: h2c",
        "connection: close",
        "sec-websocket-version: 8",
        "sec-websocket-key: c2hvcnQ=",
        "sec-websocket-key: no base64",
    ] {
        check(target, &[KEY, line], "400 not_an_upgrade");
    }
}

#[test]
fn deployments_named_like_a_scenario() {
    for refusal in Refusal::all().into_iter().filter(|each| !each.redirects) {
        let target = format!("/openai/v1/realtime?model={}", refusal.name);
        check(
            &target,
            &[KEY],
            &format!("{} {}", refusal.status, refusal.name),
        );
        check(&target, &[], "401 no_auth");
    }
    check(
        "/openai/v1/realtime?model=no_pong",
        &[KEY],
        "open Ga no_pong",
    );
    check(
        "/openai/realtime?api-version=2025-08-28&deployment=redirect_302",
        &[KEY],
        "302 redirect_302 ws://127.0.0.1:1/v1/realtime?api-version=2025-08-28&deployment=redirect_302\
         &api-key=talkline%2Dsim%2Dkey",
    );
}

#[test]
fn only_the_deployments_that_exist() {
    let rules = Rules {
        deployments: Some(vec!["voice".to_owned()]),
        ..Rules::default()
    };
    let check = |model: &str, expected: &str| {
        let target = format!("/openai/v1/realtime?model={model}");
        assert_eq!(answer(&rules, &target, &[KEY]), expected);
    };
    check("voice", "open Ga voice");
    check("Voice", "404 deployment_not_found");
    check("stops_reading", "open Ga stops_reading");
    check("firewall", "403 firewall");
}

#[test]
fn profiles() {
    let check = |profile, target: &str, extra: &[&str], expected: &str| {
        let rules = Rules {
            profile,
            ..Rules::default()
        };
        assert_eq!(
            answer(&rules, target, extra),
            expected,
            "{profile:?} {target}"
        );
    };
    let preview = "/openai/realtime?deployment=v&api-version=2025-08-28";
    check(Profile::Ga, preview, &[KEY], "404 resource_not_found");
    check(Profile::Preview, preview, &[KEY], "open Preview v");
    check(
        Profile::Preview,
        "/openai/v1/realtime?model=v",
        &[KEY],
        "404 resource_not_found",
    );
    let bearer = "authorization: Bearer talkline-sim-key";
    let openai = "/v1/realtime?model=v";
    check(Profile::OpenAi, openai, &[bearer], "open Ga v");
    check(
        Profile::OpenAi,
        openai,
        &[bearer, "openai-beta: realtime=v1"],
        "open Preview v",
    );
    check(Profile::OpenAi, openai, &[KEY], "401 missing_bearer");
    check(
        Profile::OpenAi,
        openai,
        &["authorization: Bearer wrong"],
        "401 incorrect_api_key",
    );
    let browser = "sec-websocket-protocol: realtime, openai-insecure-api-key.talkline-sim-key";
    check(Profile::OpenAi, openai, &[browser], "open Ga v");
    check(
        Profile::OpenAi,
        "/openai/v1/realtime?model=v",
        &[bearer],
        "404 invalid_url",
    );
}
