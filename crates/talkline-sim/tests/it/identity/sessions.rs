//! A session opened with a token of each fake.

use talkline_sim::caller::{Call, Dialect, Secret, spoken_turn};
use talkline_sim::identity::{
    AppService, EntraAuthority, Imds, LOGIN_HOST, ManagedIdentity, TENANT, TestCa, TokenSpec,
};
use talkline_sim::{BearerRule, Running, clips};

use super::ask::{Heard, plain, post, secure};
use super::managed::{app_request, imds_request};
use crate::bench::{fast, options, target};

const QUERY: &str = "api-version=2019-08-01&resource=https%3A%2F%2Fcognitiveservices.azure.com";

fn rule() -> BearerRule {
    BearerRule {
        audiences: vec!["https://cognitiveservices.azure.com".to_owned()],
        tenant: Some(TENANT.to_owned()),
        without_role: vec!["object-1".to_owned()],
    }
}

fn call(simulator: &Running, heard: &Heard) -> Call {
    let token = heard.json()["access_token"].as_str().unwrap().to_owned();
    let mut call = Call::new(format!(
        "ws://{}{}",
        simulator.addr(),
        target(Dialect::Ga, "voice")
    ));
    call.bearer = Some(Secret::new(token));
    call
}

#[tokio::test]
async fn the_simulator_takes_the_tokens_of_every_fake() {
    let simulator = fast().bearer(rule()).start().await.unwrap();
    let (imds, app) = (
        Imds::start().await.unwrap(),
        AppService::start().await.unwrap(),
    );
    let entra = EntraAuthority::start().await.unwrap();
    let form = "client_id=c&client_secret=s&grant_type=client_credentials\
                &scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default";
    let request = post(&format!("/{TENANT}/oauth2/v2.0/token"), LOGIN_HOST, form);
    for heard in [
        plain(imds.addr(), &imds_request(QUERY)).await,
        plain(app.addr(), &app_request(QUERY, app.identity_header())).await,
        secure(entra.addr(), entra.ca(), LOGIN_HOST, &request).await,
    ] {
        let question = clips::QUESTION.wav().unwrap();
        let report = spoken_turn(&call(&simulator, &heard), &question, &options())
            .await
            .unwrap();
        assert!(report.is_whole(), "{report:?}");
    }
}

#[tokio::test]
async fn the_simulator_refuses_what_azure_would() {
    let user = ManagedIdentity::user_assigned("relay", "client-1", "object-1");
    let imds = Imds::builder().user_assigned(user).start().await.unwrap();
    let simulator = fast().bearer(rule()).start().await.unwrap();
    let elsewhere = TokenSpec::new().tenant("another");
    for (what, query, spec, status) in [
        (
            "audience",
            QUERY.replace("cognitiveservices", "vault"),
            TokenSpec::new(),
            401,
        ),
        ("tenant", QUERY.to_owned(), elsewhere, 400),
        (
            "role",
            format!("{QUERY}&client_id=client-1"),
            TokenSpec::new(),
            401,
        ),
        (
            "expiry",
            QUERY.to_owned(),
            TokenSpec::new().expired(std::time::Duration::from_secs(1)),
            401,
        ),
    ] {
        imds.set_token(spec);
        let heard = plain(imds.addr(), &imds_request(&query)).await;
        let question = clips::QUESTION.wav().unwrap();
        let refused = spoken_turn(&call(&simulator, &heard), &question, &options()).await;
        assert!(refused.is_err(), "{what}");
        assert_eq!(
            simulator.requests().last().unwrap().status,
            status,
            "{what}"
        );
    }
}

#[tokio::test]
async fn one_authority_signs_for_the_simulator_too() {
    let ca = TestCa::new().unwrap();
    let tls = ca.server_config(&["voice.openai.azure.com"]).unwrap();
    let simulator = fast().tls(tls).start().await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: voice.openai.azure.com\r\n\r\n";
    let heard = secure(simulator.addr(), &ca, "voice.openai.azure.com", request).await;
    assert_eq!(heard.status, 404);
}
