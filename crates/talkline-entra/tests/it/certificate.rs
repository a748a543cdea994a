//! Client assertions signed with a certificate's key.

use std::{fs, time::SystemTime};

use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, PublicKeyData as _, RsaKeySize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use talkline_auth::{Secret, TokenSource as _};
use talkline_entra::{
    Application, Authority, CertificateFiles, ClientAssertion, Network, Scope, SetupError,
};

use crate::{
    application::{HOST, network},
    child::describe,
    fake::{self, Fake, Reply, TlsIdentity},
};

/// A key with a certificate of its own.
pub(crate) struct Pair {
    pub(crate) key: KeyPair,
    pub(crate) certificate: rcgen::Certificate,
}

impl Pair {
    pub(crate) fn rsa() -> Self {
        Self::of(KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap())
    }

    fn elliptic() -> Self {
        Self::of(KeyPair::generate().unwrap())
    }

    fn of(key: KeyPair) -> Self {
        let params = CertificateParams::new(["relay.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { key, certificate }
    }

    pub(crate) fn pem(&self) -> String {
        self.key.serialize_pem() + &self.certificate.pem()
    }

    fn thumbprint(&self) -> [u8; 32] {
        Sha256::digest(self.certificate.der()).into()
    }
}

fn application() -> Application {
    Application {
        tenant_id: "contoso.example".into(),
        client_id: "client-1".into(),
        authority: Authority::public(),
    }
}

pub(crate) fn client_assertion(pem: &str, network: Network) -> Result<ClientAssertion, SetupError> {
    let scope = Scope::for_host("voice.openai.azure.com");
    ClientAssertion::new(application(), &Secret::new(pem), scope, network)
}

/// The value of a field of a form.
pub(crate) fn field<'a>(request: &'a str, name: &str) -> &'a str {
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    body.split('&')
        .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        .unwrap()
}

fn json(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Header and claims of an assertion, once its signature has been found good.
fn verified(assertion: &str, pair: &Pair) -> (Value, Value) {
    let (message, signature) = assertion.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, pair.key.der_bytes())
        .verify(message.as_bytes(), &signature)
        .unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    (json(header), json(claims))
}

