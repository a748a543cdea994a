//! Nothing that looks like a credential gets through, and the claims of our own token do.

use base64::Engine as _;
use proptest::prelude::*;
use talkline_auth::{FetchedToken, Jitter, Moment, TokenCell, TokenError, TokenRules, TokenState};

use super::*;
use crate::diagnosis::table::Row;

const OBJECT: &str = "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd";

fn encode(text: &str) -> String {
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}

fn token(claims: &str) -> String {
    format!("{}.{}.c2ln", encode(r#"{"alg":"RS256"}"#), encode(claims))
}

/// What a client is shown of this body.
fn shown(body: &[u8]) -> String {
    let refusal = Refusal::Answered(UpstreamAnswer::new(401, std::iter::empty(), body.to_vec()));
    let diagnosis = diagnose(&azure(AzureApi::Ga), &refusal);
    format!(
        "{} {} {diagnosis:?}",
        diagnosis.error_event(),
        diagnosis.problem()
    )
}

#[test]
fn echoes_of_the_request_are_redacted() {
    let foreign = "0a1b2c3d4e5f60718293a4b5c6d7e8f9";
    for body in [
        format!("GET /openai/v1/realtime\r\nhost: r\r\napi-key: {KEY}\r\n\r\n"),
        format!(r#"{{"error":{{"code":"{KEY}","message":"api-key={KEY}"}}}}"#),
        format!(r#"{{"error":{{"message":"Authorization: Bearer {KEY}"}}}}"#),
        format!(
            r#"{{"error":{{"message":"key {}"}}}}"#,
            KEY.replace('-', "%2D")
        ),
        format!("cut off in the middle of {}", &KEY[..KEY.len() - 1]),
        format!("cut off in the middle of {}", &KEY[..9]),
        format!(r#"{{"error":{{"message":"api-key: {}"#, &KEY[..12]),
        format!("goneapi-key: CANARY{}", "x".repeat(50)),
        format!("{}xxxxx and {}", &KEY[..10], KEY.to_lowercase()),
        format!(r#"{{"message":"headers: {{'api-key': '{foreign}'}}"}}"#),
        format!("the key {foreign} is wrong"),
        format!("https://x/?api-key={foreign}&sig=CANARY-sig"),
        "Cookie: a=CANARY!x; path=/".to_owned(),
        r#"{"message":"{\"client_secret\" : \"CANARY~!x\"}"}"#.to_owned(),
        "Incorrect API key provided: sk-CANARY-0123456789.".to_owned(),
        format!("token {} expired", token(r#"{"x":"CANARY"}"#)),
        "Ocp-Apim-Subscription-Key: CANARY-apim".to_owned(),
        "authorization: Basic CANARYbasic".to_owned(),
    ] {
        let shown = shown(body.as_bytes());
        for secret in ["CANARY", "CANA", "canary", foreign, "eyJ"] {
            assert!(!shown.contains(secret), "{body}\n{shown}");
        }
    }
}

#[test]
fn ordinary_words_are_not_redacted() {
    for message in [
        "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource.",
        "The principal `00000000-0000-0000-0000-000000000000` lacks the required data action `Microsoft.CognitiveServices/accounts/OpenAI/deployments/realtime/action` to perform `GET /openai/v1/realtime` operation.",
        "Please go here: https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit.",
        "Unauthorized. Access token is missing, invalid, audience is incorrect (https://cognitiveservices.azure.com), or have expired.",
        "Please use bearer authentication, password authentication is off.",
        "Requests have exceeded call rate limit. Please retry after 38 seconds.",
    ] {
        let body = format!(r#"{{"error":{{"message":"{message}"}}}}"#);
        let refusal = answer(401, &[], &body);
        let said = diagnose(&azure(AzureApi::Ga), &refusal).answer.unwrap();
        assert_eq!(said.message.as_deref(), Some(message));
    }
}

#[test]
fn headers_are_redacted_too() {
    let refusal = answer(
        302,
        &[
            ("apim-request-id", KEY),
            ("x-ms-region", KEY),
            ("location", &format!("/path/{KEY}/x;api-key={KEY}")),
        ],
        "",
    );
    let diagnosis = diagnose(&azure(AzureApi::Ga), &refusal);
    let shown = format!(
        "{diagnosis:?} {} {}",
        diagnosis.error_event(),
        diagnosis.problem()
    );
    assert!(!shown.contains("CANARY"), "{shown}");
}

#[test]
fn a_missing_role_comes_with_the_command_that_assigns_it() {
    let claims = format!(
        r#"{{"oid":"{OBJECT}","tid":"{OBJECT}","appid":"{OBJECT}","idtyp":"app","aud":"https://cognitiveservices.azure.com","exp":1800000000}}"#
    );
    let claims = TokenClaims::read(&token(&claims)).unwrap();
    assert_eq!(claims.object_id.as_deref(), Some(OBJECT));
    assert_eq!(claims.expires_at, Some(1_800_000_000));
    let upstream = azure(AzureApi::Ga);
    let ask = Ask::parse("/v1/realtime", None, std::iter::empty()).unwrap();
    let request = upstream.request(&ask, &Correlation::default()).unwrap();
    let refusal = answer(401, &[], r#"{"error":{"code":"PermissionDenied"}}"#);
    let explain = |claims| {
        let circumstances = Circumstances {
            upstream: &upstream,
            intent: ask.intent,
            target: request.target(),
            claims,
        };
        Diagnosis::explain(&refusal, circumstances).next_step
    };
    let filled = explain(Some(&claims));
    assert!(
        filled.contains(&format!(
            "--assignee-object-id {OBJECT} --assignee-principal-type ServicePrincipal --scope \"$(az cognitiveservices account show --name r "
        )),
        "{filled}"
    );
    assert!(explain(None).contains("--assignee-object-id <principal> "));
}

/// An Azure upstream that is signed in to with this token.
#[expect(
    clippy::disallowed_methods,
    reason = "a token needs some instant to be valid from"
)]
fn signed_in(token: &str) -> Upstream {
    let now = Moment {
        monotonic: std::time::Instant::now(),
        wall: std::time::SystemTime::UNIX_EPOCH,
    };
    let mut state = TokenState::new(TokenRules::default(), "managed-identity", now);
    let token = FetchedToken {
        secret: Secret::new(token),
        time_to_live: Duration::from_secs(3600),
        refresh_in: None,
    };
    state.succeed(token, now, Jitter::from_bits(0));
    let cell = TokenCell::new("managed-identity");
    cell.publish(state.token(now));
    let origin = Origin::parse("https://r.openai.azure.com", &OriginRules::default()).unwrap();
    Upstream::Azure(AzureUpstream {
        credential: Credential::entra(origin, cell),
        base_path: String::new(),
        api: AzureApi::Ga,
        deployment: "voice".into(),
    })
}

#[test]
fn the_principal_is_that_of_the_presented_token() {
    let token = token(&format!(r#"{{"oid":"{OBJECT}","idtyp":"app"}}"#));
    let body = format!(r#"{{"error":{{"code":"PermissionDenied","message":"{token}"}}}}"#);
    let diagnosis = diagnose(&signed_in(&token), &answer(401, &[], &body));
    assert_eq!(diagnosis.code, "azure_rbac_missing");
    let event = diagnosis.error_event();
    assert!(
        event.contains(&format!("--assignee-object-id {OBJECT} ")),
        "{event}"
    );
    assert!(!event.contains("eyJ"), "{event}");
}

#[test]
fn claims_that_are_no_guids_stay_out_of_commands() {
    let claims = TokenClaims::read(&token(
        r#"{"oid":"x; rm -rf /","tid":"$(id)","aud":"a\u0007b","exp":"soon"}"#,
    ))
    .unwrap();
    assert_eq!(
        claims,
        TokenClaims {
            audience: Some("a b".into()),
            ..TokenClaims::default()
        }
    );
    for no_token in ["", "a.b", "a.b.c", "a.b.c.d", "..", "0123456789abcdef"] {
        assert_eq!(TokenClaims::read(no_token), None, "{no_token}");
    }
}

#[test]
fn identity_failures_are_diagnoses() {
    let failure = IdentityFailure {
        source: "workload-identity",
        code: "entra_secret_expired",
        hint: Some("the client secret has expired; create a new one"),
        permanent: true,
    };
    let diagnosis = Diagnosis::identity(&failure);
    assert_eq!(diagnosis.code, "entra_secret_expired");
    assert_eq!(diagnosis.permanence, Permanence::Permanent);
    assert!(
        diagnosis
            .summary
            .ends_with("the client secret has expired.")
    );
    assert_eq!(
        diagnosis.next_step,
        "The client secret has expired; create a new one."
    );
    let without_hint = Diagnosis::identity(&IdentityFailure {
        hint: None,
        ..failure
    });
    assert!(
        without_hint
            .next_step
            .contains("`az ad app credential reset")
    );
    let check = |code, permanent, expected: &str| {
        let diagnosis = Diagnosis::identity(&IdentityFailure {
            source: "managed-identity",
            code,
            hint: None,
            permanent,
        });
        let Diagnosis {
            code,
            blame,
            permanence,
            ..
        } = diagnosis;
        let got = format!("{code} {} {}", blame.as_str(), permanence.close_code());
        assert_eq!(got, expected);
    };
    check("", false, "azure_identity_unavailable network 1011");
    check("", true, "azure_identity_unavailable operator 1008");
    check(
        "something_new",
        true,
        "azure_identity_unavailable operator 1008",
    );
    check(
        "relay_full",
        false,
        "azure_identity_unavailable network 1011",
    );
    check("entra_unreachable", false, "entra_unreachable network 1011");
    check("entra_throttled", false, "entra_throttled operator 1013");
    check(
        "identity_not_found",
        false,
        "identity_not_found operator 1011",
    );
    check("identity_tls", true, "identity_tls network 1008");
}

#[test]
fn a_missing_token_is_told_without_the_services_words() {
    let check = |code, permanent, expected: &str| {
        let diagnosis = Diagnosis::identity_unavailable(&TokenError {
            detail: "tenant 7f3a is unknown".into(),
            permanent,
            ..TokenError::new("managed-identity", code, "no answer")
        });
        let got = format!(
            "{} {} {}",
            diagnosis.code,
            diagnosis.blame.as_str(),
            diagnosis.permanence.close_code()
        );
        assert_eq!(got, expected);
        let told = format!("{} {}", diagnosis.error_event(), diagnosis.problem());
        assert!(told.contains("managed-identity"), "{told}");
        assert!(!told.contains("7f3a"), "{told}");
    };
    check(
        "identity_unavailable",
        false,
        "identity_unavailable network 1011",
    );
    check(
        "identity_not_found",
        true,
        "identity_not_found operator 1008",
    );
    check(
        "vault_forbidden",
        true,
        "azure_identity_unavailable operator 1008",
    );
}

proptest! {
    /// Whatever comes, in whatever shape: a code of the table, bounded texts, no piece of the key.
    #[test]
    fn any_answer_is_explained_without_the_key(
        status in 100u16..1000,
        before in prop_oneof![
            Just(br#"{"error":{"code":""#.to_vec()),
            Just(br#"{"error":{"message":""#.to_vec()),
            Just(br#"{"statusCode":401,"message":["#.to_vec()),
            proptest::collection::vec(any::<u8>(), 0..200),
        ],
        length in 8..=KEY.len(),
        after in proptest::collection::vec(any::<u8>(), 0..600),
        header in ".{0,40}",
    ) {
        let piece = &KEY.as_bytes()[..length];
        let body = [&before, piece, &after].concat();
        let location = format!("{header}{KEY}");
        let headers = [("location", location.as_bytes()), ("x-request-id", header.as_bytes())];
        let refusal = Refusal::Answered(UpstreamAnswer::new(status, headers.into_iter(), body));
        for upstream in [azure(AzureApi::Ga), openai()] {
            let diagnosis = diagnose(&upstream, &refusal);
            prop_assert!(Row::find(diagnosis.code).is_some());
            let event = diagnosis.error_event();
            prop_assert!(event.len() < 8 << 10, "{}", event.len());
            if matches!(upstream, Upstream::Azure(_)) {
                let shown = format!("{event} {} {diagnosis:?}", diagnosis.problem());
                prop_assert!(!shown.contains(&KEY[..8]), "{}", shown);
            }
        }
    }
}
