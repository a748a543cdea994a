//! Forms in which people paste an endpoint.

use talkline_config::endpoint::{EndpointKind, EndpointRules, normalise};

fn shown(kind: EndpointKind, text: &str, allowed_hosts: &[&str], allow_insecure: bool) -> String {
    let allowed_hosts: Vec<String> = allowed_hosts
        .iter()
        .map(|host| (*host).to_owned())
        .collect();
    let rules = EndpointRules {
        allowed_hosts: &allowed_hosts,
        allow_insecure,
    };
    match normalise(kind, text, &rules) {
        Ok(endpoint) => {
            let mut out = format!("{}{}", endpoint.origin, endpoint.base_path);
            out.extend(
                endpoint
                    .deployment
                    .map(|name| format!(" deployment={name}")),
            );
            out.extend(
                endpoint
                    .api_version
                    .map(|version| format!(" api-version={version}")),
            );
            out
        }
        Err(error) => {
            assert!(!error.hint.is_empty(), "{text}");
            assert!(!format!("{error:?}").contains("CANARY"), "{error:?}");
            error.code.to_owned()
        }
    }
}

#[track_caller]
fn check(cases: &[(&str, &str)], kind: EndpointKind, allowed_hosts: &[&str]) {
    for (text, expected) in cases {
        assert_eq!(shown(kind, text, allowed_hosts, false), *expected, "{text}");
    }
}

#[test]
fn azure_endpoints_in_every_form() {
    let r = "https://r.openai.azure.com";
    let cases = [
        ("https://r.openai.azure.com", r),
        ("https://r.openai.azure.com/", r),
        ("https://r.openai.azure.com///", r),
        ("  https://r.openai.azure.com  ", r),
        ("https://r.openai.azure.com.", r),
        ("https://r.openai.azure.com:443", r),
        ("HTTPS://R.OpenAI.Azure.COM/", r),
        ("wss://r.openai.azure.com", r),
        ("WSS://r.openai.azure.com/openai/v1", r),
        ("https://r.openai.azure.com/openai", r),
        ("https://r.openai.azure.com/openai/", r),
        ("https://r.openai.azure.com/OpenAI/V1", r),
        ("https://r.openai.azure.com/openai/v1/", r),
        ("https://r.openai.azure.com//openai//v1", r),
        ("https://r.openai.azure.com/openai/v1/realtime", r),
        ("https://r.openai.azure.com/openai/realtime", r),
        ("https://r.openai.azure.com#fragment", r),
        (
            "wss://r.openai.azure.com/openai/v1/realtime?model=voice",
            "https://r.openai.azure.com deployment=voice",
        ),
        (
            "wss://r.openai.azure.com/openai/v1/realtime?intent=transcription",
            r,
        ),
        (
            "https://r.openai.azure.com/openai/realtime?api-version=2025-04-01-preview&deployment=voice",
            "https://r.openai.azure.com deployment=voice api-version=2025-04-01-preview",
        ),
        (
            "https://r.openai.azure.com/openai/deployments/voice",
            "https://r.openai.azure.com deployment=voice",
        ),
        (
            "https://r.openai.azure.com/openai/deployments/Voice/realtime?api-version=2024-10-01-preview",
            "https://r.openai.azure.com deployment=Voice api-version=2024-10-01-preview",
        ),
        (
            "https://r.openai.azure.com:8443/openai",
            "https://r.openai.azure.com:8443",
        ),
        (
            "https://r.cognitiveservices.azure.com/",
            "https://r.cognitiveservices.azure.com",
        ),
        (
            "https://r.services.ai.azure.com/openai/v1",
            "https://r.services.ai.azure.com",
        ),
        (
            "https://r.services.ai.azure.com/api/projects/p",
            "https://r.services.ai.azure.com",
        ),
        (
            "https://r.services.ai.azure.com/api/projects/p/openai/v1/",
            "https://r.services.ai.azure.com",
        ),
        (
            "https://r.services.ai.azure.com/api/projects",
            "https://r.services.ai.azure.com",
        ),
        (
            "https://eastus2.api.cognitive.microsoft.com/",
            "https://eastus2.api.cognitive.microsoft.com",
        ),
        ("https://r.openai.azure.us", "https://r.openai.azure.us"),
        (
            "https://r.cognitiveservices.azure.us",
            "https://r.cognitiveservices.azure.us",
        ),
        (
            "https://r.services.ai.azure.us",
            "https://r.services.ai.azure.us",
        ),
        ("https://r.openai.azure.cn", "https://r.openai.azure.cn"),
        (
            "https://r.cognitiveservices.azure.cn",
            "https://r.cognitiveservices.azure.cn",
        ),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("ws://localhost:9000/openai/v1", "http://localhost:9000"),
        (
            "http://localhost:80/gateway/openai",
            "http://localhost/gateway",
        ),
        ("https://[::1]:9000", "https://[::1]:9000"),
    ];
    check(&cases, EndpointKind::Azure, &[]);
}

