//! Managed identity: the metadata service of a virtual machine, and the endpoint of App Service and Container Apps.

use std::io;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::caller::Secret;
use crate::ids;

use super::fault::{Fault, Mode, Modes};
use super::host::{Host, serving};
use super::token::TokenSpec;

mod endpoint;
mod rules;

use endpoint::Endpoint;
use rules::Rules;

/// What a managed identity endpoint does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdentityMode {
    /// Checks the request and issues a token, or refuses it as the service would.
    Works,
    /// 400: the identity is not assigned to the machine or the app.
    IdentityNotFound,
    /// 404, as while the metadata service is being updated.
    NotFound,
    /// 410, as while the metadata service is away for at most 70 seconds ("How to use managed identities to
    /// acquire an access token", error handling); counted from the first request that meets it, then it works.
    Gone {
        /// How long.
        lasts: Duration,
    },
    /// 429.
    Throttled {
        /// The value of `Retry-After`, in whole seconds, however many.
        retry_after: Duration,
    },
    /// 403, as Docker Desktop's proxy answers for an address that it cannot reach.
    Unreachable,
    /// Fails.
    Fault(Fault),
}

impl From<Fault> for IdentityMode {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Mode for IdentityMode {
    fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Fault(fault) => Some(fault),
            Self::Works
            | Self::IdentityNotFound
            | Self::NotFound
            | Self::Gone { .. }
            | Self::Throttled { .. }
            | Self::Unreachable => None,
        }
    }
}

/// An identity that a machine or an app has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedIdentity {
    /// Its client (application) id: the claim `appid`.
    pub client_id: String,
    /// Its object (principal) id: the claim `oid`.
    pub object_id: String,
    /// Its resource id; compared without regard to case, as Azure does. Empty for a system-assigned one.
    pub resource_id: String,
}

impl ManagedIdentity {
    /// The system-assigned identity that all fakes have at first.
    #[must_use]
    pub fn system_assigned() -> Self {
        Self {
            client_id: "a0e2c4d6-1111-4222-8333-5e6f70819203".to_owned(),
            object_id: "b1f3d5e7-4444-4555-8666-6f7081920314".to_owned(),
            resource_id: String::new(),
        }
    }

    /// A user-assigned identity of that name.
    #[must_use]
    pub fn user_assigned(name: &str, client_id: &str, object_id: &str) -> Self {
        Self {
            client_id: client_id.to_owned(),
            object_id: object_id.to_owned(),
            resource_id: format!(
                "/subscriptions/0f1e2d3c-0000-4000-8000-a1b2c3d4e5f6/resourcegroups/talkline/providers/\
                 Microsoft.ManagedIdentity/userAssignedIdentities/{name}"
            ),
        }
    }
}

/// Settings of an [`Imds`] or an [`AppService`] that has not started.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct IdentityBuilder<F> {
    listen: SocketAddr,
    mode: IdentityMode,
    token: TokenSpec,
    system: Option<ManagedIdentity>,
    users: Vec<ManagedIdentity>,
    endpoint: Endpoint,
    fake: PhantomData<fn() -> F>,
}

impl<F> IdentityBuilder<F> {
    fn new(endpoint: Endpoint) -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            mode: IdentityMode::Works,
            token: TokenSpec::new(),
            system: Some(ManagedIdentity::system_assigned()),
            users: Vec::new(),
            endpoint,
            fake: PhantomData,
        }
    }

    /// Where to listen: loopback or, in a network namespace of the caller's own, `169.254.169.254:80`. Defaults to
    /// `127.0.0.1:0`, a free port.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// What it does at first. Defaults to [`IdentityMode::Works`].
    pub fn mode(mut self, mode: impl Into<IdentityMode>) -> Self {
        self.mode = mode.into();
        self
    }

    /// What its tokens say. Defaults to [`TokenSpec::new`].
    pub fn token(mut self, token: TokenSpec) -> Self {
        self.token = token;
        self
    }

    /// The system-assigned identity; with `None`, a request that names no identity is refused. Defaults to
    /// [`ManagedIdentity::system_assigned`].
    pub fn system_assigned(mut self, identity: impl Into<Option<ManagedIdentity>>) -> Self {
        self.system = identity.into();
        self
    }

    /// Adds a user-assigned identity. Defaults to none.
    pub fn user_assigned(mut self, identity: ManagedIdentity) -> Self {
        self.users.push(identity);
        self
    }

    fn into_rules(self) -> Rules {
        Rules {
            modes: Modes::new(self.mode),
            token: Mutex::new(self.token),
            system: self.system,
            users: self.users,
            endpoint: self.endpoint,
        }
    }
}

