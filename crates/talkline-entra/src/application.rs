//! Applications that prove who they are to Entra.

use std::{path::PathBuf, sync::Arc};

use azure_core::{
    cloud::CloudConfiguration,
    credentials::TokenCredential,
    http::{ClientMethodOptions, ClientOptions},
};
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions,
    ClientSecretCredential, ClientSecretCredentialOptions,
};
use talkline_auth::{FetchedToken, Secret, TokenError, TokenFuture, TokenSource};

use crate::{
    Application, Environment, Network, Scope, SetupError,
    answer::Shape,
    claims,
    diagnosis::{Asked, Client, Proof, Subject},
    fetch::Fetcher,
    file::{FileProblem, read},
    redact::Redactor,
};

/// Tokens for an application that has a client secret.
#[derive(Debug)]
pub struct ClientSecret {
    fetcher: Fetcher,
    application: Application,
    secret: Secret,
}

impl ClientSecret {
    /// Checks the settings; sends nothing and reads no environment.
    ///
    /// # Errors
    ///
    /// [`SetupError::Id`] for an id that is none, [`SetupError::Missing`] for an empty secret.
    pub fn new(
        application: Application,
        secret: Secret,
        scope: Scope,
        network: Network,
    ) -> Result<Self, SetupError> {
        if secret.expose().is_empty() {
            return Err(SetupError::Missing("the client secret"));
        }
        Ok(Self {
            fetcher: fetcher("client-secret", &application, Proof::Secret, scope, network)?,
            application,
            secret,
        })
    }
}

impl TokenSource for ClientSecret {
    fn name(&self) -> &'static str {
        self.fetcher.subject.source_name
    }

    fn fetch(&self) -> TokenFuture<'_> {
        Box::pin(async {
            let redactor = Redactor::new([self.secret.clone()]);
            self.fetcher
                .fetch(&self.fetcher.subject, &redactor, |options| {
                    let credential = ClientSecretCredential::new(
                        &self.application.tenant_id,
                        self.application.client_id.clone(),
                        self.secret.expose().to_owned().into(),
                        Some(ClientSecretCredentialOptions {
                            client_options: at(&self.application, options),
                        }),
                    )?;
                    Ok(credential as Arc<dyn TokenCredential>)
                })
                .await
        })
    }
}

/// Tokens for a Kubernetes workload whose service account is federated with an application
/// (<https://learn.microsoft.com/azure/aks/workload-identity-overview>).
///
/// The token file is read at every fetch, since kubelet replaces it about once an hour, and the
/// white space at its ends is dropped.
#[derive(Debug)]
pub struct WorkloadIdentity {
    fetcher: Fetcher,
    application: Application,
    token_file: PathBuf,
}

impl WorkloadIdentity {
    /// Checks the settings; neither sends anything nor opens the file.
    ///
    /// # Errors
    ///
    /// [`SetupError::Id`] for an id that is none.
    pub fn new(
        application: Application,
        token_file: PathBuf,
        scope: Scope,
        network: Network,
    ) -> Result<Self, SetupError> {
        Ok(Self {
            fetcher: fetcher(
                "workload-identity",
                &application,
                Proof::Federated { claims: None },
                scope,
                network,
            )?,
            application,
            token_file,
        })
    }

    /// With the application and the file (`AZURE_FEDERATED_TOKEN_FILE`) that the workload identity
    /// webhook of AKS writes into a pod's environment.
    ///
    /// # Errors
    ///
    /// [`SetupError::Missing`], and those of [`new`](Self::new) and [`Application::from_environment`].
    pub fn from_environment(
        environment: &Environment,
        scope: Scope,
        network: Network,
    ) -> Result<Self, SetupError> {
        let file = environment
            .federated_token_file
            .as_ref()
            .ok_or(SetupError::Missing("AZURE_FEDERATED_TOKEN_FILE"))?;
        let application = Application::from_environment(environment)?;
        Self::new(application, file.into(), scope, network)
    }

    async fn assertion(&self) -> Result<Secret, TokenError> {
        let refused = |problem: FileProblem| {
            let subject = &self.fetcher.subject;
            problem.into_error(subject, "the token file", &self.token_file)
        };
        let token = read(&self.token_file).await.map_err(refused)?;
        let token = token.expose().trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            // Empty for a moment, while somebody writes it in place.
            return Err(refused(FileProblem::transient("holds no token")));
        }
        Ok(Secret::new(token))
    }
}

impl TokenSource for WorkloadIdentity {
    fn name(&self) -> &'static str {
        self.fetcher.subject.source_name
    }

    fn fetch(&self) -> TokenFuture<'_> {
        Box::pin(async { self.fetch_with(self.assertion().await?).await })
    }
}

impl WorkloadIdentity {
    async fn fetch_with(&self, assertion: Secret) -> Result<FetchedToken, TokenError> {
        let redactor = Redactor::new([assertion.clone()]);
        let proof = Proof::Federated {
            claims: claims::federation(&assertion).map(|claims| redactor.quote(&claims)),
        };
        fetch_with_assertion(&self.fetcher, &self.application, proof, assertion).await
    }
}

/// Asks for a token with an assertion (RFC 7523, section 2.2).
pub(crate) async fn fetch_with_assertion(
    fetcher: &Fetcher,
    application: &Application,
    proof: Proof,
    assertion: Secret,
) -> Result<FetchedToken, TokenError> {
    let redactor = Redactor::new([assertion.clone()]);
    let subject = Subject {
        asked: Asked::Entra(Client::new(application, proof)),
        ..fetcher.subject.clone()
    };
    fetcher
        .fetch(&subject, &redactor, |options| {
            let credential = ClientAssertionCredential::new(
                application.tenant_id.clone(),
                application.client_id.clone(),
                Assertion(assertion),
                Some(ClientAssertionCredentialOptions {
                    client_options: at(application, options),
                }),
            )?;
            Ok(credential as Arc<dyn TokenCredential>)
        })
        .await
}

/// A proof that was made before the SDK asks for it.
#[derive(Debug)]
struct Assertion(Secret);

#[async_trait::async_trait]
impl ClientAssertion for Assertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        Ok(self.0.expose().to_owned())
    }
}

pub(crate) fn fetcher(
    source_name: &'static str,
    application: &Application,
    proof: Proof,
    scope: Scope,
    network: Network,
) -> Result<Fetcher, SetupError> {
    application.check()?;
    let destination = application.authority.destination()?;
    Ok(Fetcher {
        network,
        subject: Subject {
            source_name,
            place: destination.authority(),
            asked: Asked::Entra(Client::new(application, proof)),
        },
        destination,
        shape: Shape::Entra,
        scope,
    })
}

/// The options with the application's authority.
fn at(application: &Application, options: ClientOptions) -> ClientOptions {
    ClientOptions {
        cloud: Some(Arc::<CloudConfiguration>::new(
            application.authority.cloud(),
        )),
        ..options
    }
}
