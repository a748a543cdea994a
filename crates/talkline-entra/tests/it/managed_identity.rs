//! Managed identity: App Service and Container Apps, the metadata service of virtual machines, and
//! hosts that are neither.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use talkline_auth::Secret;

use crate::{
    child::{self, Child, Outcome},
    fake::{Fake, Reply},
};

const HEADER: &str = "identity-header-value";
const TOKEN: &str = "the-token";

/// How long azure_identity 1.0 takes to give up when it is left to itself.
const SDK_RETRIES_AT_LEAST: Duration = Duration::from_secs(80);

fn app_service(fake: &Fake) -> Child<'static> {
    Child {
        variables: vec![
            (
                "IDENTITY_ENDPOINT",
                format!("http://{}/msi/token", fake.address),
            ),
            ("IDENTITY_HEADER", HEADER.into()),
        ],
        ..Child::default()
    }
}

fn imds(fake: &Fake) -> Child<'static> {
    Child {
        imds: Some(fake.address),
        ..Child::default()
    }
}

fn assert_token(outcome: &Outcome, seconds: u64) {
    let words: Vec<_> = outcome.verdict.split(' ').collect();
    let [what, fingerprint, left] = words[..] else {
        panic!("{}", outcome.verdict);
    };
    assert_eq!(
        (what, fingerprint),
        ("token", &*Secret::new(TOKEN).fingerprint())
    );
    let left: u64 = left.parse().unwrap();
    assert!(
        (seconds - 30..=seconds).contains(&left),
        "{}",
        outcome.verdict
    );
}

#[tokio::test]
async fn app_service_gives_a_token() {
    let fake = Fake::start(Reply::identity_token(TOKEN, 3600)).await;
    assert_token(&child::run(app_service(&fake)).await, 3600);
    let request = fake.only_request();
    let (line, headers) = request.split_once("\r\n").unwrap();
    assert_eq!(
        line,
        "GET /msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fcognitiveservices.azure.com HTTP/1.1"
    );
    let headers = headers.to_ascii_lowercase();
    assert!(headers.contains(&format!("host: {}\r\n", fake.address)));
    assert!(headers.contains("x-identity-header: identity-header-value\r\n"));
    assert!(headers.contains("connection: close\r\n"));
}

#[tokio::test]
async fn imds_gives_a_token() {
    let fake = Fake::start(Reply::identity_token(TOKEN, 86_400)).await;
    assert_token(&child::run(imds(&fake)).await, 86_400);
    let request = fake.only_request();
    assert!(request.starts_with("GET /metadata/identity/oauth2/token?api-version="));
    assert!(request.contains("host: 169.254.169.254\r\n"), "{request}");
    assert!(request.contains("metadata: true\r\n"));
}

#[tokio::test]
async fn a_user_assigned_identity_is_named() {
    async fn check(child: Child<'_>, fake: &Fake, query: &str) {
        let before = fake.requests().len();
        assert_token(&child::run(child).await, 3600);
        let requests = fake.requests();
        assert_eq!(requests.len(), before + 1);
        assert!(requests[before].contains(query), "{requests:?}");
    }
    let fake = Fake::start(Reply::identity_token(TOKEN, 3600)).await;
    let with = |child: Child<'static>, identity| Child { identity, ..child };
    check(with(imds(&fake), "client c-1"), &fake, "&client_id=c-1 ").await;
    check(with(imds(&fake), "object o-1"), &fake, "&object_id=o-1 ").await;
    let resource = "resource /subscriptions/s/i-1";
    let query = "&msi_res_id=%2Fsubscriptions%2Fs%2Fi-1 ";
    check(with(imds(&fake), resource), &fake, query).await;
    check(
        with(app_service(&fake), "client c-1"),
        &fake,
        "&client_id=c-1 ",
    )
    .await;
    check(
        with(app_service(&fake), "object o-1"),
        &fake,
        "&object_id=o-1 ",
    )
    .await;
}

