//! Who is let in, by what is known of their keys.

use super::*;
use crate::{argon::tests::quick_hash, grant::KeyRing, token::tests::start};

fn sha256(key: &str) -> KeyForm {
    KeyForm::Sha256(Sha256::digest(key.as_bytes()).into())
}

fn argon2id(key: &str) -> KeyForm {
    KeyForm::Argon2id(quick_hash(key).parse().unwrap())
}

fn client(name: &str, key: KeyForm) -> ClientKey {
    ClientKey {
        identity: Arc::new(ClientIdentity::unrestricted(name)),
        key,
    }
}

fn clients() -> ClientKeys {
    ClientKeys::new(vec![
        client("plain", KeyForm::Plain(Secret::new("k-plain"))),
        client("hashed", sha256("k-hashed")),
        client("slow", argon2id("k-slow")),
        client("slower", argon2id("k-slower")),
    ])
}

fn look_up(clients: &ClientKeys, key: &str) -> Result<Lookup, Admission> {
    let headers = [("api-key", key.as_bytes())];
    let key = PresentedKey::find(headers.into_iter(), None)?;
    clients.look_up(key.as_ref())
}

#[track_caller]
fn check(clients: &ClientKeys, key: &str, expected: &str) {
    let found = match look_up(clients, key) {
        Ok(Lookup::Admitted(client)) => format!("{} {:?}", client.name(), client.means()),
        Ok(Lookup::Slow(check)) => match check.run() {
            Ok(client) => format!("after a while {} {:?}", client.name(), client.means()),
            Err(refusal) => format!("after a while {}", refusal.code()),
        },
        Ok(Lookup::Token(_)) => "token".to_owned(),
        Ok(Lookup::User(check)) => format!("{check:?}"),
        Err(refusal) => refusal.code().to_owned(),
    };
    assert_eq!(found, expected, "{key}");
}

#[test]
fn keys_in_every_form() {
    let clients = clients();
    check(&clients, "k-plain", "plain Key");
    check(&clients, "k-hashed", "hashed Key");
    check(&clients, "k-slower", "after a while slower Key");
    check(&clients, "k-slow", "after a while slow Key");
    // Paid once.
    check(&clients, "k-slower", "slower Key");
    check(&clients.clone(), "k-slow", "slow Key");
    check(&clients, "k-none", "after a while client_key_unknown");
    check(&clients, "k-none", "after a while client_key_unknown");
    assert_eq!(clients.0.recognised.lock().unwrap().len(), 2);
}

/// Many that wait for the same check pay it once; the rest find what the first found.
#[test]
fn waiting_checks_see_what_was_recognised() {
    let clients = clients();
    let (Ok(Lookup::Slow(first)), Ok(Lookup::Slow(second))) =
        (look_up(&clients, "k-slow"), look_up(&clients, "k-slow"))
    else {
        panic!("no slow checks");
    };
    assert_eq!(first.run().unwrap().name(), "slow");
    clients.0.recognised.lock().unwrap().clear();
    assert_eq!(second.run().unwrap().name(), "slow");
}

#[test]
fn a_digest_of_a_key_is_no_key() {
    let digest: String = Sha256::digest(b"k-hashed")
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    check(&clients(), &digest, "after a while client_key_unknown");
    check(
        &clients(),
        &quick_hash("k-slow"),
        "after a while client_key_unknown",
    );
}

#[test]
fn vendors_tokens_are_not_ours() {
    let open = ClientKeys::default().with_anonymous(true);
    check(
        &open,
        "ek_68af296e8e408191a1120ab6383263c2",
        "anonymous Anonymous",
    );
    check(&open, "sk-anything", "anonymous Anonymous");
    // One of a relay's is judged as such even where anybody may come in.
    check(&open, "ek_eyJ0eXAi.e30.AAAA", "token");
    check(&clients(), "ek_eyJ0eXAi.e30.AAAA", "token");
    check(
        &clients(),
        "ek_68af296e8e40",
        "after a while client_key_unknown",
    );
}

#[test]
fn what_a_token_stands_for() {
    let ring = KeyRing::new(vec![crate::RingKey::ephemeral(&[3; 32])], "t").unwrap();
    let now = start().wall;
    let verified = |grant: &crate::Grant| {
        let minted = ring
            .mint(grant, crate::grant::LIFETIME_DEFAULT, now, [1; 16])
            .unwrap();
        ring.verify(minted.secret.expose(), now).unwrap()
    };
    let identity = ClientIdentity {
        name: "web".into(),
        routes: crate::AllowedRoutes::Only(["voice".to_owned(), "other".to_owned()].into()),
        limits: crate::ClientLimits {
            sessions_max: Some(2),
            tokens_per_session: Some(100),
            ..crate::ClientLimits::default()
        },
        policy: None,
    };
    let clients = ClientKeys::new(vec![ClientKey {
        identity: Arc::new(identity.clone()),
        key: sha256("k"),
    }]);
    let grant = crate::Grant {
        model: Some("voice".into()),
        policy: Some("kiosk".into()),
        limits: crate::GrantLimits {
            tokens_max: Some(5_000),
            responses_max: Some(3),
            ..crate::GrantLimits::default()
        },
        ..crate::Grant::new("web")
    };
    let token = verified(&grant);
    let client = clients.client_of(&token).unwrap();
    let narrowed = client.identity();
    assert_eq!(client.name(), "web");
    assert_eq!(client.token_id(), Some(&token.id));
    assert!(!client.may_mint());
    assert!(narrowed.routes.allows("voice") && !narrowed.routes.allows("other"));
    assert_eq!(narrowed.limits.sessions_max, Some(2));
    assert_eq!(narrowed.limits.tokens_per_session, Some(100));
    assert_eq!(narrowed.limits.responses_per_session, Some(3));
    assert_eq!(narrowed.policy.as_deref(), Some("kiosk"));

    let gone = verified(&crate::Grant::new("former"));
    assert_eq!(clients.client_of(&gone).unwrap_err(), TokenRefusal::Client);
    // A route that the identity has lost since is not the token's any more.
    let lost = verified(&crate::Grant {
        model: Some("third".into()),
        ..crate::Grant::new("web")
    });
    let client = clients.client_of(&lost).unwrap();
    assert!(!client.identity().routes.allows("third") && !client.identity().routes.allows("voice"));
    let anonymous = verified(&crate::Grant::new(ANONYMOUS));
    assert!(clients.client_of(&anonymous).is_err());
    assert!(clients.with_anonymous(true).client_of(&anonymous).is_ok());
}

#[test]
fn nothing_shows_a_key() {
    let shown = format!("{:?} {:?}", clients(), look_up(&clients(), "k-CANARY"));
    assert!(!shown.contains("k-") && shown.contains("hashed"), "{shown}");
}
