//! Clients that are known by a hash of their key, and users who signed in elsewhere.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};
use talkline_sim::caller::Secret;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

use crate::kit::{DEPLOYMENT, RawSession, Relay, azure, raw, simulator, turn};

const KEYS: &str = "clients.keys = [{ name = \"test\", env = \"CLIENT_KEY\" }]";

/// `101`, or the status and code of the refusal.
async fn verdict(relay: &Relay, key: &str) -> String {
    let target = format!("/v1/realtime?model={DEPLOYMENT}");
    let header = format!("Authorization: Bearer {key}\r\n");
    let mut session = RawSession::open(relay.authority(), &target, &header).await;
    let status = session.head.split(' ').nth(1).unwrap().to_owned();
    if status == "101" {
        return status;
    }
    let body = session.body().await;
    let refusal: Value = serde_json::from_slice(&body).unwrap();
    format!("{status} {}", refusal["error"]["code"].as_str().unwrap())
}

#[tokio::test]
async fn keys_that_are_known_by_their_hash() {
    // SHA-256 of `kiosk-4a1f9c27d8e05b63`; `password` with the salt `somesalt`.
    let hashes = "clients.keys = [\
        { name = \"kiosk\", sha256 = \"39aaaec7892a5e3daa02b6c84d248c8938ce911c18b9c996eef8608af547dfbf\" },\
        { name = \"slow\", argon2id = \"$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc\" }]";
    let sim = simulator().await;
    let relay = Relay::start(&azure(&sim.base_url()).replace(KEYS, hashes)).await;
    assert_eq!(verdict(&relay, "kiosk-4a1f9c27d8e05b63").await, "101");
    // Hashed once, remembered then.
    assert_eq!(verdict(&relay, "password").await, "101");
    assert_eq!(verdict(&relay, "password").await, "101");
    for wrong in ["kiosk-4a1f9c27d8e05b64", "Password"] {
        assert_eq!(verdict(&relay, wrong).await, "401 client_key_unknown");
    }
    assert_eq!(sim.requests().len(), 3);
    let log = relay.log().await;
    assert!(log.contains("\"client\":\"kiosk\"") && log.contains("\"client\":\"slow\""));
    assert!(!log.contains("4a1f9c27d8e05b63"), "{log}");
}

/// An identity provider on loopback, with the key that it publishes.
struct Provider {
    url: String,
    key: KeyPair,
    _serving: JoinSet<()>,
}

impl Provider {
    async fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let point = key.der_bytes();
        let (x, y) = (encode(&point[1..33]), encode(&point[33..65]));
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "x": x, "y": y}]});
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let found = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
        let mut serving = JoinSet::new();
        let answers = Arc::new((keys.to_string(), found.to_string()));
        serving.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let body = match head.starts_with(b"GET /keys ") {
                    true => &answers.0,
                    false => &answers.1,
                };
                let length = body.len();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self {
            url,
            key,
            _serving: serving,
        }
    }

    /// A user's token, with some claims changed.
    fn token(&self, changes: &Value) -> String {
        sign(&self.key, "ES256", &self.claims(changes))
    }

    fn claims(&self, changes: &Value) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let mut claims = json!({
            "iss": self.url, "aud": "talk", "sub": "ada", "scp": "openid talk.use",
            "exp": now.as_secs() + 600,
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn sign(key: &KeyPair, algorithm: &str, claims: &Value) -> String {
    let header = json!({"typ": "JWT", "alg": algorithm, "kid": "k"});
    let message = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let signature = fixed(&key.sign(message.as_bytes()).unwrap());
    format!("{message}.{}", encode(&signature))
}

/// The two numbers of an ECDSA signature side by side (RFC 7518 section 3.4), out of their DER.
fn fixed(der: &[u8]) -> Vec<u8> {
    let number = |at: usize| {
        let length = usize::from(der[at + 1]);
        (&der[at + 2..at + 2 + length], at + 2 + length)
    };
    let (r, next) = number(2);
    let (s, _) = number(next);
    let padded = |number: &[u8]| {
        let number = &number[number.len().saturating_sub(32)..];
        [&vec![0; 32 - number.len()][..], number].concat()
    };
    [padded(r), padded(s)].concat()
}

#[tokio::test]
async fn users_of_an_identity_provider() {
    let provider = Provider::start().await;
    let sim = simulator().await;
    let configuration = azure(&sim.base_url())
        + &format!(
            "clients.oidc.sso.issuer = \"{}\"\nclients.oidc.sso.audiences = [\"talk\"]\n\
             clients.oidc.sso.algorithms = [\"ES256\"]\nclients.oidc.sso.nameClaim = \"sub\"\n\
             clients.oidc.sso.requiredScopes = [\"talk.use\"]\nclients.access.sso.maxSessions = 3\n",
            provider.url
        );
    let relay = Relay::start(&configuration).await;
    let good = provider.token(&json!({}));
    assert_eq!(verdict(&relay, &good).await, "101");

    let stranger = KeyPair::generate().unwrap();
    let refused = [
        (
            provider.token(&json!({"aud": "other"})),
            "401 user_token_audience",
        ),
        (
            provider.token(&json!({"exp": 1_700_000_000})),
            "401 user_token_expired",
        ),
        (
            provider.token(&json!({"nbf": 4_000_000_000_u64})),
            "401 user_token_not_yet_valid",
        ),
        (
            provider.token(&json!({"scp": "openid"})),
            "403 user_not_permitted",
        ),
        (
            sign(&stranger, "ES256", &provider.claims(&json!({}))),
            "401 user_token_signature",
        ),
        (
            sign(&provider.key, "RS256", &provider.claims(&json!({}))),
            "401 user_token_algorithm",
        ),
        (
            sign(&provider.key, "none", &provider.claims(&json!({}))),
            "401 client_key_unknown",
        ),
        (
            provider.token(&json!({"iss": "https://another.test"})),
            "401 client_key_unknown",
        ),
    ];
    for (token, expected) in &refused {
        assert_eq!(verdict(&relay, token).await, *expected);
    }
    // A page of the user's gets a token of its own by it.
    let request = format!(
        "POST /talk/session HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {good}\r\n\
         Content-Length: 0\r\n\r\n"
    );
    let answer = raw(relay.authority(), request.as_bytes()).await;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let told: Value = serde_json::from_str(body).unwrap();
    let mut call = relay.plain_call();
    call.bearer = Some(Secret::new(
        told["client_secret"]["value"].as_str().unwrap(),
    ));
    assert!(turn(&call).await.unwrap().is_whole());
    let log = relay.log().await;
    assert_eq!(log.matches("\"client\":\"sso:ada\"").count(), 2, "{log}");
    assert!(!log.contains(&good), "{log}");
}
