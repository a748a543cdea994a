//! Key Vault: the challenge, the secrets and the refusals.

use std::time::Duration;

use serde_json::json;
use talkline_sim::identity::{KeyVault, SecretState, TokenSpec, VaultMode, now_unix};

use super::ask::{Heard, secure};

const AUDIENCE: &str = "https://vault.azure.net";

fn request(path: &str, host: &str, token: Option<&str>) -> String {
    let authorization = token.map_or_else(String::new, |token| {
        format!("Authorization: Bearer {token}\r\n")
    });
    format!("GET {path}?api-version=7.6 HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n")
}

fn token() -> String {
    TokenSpec::new()
        .object_id("oid-1")
        .mint(AUDIENCE, now_unix())
}

async fn send(vault: &KeyVault, request: &str) -> Heard {
    secure(vault.addr(), vault.ca(), vault.vault_host(), request).await
}

async fn get(vault: &KeyVault, path: &str) -> Heard {
    send(vault, &request(path, vault.vault_host(), Some(&token()))).await
}

#[tokio::test]
async fn a_request_without_a_token_is_challenged() {
    let vault = KeyVault::builder()
        .secret("key", "value")
        .start()
        .await
        .unwrap();
    let heard = send(&vault, &request("/secrets/key", vault.vault_host(), None)).await;
    assert_eq!(heard.status, 401);
    assert_eq!(
        heard.json()["error"]["message"],
        "AKV10000: Request is missing a Bearer or PoP token."
    );
    let challenge = heard.header("www-authenticate").unwrap();
    assert!(
        challenge.starts_with(r#"Bearer authorization="https://login.windows.net/"#),
        "{challenge}"
    );
    assert!(
        challenge.ends_with(r#"resource="https://vault.azure.net""#),
        "{challenge}"
    );
    vault.set_mode(VaultMode::ChallengesFor(
        "https://vault.evil.example".to_owned(),
    ));
    let heard = send(&vault, &request("/secrets/key", vault.vault_host(), None)).await;
    assert!(
        heard
            .header("www-authenticate")
            .unwrap()
            .contains("evil.example")
    );
}

#[tokio::test]
async fn tokens_are_checked() {
    let vault = KeyVault::builder()
        .secret("key", "value")
        .start()
        .await
        .unwrap();
    let now = now_unix();
    let spec = TokenSpec::new();
    for (token, text) in [
        ("nonsense".to_owned(), "AKV10021"),
        (
            spec.mint("https://cognitiveservices.azure.com", now),
            "AKV10022",
        ),
        (spec.mint(AUDIENCE, now + 3600), "AKV10023"),
        (
            spec.clone()
                .expired(Duration::from_secs(1))
                .mint(AUDIENCE, now),
            "AKV10024",
        ),
    ] {
        let heard = send(
            &vault,
            &request("/secrets/key", vault.vault_host(), Some(&token)),
        )
        .await;
        assert_eq!(heard.status, 401, "{text}");
        assert!(heard.body.contains(text), "{text}: {}", heard.body);
        assert!(heard.header("www-authenticate").is_some(), "{text}");
    }
    let slashed = spec.mint("https://vault.azure.net/", now);
    let heard = send(
        &vault,
        &request("/secrets/key", vault.vault_host(), Some(&slashed)),
    )
    .await;
    assert_eq!(heard.status, 200, "{heard:?}");
    assert_eq!(
        vault.requests()[4].header("authorization"),
        Some(format!("Bearer {slashed}").as_str())
    );
}

#[tokio::test]
async fn secrets_have_versions_and_change_while_it_runs() {
    let vault = KeyVault::builder().name("talk").start().await.unwrap();
    assert_eq!(
        vault.secret_url("key"),
        "https://talk.vault.azure.net/secrets/key"
    );
    let first = vault.set_secret("key", "one");
    let heard = get(&vault, "/secrets/key").await;
    let body = heard.json();
    assert_eq!(body["value"], "one");
    assert_eq!(
        body["id"],
        format!("https://talk.vault.azure.net/secrets/key/{first}")
    );
    assert_eq!(body["attributes"]["enabled"], true);
    assert_eq!(body["attributes"].get("exp"), None);
    let second = vault.set_secret("KEY", "two");
    vault.set_expiry("key", Some(4_102_444_800));
    for (path, expected) in [
        ("/secrets/key".to_owned(), "two"),
        ("/secrets/key/".to_owned(), "two"),
        (format!("/secrets/key/{first}"), "one"),
        (format!("/secrets/key/{second}"), "two"),
    ] {
        assert_eq!(get(&vault, &path).await.json()["value"], expected, "{path}");
    }
    assert_eq!(
        get(&vault, "/secrets/key").await.json()["attributes"]["exp"],
        4_102_444_800_u64
    );
    vault.set_enabled("key", SecretState::Disabled);
    let heard = get(&vault, "/secrets/key").await;
    assert_eq!(
        (heard.status, &heard.json()["error"]["innererror"]["code"]),
        (403, &json!("SecretDisabled"))
    );
    vault.set_enabled("key", SecretState::Enabled);
    assert_eq!(get(&vault, "/secrets/key").await.status, 200);
    vault.remove_secret("key");
    assert_eq!(
        get(&vault, "/secrets/key").await.json()["error"]["code"],
        "SecretNotFound"
    );
}

#[tokio::test]
async fn what_it_does_not_serve_is_refused() {
    let vault = KeyVault::builder()
        .secret("key", "value")
        .start()
        .await
        .unwrap();
    let token = token();
    let good = request("/secrets/key", vault.vault_host(), Some(&token));
    for (request, status) in [
        (good.clone(), 200),
        (good.replace("Host: talkline-test", "Host: another"), 404),
        (
            good.replace("vault.azure.net\r\n", "vault.azure.net:443\r\n"),
            200,
        ),
        (good.replace("api-version=7.6", ""), 400),
        (good.replace("7.6", "2016-10-01"), 400),
        (good.replace("/secrets/", "/keys/"), 404),
        (good.replace("/secrets/key", "/secrets/key/a/b"), 404),
        (good.replace("GET", "DELETE"), 404),
    ] {
        assert_eq!(send(&vault, &request).await.status, status, "{request}");
    }
}

#[tokio::test]
async fn each_mode_has_its_code_and_text() {
    let vault = KeyVault::builder()
        .secret("key", "value")
        .start()
        .await
        .unwrap();
    let day = Duration::from_secs(86_400);
    for (mode, status, code, inner, text) in [
        (
            VaultMode::ForbiddenByRbac,
            403,
            "Forbidden",
            Some("ForbiddenByRbac"),
            r"resource.\r\nIf role",
        ),
        (
            VaultMode::ForbiddenByConnection,
            403,
            "Forbidden",
            Some("ForbiddenByConnection"),
            "Public network",
        ),
        (
            VaultMode::ForbiddenByFirewall,
            403,
            "Forbidden",
            Some("ForbiddenByFirewall"),
            "oid=oid-1",
        ),
        (
            VaultMode::SecretDisabled,
            403,
            "Forbidden",
            Some("SecretDisabled"),
            "disabled secret",
        ),
        (
            VaultMode::SecretNotFound,
            404,
            "SecretNotFound",
            None,
            "(name/id) key ",
        ),
        (
            VaultMode::Throttled { retry_after: day },
            429,
            "Throttled",
            None,
            "too many requests",
        ),
        (
            VaultMode::RefusesTokens,
            401,
            "Unauthorized",
            None,
            "AKV10032",
        ),
    ] {
        vault.set_mode(mode.clone());
        let challenged = send(&vault, &request("/secrets/key", vault.vault_host(), None)).await;
        assert_eq!(challenged.status, 401, "{mode:?}");
        let heard = get(&vault, "/secrets/key").await;
        let error = heard.json()["error"].clone();
        assert_eq!(
            (heard.status, error["code"].as_str()),
            (status, Some(code)),
            "{mode:?}"
        );
        assert_eq!(error["innererror"]["code"].as_str(), inner, "{mode:?}");
        assert!(heard.body.contains(text), "{mode:?}: {}", heard.body);
        let throttled = matches!(mode, VaultMode::Throttled { .. });
        assert_eq!(
            heard.header("retry-after"),
            throttled.then_some("86400"),
            "{mode:?}"
        );
    }
}

#[tokio::test]
async fn a_vault_of_another_cloud_has_its_names() {
    let vault = KeyVault::builder()
        .suffix("vault.usgovcloudapi.net")
        .secret("key", "value")
        .start()
        .await
        .unwrap();
    assert_eq!(vault.vault_host(), "talkline-test.vault.usgovcloudapi.net");
    let token = TokenSpec::new().mint("https://vault.usgovcloudapi.net", now_unix());
    let heard = send(
        &vault,
        &request("/secrets/key", vault.vault_host(), Some(&token)),
    )
    .await;
    assert_eq!(heard.json()["value"], "value");
}
