//! The token endpoint of Entra: what it takes, what it refuses and how.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use talkline_sim::identity::{
    App, ClientProof, EntraAuthority, EntraMode, EntraRefusal, Fault, LOGIN_HOST, LineBreaks,
    TENANT, TestCa, TokenSpec, now_unix,
};
use talkline_sim::unsigned_token;
use tokio::net::TcpStream;

use super::ask::{Heard, post, secure, tls};

const CLIENT: &str = "c2a1d7be-0000-4000-8000-6e3d5c4b7a21";
const SCOPE: &str = "https%3A%2F%2Fcognitiveservices.azure.com%2F.default";
const ASSERTION_TYPE: &str = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";

fn by_secret(secret: &str) -> String {
    format!("client_id={CLIENT}&client_secret={secret}&grant_type=client_credentials&scope={SCOPE}")
}

fn by_assertion(assertion: &str) -> String {
    format!(
        "client_assertion={assertion}&client_assertion_type={ASSERTION_TYPE}&client_id={CLIENT}\
         &grant_type=client_credentials&scope={SCOPE}"
    )
}

async fn token(authority: &EntraAuthority, tenant: &str, form: &str) -> Heard {
    let request = post(&format!("/{tenant}/oauth2/v2.0/token"), LOGIN_HOST, form);
    secure(authority.addr(), authority.ca(), LOGIN_HOST, &request).await
}

/// The AADSTS number of the answer; 0 for a token.
async fn check(authority: &EntraAuthority, tenant: &str, form: &str, expected: u32) {
    let heard = token(authority, tenant, form).await;
    let number = match heard.status {
        200 => 0,
        _ => heard.json()["error_codes"][0].as_u64().unwrap(),
    };
    assert_eq!(number, u64::from(expected), "{tenant} {form}: {heard:?}");
}

#[tokio::test]
async fn a_secret_is_exchanged_for_a_token_with_the_claims_asked_for() {
    let spec = TokenSpec::new()
        .object_id("oid-1")
        .claim("roles", json!(["a"]))
        .ttl(Duration::from_secs(900))
        .refresh_in(Duration::from_secs(450));
    let authority = EntraAuthority::builder().token(spec).start().await.unwrap();
    let before = now_unix();
    let heard = token(&authority, TENANT, &by_secret("s%26cret+1")).await;
    let body = heard.json();
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], 900);
    assert_eq!(body["refresh_in"], 450);
    let claims = heard.claims();
    for (name, expected) in [
        ("aud", json!("https://cognitiveservices.azure.com")),
        ("iss", json!(format!("https://sts.windows.net/{TENANT}/"))),
        ("tid", json!(TENANT)),
        ("oid", json!("oid-1")),
        ("sub", json!("oid-1")),
        ("appid", json!(CLIENT)),
        ("roles", json!(["a"])),
    ] {
        assert_eq!(claims[name], expected, "{name}");
    }
    let exp = claims["exp"].as_u64().unwrap();
    assert!((before + 900..=now_unix() + 900).contains(&exp), "{exp}");
    assert!(claims["nbf"].as_u64().unwrap() < before);
    let seen = authority.token_requests().remove(0);
    assert_eq!(seen.tenant, TENANT);
    assert_eq!(seen.client_id, CLIENT);
    assert_eq!(seen.scope, "https://cognitiveservices.azure.com/.default");
    assert_eq!(seen.grant_type, "client_credentials");
    assert_eq!(seen.proof, ClientProof::Secret("s&cret 1".to_owned()));
    assert_eq!(seen.host, LOGIN_HOST);
    assert_eq!(authority.requests()[0].status, 200);
    let again = token(&authority, TENANT, &by_secret("x")).await;
    assert_ne!(again.json()["access_token"], body["access_token"]);
}

#[tokio::test]
async fn each_refusal_has_the_shape_of_entra() {
    for line_breaks in [LineBreaks::CrLf, LineBreaks::Spaces] {
        let authority = EntraAuthority::builder()
            .line_breaks(line_breaks)
            .start()
            .await
            .unwrap();
        for &refusal in EntraRefusal::ALL {
            authority.set_mode(refusal);
            let heard = token(&authority, TENANT, &by_secret("s")).await;
            let body = heard.json();
            let description = body["error_description"].as_str().unwrap();
            assert_eq!(heard.status, refusal.status(), "{refusal:?}");
            assert_eq!(body["error"], refusal.error(), "{refusal:?}");
            assert_eq!(
                body["error_codes"],
                json!([refusal.aadsts()]),
                "{refusal:?}"
            );
            assert!(
                description.starts_with(&format!("AADSTS{}: ", refusal.aadsts())),
                "{description}"
            );
            assert!(!description.contains(['{', '}']), "{description}");
            assert_eq!(heard.header("x-ms-request-id"), body["trace_id"].as_str());
            // The escapes are on the wire, as a parser that borrows would meet them.
            assert_eq!(
                heard.body.contains(r"\r\nTrace ID: "),
                line_breaks == LineBreaks::CrLf,
                "{}",
                heard.body
            );
        }
    }
    let numbers: std::collections::BTreeSet<u32> =
        EntraRefusal::ALL.iter().map(|each| each.aadsts()).collect();
    assert_eq!(numbers.len(), EntraRefusal::ALL.len());
}

