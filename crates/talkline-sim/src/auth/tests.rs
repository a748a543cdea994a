use super::*;
use serde_json::{Value, json};

const NOW: u64 = 1_000_000;

fn claims(aud: &str, exp: u64) -> Value {
    json!({"aud": aud, "exp": exp, "tid": "tenant-1", "oid": "person-1"})
}

/// `expected` is the name of the refusal, or `ok`.
fn check(offered: &Offered<'_>, rule: &BearerRule, expected: &str) {
    let access = Access {
        api_keys: vec![Secret::new("the-key")],
        bearer: rule.clone(),
    };
    let answer = check_azure(offered, &access, NOW);
    let name = answer.map_or_else(|refusal| refusal.name(), |()| "ok");
    assert_eq!(name, expected, "{offered:?}");
}

fn check_header(authorization: &str, rule: &BearerRule, expected: &str) {
    let offered = Offered {
        authorization: Some(authorization),
        ..Offered::default()
    };
    check(&offered, rule, expected);
}

#[test]
fn keys() {
    let rule = BearerRule::default();
    let header = |key| Offered {
        key_header: Some(key),
        ..Offered::default()
    };
    let query = |key: &str| Offered {
        key_query: Some(key.to_owned()),
        ..Offered::default()
    };
    check(&header("the-key"), &rule, "ok");
    check(&header("another"), &rule, "key_invalid");
    check(&header(""), &rule, "key_invalid");
    check(&query("the-key"), &rule, "ok");
    check(&query("another"), &rule, "key_invalid");
    check(&Offered::default(), &rule, "no_auth");
    let subprotocol = Offered {
        key_subprotocol: Some("the-key"),
        ..Offered::default()
    };
    check(&subprotocol, &rule, "subprotocol_auth");
    let token = format!("Bearer {}", unsigned_token(&claims(AUDIENCES[0], NOW + 1)));
    let both = Offered {
        key_header: Some("the-key"),
        authorization: Some(&token),
        ..Offered::default()
    };
    check(&both, &rule, "two_credentials");
}

#[test]
fn tokens() {
    let rule = BearerRule::default();
    let bad = "token_bad_audience_or_expired";
    let check = |token: &str, expected| check_header(&format!("Bearer {token}"), &rule, expected);
    check(&unsigned_token(&claims(AUDIENCES[0], NOW + 1)), "ok");
    check(
        &unsigned_token(&claims("https://ai.azure.com/", NOW + 1)),
        "ok",
    );
    check(
        &unsigned_token(&json!({"aud": ["x", AUDIENCES[1]], "exp": NOW + 1})),
        "ok",
    );
    check(&unsigned_token(&claims(AUDIENCES[0], NOW)), bad);
    check(
        &unsigned_token(&claims("https://management.azure.com", NOW + 1)),
        bad,
    );
    check(&unsigned_token(&json!({"aud": AUDIENCES[0]})), bad);
    check(&unsigned_token(&json!({"exp": NOW + 1})), bad);
    check(
        &unsigned_token(&json!({"aud": AUDIENCES[0], "exp": NOW + 9, "nbf": NOW + 1})),
        bad,
    );
    check("the-key", bad);
    check("a.b", bad);
    check("e30.e30.c2ln", bad);
    check("e30.e30.c2ln.c2ln", bad);
    check("", bad);
    check_header("Basic dGhlLWtleQ==", &rule, bad);
    check_header("bearer", &rule, bad);
    let lower = format!("bearer {}", unsigned_token(&claims(AUDIENCES[0], NOW + 1)));
    check_header(&lower, &rule, "ok");
}

#[test]
fn tenants_and_roles() {
    let token = format!("Bearer {}", unsigned_token(&claims(AUDIENCES[0], NOW + 1)));
    let tenant = |id: &str| BearerRule {
        tenant: Some(id.to_owned()),
        ..BearerRule::default()
    };
    check_header(&token, &tenant("tenant-1"), "ok");
    check_header(&token, &tenant("tenant-2"), "tenant_mismatch_400");
    let without_role = BearerRule {
        without_role: vec!["person-1".to_owned()],
        ..BearerRule::default()
    };
    check_header(&token, &without_role, "rbac_old");
}
