//! Users' tokens: signed by keys of the tests' own, in every way that is right and many that are
//! not.

use std::sync::OnceLock;

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa,
    signature::{
        self, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RsaEncoding,
    },
};
use serde_json::json;

use super::*;
use crate::{AllowedRoutes, ClientKeys, ClientLimits, Lookup, PresentedKey, token::tests::start};

const ISSUER: &str = "https://login.microsoftonline.com/t/v2.0";

struct Keys {
    rsa: rsa::KeyPair,
    other_rsa: rsa::KeyPair,
    small_rsa: Vec<u8>,
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys {
        rsa: rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap(),
        other_rsa: rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap(),
        small_rsa: vec![0xc1; 128],
        p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
        ed25519: Ed25519KeyPair::generate().unwrap(),
    })
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa_jwk(id: &str, key: &rsa::KeyPair) -> Value {
    let public = key.public_key();
    json!({
        "kty": "RSA", "use": "sig", "kid": id,
        "n": encode(public.modulus().big_endian_without_leading_zero()),
        "e": encode(public.exponent().big_endian_without_leading_zero()),
    })
}

fn set() -> Value {
    let point = keys().p256.public_key().as_ref();
    json!({"keys": [
        rsa_jwk("r-1", &keys().rsa),
        {"kty": "EC", "crv": "P-256", "kid": "e-1", "alg": "ES256",
         "x": encode(&point[1..33]), "y": encode(&point[33..])},
        {"kty": "OKP", "crv": "Ed25519", "kid": "o-1", "x": encode(keys().ed25519.public_key().as_ref())},
        // Passed over: for encryption, too short, a shared secret, a kind that nobody knows.
        {"kty": "RSA", "use": "enc", "kid": "enc", "n": "AQ", "e": "AQAB"},
        {"kty": "RSA", "kid": "small", "n": encode(&keys().small_rsa), "e": "AQAB"},
        {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
        {"kty": "quantum", "kid": "q"},
    ]})
}

fn key_set() -> KeySet {
    KeySet::parse(set().to_string().as_bytes()).unwrap()
}

fn issuer() -> OidcIssuer {
    OidcIssuer {
        identity: ClientIdentity {
            name: "entra".into(),
            routes: AllowedRoutes::Only(["voice".to_owned()].into()),
            limits: ClientLimits {
                sessions_max: Some(1),
                ..ClientLimits::default()
            },
            policy: Some("kiosk".into()),
        },
        issuer: ISSUER.into(),
        audiences: vec!["api://talk".into(), "11111111-2222".into()],
        algorithms: vec![UserAlgorithm::Rs256],
        jwks_uri: None,
        name_claim: "oid".into(),
        required_scopes: vec!["Talk.Use".into()],
        required_roles: vec![],
    }
}

fn claims(changes: Value) -> String {
    let seconds = 1_800_000_000_u64;
    let mut claims = json!({
        "iss": ISSUER, "aud": "api://talk", "oid": "user-1", "scp": "profile Talk.Use",
        "exp": seconds + 3600, "nbf": seconds - 60,
    });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims
                .as_object_mut()
                .unwrap()
                .insert(name.clone(), value.clone()),
        };
    }
    claims.to_string()
}

const HEADER: &str = r#"{"typ":"JWT","alg":"RS256","kid":"r-1"}"#;

fn message(header: &str, claims: &str) -> String {
    format!(
        "{}.{}",
        encode(header.as_bytes()),
        encode(claims.as_bytes())
    )
}

fn rsa_signed(
    key: &rsa::KeyPair,
    by: &'static dyn RsaEncoding,
    header: &str,
    claims: &str,
) -> String {
    let message = message(header, claims);
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(by, &SystemRandom::new(), message.as_bytes(), &mut signature)
        .unwrap();
    format!("{message}.{}", encode(&signature))
}

fn signed(claims: &str) -> String {
    rsa_signed(&keys().rsa, &signature::RSA_PKCS1_SHA256, HEADER, claims)
}

