//! Tokens: what is accepted, and everything that is not.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::token::tests::start;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const SETTINGS: &str = r#"{"instructions":"CANARY","voice":"marin"}"#;

fn key(id: &str, secret: &str) -> RingKey {
    RingKey::new(id, &Secret::new(secret)).unwrap()
}

fn ring() -> KeyRing {
    KeyRing::new(vec![key("one", SECRET)], "talkline").unwrap()
}

fn now() -> SystemTime {
    start().wall
}

fn grant() -> Grant {
    Grant {
        model: Some("voice".into()),
        origin: Some("https://talk.example.com".into()),
        policy: Some("kiosk".into()),
        session: Some(SETTINGS.into()),
        limits: GrantLimits {
            session_duration_max: Some(Duration::from_secs(300)),
            responses_max: Some(20),
            tokens_max: Some(50_000),
        },
        ..Grant::new("web")
    }
}

fn mint(ring: &KeyRing) -> String {
    let minted = ring
        .mint(&grant(), LIFETIME_DEFAULT, now(), [7; 16])
        .unwrap();
    minted.secret.expose().to_owned()
}

#[track_caller]
fn check(token: &str, expected: Result<(), TokenRefusal>) {
    check_at(token, now(), expected);
}

#[track_caller]
fn check_at(token: &str, now: SystemTime, expected: Result<(), TokenRefusal>) {
    let verified = ring().verify(token, now).map(|_| ());
    assert_eq!(verified, expected);
}

/// The key that a ring signs with, derived as RFC 5869 says, by hand.
fn signing_key() -> Vec<u8> {
    let extract = hmac::Key::new(hmac::HMAC_SHA256, b"talkline ek_ v1");
    let root = hmac::sign(&extract, SECRET.as_bytes());
    let expand = hmac::Key::new(hmac::HMAC_SHA256, root.as_ref());
    hmac::sign(&expand, b"sign\x01").as_ref().to_vec()
}

/// A token of this header and payload, signed as the ring signs.
fn signed(header: &str, payload: &str) -> String {
    signed_by(&signing_key(), header, payload)
}

fn signed_by(key: &[u8], header: &str, payload: &str) -> String {
    let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
    let message = format!(
        "{}.{}",
        encode(header.as_bytes()),
        encode(payload.as_bytes())
    );
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes());
    format!("ek_{message}.{}", encode(signature.as_ref()))
}

const HEADER: &str = r#"{"typ":"JWT","alg":"HS256","kid":"one"}"#;