#[tokio::test]
async fn an_assertion_is_signed_for_every_fetch() {
    let tls = TlsIdentity::new(HOST);
    let fake = Fake::start_tls(Reply::entra_token("t-1", 3599), &tls).await;
    let pair = Pair::rsa();
    let source = client_assertion(&pair.pem(), network(&tls, &fake)).unwrap();
    assert_eq!(source.name(), "client-assertion");
    for _ in 0..2 {
        assert_eq!(source.fetch().await.unwrap().secret.expose(), "t-1");
    }
    let requests = fake.requests();
    let mut ids = Vec::new();
    for request in &requests {
        assert!(request.starts_with("POST /contoso.example/oauth2/v2.0/token HTTP/1.1\r\n"));
        assert_eq!(
            field(request, "client_assertion_type"),
            "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
        );
        let (header, claims) = verified(field(request, "client_assertion"), &pair);
        assert_eq!(header["alg"], "PS256");
        assert_eq!(header["typ"], "JWT");
        assert_eq!(
            header["x5t#S256"],
            URL_SAFE_NO_PAD.encode(pair.thumbprint())
        );
        assert_eq!(
            claims["aud"],
            "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token"
        );
        assert_eq!(claims["iss"], "client-1");
        assert_eq!(claims["sub"], "client-1");
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let issued = claims["iat"].as_u64().unwrap();
        assert!((now - 30..=now).contains(&issued), "{claims}");
        assert_eq!(claims["nbf"], issued);
        assert_eq!(claims["exp"], issued + 300);
        ids.push(claims["jti"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0].len(), 22, "16 bytes");
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_up() {
    let tls = TlsIdentity::new(HOST);
    let fake = Fake::start_tls(Reply::entra_token("t-1", 3599), &tls).await;
    let directory = tempfile::tempdir().unwrap();
    let files = CertificateFiles {
        certificate: directory.path().join("tls.crt"),
        key: directory.path().join("tls.key"),
    };
    let scope = Scope::for_host("voice.openai.azure.com");
    let network = network(&tls, &fake);
    let source = ClientAssertion::from_files(application(), files.clone(), scope, network).unwrap();
    let error = source.fetch().await.unwrap_err();
    assert_eq!(error.code, "entra_proof_file");
    assert!(error.permanent);
    assert!(error.detail.starts_with("the certificate file "), "{error}");

    for pair in [Pair::rsa(), Pair::rsa()] {
        fs::write(&files.certificate, pair.certificate.pem()).unwrap();
        if files.key.exists() {
            // Half renewed: the old key beside the new certificate.
            let error = source.fetch().await.unwrap_err();
            assert!(!error.permanent);
            let why = "is of no use: the private key does not belong to the certificate";
            assert!(error.detail.ends_with(why), "{error}");
        }
        fs::write(&files.key, pair.key.serialize_pem()).unwrap();
        source.fetch().await.unwrap();
        verified(
            field(fake.requests().last().unwrap(), "client_assertion"),
            &pair,
        );
    }
    assert_eq!(fake.requests().len(), 2);
}

#[test]
fn what_cannot_sign_is_refused() {
    fn check(pem: &str, why: &'static str) {
        let network = Network::new(&fake::client(rustls::RootCertStore::empty()));
        let error = client_assertion(pem, network).unwrap_err();
        assert_eq!(error, SetupError::Certificate(why));
        assert_eq!(error.code(), "entra_certificate_form");
        assert!(error.hint().unwrap().contains("openssl pkcs12"));
    }
    let (rsa, other, elliptic) = (Pair::rsa(), Pair::rsa(), Pair::elliptic());
    let certificate = rsa.certificate.pem();
    check("", "there is no certificate in PEM form");
    check("secret", "there is no certificate in PEM form");
    check(
        &rsa.key.serialize_pem(),
        "there is no certificate in PEM form",
    );
    check(&certificate, "there is no private key in PEM form");
    check(
        &rsa.pem().replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
        "the private key is encrypted; decrypt it with openssl pkey",
    );
    check(
        &(other.key.serialize_pem() + &certificate),
        "the private key does not belong to the certificate",
    );
    check(
        &elliptic.pem(),
        "the private key is not an RSA key, the only kind that Entra takes",
    );
    check(
        &(certificate.clone() + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        "the private key cannot be used",
    );
    check(
        &(rsa.key.serialize_pem()
            + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        "the certificate cannot be read",
    );
}

#[tokio::test]
async fn entra_does_not_know_the_certificate() {
    let pair = Pair::rsa();
    let check = async |aadsts: u32, expected: &str| {
        let tls = TlsIdentity::new(HOST);
        let body = format!(
            r#"{{"error":"invalid_client","error_description":"AADSTS{aadsts}: No.","error_codes":[{aadsts}]}}"#
        );
        let fake = Fake::start_tls(Reply::json("401 Unauthorized", &body), &tls).await;
        let source = client_assertion(&pair.pem(), network(&tls, &fake)).unwrap();
        let error = describe(&source.fetch().await.unwrap_err());
        assert_eq!(
            error,
            expected.replace(
                "DETAIL",
                &format!("{HOST} answered 401 Unauthorized: AADSTS{aadsts}: No.")
            )
        );
    };
    let thumbprint: String = pair
        .thumbprint()
        .iter()
        .map(|b| format!("{b:02X}"))
        .collect();
    check(
        700_027,
        &format!(
            "entra_certificate_unknown 401: DETAIL; hint: the application does not know this certificate, or it \
             has expired; register it: az ad app credential reset --id client-1 --cert @certificate.pem --append \
             (its SHA-256 thumbprint is {thumbprint})"
        ),
    )
    .await;
    check(
        700_024,
        "entra_assertion_expired 401: DETAIL; hint: is the clock right? the assertion is good for minutes only",
    )
    .await;
}