fn result_of(issuer: OidcIssuer, token: &str, now: SystemTime) -> String {
    let clients = ClientKeys::new(vec![]).with_issuers(vec![Arc::new(issuer)]);
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_bytes())];
    let found =
        PresentedKey::find(headers.into_iter(), None).and_then(|key| clients.look_up(key.as_ref()));
    match found {
        Ok(Lookup::User(check)) => match check.verify(&key_set(), now) {
            Ok(client) => client.name().to_owned(),
            Err(refusal) => refusal.code().to_owned(),
        },
        Ok(other) => format!("{other:?}"),
        Err(refusal) => refusal.code().to_owned(),
    }
}

#[track_caller]
fn check_with(issuer: OidcIssuer, token: &str, expected: &str) {
    assert_eq!(result_of(issuer, token, start().wall), expected);
}

#[track_caller]
fn check(token: &str, expected: &str) {
    check_with(issuer(), token, expected);
}

#[test]
fn a_user_is_let_in_as_one_of_the_issuers() {
    let clients = ClientKeys::new(vec![]).with_issuers(vec![Arc::new(issuer())]);
    let token = Secret::new(signed(&claims(json!({}))));
    let found = UserCheck::find(&token, clients.issuers()).unwrap();
    assert_eq!(found.issuer().name(), "entra");
    let client = found.verify(&key_set(), start().wall).unwrap();
    assert_eq!(
        (client.name(), client.means()),
        ("entra:user-1", &Means::User)
    );
    assert_eq!(client.identity().limits.sessions_max, Some(1));
    assert_eq!(client.identity().policy.as_deref(), Some("kiosk"));
    assert!(client.may_mint());
    // A browser token of this user finds its way back to the same identity.
    assert_eq!(
        clients.identity("entra:user-1").as_ref(),
        Some(client.identity())
    );
    assert!(clients.identity("entra:").is_none() && clients.identity("entra").is_none());
    assert!(clients.identity("other:user-1").is_none());
    assert!(!format!("{found:?}").contains("user-1"));
}

#[test]
fn algorithms() {
    let with = |algorithms: &[UserAlgorithm]| OidcIssuer {
        algorithms: algorithms.to_vec(),
        ..issuer()
    };
    let claims = claims(json!({}));
    let header = |alg: &str, kid: &str| format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#);
    check(&signed(&claims), "entra:user-1");
    let rs384 = rsa_signed(
        &keys().rsa,
        &signature::RSA_PKCS1_SHA384,
        &header("RS384", "r-1"),
        &claims,
    );
    check(&rs384, "user_token_algorithm");
    check_with(with(&[UserAlgorithm::Rs384]), &rs384, "entra:user-1");
    let ps256 = rsa_signed(
        &keys().rsa,
        &signature::RSA_PSS_SHA256,
        &header("PS256", "r-1"),
        &claims,
    );
    check(&ps256, "user_token_algorithm");
    check_with(
        with(&[UserAlgorithm::Rs256, UserAlgorithm::Ps256]),
        &ps256,
        "entra:user-1",
    );

    let message_of = |alg: &str, kid: &str| message(&header(alg, kid), &claims);
    let es256 = message_of("ES256", "e-1");
    let signature = keys()
        .p256
        .sign(&SystemRandom::new(), es256.as_bytes())
        .unwrap();
    let es256 = format!("{es256}.{}", encode(signature.as_ref()));
    check_with(with(&[UserAlgorithm::Es256]), &es256, "entra:user-1");
    check(&es256, "user_token_algorithm");
    let eddsa = message_of("EdDSA", "o-1");
    let eddsa = format!(
        "{eddsa}.{}",
        encode(keys().ed25519.sign(eddsa.as_bytes()).as_ref())
    );
    check_with(with(&[UserAlgorithm::EdDsa]), &eddsa, "entra:user-1");

    // A key of one kind, a token of another.
    let mixed = rsa_signed(
        &keys().rsa,
        &signature::RSA_PKCS1_SHA256,
        &header("RS256", "e-1"),
        &claims,
    );
    check(&mixed, "user_token_key_unknown");
    let swapped = rsa_signed(
        &keys().rsa,
        &signature::RSA_PKCS1_SHA256,
        &header("ES256", "r-1"),
        &claims,
    );
    check_with(
        with(&[UserAlgorithm::Es256]),
        &swapped,
        "user_token_key_unknown",
    );
}

