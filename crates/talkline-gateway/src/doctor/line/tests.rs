//! Addresses, tokens and credentials, without a network.

use super::*;

#[test]
fn kinds_of_addresses() {
    for (address, kind) in [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("10.1.2.3", "private"),
        ("172.31.0.1", "private"),
        ("172.32.0.1", "public"),
        ("192.168.0.1", "private"),
        ("100.64.0.1", "private"),
        ("100.128.0.1", "public"),
        ("fd00::1", "private"),
        ("::ffff:10.0.0.1", "private"),
        ("20.42.0.1", "public"),
        ("2603:1030::1", "public"),
    ] {
        assert_eq!(kind_of(address.parse().unwrap()), kind, "{address}");
    }
}

#[test]
fn what_is_wrong_with_a_token() {
    let check = |claims: TokenClaims, expected: &[&str]| {
        let findings = token_findings(&claims, 1_000, true);
        let codes: Vec<_> = findings
            .iter()
            .map(|finding| finding.code.as_str())
            .collect();
        assert_eq!(codes, expected, "{claims:?}");
    };
    let sound = TokenClaims {
        audience: Some("https://ai.azure.com".into()),
        expires: Some(5_000),
        ..TokenClaims::default()
    };
    check(sound.clone(), &[]);
    check(
        TokenClaims {
            expires: Some(1_000),
            ..sound.clone()
        },
        &["token_expired"],
    );
    check(
        TokenClaims {
            expires: Some(1_299),
            ..sound.clone()
        },
        &["token_expires"],
    );
    check(
        TokenClaims {
            not_before: Some(1_001),
            ..sound.clone()
        },
        &["token_not_yet_valid"],
    );
    check(
        TokenClaims {
            audience: Some("https://management.azure.com".into()),
            ..sound
        },
        &["token_audience"],
    );
}

#[test]
fn a_bearer_token_is_told_by_its_claims() {
    use base64::Engine as _;
    use talkline_auth::{Credential, Origin, OriginRules};
    use talkline_dialect::{AzureApi, AzureUpstream};

    let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let claims =
        r#"{"aud":"https://management.azure.com","oid":"object-1","tid":"tenant-1","exp":1}"#;
    let token = format!("{}.{}.CANARY", encode("{}"), encode(claims));
    let origin = Origin::parse("https://r.openai.azure.com", &OriginRules::default()).unwrap();
    let cell = filled_cell(&token);
    let upstream = Arc::new(Upstream::Azure(AzureUpstream {
        credential: Credential::entra(origin, cell),
        base_path: String::new(),
        api: AzureApi::Ga,
        deployment: "voice".into(),
    }));
    let selection = crate::doctor::Selection::default();
    let board = Board::new(&selection, &|_| {}, tokio::time::Instant::now());
    let line = Line::new(&board, "openai", &upstream, &DoctorOptions::default()).unwrap();
    assert!(line.static_key().is_none());
    line.credential();
    let report = board.finish(&["openai"]).to_json(Severity::Info);
    let finding = |at: usize| report["findings"][at]["code"].as_str();
    assert_eq!(
        (finding(0), finding(1)),
        (Some("token_expired"), Some("token_audience"))
    );
    let evidence = &report["findings"][0]["evidence"];
    assert_eq!(evidence["kind"], "bearer-token");
    assert_eq!(evidence["objectId"], "object-1");
    assert_eq!(evidence["tenant"], "tenant-1");
    let text = report.to_string();
    assert!(!text.contains("CANARY") && !text.contains(&token), "{text}");
}

/// A cell as its driver leaves it after a fetch.
fn filled_cell(token: &str) -> talkline_auth::TokenCell {
    use talkline_auth::{FetchedToken, Jitter, TokenCell, TokenRules, TokenState};

    let now = crate::tokens::now();
    let mut state = TokenState::new(TokenRules::default(), "managed-identity", now);
    let fetched = FetchedToken {
        secret: Secret::new(token),
        time_to_live: std::time::Duration::from_secs(3600),
        refresh_in: None,
    };
    state.succeed(fetched, now, Jitter::from_bits(0));
    let cell = TokenCell::new("managed-identity");
    cell.publish(state.token(now));
    cell
}