#[test]
fn azure_endpoints_that_are_refused() {
    let cases = [
        ("", "endpoint.empty"),
        ("   ", "endpoint.empty"),
        (
            "https://<resource>.openai.azure.com",
            "endpoint.placeholder",
        ),
        (
            "https://{resource}.openai.azure.com",
            "endpoint.placeholder",
        ),
        ("r.openai.azure.com", "endpoint.no-scheme"),
        ("//r.openai.azure.com", "endpoint.not-a-url"),
        ("r", "endpoint.not-a-url"),
        ("CANARY0123456789abcdef0123456789", "endpoint.not-a-url"),
        (
            "CANARY-key.with-dots.0123456789abcdefghijklmnop",
            "endpoint.not-a-url",
        ),
        ("https:/r.openai.azure.com", "endpoint.not-a-url"),
        ("ftp://r.openai.azure.com", "endpoint.scheme"),
        ("file:///etc/passwd", "endpoint.scheme"),
        ("unix://sock", "endpoint.scheme"),
        ("gopher://r.openai.azure.com", "endpoint.scheme"),
        ("http://r.openai.azure.com", "endpoint.insecure"),
        ("ws://r.openai.azure.com", "endpoint.insecure"),
        (
            "https://user:CANARY@r.openai.azure.com",
            "endpoint.userinfo",
        ),
        (
            "https://CANARY@r.openai.azure.com/openai",
            "endpoint.userinfo",
        ),
        (
            "https://r.openai.azure.com@evil.example",
            "endpoint.userinfo",
        ),
        (
            "https://r.openai.azure.com\\@evil.example",
            "endpoint.characters",
        ),
        ("https://r.openai.azure.com/ x", "endpoint.characters"),
        ("https://r.openai.azure.com\nHost: x", "endpoint.characters"),
        ("\u{feff}https://r.openai.azure.com", "endpoint.characters"),
        ("https://", "endpoint.host"),
        ("https:///openai", "endpoint.host"),
        ("https://r..openai.azure.com", "endpoint.host"),
        ("https://-r.openai.azure.com", "endpoint.host"),
        ("https://r_x.openai.azure.com", "endpoint.host"),
        ("https://r%2eopenai.azure.com", "endpoint.host"),
        ("https://[::1", "endpoint.host"),
        ("https://r.openai.azure.com:0", "endpoint.port"),
        ("https://r.openai.azure.com:65536", "endpoint.port"),
        ("https://r.openai.azure.com:+1", "endpoint.port"),
        ("https://r.openai.azure.com:", "endpoint.port"),
        ("https://r.openai.azure.com.evil.com", "endpoint.look-alike"),
        ("https://evilopenai.azure.com", "endpoint.look-alike"),
        ("https://a.b.openai.azure.com", "endpoint.look-alike"),
        (
            "https://r.openai.azure.com.openai.azure.com",
            "endpoint.look-alike",
        ),
        ("https://xn--r-fga.openai.azure.com", "endpoint.look-alike"),
        (
            "https://r.privatelink.openai.azure.com",
            "endpoint.privatelink",
        ),
        ("https://openai.azure.com", "endpoint.no-resource"),
        ("https://r.\u{43e}penai.azure.com", "endpoint.homograph"),
        ("https://r.openai.azure\u{3002}com", "endpoint.homograph"),
        ("https://api.openai.com", "endpoint.openai-host"),
        (
            "https://api.openai.com/v1/realtime?model=gpt-realtime",
            "endpoint.openai-host",
        ),
        ("wss://eu.api.openai.com", "endpoint.openai-host"),
        ("https://ai.azure.com/resource/overview", "endpoint.portal"),
        ("https://portal.azure.com/#home", "endpoint.portal"),
        ("https://evil.example", "endpoint.not-azure"),
        (
            "https://gw.azure-api.net/voice/openai",
            "endpoint.not-azure",
        ),
        ("https://r.azure.com", "endpoint.not-azure"),
        ("https://10.0.0.1", "endpoint.not-azure"),
        ("https://20.1.2.3", "endpoint.not-azure"),
        ("https://169.254.169.254", "endpoint.address-forbidden"),
        (
            "https://[::ffff:169.254.169.254]",
            "endpoint.address-forbidden",
        ),
        ("https://[fe80::1]", "endpoint.address-forbidden"),
        ("http://0.0.0.0", "endpoint.address-forbidden"),
        ("https://0x7f.1", "endpoint.address-form"),
        ("https://0xa9fea9fe", "endpoint.address-form"),
        ("https://2130706433", "endpoint.address-form"),
        ("https://127.1", "endpoint.address-form"),
        ("https://0177.0.0.1", "endpoint.address-form"),
        (
            "https://r.cognitiveservices.azure.com/openai/realtimeapi/sessions?api-version=2025-04-01-preview",
            "endpoint.webrtc-mint",
        ),
        (
            "https://r.openai.azure.com/openai/v1/realtime/client_secrets",
            "endpoint.webrtc-mint",
        ),
        (
            "https://r.openai.azure.com/openai/v1/realtime/calls?webrtcfilter=on",
            "endpoint.query",
        ),
        (
            "https://r.openai.azure.com/openai/v1/realtime/calls",
            "endpoint.webrtc-mint",
        ),
        (
            "https://eastus2.realtimeapi-preview.ai.azure.com/v1/realtimertc",
            "endpoint.webrtc-mint",
        ),
        (
            "https://r.openai.azure.com/openai/v1/live",
            "endpoint.other-api",
        ),
        (
            "https://r.services.ai.azure.com/voice-live/realtime?api-version=2026-04-10",
            "endpoint.other-api",
        ),
        (
            "https://r.openai.azure.com/openai/v1/chat/completions",
            "endpoint.path",
        ),
        ("https://r.openai.azure.com/v1/realtime", "endpoint.path"),
        ("https://r.openai.azure.com/../x", "endpoint.path"),
        ("https://r.openai.azure.com/openai%2fv1", "endpoint.path"),
        (
            "https://r.openai.azure.com/?api-key=CANARY",
            "endpoint.key-in-url",
        ),
        (
            "wss://r.openai.azure.com/openai/v1/realtime?model=v&API-KEY=CANARY",
            "endpoint.key-in-url",
        ),
        (
            "https://r.openai.azure.com?subscription-key=CANARY",
            "endpoint.key-in-url",
        ),
        ("https://r.openai.azure.com?x=CANARY", "endpoint.query"),
    ];
    check(&cases, EndpointKind::Azure, &[]);
}

