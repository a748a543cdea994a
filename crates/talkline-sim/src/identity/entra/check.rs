//! Whether Entra would issue a token.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::server::ParsedCertificate;
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use super::super::token::Jwt;
use super::app::{App, ClientProof, Federated, Registered, TokenRequest};
use super::{EntraRefusal, LOGIN_HOST};

/// The only assertion type that Entra takes (RFC 7523, section 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The audience of a federated assertion ("Workload identity federation", Microsoft Entra).
const EXCHANGE: &str = "api://AzureADTokenExchange";

/// Whether Entra would issue a token.
pub(super) fn check(
    asked: &TokenRequest,
    tenants: &[String],
    apps: &[App],
    now_unix: u64,
) -> Result<(), EntraRefusal> {
    if !is_guid(&asked.tenant) && !is_domain(&asked.tenant) {
        return Err(EntraRefusal::MalformedTenant);
    }
    if !tenants.is_empty() && !tenants.contains(&asked.tenant) {
        return Err(EntraRefusal::UnknownTenant);
    }
    if !asked
        .content_type
        .starts_with("application/x-www-form-urlencoded")
        || asked.client_id.is_empty()
    {
        return Err(EntraRefusal::MissingParameter);
    }
    if asked.grant_type != "client_credentials" {
        return Err(EntraRefusal::GrantType);
    }
    if asked.scope.contains(' ')
        || asked
            .scope
            .strip_suffix("/.default")
            .is_none_or(str::is_empty)
    {
        return Err(EntraRefusal::BadScope);
    }
    let app = apps.iter().find(|app| app.client_id == asked.client_id);
    if app.is_none() && !apps.is_empty() {
        return Err(EntraRefusal::UnknownApp);
    }
    match &asked.proof {
        ClientProof::None | ClientProof::Both => Err(EntraRefusal::NoProof),
        ClientProof::Secret(secret) => check_secret(secret, app),
        ClientProof::Assertion { kind, raw, jwt } if kind == ASSERTION_TYPE => {
            let jwt = jwt.as_ref().ok_or(EntraRefusal::AssertionMalformed)?;
            check_life(jwt, now_unix)?;
            if jwt.claim("iss") == Some(&asked.client_id) {
                check_signed(asked, raw, jwt, app)
            } else {
                check_federated(jwt, app)
            }
        }
        ClientProof::Assertion { .. } => Err(EntraRefusal::NoProof),
    }
}

fn check_secret(secret: &str, app: Option<&App>) -> Result<(), EntraRefusal> {
    let Some(app) = app else {
        return if secret.is_empty() {
            Err(EntraRefusal::NoProof)
        } else {
            Ok(())
        };
    };
    match app.secrets.iter().find(|each| each.secret == secret) {
        Some(Registered { expired: false, .. }) => Ok(()),
        Some(Registered { expired: true, .. }) => Err(EntraRefusal::SecretExpired),
        None => Err(EntraRefusal::WrongSecret),
    }
}

fn check_life(jwt: &Jwt, now_unix: u64) -> Result<(), EntraRefusal> {
    /// The tolerance that Entra documents for clocks.
    const SKEW_SECS: u64 = 300;
    let seconds = |name: &str| jwt.claims.get(name).and_then(Value::as_u64);
    let alive = seconds("exp").is_some_and(|exp| now_unix < exp.saturating_add(SKEW_SECS));
    let begun = seconds("nbf").is_none_or(|nbf| nbf <= now_unix + SKEW_SECS);
    if alive && begun {
        Ok(())
    } else {
        Err(EntraRefusal::AssertionExpired)
    }
}

/// An assertion that the client signed with its own certificate ("Microsoft identity platform application
/// authentication certificate credentials").
fn check_signed(
    asked: &TokenRequest,
    raw: &str,
    jwt: &Jwt,
    app: Option<&App>,
) -> Result<(), EntraRefusal> {
    let audience = jwt.claim("aud").unwrap_or_default();
    let hosts = [asked.host.as_str(), LOGIN_HOST];
    let for_us = hosts.iter().any(|host| {
        let realm = format!("https://{host}/{}/", asked.tenant);
        audience
            .strip_prefix(realm.as_str())
            .is_some_and(|rest| matches!(rest, "v2.0" | "oauth2/v2.0/token"))
    });
    if !for_us || jwt.claim("sub") != Some(&asked.client_id) || jwt.claim("jti").is_none() {
        return Err(EntraRefusal::AssertionAudience);
    }
    let Some(app) = app else {
        return Ok(());
    };
    let meant = app
        .certificates
        .iter()
        .find(|certificate| names(&jwt.header, certificate));
    match meant.and_then(|certificate| verified(raw, jwt, certificate)) {
        Some(()) => Ok(()),
        None => Err(EntraRefusal::AssertionSignature),
    }
}

/// Whether the header names that certificate, by its SHA-256 or its SHA-1 thumbprint (RFC 7515, section 4.1.7).
fn names(header: &Value, certificate: &CertificateDer<'_>) -> bool {
    let thumbprint = |algorithm| URL_SAFE_NO_PAD.encode(digest::digest(algorithm, certificate));
    let is = |name: &str, algorithm| {
        header
            .get(name)
            .and_then(Value::as_str)
            .is_some_and(|stated| stated == thumbprint(algorithm))
    };
    is("x5t#S256", &digest::SHA256) || is("x5t", &digest::SHA1_FOR_LEGACY_USE_ONLY)
}

fn verified(raw: &str, jwt: &Jwt, certificate: &CertificateDer<'_>) -> Option<()> {
    let algorithm: &RsaParameters = match jwt.header.get("alg")?.as_str()? {
        "RS256" => &RSA_PKCS1_2048_8192_SHA256,
        "PS256" => &RSA_PSS_2048_8192_SHA256,
        _ => return None,
    };
    let (signed, _) = raw.rsplit_once('.')?;
    let key = ParsedCertificate::try_from(certificate)
        .ok()?
        .subject_public_key_info();
    UnparsedPublicKey::new(algorithm, key.as_ref())
        .verify(signed.as_bytes(), &jwt.signature)
        .ok()
}

/// An assertion that another issuer made about the client, a service account's token for instance.
fn check_federated(jwt: &Jwt, app: Option<&App>) -> Result<(), EntraRefusal> {
    let says = |value: &Value| value.as_str() == Some(EXCHANGE);
    let for_exchange = match jwt.claims.get("aud") {
        Some(Value::Array(all)) => all.iter().any(says),
        Some(one) => says(one),
        None => false,
    };
    if !for_exchange {
        return Err(EntraRefusal::FederatedAudience);
    }
    let Some(app) = app else {
        return Ok(());
    };
    if app.federated.is_empty() {
        return Err(EntraRefusal::NoFederatedCredential);
    }
    let of_issuer = |each: &&Federated| jwt.claim("iss") == Some(&each.issuer);
    let mut issued = app.federated.iter().filter(of_issuer).peekable();
    if issued.peek().is_none() {
        return Err(EntraRefusal::FederatedIssuer);
    }
    if issued.any(|each| jwt.claim("sub") == Some(&each.subject)) {
        Ok(())
    } else {
        Err(EntraRefusal::FederatedSubject)
    }
}

/// Whether it has the form 8-4-4-4-12.
pub(super) fn is_guid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12]
        && text
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte == b'-' || byte.is_ascii_alphanumeric())
    };
    text.contains('.') && text.split('.').all(is_label)
}
