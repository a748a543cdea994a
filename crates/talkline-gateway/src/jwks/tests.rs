use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::UNIX_EPOCH,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;
use talkline_auth::{ClientIdentity, ClientKeys, Lookup, PresentedKey};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{dial::DialTimeouts, tls};

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

/// An issuer on loopback: discovery, keys, and how often it was asked.
struct Issuer {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    /// Publishes a key as `k-1`; answers with `status`.
    async fn start(key: &EcdsaKeyPair, status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let point = key.public_key().as_ref();
        let (x, y) = (encode(&point[1..33]), encode(&point[33..65]));
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k-1", "x": x, "y": y}]});
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
        let asked = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                counted.fetch_add(1, Ordering::SeqCst);
                let head = String::from_utf8_lossy(&head);
                let body = match head.starts_with("GET /keys ") {
                    true => keys.to_string(),
                    false => discovery.to_string(),
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\nlocation: {}\r\n\r\n{body}",
                    body.len(),
                    "http://127.0.0.1:1/"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn token(key: &EcdsaKeyPair, kid: &str, issuer: &str) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let header = json!({"typ": "JWT", "alg": "ES256", "kid": kid});
    let claims =
        json!({"iss": issuer, "aud": "talk", "sub": "user-1", "exp": now + 600, "nbf": now - 1});
    let message = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let signature = key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    format!("{message}.{}", encode(signature.as_ref()))
}

fn jwks(issuer: &str) -> (ClientKeys, Arc<Jwks>) {
    let oidc = OidcIssuer {
        identity: ClientIdentity::unrestricted("sso"),
        issuer: issuer.to_owned(),
        audiences: vec!["talk".into()],
        algorithms: vec!["ES256".parse().unwrap()],
        jwks_uri: None,
        name_claim: "sub".into(),
        required_scopes: vec![],
        required_roles: vec![],
    };
    let clients = ClientKeys::new(vec![]).with_issuers(vec![Arc::new(oidc)]);
    let second = Duration::from_secs(1);
    let timeouts = DialTimeouts {
        dns: second,
        tcp: second,
        tls: second,
        upgrade: second,
    };
    let dialer = Dialer::new(tls::client_config().unwrap(), timeouts, Vec::new());
    let jwks = Jwks::new(clients.issuers(), dialer);
    (clients, Arc::new(jwks))
}

async fn verdict(clients: &ClientKeys, jwks: &Jwks, token: &str) -> String {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_bytes())];
    let presented = PresentedKey::find(headers.into_iter(), None).unwrap();
    let Lookup::User(check) = clients.look_up(presented.as_ref()).unwrap() else {
        panic!("no user's token");
    };
    match jwks.verify(&check).await {
        Ok(client) => client.name().to_owned(),
        Err(error) => error
            .refusal()
            .map_or("unavailable", |refusal| refusal.code())
            .to_owned(),
    }
}

#[tokio::test]
async fn keys_are_fetched_once_for_all_who_need_them() {
    let key = key();
    let issuer = Issuer::start(&key, "200 OK").await;
    let (clients, jwks) = jwks(&issuer.url);
    let good = token(&key, "k-1", &issuer.url);
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (clients, jwks, good) = (clients.clone(), Arc::clone(&jwks), good.clone());
        all.spawn(async move { verdict(&clients, &jwks, &good).await });
    }
    while let Some(verdict) = all.join_next().await {
        assert_eq!(verdict.unwrap(), "sso:user-1");
    }
    // The discovery document and the keys.
    assert_eq!(issuer.asked(), 2);
    // Keys that nobody publishes do not make the relay ask again and again.
    for number in 0..10 {
        let unknown = token(&key, &format!("k-{number}0"), &issuer.url);
        assert_eq!(
            verdict(&clients, &jwks, &unknown).await,
            "user_token_key_unknown"
        );
    }
    assert_eq!(issuer.asked(), 2);
    let forged = token(&self::key(), "k-1", &issuer.url);
    assert_eq!(
        verdict(&clients, &jwks, &forged).await,
        "user_token_signature"
    );
}

#[tokio::test]
async fn whoever_begins_a_fetch_and_hangs_up_keeps_nobody_out() {
    let key = key();
    let issuer = Issuer::start(&key, "200 OK").await;
    let (clients, jwks) = jwks(&issuer.url);
    let good = token(&key, "k-1", &issuer.url);
    {
        let mut given_up = std::pin::pin!(verdict(&clients, &jwks, &good));
        let waker = std::task::Waker::noop();
        let polled = given_up
            .as_mut()
            .poll(&mut std::task::Context::from_waker(waker));
        assert!(polled.is_pending());
    }
    assert_eq!(verdict(&clients, &jwks, &good).await, "sso:user-1");
    assert_eq!(issuer.asked(), 2);
}

#[tokio::test]
async fn without_keys_nobody_is_let_in_and_nobody_is_to_blame() {
    let key = key();
    for status in ["500 No", "302 Found", "404 Not Found"] {
        let issuer = Issuer::start(&key, status).await;
        let (clients, jwks) = jwks(&issuer.url);
        let good = token(&key, "k-1", &issuer.url);
        for _ in 0..5 {
            assert_eq!(
                verdict(&clients, &jwks, &good).await,
                "unavailable",
                "{status}"
            );
        }
        assert_eq!(issuer.asked(), 1, "{status}");
    }
}