#[test]
fn hosts_that_the_operator_allowed() {
    let cases = [
        ("https://gw.azure-api.net", "https://gw.azure-api.net"),
        ("https://gw.azure-api.net/", "https://gw.azure-api.net"),
        (
            "https://GW.azure-api.net/voice/",
            "https://gw.azure-api.net/voice",
        ),
        (
            "https://gw.azure-api.net/my-aoai/openai/v1",
            "https://gw.azure-api.net/my-aoai",
        ),
        (
            "wss://gw.azure-api.net/a/b/openai/realtime?deployment=d",
            "https://gw.azure-api.net/a/b deployment=d",
        ),
        ("https://gw.azure-api.net/%2e%2e", "endpoint.path"),
        ("http://gw.azure-api.net", "endpoint.insecure"),
        ("https://10.1.2.3:8443/openai", "https://10.1.2.3:8443"),
        ("https://[fd00::1]", "https://[fd00::1]"),
        ("https://other.azure-api.net", "endpoint.not-azure"),
        ("https://169.254.169.254", "endpoint.address-forbidden"),
        ("https://api.openai.com", "endpoint.openai-host"),
    ];
    let allowed = [
        "gw.azure-api.net",
        "10.1.2.3",
        "fd00::1",
        "169.254.169.254",
        "api.openai.com",
    ];
    check(&cases, EndpointKind::Azure, &allowed);
}

