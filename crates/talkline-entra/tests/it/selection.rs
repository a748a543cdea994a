//! The decision for one kind of credential, and the source that comes of it.

use talkline_entra::{DeveloperTools, Environment, Network, Scope, SetupError, select};

use crate::{
    application::{HOST, network},
    certificate::Pair,
    fake::{self, Fake, Reply, TlsIdentity},
};

fn environment(set: &[(&str, &str)]) -> Environment {
    Environment::read(|name| {
        let (_, value) = set.iter().find(|(key, _)| *key == name)?;
        Some((*value).to_owned())
    })
}

#[tokio::test]
async fn the_selected_source_fetches_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, "assertion-1").unwrap();
    let certificate = directory.path().join("certificate.pem");
    std::fs::write(&certificate, Pair::rsa().pem()).unwrap();
    let check = async |name: &str, value: &str, kind: &str, sent: &str| {
        let tls = TlsIdentity::new(HOST);
        let fake = Fake::start_tls(Reply::entra_token("t-1", 3599), &tls).await;
        let environment = environment(&[
            ("AZURE_TENANT_ID", "contoso.example"),
            ("AZURE_CLIENT_ID", "client-1"),
            (name, value),
        ]);
        let selection = select(&environment, DeveloperTools::Refused);
        let scope = Scope::for_host("voice.openai.azure.com");
        let source = selection
            .source(&environment, scope, network(&tls, &fake))
            .unwrap();
        assert_eq!(source.name(), kind);
        assert_eq!(selection.kind.to_string(), kind);
        assert_eq!(source.fetch().await.unwrap().secret.expose(), "t-1");
        assert!(fake.only_request().contains(sent), "{kind}");
    };
    check(
        "AZURE_CLIENT_SECRET",
        "s-1",
        "client-secret",
        "&client_secret=s-1&",
    )
    .await;
    check(
        "AZURE_FEDERATED_TOKEN_FILE",
        token_file.to_str().unwrap(),
        "workload-identity",
        "client_assertion=assertion-1&",
    )
    .await;
    check(
        "AZURE_CLIENT_CERTIFICATE_PATH",
        certificate.to_str().unwrap(),
        "client-assertion",
        "client_assertion=eyJ",
    )
    .await;
}

/// What is missing is an error: nothing else is tried.
#[test]
fn a_selection_never_falls_through() {
    fn check(set: &[(&str, &str)], expected: &SetupError) {
        let environment = environment(set);
        let selection = select(&environment, DeveloperTools::Allowed);
        let network = Network::new(&fake::client(rustls::RootCertStore::empty()));
        let scope = Scope::for_host("voice.openai.azure.com");
        let error = selection.source(&environment, scope, network).unwrap_err();
        assert_eq!(&error, expected, "{set:?}");
    }
    let identity = ("IDENTITY_ENDPOINT", "http://127.0.0.1:1/");
    let header = ("IDENTITY_HEADER", "h");
    let tenant = SetupError::Missing("AZURE_TENANT_ID");
    check(
        &[("AZURE_FEDERATED_TOKEN_FILE", "/f"), identity, header],
        &tenant,
    );
    check(&[("AZURE_CLIENT_SECRET", "s"), identity, header], &tenant);
    check(
        &[("AZURE_CLIENT_CERTIFICATE_PATH", "/f"), identity, header],
        &tenant,
    );
    check(
        &[("IDENTITY_ENDPOINT", "http://8.8.8.8/"), header],
        &SetupError::IdentityEndpoint,
    );
    check(
        &[("MSI_ENDPOINT", "x")],
        &SetupError::UnsupportedHost {
            host: "Cloud Shell",
            variables: "MSI_ENDPOINT",
        },
    );
}
