//! Key Vault, played by a fake over TLS that goes by the vault's own name.

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use talkline_auth::{FetchedToken, Secret, TokenFuture, TokenSource};
use talkline_entra::{KeyVault, Network, VaultError, VaultReference};

use crate::{
    application::{HOST, client_secret},
    fake::{self, Fake, Reply, TlsIdentity},
};

pub(crate) const VAULT: &str = "contoso.vault.azure.net";
const VERSION: &str = "0123456789abcdef0123456789abcdef";

/// A source that has its answer already.
#[derive(Debug)]
struct Given(Secret);

impl TokenSource for Given {
    fn name(&self) -> &'static str {
        "given"
    }

    fn fetch(&self) -> TokenFuture<'_> {
        Box::pin(async {
            Ok(FetchedToken {
                secret: self.0.clone(),
                time_to_live: Duration::from_secs(3600),
                refresh_in: None,
            })
        })
    }
}

fn reference(version: Option<&str>) -> VaultReference {
    let mut text = format!("https://{VAULT}/secrets/openai-key");
    if let Some(version) = version {
        text.push('/');
        text.push_str(version);
    }
    VaultReference::parse(&text).unwrap()
}

pub(crate) fn network(tls: &TlsIdentity, fake: &Fake) -> Network {
    Network::new(&tls.client)
        .with_override(VAULT, 443, fake.address)
        .unwrap()
}

pub(crate) fn vault(token: &'static str, network: Network) -> KeyVault {
    KeyVault::new(
        reference(None),
        Arc::new(Given(Secret::new(token))),
        network,
    )
}

#[tokio::test]
async fn a_secret_is_read() {
    let tls = TlsIdentity::new(VAULT);
    let body = format!(
        r#"{{"value":" k\r\ney ","id":"https://{VAULT}/secrets/openai-key/{VERSION}","attributes":{{"enabled":true,"exp":1900000000,"created":1,"updated":1}}}}"#
    );
    let fake = Fake::start_tls(Reply::json("200 OK", &body), &tls).await;
    let secret = vault("t-1", network(&tls, &fake)).read().await.unwrap();
    assert_eq!(secret.value.expose(), " k\r\ney ");
    assert_eq!(secret.version.as_deref(), Some(VERSION));
    let expires = UNIX_EPOCH + Duration::from_secs(1_900_000_000);
    assert_eq!(secret.expires, Some(expires));
    assert!(secret.enabled);
    let request = fake.only_request();
    assert!(request.starts_with("GET /secrets/openai-key?api-version=7.4 HTTP/1.1\r\n"));
    assert!(request.contains("host: contoso.vault.azure.net\r\n"));
    assert!(
        request.contains("authorization: Bearer t-1\r\n"),
        "{request}"
    );

    let body = r#"{"value":"v","attributes":{"enabled":false},"id":"https://x/../../a"}"#;
    fake.set_reply(Reply::json("200 OK", body));
    let identity = Arc::new(Given(Secret::new("t-1")));
    let versioned = KeyVault::new(reference(Some(VERSION)), identity, network(&tls, &fake));
    assert!(versioned.reference().is_versioned());
    let secret = versioned.read().await.unwrap();
    assert_eq!(secret.value.expose(), "v");
    assert_eq!(secret.version, None);
    assert_eq!(secret.expires, None);
    assert!(!secret.enabled);
    let line = format!("GET /secrets/openai-key/{VERSION}?api-version=7.4 HTTP/1.1\r\n");
    assert!(fake.requests()[1].starts_with(&line));
}