/// A good payload with some claims changed; `null` takes one away.
fn payload(changes: Value) -> String {
    let seconds = 1_800_000_000_u64;
    let mut claims = json!({
        "iss": "talkline", "aud": "talkline", "sub": "web", "jti": "07".repeat(16),
        "iat": seconds, "nbf": seconds, "exp": seconds + 60,
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

#[test]
fn what_is_minted_is_what_is_verified() {
    let ring = ring();
    let minted = ring
        .mint(&grant(), LIFETIME_DEFAULT, now(), [7; 16])
        .unwrap();
    let verified = ring.verify(minted.secret.expose(), now()).unwrap();
    assert_eq!(verified.grant, grant());
    assert_eq!(verified.id, minted.id);
    assert_eq!(verified.id.as_str(), "07".repeat(16));
    assert_eq!(verified.issued_at, now());
    assert_eq!(verified.expires_at, minted.expires_at);
    assert_eq!(minted.expires_at, now() + Duration::from_secs(60));
    let least = ring
        .mint(&Grant::new("web"), Duration::from_secs(1), now(), [0; 16])
        .unwrap();
    let verified = ring.verify(least.secret.expose(), now()).unwrap();
    assert_eq!(verified.grant, Grant::new("web"));
}

/// Signing by hand makes the same tokens, so that the tables below test what they say.
#[test]
fn the_table_signs_as_the_ring_does() {
    check(&signed(HEADER, &payload(json!({}))), Ok(()));
}

#[test]
fn algorithms() {
    let payload = payload(json!({}));
    let with = |alg: &str| HEADER.replace("HS256", alg);
    for alg in [
        "none", "None", "NONE", "", "HS384", "HS512", "RS256", "ES256", "PS256", "EdDSA", "hs256",
    ] {
        check(&signed(&with(alg), &payload), Err(TokenRefusal::Algorithm));
    }
    // Without a signature altogether.
    let unsigned = signed(&with("none"), &payload);
    let unsigned = unsigned.rsplit_once('.').unwrap().0;
    check(&format!("{unsigned}."), Err(TokenRefusal::Algorithm));
    let stripped = signed(HEADER, &payload);
    let stripped = stripped.rsplit_once('.').unwrap().0;
    check(&format!("{stripped}."), Err(TokenRefusal::Signature));
    check(stripped, Err(TokenRefusal::Malformed));
    // "Verify RS256 with the public key as an HMAC secret": there is no public key, and the
    // algorithm is not the token's to choose.
    check(
        &signed_by(b"-----BEGIN PUBLIC KEY-----", &with("RS256"), &payload),
        Err(TokenRefusal::Algorithm),
    );
    check(
        &signed_by(b"-----BEGIN PUBLIC KEY-----", HEADER, &payload),
        Err(TokenRefusal::Signature),
    );
}

#[test]
fn headers() {
    let payload = payload(json!({}));
    let check = |header: &str, expected| check(&signed(header, &payload), Err(expected));
    let malformed = TokenRefusal::Malformed;
    check(r#"{"typ":"JWT","alg":"HS256"}"#, malformed);
    check(r#"{"alg":"HS256","kid":"one"}"#, malformed);
    check(r#"{"typ":"JWE","alg":"HS256","kid":"one"}"#, malformed);
    check(
        r#"{"typ":"JWT","alg":"none","alg":"HS256","kid":"one"}"#,
        malformed,
    );
    check(
        r#"{"typ":"JWT","alg":"HS256","kid":"two","kid":"one"}"#,
        malformed,
    );
    check(
        r#"{"typ":"JWT","alg":"HS256","kid":"one","crit":["b64"],"b64":false}"#,
        malformed,
    );
    check(
        r#"{"typ":"JWT","alg":"HS256","kid":"one","jwk":{"kty":"oct","k":"AA"}}"#,
        malformed,
    );
    check(
        r#"{"typ":"JWT","alg":"HS256","kid":"one","jku":"https://evil.test"}"#,
        malformed,
    );
    check(
        r#"{"typ":"JWT","alg":"HS256","kid":"two"}"#,
        TokenRefusal::UnknownKey,
    );
    check(r#"{"typ":"JWT","alg":"HS256","kid":["one"]}"#, malformed);
    check(r#"["JWT","HS256","one","x"]"#, malformed);
    check("", malformed);
    check(
        &format!(
            r#"{{"typ":"JWT","alg":"HS256","kid":"{}"}}"#,
            "x".repeat(300)
        ),
        malformed,
    );
}

#[test]
fn claims() {
    let check = |payload: &str, expected| check(&signed(HEADER, payload), Err(expected));
    let malformed = TokenRefusal::Malformed;
    for claim in ["iss", "aud", "sub", "jti", "iat", "nbf", "exp"] {
        check(&payload(json!({claim: null})), malformed);
        check(&payload(json!({claim: ["a", "b"]})), malformed);
        let twice = payload(json!({})).replacen('{', &format!("{{\"{claim}\":\"x\","), 1);
        check(&twice, malformed);
        // The same value twice is still twice.
        let good: Value = serde_json::from_str(&payload(json!({}))).unwrap();
        let twice = payload(json!({})).replacen('{', &format!("{{\"{claim}\":{},", good[claim]), 1);
        check(&twice, malformed);
    }
    let twice = payload(json!({"model": "a"})).replacen('{', "{\"model\":\"b\",", 1);
    check(&twice, malformed);
    check(&payload(json!({"admin": true})), malformed);
    check(&payload(json!({"iss": "somebody"})), TokenRefusal::Audience);
    check(
        &payload(json!({"aud": "another-relay"})),
        TokenRefusal::Audience,
    );
    check(&payload(json!({"aud": ""})), TokenRefusal::Audience);
    check(&payload(json!({"jti": "7"})), malformed);
    check(&payload(json!({"jti": "0A".repeat(16)})), malformed);
    check(&payload(json!({"exp": -1})), malformed);
    check(&payload(json!({"exp": 1_800_000_030.5})), malformed);
    check(&payload(json!({"exp": "1800000060"})), malformed);
    // A life that no relay gives: it would have to be remembered for as long.
    check(&payload(json!({"exp": u64::MAX})), malformed);
    check(&payload(json!({"exp": 1_800_000_000_u64 + 606})), malformed);
    check(&payload(json!({"sealed": "AAAA"})), malformed);
    check(&payload(json!({"sealed": "not base64!"})), malformed);
    check("{}", malformed);
    check("[]", malformed);
    check("", malformed);
    check(&format!("{} ", payload(json!({"sub": 1}))), malformed);
}

#[test]
fn times() {
    let token = mint(&ring());
    let at = |seconds: i64| match seconds {
        0.. => now() + Duration::from_secs(seconds.unsigned_abs()),
        _ => now() - Duration::from_secs(seconds.unsigned_abs()),
    };
    check_at(&token, at(0), Ok(()));
    check_at(&token, at(59), Ok(()));
    check_at(&token, at(60), Err(TokenRefusal::Expired));
    check_at(&token, at(1_000_000), Err(TokenRefusal::Expired));
    // A replica whose clock is a little behind.
    check_at(&token, at(-5), Ok(()));
    check_at(&token, at(-6), Err(TokenRefusal::NotYetValid));
    check_at(
        &token,
        SystemTime::UNIX_EPOCH,
        Err(TokenRefusal::NotYetValid),
    );
    let later = payload(json!({"nbf": 1_800_000_030_u64}));
    check(&signed(HEADER, &later), Err(TokenRefusal::NotYetValid));
    check_at(&signed(HEADER, &later), at(25), Ok(()));
}

#[test]
fn other_rings() {
    let token = mint(&ring());
    let check = |ring: KeyRing, expected: Result<(), TokenRefusal>| {
        assert_eq!(ring.verify(&token, now()).map(|_| ()), expected);
    };
    let another = SECRET.replace('0', "z");
    let ring = |keys: Vec<RingKey>, audience: &str| KeyRing::new(keys, audience).unwrap();
    check(
        ring(vec![key("one", &another)], "talkline"),
        Err(TokenRefusal::Signature),
    );
    check(
        ring(vec![key("two", SECRET)], "talkline"),
        Err(TokenRefusal::UnknownKey),
    );
    check(
        ring(vec![key("one", SECRET)], "other"),
        Err(TokenRefusal::Audience),
    );
    check(
        ring(vec![RingKey::ephemeral(&[1; 32])], "talkline"),
        Err(TokenRefusal::UnknownKey),
    );
    // Rotation: a new key behind the old one, then in front of it.
    let (old, new) = (key("one", SECRET), key("two", &another));
    check(ring(vec![old.clone(), new.clone()], "talkline"), Ok(()));
    let rotated = ring(vec![new, old], "talkline");
    assert_eq!(rotated.signing_key(), "two");
    check(rotated.clone(), Ok(()));
    assert!(rotated.verify(&mint(&rotated), now()).is_ok());
    assert!(KeyRing::new(vec![], "talkline").is_none());
}

#[test]
fn keys_that_are_none() {
    let check = |id: &str, secret: &str, expected| {
        assert_eq!(
            RingKey::new(id, &Secret::new(secret)).err(),
            expected,
            "{id}"
        );
    };
    check("2026-11", SECRET, None);
    check("2026-11", &SECRET[1..], Some(RingKeyError::Short));
    check("", SECRET, Some(RingKeyError::Id));
    check("a b", SECRET, Some(RingKeyError::Id));
    check(&"x".repeat(65), SECRET, Some(RingKeyError::Id));
    assert!(!format!("{:?} {:?}", key("one", SECRET), ring()).contains(SECRET));
}

/// Every bit of every character, the prefix and the dots included.
#[test]
fn one_bit_off() {
    let ring = ring();
    let token = mint(&ring);
    let mut flipped = token.clone().into_bytes();
    let mut tried = 0;
    for index in 0..flipped.len() {
        for bit in 0..8 {
            flipped[index] ^= 1 << bit;
            if let Ok(text) = std::str::from_utf8(&flipped) {
                assert!(ring.verify(text, now()).is_err(), "byte {index} bit {bit}");
                tried += 1;
            }
            flipped[index] ^= 1 << bit;
        }
    }
    assert!(tried >= token.len() * 7);
    assert!(ring.verify(&token, now()).is_ok());
}

#[test]
fn lengths() {
    let token = mint(&ring());
    let malformed = Err(TokenRefusal::Malformed);
    check("", malformed);
    check("ek_", malformed);
    check("ek_..", malformed);
    check(&token[3..], malformed);
    check(&token.replace("ek_", "EK_"), malformed);
    check(&format!("{token}.{token}"), malformed);
    check(&format!("{token}="), malformed);
    check(&format!("{token} "), malformed);
    check(&format!("{token}{}", "A".repeat(1 << 20)), malformed);
    check(&format!("ek_{}", ".".repeat(1 << 20)), malformed);
    check(&format!("ek_ey{}", "A".repeat(1 << 20)), malformed);
}

#[test]
fn what_cannot_be_minted() {
    let check = |grant: Grant, lifetime: u64, expected: Result<(), MintError>| {
        let minted = ring().mint(&grant, Duration::from_secs(lifetime), now(), [0; 16]);
        assert_eq!(minted.map(|_| ()), expected, "{grant:?}");
    };
    let with_settings = |text: String| Grant {
        session: Some(text),
        ..grant()
    };
    let object = |bytes: usize| format!("{{\"instructions\":\"{}\"}}", "x".repeat(bytes - 19));
    check(with_settings(object(SETTINGS_BYTES_MAX)), 60, Ok(()));
    check(
        with_settings(object(SETTINGS_BYTES_MAX + 1)),
        60,
        Err(MintError::SettingsTooLong(SETTINGS_BYTES_MAX + 1)),
    );
    check(with_settings("[]".into()), 60, Err(MintError::SettingsForm));
    check(
        with_settings("{} {}".into()),
        60,
        Err(MintError::SettingsForm),
    );
    check(
        with_settings(String::new()),
        60,
        Err(MintError::SettingsForm),
    );
    check(grant(), 0, Err(MintError::Lifetime));
    check(grant(), 600, Ok(()));
    check(grant(), 601, Err(MintError::Lifetime));
    for bad in ["", "a\nb", &"x".repeat(257)] {
        let bad = bad.to_owned();
        check(Grant::new(bad.clone()), 60, Err(MintError::Name("client")));
        check(
            Grant {
                model: Some(bad.clone()),
                ..grant()
            },
            60,
            Err(MintError::Name("model")),
        );
        check(
            Grant {
                origin: Some(bad.clone()),
                ..grant()
            },
            60,
            Err(MintError::Name("origin")),
        );
        check(
            Grant {
                policy: Some(bad),
                ..grant()
            },
            60,
            Err(MintError::Name("policy")),
        );
    }
}

/// The largest token that can be minted is one that is read, and one that fits in a header beside
/// what else a handshake carries. Its characters are those of a subprotocol (RFC 9110 section
/// 5.6.2).
#[test]
fn the_largest_token_travels() {
    let name = "\u{10348}".repeat(64);
    assert_eq!(name.len(), 256);
    let largest = Grant {
        client: name.clone(),
        model: Some(name.clone()),
        origin: Some(name.clone()),
        policy: Some("\"".repeat(256)),
        session: Some(format!(
            "{{\"a\":\"{}\"}}",
            "x".repeat(SETTINGS_BYTES_MAX - 8)
        )),
        limits: GrantLimits {
            session_duration_max: Some(SESSION_MAX),
            responses_max: Some(u64::MAX),
            tokens_max: Some(u64::MAX),
        },
    };
    let keys = vec![key(&"k".repeat(64), SECRET)];
    let ring = KeyRing::new(keys, "talkline").unwrap();
    let minted = ring.mint(&largest, LIFETIME_MAX, now(), [255; 16]).unwrap();
    let token = minted.secret.expose();
    assert!(token.len() <= TOKEN_BYTES_MAX, "{} bytes", token.len());
    assert_eq!(ring.verify(token, now()).unwrap().grant, largest);
    assert!(
        token
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    );
}

/// A bound that is as good as none does not overflow whoever counts with it.
#[test]
fn sessions_are_bounded() {
    let with = |max: Duration| Grant {
        limits: GrantLimits {
            session_duration_max: Some(max),
            ..GrantLimits::default()
        },
        ..Grant::new("web")
    };
    let check = |asked: Duration, expected: Duration| {
        let ring = ring();
        let minted = ring
            .mint(&with(asked), LIFETIME_DEFAULT, now(), [0; 16])
            .unwrap();
        let verified = ring.verify(minted.secret.expose(), now()).unwrap();
        assert_eq!(verified.grant, with(expected));
    };
    check(Duration::MAX, SESSION_MAX);
    check(Duration::from_millis(1), Duration::from_secs(1));
    let forged = signed(HEADER, &payload(json!({"seconds": u64::MAX})));
    let verified = ring().verify(&forged, now()).unwrap();
    assert_eq!(verified.grant, with(SESSION_MAX));
}

#[test]
fn nobody_but_the_relay_reads_the_settings() {
    let token = mint(&ring());
    let readable: String = token[3..]
        .split('.')
        .map(|part| String::from_utf8_lossy(&URL_SAFE_NO_PAD.decode(part).unwrap()).into_owned())
        .collect();
    assert!(readable.contains("web") && !readable.contains("CANARY"));
    let shown = Shown::read(&token).unwrap();
    assert!(shown.has_settings && shown.grant.session.is_none());
    assert_eq!(
        (shown.key.as_str(), shown.audience.as_str()),
        ("one", "talkline")
    );
    let verified = ring().verify(&token, now()).unwrap();
    assert_eq!(verified.grant.session.as_deref(), Some(SETTINGS));
    assert!(!format!("{verified:?} {shown:?} {:?}", grant()).contains("CANARY"));
}

/// Settings moved to another token cannot be opened there, even by whoever could sign.
#[test]
fn sealed_settings_belong_to_their_token() {
    let token = mint(&ring());
    let part = token[3..].split('.').nth(1).unwrap();
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    check(&signed(HEADER, &claims.to_string()), Ok(()));
    claims["jti"] = json!("08".repeat(16));
    check(
        &signed(HEADER, &claims.to_string()),
        Err(TokenRefusal::Malformed),
    );
}

#[test]
fn a_token_is_bound() {
    let (bound, free) = (grant(), Grant::new("web"));
    assert_eq!(bound.check_origin(Some("https://talk.example.com")), Ok(()));
    for origin in [None, Some("https://evil.test"), Some("null"), Some("")] {
        assert_eq!(bound.check_origin(origin), Err(TokenRefusal::Origin));
        assert_eq!(free.check_origin(origin), Ok(()));
    }
    assert_eq!(bound.model_for(None), Ok(Some("voice")));
    assert_eq!(bound.model_for(Some("voice")), Ok(Some("voice")));
    assert_eq!(bound.model_for(Some("other")), Err(TokenRefusal::Model));
    assert_eq!(free.model_for(Some("other")), Ok(Some("other")));
    assert_eq!(free.model_for(None), Ok(None));
}

#[test]
fn nobody_hands_out_more_than_they_have() {
    let mut identity = ClientIdentity::unrestricted("web");
    assert_eq!(grant().check_minter(&identity), Ok(()));
    identity.routes = AllowedRoutes::Only(["other".to_owned()].into());
    assert_eq!(grant().check_minter(&identity), Err(MintError::Model));
    assert_eq!(Grant::new("web").check_minter(&identity), Ok(()));
    identity.routes = AllowedRoutes::Only(["voice".to_owned()].into());
    identity.policy = Some("strict".into());
    assert_eq!(grant().check_minter(&identity), Err(MintError::Policy));
    identity.policy = Some("kiosk".into());
    assert_eq!(grant().check_minter(&identity), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever it is, it is refused and nothing worse.
    #[test]
    fn anything_is_refused(text in "(ek_)?(ey)?[ -~]{0,300}") {
        prop_assert!(ring().verify(&text, now()).is_err());
        let _ = Shown::read(&text);
    }

    /// No payload that is not signed passes, however well formed.
    #[test]
    fn unsigned_claims_are_refused(jti in "[0-9a-f]{32}", key in prop::collection::vec(any::<u8>(), 32)) {
        let token = signed_by(&key, HEADER, &payload(json!({"jti": jti})));
        prop_assert_eq!(ring().verify(&token, now()).map(|_| ()), Err(TokenRefusal::Signature));
    }

    #[test]
    fn every_grant_comes_back(client in "[a-z:@.]{1,100}", model in prop::option::of("[ -~]{1,60}"), tokens in any::<Option<u64>>(), random in any::<[u8; 16]>()) {
        let grant = Grant {
            model,
            limits: GrantLimits { tokens_max: tokens, ..GrantLimits::default() },
            ..Grant::new(client)
        };
        let minted = ring().mint(&grant, LIFETIME_DEFAULT, now(), random).unwrap();
        let verified = ring().verify(minted.secret.expose(), now()).unwrap();
        prop_assert_eq!(verified.grant, grant);
    }
}