/// One reply, and what becomes of it: at once, after one request, whichever endpoint it is.
async fn check(reply: Reply, permanence: &str, detail: &str) {
    let fake = Fake::start(reply).await;
    for child in [app_service(&fake), imds(&fake)] {
        let place = match child.imds {
            Some(_) => "169.254.169.254".to_owned(),
            None => fake.address.to_string(),
        };
        let before = fake.requests().len();
        let start = Instant::now();
        let outcome = child::run(child).await;
        let expected = format!("error {permanence} {}", detail.replace("PLACE", &place));
        assert!(
            outcome.verdict.starts_with(&expected),
            "{} is not {expected}",
            outcome.verdict
        );
        assert_eq!(fake.requests().len(), before + 1, "one request a fetch");
        assert!(start.elapsed() < SDK_RETRIES_AT_LEAST);
    }
}

#[tokio::test]
async fn identities_that_do_not_exist() {
    check(
        Reply::json(
            "400 Bad Request",
            r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
        ),
        "permanent",
        "identity_not_found 400: PLACE answered 400 Bad Request: Identity not found; hint: enable the system-assigned identity",
    )
    .await;
    let fake = Fake::start(Reply::json("400 Bad Request", "{}")).await;
    let outcome = child::run(Child {
        identity: "client c-1",
        ..imds(&fake)
    })
    .await;
    let expected = "hint: is the identity with client id c-1 assigned to this host? assign it (az ";
    assert!(outcome.verdict.contains(expected), "{outcome:?}");
}

