//! The endpoints of managed identity: what they take, what they refuse and how.

use std::time::Duration;

use serde_json::{Value, json};
use talkline_sim::identity::{
    AppService, Expiry, IdentityMode, Imds, ManagedIdentity, TENANT, TokenSpec, now_unix,
};
use tokio::time::advance;

use super::ask::{Heard, ask, plain};

const QUERY: &str = "api-version=2019-08-01&resource=https%3A%2F%2Fcognitiveservices.azure.com";

pub(super) fn imds_request(query: &str) -> String {
    format!(
        "GET /metadata/identity/oauth2/token?{query} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n\r\n"
    )
}

pub(super) fn app_request(query: &str, secret: &str) -> String {
    format!("GET /msi/token?{query} HTTP/1.1\r\nHost: h\r\nX-IDENTITY-HEADER: {secret}\r\n\r\n")
}

fn user() -> ManagedIdentity {
    ManagedIdentity::user_assigned("relay", "client-1", "object-1")
}

async fn imds(fake: &Imds, query: &str) -> Heard {
    plain(fake.addr(), &imds_request(query)).await
}

async fn app(fake: &AppService, query: &str) -> Heard {
    plain(fake.addr(), &app_request(query, fake.identity_header())).await
}

#[tokio::test]
async fn the_metadata_service_answers_as_documented() {
    let fake = Imds::start().await.unwrap();
    let heard = imds(&fake, QUERY).await;
    let (body, claims, system) = (
        heard.json(),
        heard.claims(),
        ManagedIdentity::system_assigned(),
    );
    assert_eq!(body["resource"], "https://cognitiveservices.azure.com");
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["client_id"], json!(system.client_id));
    assert_eq!(body["expires_in"], "3600");
    assert_eq!(body["expires_on"], claims["exp"].to_string());
    assert_eq!(claims["aud"], "https://cognitiveservices.azure.com");
    assert_eq!(claims["oid"], json!(system.object_id));
    assert_eq!(claims["appid"], json!(system.client_id));
    assert_eq!(claims["tid"], TENANT);
    assert_eq!(fake.requests()[0].header("metadata"), Some("true"));
    assert_eq!((fake.requests()[0].status, fake.connections()), (200, 1));
}