/// Gives both endpoints the methods that they share.
macro_rules! managed {
    ($fake:ident) => {
        serving!($fake);

        impl $fake {
            /// Does this from the next request (or connection) on.
            pub fn set_mode(&self, mode: impl Into<IdentityMode>) {
                self.rules.modes.set(mode.into());
            }

            /// Does each of `first` for one request, then `then` for all others.
            pub fn set_modes(
                &self,
                first: impl IntoIterator<Item = IdentityMode>,
                then: impl Into<IdentityMode>,
            ) {
                self.rules.modes.set_all(first, then.into());
            }

            /// Changes what further tokens say.
            pub fn set_token(&self, token: TokenSpec) {
                *self
                    .rules
                    .token
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = token;
            }
        }
    };
}

// === Azure Instance Metadata Service ===

/// The metadata service of a virtual machine (and of an AKS node), over plain HTTP.
///
/// Serves `GET /metadata/identity/oauth2/token` with `Metadata: true`, `api-version`, `resource` and at most one of
/// `client_id`, `object_id` and `msi_res_id` ("How to use managed identities to acquire an access token").
#[derive(Debug)]
pub struct Imds {
    host: Host,
    rules: Arc<Rules>,
}

managed!(Imds);

impl Imds {
    /// Starts from the defaults.
    pub fn builder() -> IdentityBuilder<Imds> {
        IdentityBuilder::new(Endpoint::Imds)
    }

    /// A metadata service with the defaults.
    ///
    /// # Errors
    /// As [`IdentityBuilder::start`].
    ///
    /// # Cancel safety
    /// Dropping the future frees the port.
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }
}

impl IdentityBuilder<Imds> {
    /// Binds the port and begins to serve. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `InvalidInput` for an address that is neither loopback nor link-local; else what binding said.
    ///
    /// # Cancel safety
    /// Dropping the future frees the port.
    pub async fn start(self) -> io::Result<Imds> {
        let listen = self.listen;
        let rules = Arc::new(self.into_rules());
        let host = Host::start(listen, None, Arc::clone(&rules)).await?;
        Ok(Imds { host, rules })
    }
}

// === App Service and Container Apps ===

/// The identity endpoint of App Service, Functions and Container Apps, over plain HTTP.
///
/// Serves `GET` on [`AppService::identity_endpoint`] with `X-IDENTITY-HEADER`, `api-version=2019-08-01`, `resource`
/// and at most one of `client_id`, `principal_id` (or `object_id`) and `mi_res_id` ("How to use managed identities
/// for App Service"). `msi_res_id`, which is the metadata service's word, is refused: the real endpoint is on
/// record only as not understanding it.
#[derive(Debug)]
pub struct AppService {
    host: Host,
    rules: Arc<Rules>,
}

managed!(AppService);

impl AppService {
    /// Starts from the defaults, with a random secret.
    pub fn builder() -> IdentityBuilder<AppService> {
        let secret = ids::uuid().to_uppercase();
        IdentityBuilder::new(Endpoint::AppService {
            secret: Secret::new(secret),
        })
    }

    /// An endpoint with the defaults.
    ///
    /// # Errors
    /// As [`IdentityBuilder::start`].
    ///
    /// # Cancel safety
    /// Dropping the future frees the port.
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// What `IDENTITY_ENDPOINT` would hold.
    #[must_use]
    pub fn identity_endpoint(&self) -> String {
        format!("http://{}/msi/token", self.addr())
    }

    /// What `IDENTITY_HEADER` would hold.
    #[must_use]
    pub fn identity_header(&self) -> &str {
        self.rules.endpoint.secret()
    }
}

impl IdentityBuilder<AppService> {
    /// The value of `X-IDENTITY-HEADER` that is taken. Defaults to a random one.
    pub fn identity_header(mut self, secret: impl Into<String>) -> Self {
        self.endpoint = Endpoint::AppService {
            secret: Secret::new(secret),
        };
        self
    }

    /// Binds the port and begins to serve. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `InvalidInput` for an address that is neither loopback nor link-local; else what binding said.
    ///
    /// # Cancel safety
    /// Dropping the future frees the port.
    pub async fn start(self) -> io::Result<AppService> {
        let listen = self.listen;
        let rules = Arc::new(self.into_rules());
        let host = Host::start(listen, None, Arc::clone(&rules)).await?;
        Ok(AppService { host, rules })
    }
}