#[tokio::test]
async fn throttling_says_how_long_to_wait() {
    let mode = EntraMode::Throttled {
        retry_after: Duration::from_secs(86_400),
    };
    let authority = EntraAuthority::builder().mode(mode).start().await.unwrap();
    let heard = token(&authority, TENANT, &by_secret("s")).await;
    assert_eq!(
        (heard.status, heard.header("retry-after")),
        (429, Some("86400"))
    );
}

#[tokio::test]
async fn modes_follow_each_other_and_the_last_one_stays() {
    let authority = EntraAuthority::start().await.unwrap();
    let first = [Fault::ServerError.into(), EntraRefusal::RequestLoop.into()];
    authority.set_modes(first, EntraMode::Works);
    for expected in [500, 400, 200, 200] {
        assert_eq!(
            token(&authority, TENANT, &by_secret("s")).await.status,
            expected
        );
    }
}

#[tokio::test]
async fn requests_are_checked_as_by_entra() {
    let app = App::new(CLIENT).secret("good").expired_secret("old");
    let authority = EntraAuthority::builder()
        .tenant(TENANT)
        .tenant("contoso.onmicrosoft.com")
        .app(app)
        .start()
        .await
        .unwrap();
    let check = |tenant: &'static str, form: String, expected| {
        let authority = &authority;
        async move { check(authority, tenant, &form, expected).await }
    };
    check(TENANT, by_secret("good"), 0).await;
    check("contoso.onmicrosoft.com", by_secret("good"), 0).await;
    check(TENANT, by_secret("bad"), 7_000_215).await;
    check(TENANT, by_secret("old"), 7_000_222).await;
    check(
        "5d0c6f0e-0000-4c8a-9d61-1f2a7c3b4e5d",
        by_secret("good"),
        90_002,
    )
    .await;
    check("not_a_tenant", by_secret("good"), 900_023).await;
    check(
        TENANT,
        by_secret("good").replace(CLIENT, "another"),
        700_016,
    )
    .await;
    check(TENANT, by_secret("good").replace(CLIENT, ""), 900_144).await;
    check(
        TENANT,
        by_secret("good").replace(".default", "user_impersonation"),
        70_011,
    )
    .await;
    check(
        TENANT,
        by_secret("good").replace("client_credentials", "password"),
        70_003,
    )
    .await;
    check(
        TENANT,
        by_secret("good").replace("client_secret", "secret"),
        7_000_216,
    )
    .await;
    check(
        TENANT,
        by_secret("good") + "&client_assertion=a.b.c",
        7_000_216,
    )
    .await;
    check(TENANT, by_assertion("a.b.c"), 50_027).await;
    check(
        TENANT,
        by_assertion("e30.e30.eA").replace(ASSERTION_TYPE, "saml"),
        7_000_216,
    )
    .await;
}

fn service_account(claims: Value) -> String {
    let mut all = json!({
        "iss": "https://oidc.example/1", "sub": "system:serviceaccount:talk:relay",
        "aud": ["api://AzureADTokenExchange"], "exp": now_unix() + 3600,
    });
    all.as_object_mut()
        .unwrap()
        .extend(claims.as_object().unwrap().clone());
    by_assertion(&unsigned_token(&all))
}

#[tokio::test]
async fn federated_assertions_are_matched_and_kept_for_assertions() {
    let app =
        App::new(CLIENT).federated("https://oidc.example/1", "system:serviceaccount:talk:relay");
    let authority = EntraAuthority::builder().app(app).start().await.unwrap();
    for (claims, expected) in [
        (json!({}), 0),
        (json!({"aud": "api://AzureADTokenExchange"}), 0),
        (json!({"iss": "https://oidc.example/2"}), 700_211),
        (json!({"aud": "https://another.example"}), 700_212),
        (json!({"sub": "system:serviceaccount:talk:other"}), 700_213),
        (json!({"exp": now_unix() - 3600}), 700_024),
        (json!({"nbf": now_unix() + 3600}), 700_024),
    ] {
        check(&authority, TENANT, &service_account(claims), expected).await;
    }
    let seen = authority.token_requests();
    assert_eq!(
        seen[0].assertion().unwrap().claim("sub"),
        Some("system:serviceaccount:talk:relay")
    );
    assert_eq!(
        seen[2].assertion().unwrap().claim("iss"),
        Some("https://oidc.example/2")
    );
    let bare = EntraAuthority::builder()
        .app(App::new(CLIENT))
        .start()
        .await
        .unwrap();
    let heard = token(&bare, TENANT, &service_account(json!({}))).await;
    let description = heard.json()["error_description"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        description.contains("Assertion Subject: 'system:serviceaccount:talk:relay'"),
        "{description}"
    );
    let any = EntraAuthority::start().await.unwrap();
    check(&any, TENANT, &service_account(json!({"iss": "anyone"})), 0).await;
}