#[tokio::test]
async fn the_metadata_service_refuses_what_the_real_one_refuses() {
    let fake = Imds::builder().user_assigned(user()).start().await.unwrap();
    let good = imds_request(QUERY);
    for (request, status, text) in [
        (
            good.replace("Metadata: true\r\n", ""),
            400,
            "metadata header",
        ),
        (
            good.replace("Metadata: true", "Metadata: false"),
            400,
            "metadata header",
        ),
        (
            good.replace("Metadata", "X-Forwarded-For: h\r\nMetadata"),
            400,
            "X-Forwarded-For",
        ),
        (good.replace("2019-08-01", "1999"), 400, "api-version"),
        (good.replace("api-version", "version"), 400, "api-version"),
        (good.replace("resource", "scope"), 400, "resource"),
        (good.replace("GET", "DELETE"), 404, "Not found"),
        (good.replace("identity", "instance"), 404, "Not found"),
        (
            imds_request(&format!("{QUERY}&client_id=x")),
            400,
            "Identity not found",
        ),
        (
            imds_request(&format!("{QUERY}&client_id=client-1&object_id=object-1")),
            400,
            "Identity not found",
        ),
    ] {
        let heard = plain(fake.addr(), &request).await;
        let description = heard.json()["error_description"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(heard.status, status, "{request}");
        assert!(description.contains(text), "{request}: {description}");
    }
    let bare = Imds::builder().system_assigned(None).start().await.unwrap();
    assert_eq!(imds(&bare, QUERY).await.status, 400);
}

#[tokio::test]
async fn an_identity_is_found_by_each_of_its_names() {
    let resource_id = user().resource_id.to_uppercase();
    let fake = Imds::builder().user_assigned(user()).start().await.unwrap();
    for (name, value) in [
        ("client_id", "client-1"),
        ("object_id", "object-1"),
        ("msi_res_id", resource_id.as_str()),
    ] {
        let claims = imds(&fake, &format!("{QUERY}&{name}={value}"))
            .await
            .claims();
        assert_eq!(
            (&claims["oid"], &claims["appid"]),
            (&json!("object-1"), &json!("client-1")),
            "{name}"
        );
    }
    let fake = AppService::builder()
        .user_assigned(user())
        .start()
        .await
        .unwrap();
    for (name, value) in [
        ("client_id", "client-1"),
        ("principal_id", "object-1"),
        ("object_id", "object-1"),
        ("mi_res_id", resource_id.as_str()),
    ] {
        let claims = app(&fake, &format!("{QUERY}&{name}={value}"))
            .await
            .claims();
        assert_eq!(
            (&claims["oid"], &claims["appid"]),
            (&json!("object-1"), &json!("client-1")),
            "{name}"
        );
    }
}

#[tokio::test]
async fn app_service_checks_its_header_and_its_parameters() {
    let fake = AppService::builder()
        .identity_header("a-secret")
        .start()
        .await
        .unwrap();
    assert_eq!(fake.identity_header(), "a-secret");
    assert_eq!(
        fake.identity_endpoint(),
        format!("http://{}/msi/token", fake.addr())
    );
    let heard = app(&fake, QUERY).await;
    let body = heard.json();
    assert_eq!(body["expires_on"], heard.claims()["exp"].to_string());
    assert_eq!(body["resource"], "https://cognitiveservices.azure.com");
    assert_eq!(
        fake.requests()[0].header("x-identity-header"),
        Some("a-secret")
    );
    let good = app_request(QUERY, "a-secret");
    for (request, status) in [
        (app_request(QUERY, "another"), 401),
        (good.replace("X-IDENTITY-HEADER", "Secret"), 401),
        (good.replace("2019-08-01", "2017-09-01"), 400),
        (good.replace("resource", "scope"), 400),
        (good.replace("/msi", ""), 404),
        (
            app_request(&format!("{QUERY}&client_id=x"), "a-secret"),
            400,
        ),
        (
            app_request(&format!("{QUERY}&msi_res_id=x"), "a-secret"),
            400,
        ),
    ] {
        let heard = plain(fake.addr(), &request).await;
        assert_eq!(
            (heard.status, &heard.json()["statusCode"]),
            (status, &json!(status)),
            "{request}"
        );
    }
}

#[tokio::test]
async fn each_mode_has_its_status_and_text() {
    let (machine, service) = (
        Imds::start().await.unwrap(),
        AppService::start().await.unwrap(),
    );
    let day = Duration::from_secs(86_400);
    for (mode, status, text, retry_after) in [
        (IdentityMode::Works, 200, "access_token", None),
        (IdentityMode::IdentityNotFound, 400, "found", None),
        (IdentityMode::NotFound, 404, "Not found", None),
        (
            IdentityMode::Gone { lasts: day },
            410,
            "being updated",
            None,
        ),
        (
            IdentityMode::Gone {
                lasts: Duration::ZERO,
            },
            200,
            "access_token",
            None,
        ),
        (
            IdentityMode::Throttled { retry_after: day },
            429,
            "too many requests",
            Some("86400"),
        ),
        (IdentityMode::Unreachable, 403, "unreachable network", None),
    ] {
        machine.set_mode(mode.clone());
        service.set_mode(mode.clone());
        for heard in [imds(&machine, QUERY).await, app(&service, QUERY).await] {
            assert_eq!(heard.status, status, "{mode:?}");
            assert!(heard.body.contains(text), "{mode:?}: {}", heard.body);
            assert_eq!(heard.header("retry-after"), retry_after, "{mode:?}");
        }
    }
}

#[tokio::test]
async fn expiry_is_written_in_every_way_met() {
    let fake = Imds::start().await.unwrap();
    let expires = |expiry, ttl_secs| {
        fake.set_token(
            TokenSpec::new()
                .ttl(Duration::from_secs(ttl_secs))
                .expiry(expiry),
        );
        let fake = &fake;
        async move {
            let heard = imds(fake, QUERY).await;
            (heard.json(), heard.claims()["exp"].as_u64().unwrap())
        }
    };
    let (body, exp) = expires(Expiry::EpochNumber, 60).await;
    assert_eq!(body["expires_on"], json!(exp));
    let (body, exp) = expires(Expiry::EpochMillis, 5).await;
    assert_eq!(body["expires_on"], format!("{exp}000"));
    let (body, _) = expires(Expiry::DateString, 5).await;
    assert!(
        body["expires_on"].as_str().unwrap().ends_with(" +00:00"),
        "{body}"
    );
    let (body, _) = expires(Expiry::Missing, 5).await;
    assert_eq!(
        (body.get("expires_on"), body.get("expires_in")),
        (None, None)
    );
    let (body, exp) = expires(Expiry::EpochString, 0).await;
    assert_eq!(
        (&body["expires_in"], &body["expires_on"]),
        (&json!("0"), &json!(exp.to_string()))
    );
    fake.set_token(
        TokenSpec::new()
            .expired(Duration::from_secs(30))
            .refresh_in(Duration::from_secs(7)),
    );
    let body = imds(&fake, QUERY).await.json();
    assert_eq!(
        (&body["expires_in"], &body["refresh_in"]),
        (&json!("-30"), &json!("7"))
    );
    let at: u64 = body["expires_on"].as_str().unwrap().parse().unwrap();
    assert!(at <= now_unix() - 30, "{at}");
}

#[tokio::test]
async fn a_spec_overrides_what_was_asked_for() {
    let spec = TokenSpec::new()
        .tenant("t")
        .audience("a")
        .object_id("o")
        .app_id("c")
        .signature("Y2FuYXJ5");
    let fake = Imds::builder().token(spec.clone()).start().await.unwrap();
    let heard = imds(&fake, QUERY).await;
    let claims = heard.claims();
    let picked: Vec<&Value> = ["tid", "aud", "oid", "appid", "iss"]
        .iter()
        .map(|&name| &claims[name])
        .collect();
    assert_eq!(picked, ["t", "a", "o", "c", "https://sts.windows.net/t/"]);
    assert!(
        heard.json()["access_token"]
            .as_str()
            .unwrap()
            .ends_with(".Y2FuYXJ5")
    );
    fake.set_token(spec.issuer("i"));
    assert_eq!(imds(&fake, QUERY).await.claims()["iss"], "i");
}

#[tokio::test(start_paused = true)]
async fn time_passes_with_the_clock_of_the_runtime() {
    let fake = Imds::builder()
        .mode(IdentityMode::Gone {
            lasts: Duration::from_secs(70),
        })
        .start()
        .await
        .unwrap();
    let get = || {
        ask(
            fake.connect_in_memory(),
            Box::leak(imds_request(QUERY).into_boxed_str()),
        )
    };
    assert_eq!(get().await.unwrap().status, 410);
    advance(Duration::from_secs(69)).await;
    assert_eq!(get().await.unwrap().status, 410);
    advance(Duration::from_secs(1)).await;
    let first = get().await.unwrap().claims();
    advance(Duration::from_secs(7200)).await;
    let later = get().await.unwrap().claims();
    let passed = later["exp"].as_u64().unwrap() - first["exp"].as_u64().unwrap();
    assert!((7200..7210).contains(&passed), "{passed}");
}

#[tokio::test]
async fn only_loopback_and_link_local_are_listened_on() {
    for address in ["0.0.0.0:0", "192.0.2.1:0", "[::]:0", "10.0.0.1:0"] {
        let error = Imds::builder()
            .listen(address.parse().unwrap())
            .start()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{address}");
    }
    // The address itself exists in the caller's network namespace only, so binding it may fail, but not for this.
    let link_local = Imds::builder()
        .listen("169.254.169.254:0".parse().unwrap())
        .start()
        .await;
    assert!(link_local.map_or_else(
        |error| error.kind() != std::io::ErrorKind::InvalidInput,
        |_| true
    ));
}