#[tokio::test]
async fn error_statuses() {
    check(
        Reply::status(
            "403 Forbidden",
            "text/plain",
            "connecting to 169.254.169.254:80: network is unreachable",
        ),
        "permanent",
        "identity_not_azure 403: PLACE answered 403 Forbidden with text/plain, not JSON: connecting to 169.254.169.254:80: network is unreachable; hint: this is not an Azure host",
    )
    .await;
    check(
        Reply::json("404 Not Found", r#"{"error":"not_found"}"#),
        "transient",
        "identity_updating 404: PLACE answered 404 Not Found: not_found; hint: the identity service is being updated",
    )
    .await;
    check(
        Reply::json("410 Gone", "{}"),
        "transient",
        "identity_updating 410: PLACE answered 410 Gone; hint: the identity service is being updated",
    )
    .await;
    check(
        Reply::json("403 Forbidden", r#"{"error":"denied"}"#),
        "permanent",
        "identity_refused 403: PLACE answered 403 Forbidden: denied",
    )
    .await;
    check(
        Reply::status("403 Forbidden", "text/html", "<html>Blocked</html>"),
        "permanent",
        "identity_not_json 403: PLACE answered 403 Forbidden with text/html, not JSON: <html>Blocked</html>; hint: this does not",
    )
    .await;
    check(
        Reply::headers(
            "429 Too Many Requests",
            "Retry-After: 86400\r\nx-ms-request-id: r-1\r\n",
            "",
        ),
        "transient",
        "identity_throttled 429: PLACE answered 429 Too Many Requests (correlation id r-1); hint: too many token \
         requests from this host; which other program asks for tokens?; retry after 86400s",
    )
    .await;
    check(
        Reply::status(
            "500 Internal Server Error",
            "text/html",
            "<h1>\r\noops</h1>",
        ),
        "transient",
        "identity_unavailable 500: PLACE answered 500 Internal Server Error with text/html, not JSON: <h1> oops</h1>",
    )
    .await;
}

#[tokio::test]
async fn answers_that_are_no_token() {
    check(
        Reply::status("200 OK", "text/html", "<html>sign in</html>"),
        "transient",
        "identity_not_json: PLACE answered with 20 bytes of text/html that are no token: it is not a JSON object",
    )
    .await;
    check(
        Reply::json(
            "200 OK",
            r#"{"access_token":"t","expires_on":1763900000,"resource":"r","token_type":"Bearer"}"#,
        ),
        "transient",
        "identity_malformed: PLACE answered with 81 bytes of application/json that are no token: its expires_on is not a string",
    )
    .await;
    check(
        Reply::identity_token(TOKEN, 0),
        "transient",
        "identity_token_expired: PLACE gave a token that has already expired; hint: is the clock right?",
    )
    .await;
    check(
        Reply::Bytes(b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec()),
        "transient",
        "identity_not_http: PLACE does not answer in HTTP/1.1: ",
    )
    .await;
    check(
        Reply::Bytes(Vec::new()),
        "transient",
        "identity_not_http: PLACE does not answer in HTTP/1.1: ",
    )
    .await;
    check(
        Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec()),
        "transient",
        "identity_not_http: PLACE does not answer in HTTP/1.1: ",
    )
    .await;
}

#[tokio::test]
async fn the_metadata_service_says_when_to_come_again() {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let check = async |refresh_in: u64, expected: &str| {
        let expires_on = now + 86_400;
        let body = format!(
            r#"{{"access_token":"{TOKEN}","expires_on":"{expires_on}","refresh_in":"{refresh_in}","resource":"r","token_type":"Bearer"}}"#
        );
        let fake = Fake::start(Reply::json("200 OK", &body)).await;
        let outcome = child::run(imds(&fake)).await;
        assert!(outcome.everything.contains(expected), "{outcome:?}");
    };
    check(43_200, "refresh in Some(43200s)").await;
    check(90_000, "refresh in None").await;
}

#[tokio::test]
async fn a_resource_that_entra_does_not_know() {
    check(
        Reply::json(
            "400 Bad Request",
            r#"{"error":"invalid_resource","error_description":"AADSTS500011: The resource principal was not found."}"#,
        ),
        "permanent",
        "entra_scope 400: PLACE answered 400 Bad Request: AADSTS500011: The resource principal was not found.; hint: the scope",
    )
    .await;
}

#[tokio::test]
async fn a_body_is_read_up_to_the_limit() {
    check(
        Reply::Flood(10 * 1024 * 1024),
        "transient",
        "identity_malformed: the answer of PLACE is longer than 65536 bytes",
    )
    .await;
    let page = "x".repeat(10 * 1024 * 1024);
    check(
        Reply::status("502 Bad Gateway", "text/html", &page),
        "transient",
        &format!(
            "identity_unavailable 502: PLACE answered 502 Bad Gateway with text/html, not JSON: {}…",
            "x".repeat(600)
        ),
    )
    .await;
}

#[tokio::test]
async fn a_head_is_read_up_to_a_limit() {
    let token = |headers: &str| match Reply::identity_token(TOKEN, 3600) {
        Reply::Bytes(bytes) => {
            let text = String::from_utf8(bytes).unwrap();
            Reply::Bytes(text.replacen("\r\n", &format!("\r\n{headers}"), 1).into())
        }
        other => other,
    };
    let fake = Fake::start(token(&"a: b\r\n".repeat(50))).await;
    assert_token(&child::run(imds(&fake)).await, 3600);
    let broken = "identity_not_http: PLACE does not answer in HTTP/1.1: ";
    check(token(&"a: b\r\n".repeat(65)), "transient", broken).await;
    let long = format!("a: {}\r\n", "b".repeat(100_000));
    check(token(&long), "transient", broken).await;
}

#[tokio::test]
async fn a_black_hole_is_left() {
    let fake = Fake::start(Reply::BlackHole).await;
    let outcome = child::run(Child {
        exchange: Some(Duration::from_millis(300)),
        ..imds(&fake)
    })
    .await;
    let expected = "error transient identity_unavailable: no answer from 169.254.169.254 within 300ms; hint: not an Azure";
    assert!(outcome.verdict.starts_with(expected), "{outcome:?}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let trap = Fake::start(Reply::identity_token(TOKEN, 3600)).await;
    let location = format!("Location: http://{}/?key=location-canary\r\n", trap.address);
    let reply = Reply::headers("302 Found", &location, "moved to location-canary");
    check(
        reply.clone(),
        "permanent",
        "identity_not_json 302: PLACE answered 302 Found, and redirects are not followed",
    )
    .await;
    let fake = Fake::start(reply).await;
    let outcome = child::run(app_service(&fake)).await;
    assert!(!outcome.everything.contains("location-canary"));
    assert_eq!(trap.requests(), [""; 0]);
}

#[tokio::test]
async fn a_dead_metadata_service_is_reported_at_once() {
    // A port that is taken, so that no other test gets it, and on which nobody listens.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let start = Instant::now();
    let outcome = child::run(Child {
        imds: Some(socket.local_addr().unwrap()),
        ..Child::default()
    })
    .await;
    assert!(
        outcome
            .verdict
            .starts_with("error transient identity_unavailable: no connection to 169.254.169.254: Connection refused"),
        "{}",
        outcome.verdict
    );
    assert!(start.elapsed() < SDK_RETRIES_AT_LEAST);
}

#[tokio::test]
async fn no_proxy_sees_the_identity_header() {
    let fake = Fake::start(Reply::identity_token(TOKEN, 3600)).await;
    let proxy = Fake::start(Reply::identity_token("stolen", 3600)).await;
    let mut child = app_service(&fake);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        child
            .variables
            .push((name, format!("http://{}", proxy.address)));
    }
    assert_token(&child::run(child).await, 3600);
    assert_eq!(proxy.requests(), [""; 0]);
}

#[tokio::test]
async fn the_metadata_service_never_gets_the_identity_header() {
    let fake = Fake::start(Reply::identity_token(TOKEN, 3600)).await;
    let mut child = imds(&fake);
    child.variables.push(("IDENTITY_HEADER", HEADER.into()));
    assert_token(&child::run(child).await, 3600);
    let request = fake.only_request();
    assert!(!request.contains(HEADER), "{request}");
}

/// The SDK looks into the process, the allow-list comes from the data: where they differ, nothing
/// leaves.
#[tokio::test]
async fn a_request_elsewhere_is_refused() {
    let fake = Fake::start(Reply::identity_token(TOKEN, 3600)).await;
    let outcome = child::run(Child {
        hidden: "IDENTITY_ENDPOINT",
        imds: Some(fake.address),
        ..app_service(&fake)
    })
    .await;
    let expected = format!(
        "error permanent identity_egress_blocked: a request to http://{} was refused, only 169.254.169.254 may be asked; hint: ",
        fake.address
    );
    assert!(outcome.verdict.starts_with(&expected), "{outcome:?}");
    assert_eq!(fake.requests(), [""; 0]);
}

#[tokio::test]
async fn hosts_without_a_supported_identity() {
    async fn check(variables: &[(&'static str, &str)], identity: &str, expected: &str) {
        let variables = variables
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        let outcome = child::run(Child {
            variables,
            identity,
            ..Child::default()
        })
        .await;
        assert!(
            outcome.verdict.starts_with(&format!("setup {expected}"))
                && outcome.verdict.contains("; hint: "),
            "{} is not {expected}",
            outcome.verdict
        );
    }
    let endpoint = ("IDENTITY_ENDPOINT", "http://127.0.0.1:1/");
    let header = ("IDENTITY_HEADER", HEADER);
    check(
        &[endpoint, ("IMDS_ENDPOINT", "x")],
        "",
        "identity_unsupported_host: managed identity on Azure Arc is not supported",
    )
    .await;
    check(
        &[endpoint, header, ("IDENTITY_SERVER_THUMBPRINT", "x")],
        "",
        "identity_unsupported_host: managed identity on Service Fabric is",
    )
    .await;
    check(
        &[("MSI_ENDPOINT", "x"), ("MSI_SECRET", "x")],
        "",
        "identity_unsupported_host: managed identity on Azure ML is",
    )
    .await;
    check(
        &[("MSI_ENDPOINT", "x")],
        "",
        "identity_unsupported_host: managed identity on Cloud Shell is not supported (recognised by MSI_ENDPOINT)",
    )
    .await;
    check(
        &[endpoint, header],
        "resource /subscriptions/s",
        "identity_resource_id: a resource id cannot choose the identity",
    )
    .await;
    check(
        &[],
        "client a&b",
        "entra_id_form: client id \"a&b\" is not valid",
    )
    .await;
    for outside in [
        "http://8.8.8.8/msi/token",
        "http://[2001:db8::1]/",
        "http://user@127.0.0.1/",
        "ftp://127.0.0.1/",
        "not a url",
        "",
    ] {
        check(
            &[("IDENTITY_ENDPOINT", outside), header],
            "",
            "identity_egress_blocked: IDENTITY_ENDPOINT is not",
        )
        .await;
    }
}