/// A certificate with an RSA key, and what signs with it.
fn certificate() -> (CertificateDer<'static>, RsaKeyPair) {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let made = CertificateParams::default().self_signed(&key).unwrap();
    (
        made.der().clone(),
        RsaKeyPair::from_pkcs8(&key.serialize_der()).unwrap(),
    )
}

fn sign(
    key: &RsaKeyPair,
    encoding: &'static dyn RsaEncoding,
    header: &Value,
    claims: &Value,
) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(
        encoding,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn assertions_by_certificate_are_verified() {
    let (der, key) = certificate();
    let (_, another_key) = certificate();
    let thumbprint =
        URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der));
    let app = App::new(CLIENT).certificate(der);
    let authority = EntraAuthority::builder().app(app).start().await.unwrap();
    let header = |alg: &str| json!({"alg": alg, "typ": "JWT", "x5t#S256": thumbprint});
    let claims = |changes: Value| {
        let mut all = json!({
            "aud": format!("https://{LOGIN_HOST}/{TENANT}/oauth2/v2.0/token"),
            "iss": CLIENT, "sub": CLIENT, "jti": "1", "nbf": now_unix(), "exp": now_unix() + 300,
        });
        all.as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        all
    };
    let good = claims(json!({}));
    let pkcs1: &'static dyn RsaEncoding = &RSA_PKCS1_SHA256;
    let pss: &'static dyn RsaEncoding = &RSA_PSS_SHA256;
    for (what, assertion, expected) in [
        ("RS256", sign(&key, pkcs1, &header("RS256"), &good), 0),
        ("PS256", sign(&key, pss, &header("PS256"), &good), 0),
        (
            "a wrong algorithm",
            sign(&key, pss, &header("RS256"), &good),
            700_027,
        ),
        (
            "no algorithm",
            sign(&key, pkcs1, &header("none"), &good),
            700_027,
        ),
        (
            "another key",
            sign(&another_key, pkcs1, &header("RS256"), &good),
            700_027,
        ),
        (
            "no thumbprint",
            sign(&key, pkcs1, &json!({"alg": "RS256"}), &good),
            700_027,
        ),
        (
            "another tenant",
            sign(
                &key,
                pkcs1,
                &header("RS256"),
                &claims(json!({"aud": "https://x"})),
            ),
            700_023,
        ),
        (
            "another subject",
            sign(&key, pkcs1, &header("RS256"), &claims(json!({"sub": "x"}))),
            700_023,
        ),
        (
            "no id",
            sign(&key, pkcs1, &header("RS256"), &claims(json!({"jti": null}))),
            700_023,
        ),
        (
            "too late",
            sign(
                &key,
                pkcs1,
                &header("RS256"),
                &claims(json!({"exp": now_unix() - 900})),
            ),
            700_024,
        ),
    ] {
        let heard = token(&authority, TENANT, &by_assertion(&assertion)).await;
        let number = heard.json()["error_codes"][0].as_u64().unwrap_or_default();
        assert_eq!(number, expected, "{what}: {heard:?}");
    }
}

#[tokio::test]
async fn the_certificate_bears_the_real_names_and_no_stranger_trusts_it() {
    let ca = TestCa::new().unwrap();
    let authority = EntraAuthority::builder().ca(&ca).start().await.unwrap();
    for name in [
        LOGIN_HOST,
        "login.microsoftonline.us",
        "localhost",
        "127.0.0.1",
    ] {
        let stream = TcpStream::connect(authority.addr()).await.unwrap();
        tls(stream, &ca, name).await.unwrap();
    }
    for (ca, name) in [
        (&TestCa::new().unwrap(), LOGIN_HOST),
        (&ca, "login.example.com"),
    ] {
        let stream = TcpStream::connect(authority.addr()).await.unwrap();
        let error = tls(stream, ca, name).await.unwrap_err();
        assert!(
            error.to_string().contains("invalid peer certificate"),
            "{error}"
        );
    }
    assert!(ca.pem().starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(
        authority.url(),
        format!("https://localhost:{}", authority.addr().port())
    );
    assert_eq!(authority.ca().der(), ca.der());
}

#[tokio::test]
async fn anything_but_the_token_endpoint_is_not_found() {
    let authority = EntraAuthority::start().await.unwrap();
    for request in [
        format!("GET /{TENANT}/oauth2/v2.0/token HTTP/1.1\r\nHost: {LOGIN_HOST}\r\n\r\n"),
        post(&format!("/{TENANT}/oauth2/token"), LOGIN_HOST, "a=b"),
        post("/a/b/oauth2/v2.0/token", LOGIN_HOST, "a=b"),
    ] {
        let heard = secure(authority.addr(), authority.ca(), LOGIN_HOST, &request).await;
        assert_eq!(heard.status, 404, "{request}");
    }
    assert_eq!(authority.token_requests(), []);
    assert_eq!(authority.requests().len(), 3);
}
