//! The identity of the host that the process runs on.

use std::{fmt, sync::Arc};

use azure_core::{credentials::TokenCredential, http::Url};
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};
use talkline_auth::{Secret, TokenFuture, TokenSource};

use crate::{
    Environment, Network, Scope, SetupError,
    answer::Shape,
    diagnosis::{Asked, Subject},
    fetch::Fetcher,
    redact::Redactor,
    transport::{Destination, Reach, is_local},
};

/// <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>.
const IMDS: &str = "http://169.254.169.254/metadata/identity/oauth2/token";

/// Which of a host's identities is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The one that the host was created with.
    System,
    /// A user-assigned identity, by its client id.
    ClientId(String),
    /// A user-assigned identity, by its object (principal) id.
    ObjectId(String),
    /// A user-assigned identity, by its Azure resource id. On virtual machines and AKS only.
    ResourceId(String),
}

impl Identity {
    fn check(&self) -> Result<(), SetupError> {
        let (what, value) = match self {
            Self::System => return Ok(()),
            Self::ClientId(id) => ("client id", id),
            Self::ObjectId(id) => ("object id", id),
            Self::ResourceId(id) => ("resource id", id),
        };
        if value.is_empty()
            || !value
                .chars()
                .all(|c| c.is_alphanumeric() || "-._/()".contains(c))
        {
            return Err(SetupError::Id {
                what,
                value: value.escape_default().to_string(),
            });
        }
        Ok(())
    }

    fn user_assigned(&self) -> Option<UserAssignedId> {
        Some(match self {
            Self::System => return None,
            Self::ClientId(id) => UserAssignedId::ClientId(id.clone()),
            Self::ObjectId(id) => UserAssignedId::ObjectId(id.clone()),
            Self::ResourceId(id) => UserAssignedId::ResourceId(id.clone()),
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("the system-assigned identity"),
            Self::ClientId(id) => write!(f, "the identity with client id {id}"),
            Self::ObjectId(id) => write!(f, "the identity with object id {id}"),
            Self::ResourceId(id) => write!(f, "the identity {id}"),
        }
    }
}

/// Tokens for the managed identity of an Azure host: virtual machine, AKS node, App Service,
/// Functions or Container Apps.
///
/// The host is recognised by the [`Environment`] given. azure_identity looks at the *process*
/// environment, each time a token is fetched; when that names another endpoint the fetch fails and
/// nothing is sent. `AZURE_CLIENT_ID` is not read here: which identity is meant is said by
/// [`Identity`].
#[derive(Debug)]
pub struct ManagedIdentity {
    fetcher: Fetcher,
    redactor: Redactor,
    identity: Identity,
}

impl ManagedIdentity {
    /// Chooses the endpoint; sends nothing.
    ///
    /// # Errors
    ///
    /// [`SetupError::UnsupportedHost`] on Azure Arc, Service Fabric, Cloud Shell and Azure ML;
    /// [`SetupError::IdentityEndpoint`] when the endpoint is no URL or leads out of the private
    /// network; [`SetupError::ResourceIdOnAppService`]; [`SetupError::Id`] for an id that is none.
    pub fn new(
        identity: Identity,
        scope: Scope,
        environment: &Environment,
        network: Network,
    ) -> Result<Self, SetupError> {
        identity.check()?;
        let host = Host::recognise(environment)?;
        if matches!(
            (&host, &identity),
            (Host::AppService(_), Identity::ResourceId(_))
        ) {
            return Err(SetupError::ResourceIdOnAppService);
        }
        let (destination, asked) = match host {
            Host::AppService(endpoint) => {
                (local(endpoint, true)?, Asked::AppService(identity.clone()))
            }
            Host::Imds => (local(IMDS, false)?, Asked::Imds(identity.clone())),
        };
        Ok(Self {
            fetcher: Fetcher {
                network,
                subject: Subject {
                    source_name: "managed-identity",
                    place: destination.authority(),
                    asked,
                },
                destination: Arc::new(destination),
                shape: Shape::ManagedIdentity,
                scope,
            },
            redactor: Redactor::new(environment.identity_header.clone()),
            identity,
        })
    }

    /// `host[:port]` of the identity endpoint in use.
    pub fn endpoint(&self) -> &str {
        &self.fetcher.subject.place
    }
}

impl TokenSource for ManagedIdentity {
    fn name(&self) -> &'static str {
        self.fetcher.subject.source_name
    }

    fn fetch(&self) -> TokenFuture<'_> {
        Box::pin(
            self.fetcher
                .fetch(&self.fetcher.subject, &self.redactor, |client_options| {
                    let credential =
                        ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
                            user_assigned_id: self.identity.user_assigned(),
                            client_options,
                        }))?;
                    Ok(credential as Arc<dyn TokenCredential>)
                }),
        )
    }
}

/// A kind of host, as azure_identity tells them apart.
enum Host<'a> {
    AppService(&'a str),
    Imds,
}

impl<'a> Host<'a> {
    fn recognise(environment: &'a Environment) -> Result<Self, SetupError> {
        let unsupported = |host, variables| Err(SetupError::UnsupportedHost { host, variables });
        let Some(endpoint) = &environment.identity_endpoint else {
            return match (environment.msi_endpoint, environment.msi_secret) {
                (true, true) => unsupported("Azure ML", "MSI_ENDPOINT and MSI_SECRET"),
                (true, false) => unsupported("Cloud Shell", "MSI_ENDPOINT"),
                (false, _) => Ok(Self::Imds),
            };
        };
        match &environment.identity_header {
            Some(_) if environment.identity_server_thumbprint => unsupported(
                "Service Fabric",
                "IDENTITY_ENDPOINT, IDENTITY_HEADER and IDENTITY_SERVER_THUMBPRINT",
            ),
            Some(header) => {
                header_safe(header)?;
                Ok(Self::AppService(endpoint))
            }
            None if environment.imds_endpoint => {
                unsupported("Azure Arc", "IDENTITY_ENDPOINT and IMDS_ENDPOINT")
            }
            None => Ok(Self::Imds),
        }
    }
}

fn header_safe(value: &Secret) -> Result<(), SetupError> {
    http::HeaderValue::from_str(value.expose())
        .map(drop)
        .map_err(|_| SetupError::Id {
            what: "IDENTITY_HEADER",
            value: "(hidden)".into(),
        })
}

fn local(endpoint: &str, takes_identity_header: bool) -> Result<Destination, SetupError> {
    let destination = Url::parse(endpoint)
        .ok()
        .and_then(|url| Destination::of(&url, Reach::Local, takes_identity_header))
        .ok_or(SetupError::IdentityEndpoint)?;
    match destination.host.parse() {
        // A name is looked at once it is resolved.
        Ok(address) if !is_local(address) => Err(SetupError::IdentityEndpoint),
        _ => Ok(destination),
    }
}