/// The public key is known to everybody; a token that is "signed" with it as a shared secret, or
/// with nothing, is no user's token.
#[test]
fn no_secret_is_shared() {
    let claims = claims(json!({}));
    let modulus = keys()
        .rsa
        .public_key()
        .modulus()
        .big_endian_without_leading_zero()
        .to_vec();
    for (kid, secret) in [
        ("r-1", modulus.as_slice()),
        ("r-1", keys().rsa.public_key().as_ref()),
        ("shared", b"secret"),
    ] {
        let message = message(&format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#), &claims);
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let token = format!(
            "{message}.{}",
            encode(hmac::sign(&key, message.as_bytes()).as_ref())
        );
        check(&token, "client_key_unknown");
    }
    for alg in ["none", "None", "nOnE", ""] {
        let message = message(&format!(r#"{{"alg":"{alg}","kid":"r-1"}}"#), &claims);
        check(&format!("{message}."), "client_key_unknown");
    }
}

#[test]
fn keys_and_signatures() {
    let claims = claims(json!({}));
    let by = |key: &rsa::KeyPair, header: &str| {
        rsa_signed(key, &signature::RSA_PKCS1_SHA256, header, &claims)
    };
    check(&by(&keys().other_rsa, HEADER), "user_token_signature");
    check(
        &by(&keys().rsa, &HEADER.replace("r-1", "r-2")),
        "user_token_key_unknown",
    );
    // Without an id every key of the kind is tried.
    check(&by(&keys().rsa, r#"{"alg":"RS256"}"#), "entra:user-1");
    check(
        &by(&keys().other_rsa, r#"{"alg":"RS256"}"#),
        "user_token_signature",
    );
    // Nothing that a header brings along counts.
    let brought = rsa_jwk("r-1", &keys().other_rsa);
    let header = format!(r#"{{"alg":"RS256","kid":"r-1","jwk":{brought}}}"#);
    check(&by(&keys().other_rsa, &header), "user_token_signature");
    check(
        &by(
            &keys().rsa,
            r#"{"alg":"RS256","kid":"r-1","crit":["x"],"x":1}"#,
        ),
        "client_key_unknown",
    );
    check(
        &by(&keys().rsa, r#"{"alg":"none","alg":"RS256","kid":"r-1"}"#),
        "client_key_unknown",
    );
    let token = signed(&claims);
    let (message, signature) = token.rsplit_once('.').unwrap();
    check(&format!("{message}."), "user_token_signature");
    check(
        &format!(
            "{message}.{}",
            signature.replace(|c: char| c.is_ascii_digit(), "A")
        ),
        "user_token_signature",
    );
    check(message, "client_key_unknown");
    check(&format!("{token}.x"), "client_key_unknown");
    check(
        &format!("ey{}", "A".repeat(USER_TOKEN_BYTES_MAX)),
        "client_key_malformed",
    );
}

#[test]
fn one_bit_off() {
    let (token, keys, issuers) = (signed(&claims(json!({}))), key_set(), [Arc::new(issuer())]);
    let mut flipped = token.clone().into_bytes();
    for index in 0..flipped.len() {
        for bit in 0..7 {
            flipped[index] ^= 1 << bit;
            let text = std::str::from_utf8(&flipped).unwrap();
            let passed = UserCheck::find(&Secret::new(text), &issuers)
                .and_then(|check| check.verify(&keys, start().wall).ok());
            assert!(passed.is_none(), "byte {index} bit {bit}");
            flipped[index] ^= 1 << bit;
        }
    }
}

#[test]
fn what_a_token_must_say() {
    let check = |changes: Value, expected: &str| check(&signed(&claims(changes)), expected);
    check(json!({"aud": ["x", "11111111-2222"]}), "entra:user-1");
    check(json!({"aud": "x"}), "user_token_audience");
    check(json!({"aud": ["x"]}), "user_token_audience");
    check(json!({"aud": null}), "user_token_audience");
    check(json!({"aud": {"api://talk": true}}), "user_token_audience");
    check(
        json!({"iss": "https://login.microsoftonline.com/other/v2.0"}),
        "client_key_unknown",
    );
    check(json!({"iss": format!("{ISSUER}/")}), "client_key_unknown");
    check(json!({"iss": [ISSUER]}), "client_key_unknown");
    check(json!({"iss": null}), "client_key_unknown");
    check(json!({"scp": "Talk.UseMore profile"}), "user_not_permitted");
    check(json!({"scp": null}), "user_not_permitted");
    check(json!({"scp": null, "scope": "Talk.Use"}), "entra:user-1");
    check(json!({"scp": ["Talk.Use"]}), "entra:user-1");
    check(json!({"oid": null}), "user_token_name");
    check(json!({"oid": ""}), "user_token_name");
    check(json!({"oid": "a b"}), "user_token_name");
    check(json!({"oid": "a\nb"}), "user_token_name");
    check(json!({"oid": "x".repeat(129)}), "user_token_name");
    check(json!({"oid": 7}), "user_token_name");
    // A claim of the same name twice, with the good value first and last.
    for twice in [
        "{\"aud\":\"x\",",
        "{\"scp\":\"x\",",
        "{\"oid\":\"admin\",",
        "{\"exp\":1,",
    ] {
        let token = signed(&claims(json!({})).replacen('{', twice, 1));
        assert_eq!(
            result_of(issuer(), &token, start().wall),
            "client_key_unknown",
            "{twice}"
        );
    }
}

#[test]
fn roles() {
    let issuer = || OidcIssuer {
        required_scopes: vec![],
        required_roles: vec!["Talker".into(), "Tester".into()],
        ..issuer()
    };
    let check = |changes: Value, expected: &str| {
        check_with(issuer(), &signed(&claims(changes)), expected);
    };
    check(json!({"roles": ["Tester", "x", "Talker"]}), "entra:user-1");
    check(json!({"roles": ["Talker"]}), "user_not_permitted");
    check(json!({}), "user_not_permitted");
}

#[test]
fn times() {
    let token = signed(&claims(json!({})));
    let at = |seconds: u64| start().wall + Duration::from_secs(seconds);
    let check = |now: SystemTime, expected: &str| {
        assert_eq!(result_of(issuer(), &token, now), expected);
    };
    check(at(0), "entra:user-1");
    check(at(3659), "entra:user-1");
    check(at(3660), "user_token_expired");
    check(start().wall - Duration::from_secs(120), "entra:user-1");
    check(
        start().wall - Duration::from_secs(121),
        "user_token_not_yet_valid",
    );
    let check = |changes: Value, expected: &str| {
        assert_eq!(
            result_of(issuer(), &signed(&claims(changes)), at(0)),
            expected
        );
    };
    check(json!({"exp": null}), "user_token_malformed");
    check(json!({"exp": "1900000000"}), "user_token_malformed");
    check(json!({"nbf": null}), "entra:user-1");
    check(json!({"nbf": "0"}), "user_token_malformed");
    check(json!({"exp": 1_800_000_000.5}), "entra:user-1");
}

#[test]
fn key_sets() {
    assert_eq!(key_set().len(), 3);
    let check = |document: &str, expected: KeySetError| {
        assert_eq!(
            KeySet::parse(document.as_bytes()).err(),
            Some(expected),
            "{document}"
        );
    };
    check("", KeySetError::Form);
    check("[]", KeySetError::Form);
    check("{\"keys\":{}}", KeySetError::Form);
    check("{\"keys\":[]}", KeySetError::NoKeys);
    check("{\"keys\":[1,null,{}]}", KeySetError::NoKeys);
    check(
        r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#,
        KeySetError::NoKeys,
    );
    check(
        &format!("{{\"keys\":[{}]}}", " ".repeat(300_000)),
        KeySetError::TooLong,
    );
    let many: Vec<Value> = (0..100)
        .map(|n| rsa_jwk(&n.to_string(), &keys().rsa))
        .collect();
    let many = json!({"keys": many}).to_string();
    assert_eq!(KeySet::parse(many.as_bytes()).unwrap().len(), 64);
}

#[test]
fn where_keys_are_found() {
    assert_eq!(
        issuer().keys_at(),
        KeysAt::Discovery(format!("{ISSUER}/.well-known/openid-configuration"))
    );
    let slash = OidcIssuer {
        issuer: "https://id.example.com/".into(),
        ..issuer()
    };
    assert_eq!(
        slash.keys_at(),
        KeysAt::Discovery("https://id.example.com/.well-known/openid-configuration".into())
    );
}