/// With the token of a real source, for the audience that belongs to the vault.
#[tokio::test]
async fn a_token_for_the_vault_is_fetched_and_sent() {
    let entra_tls = TlsIdentity::new(HOST);
    let entra = Fake::start_tls(Reply::entra_token("entra-token", 3599), &entra_tls).await;
    let vault_tls = TlsIdentity::new(VAULT);
    let fake = Fake::start_tls(Reply::json("200 OK", r#"{"value":"v"}"#), &vault_tls).await;
    let reference = reference(None);
    let entra_network = crate::application::network(&entra_tls, &entra);
    let identity = client_secret("s-1", entra_network, reference.scope());
    let vault = KeyVault::new(reference, Arc::new(identity), network(&vault_tls, &fake));
    assert_eq!(vault.read().await.unwrap().value.expose(), "v");
    let asked = entra.only_request();
    assert!(asked.ends_with("&scope=https%3A%2F%2Fvault.azure.net%2F.default"));
    let sent = fake.only_request();
    assert!(sent.contains("authorization: Bearer entra-token\r\n"));

    entra.set_reply(Reply::json(
        "401 Unauthorized",
        r#"{"error":"invalid_client","error_description":"AADSTS7000222: Expired."}"#,
    ));
    let error = vault.read().await.unwrap_err();
    assert_eq!(error.code, "entra_secret_expired");
    assert_eq!(
        error.to_string(),
        "no token for the vault: client-secret gave no token: login.microsoftonline.com answered 401 Unauthorized: AADSTS7000222: Expired."
    );
    assert!(error.permanent);
    assert_eq!(error.http_status, Some(401));
    assert!(error.hint.is_some());
    assert_eq!(fake.requests().len(), 1, "the vault is not asked");
}

fn describe(error: &VaultError) -> String {
    let how = if error.permanent {
        "permanent"
    } else {
        "transient"
    };
    let mut text = format!("{how} {}", error.code);
    if let Some(status) = error.http_status {
        text.push_str(&format!(" {status}"));
    }
    text.push_str(&format!(": {error}"));
    if let Some(hint) = &error.hint {
        text.push_str(&format!("; hint: {hint}"));
    }
    text
}

/// What becomes of one reply, after one request.
async fn check(reply: Reply, expected: &str, hint: &str) {
    let tls = TlsIdentity::new(VAULT);
    let fake = Fake::start_tls(reply, &tls).await;
    let error = vault("t-1", network(&tls, &fake)).read().await.unwrap_err();
    let text = describe(&error);
    assert!(text.starts_with(expected), "{text} is not {expected}");
    let said = error.hint.as_deref().unwrap_or("none");
    assert!(said.contains(hint), "{said:?} does not say {hint}");
    assert_eq!(fake.requests().len(), 1);
}

fn refusal(status: &str, code: &str, inner: &str) -> Reply {
    let inner = match inner {
        "" => String::new(),
        inner => format!(r#","innererror":{{"code":"{inner}"}}"#),
    };
    // As Key Vault writes it, with escapes that the SDK's own client cannot read.
    let body =
        format!(r#"{{"error":{{"code":"{code}","message":"Caller is \"so\".\r\nNo."{inner}}}}}"#);
    Reply::json(status, &body)
}

#[tokio::test]
async fn forbidden() {
    let forbidden = |inner| refusal("403 Forbidden", "Forbidden", inner);
    check(
        forbidden("ForbiddenByRbac"),
        "permanent vault_forbidden_rbac 403: contoso.vault.azure.net answered 403 Forbidden: Caller is \"so\". No.; hint: ",
        "az role assignment create --role \"Key Vault Secrets User\" --assignee-object-id <principal> \
         --assignee-principal-type ServicePrincipal --scope $(az keyvault show --name contoso ",
    )
    .await;
    for inner in ["ForbiddenByConnection", "ForbiddenByFirewall"] {
        check(
            forbidden(inner),
            "permanent vault_forbidden_network 403: ",
            "az keyvault network-rule add --name contoso --ip-address",
        )
        .await;
    }
    for message in [
        "Client address is not authorized and caller is not a trusted service.",
        "Public network access is disabled and request is not from a trusted service nor via an approved private link.",
    ] {
        let body = format!(r#"{{"error":{{"code":"Forbidden","message":"{message}"}}}}"#);
        check(
            Reply::json("403 Forbidden", &body),
            "permanent vault_forbidden_network 403: ",
            "az keyvault network-rule add",
        )
        .await;
    }
    for inner in ["ForbiddenByPolicy", "AccessDenied"] {
        check(
            forbidden(inner),
            "permanent vault_forbidden_policy 403: ",
            "az keyvault set-policy --name contoso --object-id <principal> --secret-permissions get",
        )
        .await;
    }
    check(
        forbidden("SecretDisabled"),
        "permanent vault_secret_disabled 403: ",
        "az keyvault secret set-attributes --vault-name contoso --name openai-key --enabled true",
    )
    .await;
    check(
        forbidden(""),
        "permanent vault_forbidden 403: ",
        "az role assignment create",
    )
    .await;
}

#[tokio::test]
async fn secrets_that_are_not_to_be_had() {
    check(
        refusal("404 Not Found", "SecretNotFound", ""),
        "permanent vault_secret_not_found 404: ",
        "az keyvault secret list --vault-name contoso",
    )
    .await;
    check(
        refusal("429 Too Many Requests", "Throttled", ""),
        "transient vault_throttled 429: ",
        "too many requests to this vault",
    )
    .await;
    check(
        refusal("503 Service Unavailable", "x", ""),
        "transient vault_unavailable 503: ",
        "none",
    )
    .await;
    check(
        refusal("400 Bad Request", "BadParameter", ""),
        "permanent vault_refused 400: ",
        "none",
    )
    .await;
    check(
        Reply::json("200 OK", r#"{"error":1}"#),
        "transient vault_malformed: contoso.vault.azure.net answered with 11 bytes of application/json that are no secret: it has no value",
        "none",
    )
    .await;
    check(
        Reply::Flood(1024 * 1024),
        "transient vault_malformed: the answer of contoso.vault.azure.net is longer than 65536 bytes",
        "none",
    )
    .await;
}

#[tokio::test]
async fn how_long_to_wait_is_passed_on() {
    let tls = TlsIdentity::new(VAULT);
    let reply = Reply::headers("429 Slow", "Retry-After: 12\r\n", "");
    let fake = Fake::start_tls(reply, &tls).await;
    let error = vault("t-1", network(&tls, &fake)).read().await.unwrap_err();
    assert_eq!(error.retry_after, Some(Duration::from_secs(12)));
}

#[tokio::test]
async fn what_is_not_a_vault_is_said_to_be_so() {
    let html = |status| Reply::status(status, "text/html", "<html>Blocked</html>");
    let between = "this does not come from Azure";
    check(
        html("403 Forbidden"),
        "permanent vault_not_json 403: contoso.vault.azure.net answered 403 Forbidden with text/html, not JSON: <html>Blocked</html>",
        between,
    )
    .await;
    check(
        html("404 Not Found"),
        "permanent vault_not_json 404",
        between,
    )
    .await;
    check(
        html("200 OK"),
        "transient vault_not_json: contoso.vault.azure.net answered with 20 bytes of text/html that are no secret",
        between,
    )
    .await;
    check(
        Reply::headers("302 Found", "Location: https://evil.example/\r\n", ""),
        "permanent vault_not_json 302: contoso.vault.azure.net answered 302 Found, and redirects are not followed",
        between,
    )
    .await;
    check(
        Reply::Bytes(b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec()),
        "transient vault_not_http: ",
        "none",
    )
    .await;
}

#[tokio::test]
async fn a_challenge_is_explained_and_never_followed_elsewhere() {
    let challenge = |parameters: &str| {
        Reply::headers(
            "401 Unauthorized",
            &format!("WWW-Authenticate: Bearer {parameters}\r\nContent-Type: application/json\r\n"),
            r#"{"error":{"code":"Unauthorized","message":"AKV10032: Invalid issuer."}}"#,
        )
    };
    let authority = "authorization=\"https://login.microsoftonline.com/0a1b-2c\"";
    check(
        challenge(&format!("{authority}, resource=\"https://vault.azure.net\"")),
        "permanent vault_unauthorized 401: contoso.vault.azure.net answered 401 Unauthorized: AKV10032: Invalid issuer.",
        "the vault belongs to tenant 0a1b-2c; is the token of that tenant, and for https://vault.azure.net/.default?",
    )
    .await;
    check(
        challenge(&format!(
            "{authority}, resource=\"https://management.azure.com\""
        )),
        "permanent vault_challenge_foreign 401: ",
        "asks for a token of another service and gets none",
    )
    .await;
    check(
        challenge("scope=\"https://vault.azure.net.evil.example/.default\""),
        "permanent vault_challenge_foreign 401: ",
        "a vault asks for vault.azure.net",
    )
    .await;
    check(
        challenge(""),
        "permanent vault_unauthorized 401: ",
        "is the token for https://vault.azure.net/.default?",
    )
    .await;
    check(
        Reply::json(
            "401 Unauthorized",
            r#"{"error":{"code":"Unauthorized","message":"AKV10000: Request is missing a Bearer or PoP token."}}"#,
        ),
        "permanent vault_unauthorized 401: ",
        "does a proxy remove the Authorization header?",
    )
    .await;
}

#[tokio::test]
async fn an_unknown_certificate_gets_no_token() {
    let tls = TlsIdentity::new(VAULT);
    let fake = Fake::start_tls(Reply::json("200 OK", r#"{"value":"v"}"#), &tls).await;
    let untrusting = Network::new(&fake::client(rustls::RootCertStore::empty()))
        .with_override(VAULT, 443, fake.address)
        .unwrap();
    let error = vault("t-1", untrusting).read().await.unwrap_err();
    let text = describe(&error);
    let expected = "permanent vault_tls: no TLS connection to contoso.vault.azure.net: invalid peer certificate";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains("SSL_CERT_FILE"), "{text}");
    assert_eq!(fake.requests(), [""; 0]);
}

#[tokio::test]
async fn a_vault_that_cannot_be_reached() {
    // A port that is taken, so that no other test gets it, and on which nobody listens.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let network = Network::new(&fake::client(rustls::RootCertStore::empty()))
        .with_override(VAULT, 443, socket.local_addr().unwrap())
        .unwrap();
    let error = vault("t-1", network).read().await.unwrap_err();
    assert_eq!(
        describe(&error),
        "transient vault_unreachable: no connection to contoso.vault.azure.net: Connection refused (os error 111); \
         hint: is the way out to https://contoso.vault.azure.net open, in the firewall and in the network policy?"
    );
}