#[test]
fn openai_base_urls() {
    let cases = [
        ("https://api.openai.com", "https://api.openai.com"),
        ("https://api.openai.com/v1", "https://api.openai.com"),
        ("https://api.openai.com/v1/", "https://api.openai.com"),
        (
            "wss://api.openai.com/v1/realtime?model=gpt-realtime",
            "https://api.openai.com deployment=gpt-realtime",
        ),
        ("https://eu.api.openai.com/v1", "https://eu.api.openai.com"),
        ("https://us.api.openai.com/v1", "https://us.api.openai.com"),
        ("https://openai.com", "endpoint.not-openai"),
        ("https://evil.openai.com", "endpoint.not-openai"),
        ("https://api.openai.com.evil.example", "endpoint.not-openai"),
        ("https://proxy.example/v1", "endpoint.not-openai"),
        ("https://r.openai.azure.com", "endpoint.azure-host"),
        ("http://api.openai.com", "endpoint.insecure"),
        ("https://api.openai.com/v2", "endpoint.path"),
    ];
    check(
        &cases,
        EndpointKind::OpenAi,
        &["evil.openai.com", "proxy.example"],
    );
}

#[test]
fn custom_base_urls() {
    let cases = [
        ("https://h.example", "https://h.example"),
        ("https://h.example/v1/", "https://h.example/v1"),
        ("https://h.example/v1/realtime", "https://h.example/v1"),
        (
            "https://h.example/v1/realtime?model=m",
            "https://h.example/v1 deployment=m",
        ),
        (
            "wss://h.example:9443/api/v1",
            "https://h.example:9443/api/v1",
        ),
        ("ws://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        (
            "https://xn--bcher-kva.example",
            "https://xn--bcher-kva.example",
        ),
        ("https://8.8.8.8/v1", "https://8.8.8.8/v1"),
        ("https://192.168.1.10/v1", "https://192.168.1.10/v1"),
        ("ws://h.example/v1", "endpoint.insecure"),
        ("https://192.168.1.11/v1", "endpoint.address-private"),
        ("https://100.64.0.1", "endpoint.address-private"),
        ("https://[fd00::1]", "endpoint.address-private"),
        ("https://r.openai.azure.com", "endpoint.azure-host"),
        (
            "https://R.SERVICES.AI.AZURE.COM./openai/v1",
            "endpoint.azure-host",
        ),
        ("https://a.b.openai.azure.com", "endpoint.look-alike"),
        ("https://api.openai.com/v1", "endpoint.openai-host"),
        ("https://API.openai.com.", "endpoint.openai-host"),
        ("https://h.example/v1?api-version=1", "endpoint.query"),
        ("https://h.example/v1?key=CANARY", "endpoint.key-in-url"),
        (
            "https://169.254.169.254/latest",
            "endpoint.address-forbidden",
        ),
    ];
    check(&cases, EndpointKind::Custom, &["192.168.1.10"]);
    assert_eq!(
        shown(EndpointKind::Custom, "ws://h.example/v1", &[], true),
        "http://h.example/v1"
    );
    assert_eq!(
        shown(EndpointKind::Azure, "ws://r.openai.azure.com", &[], true),
        "endpoint.insecure"
    );
    assert_eq!(
        shown(EndpointKind::OpenAi, "ws://api.openai.com", &[], true),
        "endpoint.insecure"
    );
}
