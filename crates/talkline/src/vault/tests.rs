use std::net::SocketAddr;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use talkline_auth::{FetchedToken, TokenFuture};
use talkline_config::KeyPlace;
use talkline_gateway::tls::crypto_provider;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::*;

const HOST: &str = "talk.vault.azure.net";
const LATEST: &str = "https://talk.vault.azure.net/secrets/key";
const VERSION: &str = "https://talk.vault.azure.net/secrets/key/0123456789abcdef0123456789abcdef";
const FORBIDDEN: &str =
    r#"{"error":{"code":"Forbidden","message":"no","innererror":{"code":"ForbiddenByRbac"}}}"#;

#[derive(Debug)]
struct Token;

impl TokenSource for Token {
    fn name(&self) -> &'static str {
        "test"
    }

    fn fetch(&self) -> TokenFuture<'_> {
        Box::pin(async {
            Ok(FetchedToken {
                secret: Secret::new("token"),
                time_to_live: Duration::from_secs(3600),
                refresh_in: None,
            })
        })
    }
}

/// A vault at loopback that gives one answer to everybody.
struct Vault {
    network: Network,
    serving: JoinHandle<()>,
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Vault {
    async fn answering(status: u16, body: &str) -> Self {
        let certificate = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let der = certificate.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
        let server = rustls::ServerConfig::builder_with_provider(crypto_provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der.clone()], PrivateKeyDer::from(key))
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(der).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(crypto_provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let serving = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let mut tls = acceptor.accept(tcp).await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(tls.read_u8().await.unwrap());
                }
                tls.write_all(answer.as_bytes()).await.unwrap();
                tls.flush().await.unwrap();
            }
        });
        let network = Network::new(&client)
            .with_override(HOST, 443, address)
            .unwrap();
        Self { network, serving }
    }

    fn keys(&self, cell: &KeyCell, slot: KeySlot, reference: &str) -> VaultKeys {
        let reference = KeyVaultReference::parse(reference).unwrap();
        let key = WatchedKey {
            provider: "azure-openai".into(),
            cell: cell.clone(),
            primary: KeyPlace::KeyVault(reference.clone()),
            secondary: None,
        };
        let source: Arc<dyn TokenSource> = Arc::new(Token);
        let key = VaultKey::new(&key, slot, &reference, source, &self.network);
        let Ok(key) = key else {
            panic!("the reference is refused");
        };
        VaultKeys(vec![key])
    }
}

fn secret(value: &str, attributes: &str) -> String {
    format!(
        r#"{{"value":"{value}","id":"{LATEST}/0123456789abcdef0123456789abcdef","attributes":{{{attributes}}}}}"#
    )
}

fn empty() -> KeyCell {
    KeyCell::new(Secret::new(""), None)
}

#[tokio::test]
async fn a_key_is_there_before_the_relay_listens() {
    for (reference, watched) in [(LATEST, 1), (VERSION, 0)] {
        let vault = Vault::answering(200, &secret("key-1", "\"enabled\":true")).await;
        let cell = empty();
        let mut keys = vault.keys(&cell, KeySlot::Primary, reference);
        keys.fill().await.unwrap();
        assert_eq!(cell.live().secret().expose(), "key-1");
        // A version never changes, so nobody asks again.
        assert_eq!(keys.watch().len(), watched, "{reference}");
    }
}

#[tokio::test]
async fn without_its_primary_key_the_relay_does_not_start() {
    async fn check(status: u16, body: &str, exit_status: u8, code: &str) {
        let vault = Vault::answering(status, body).await;
        let cell = empty();
        let exit = vault
            .keys(&cell, KeySlot::Primary, LATEST)
            .fill()
            .await
            .unwrap_err();
        assert_eq!(exit.status(), exit_status, "{exit}");
        assert!(exit.to_string().contains(code), "{exit}");
        assert!(exit.to_string().contains(LATEST), "{exit}");
        assert!(!exit.to_string().contains("CANARY"), "{exit}");
        assert_eq!(cell.live().secret().expose(), "");
    }
    check(403, FORBIDDEN, 77, "vault_forbidden_rbac").await;
    let disabled = secret("CANARY", "\"enabled\":false");
    check(200, &disabled, 69, "vault_secret_disabled").await;
    for value in ["CANARY two words", "", "CANARY\\nCANARY"] {
        let body = secret(value, "\"enabled\":true");
        check(200, &body, 69, "vault_secret_no_key").await;
    }
}

#[tokio::test]
async fn without_its_secondary_key_it_starts_and_asks_again() {
    let vault = Vault::answering(403, FORBIDDEN).await;
    let cell = KeyCell::new(Secret::new("key-1"), None);
    for reference in [LATEST, VERSION] {
        let mut keys = vault.keys(&cell, KeySlot::Secondary, reference);
        keys.fill().await.unwrap();
        assert_eq!(cell.live().secret().expose(), "key-1");
        assert_eq!(keys.watch().len(), 1, "{reference}");
    }
}

/// The cell keeps what it has while the vault refuses.
#[tokio::test]
async fn the_last_good_key_stays() {
    let vault = Vault::answering(403, FORBIDDEN).await;
    let cell = KeyCell::new(Secret::new("key-1"), None);
    let mut keys = vault.keys(&cell, KeySlot::Primary, LATEST);
    assert!(keys.0[0].read().await.is_err());
    assert_eq!(cell.live().secret().expose(), "key-1");
}

#[test]
fn the_pause_is_about_ten_minutes() {
    for _ in 0..1000 {
        let pause = jittered(INTERVAL);
        assert!((540..=660).contains(&pause.as_secs()), "{pause:?}");
    }
}

/// Two crates read references: what the resolver accepts, the reader must.
#[test]
fn both_parsers_agree() {
    for text in [
        LATEST,
        VERSION,
        "https://talk.vault.usgovcloudapi.net/secrets/n",
        "https://talk.vault.azure.cn/secrets/n",
        "@Microsoft.KeyVault(VaultName=talk;SecretName=n)",
        "@Microsoft.KeyVault(SecretUri=https://talk.vault.azure.net/secrets/n/)",
    ] {
        let own = KeyVaultReference::parse(text).unwrap();
        let theirs = VaultReference::parse(&own.to_string()).unwrap();
        assert_eq!(theirs.to_string(), own.to_string(), "{text}");
        assert_eq!(theirs.scope().as_str(), own.scope(), "{text}");
        assert_eq!(theirs.host(), own.vault(), "{text}");
    }
}
