//! Why a source cannot be built.

/// What is wrong with the settings or the host, found before anything is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The scope does not have the form `<resource>/.default`.
    #[error("scope {0:?} is not of the form <resource>/.default")]
    Scope(String),
    /// A setting is needed and neither given nor set by the host; holds the variable's name.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// A tenant, client, object or resource id that cannot be one.
    #[error("{what} {value:?} is not valid")]
    Id {
        /// Which id.
        what: &'static str,
        /// What was given.
        value: String,
    },
    /// The authority is not an `https` URL with nothing but a host and, at most, a port.
    #[error("authority {0:?} is not an https URL of a host")]
    Authority(String),
    /// `IDENTITY_ENDPOINT` is not a URL on this machine or its private network. Sending
    /// `IDENTITY_HEADER` anywhere else would give the identity away.
    #[error(
        "IDENTITY_ENDPOINT is not an http or https URL of a loopback, link-local or private address"
    )]
    IdentityEndpoint,
    /// App Service and Container Apps take a client id or an object id; azure_identity sends a
    /// resource id under a name that they do not know
    /// (<https://github.com/Azure/azure-sdk-for-rust/issues/2407>).
    #[error(
        "a resource id cannot choose the identity on App Service and Container Apps; give its client id or object id"
    )]
    ResourceIdOnAppService,
    /// A host whose managed identity azure_identity does not support.
    #[error("managed identity on {host} is not supported (recognised by {variables})")]
    UnsupportedHost {
        /// The kind of host.
        host: &'static str,
        /// The variables by which it was recognised.
        variables: &'static str,
    },
    /// Certificate and key are missing, unreadable, of the wrong kind, or not each other's; says
    /// which.
    #[error("the client certificate cannot be used: {0}")]
    Certificate(&'static str),
    /// A Key Vault reference that is none; says what is wrong, without quoting it.
    #[error("the Key Vault reference is not valid: {0}")]
    VaultReference(&'static str),
    /// A host name is redirected to an address that is not loopback.
    #[error("an override must point to a loopback address")]
    Override,
}

impl SetupError {
    /// What kind of failure it is, in a word that stays the same.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Scope(_) => "entra_scope_form",
            Self::Missing(_) => "entra_setting_missing",
            Self::Id { .. } => "entra_id_form",
            Self::Authority(_) => "entra_authority_form",
            Self::IdentityEndpoint => "identity_egress_blocked",
            Self::ResourceIdOnAppService => "identity_resource_id",
            Self::UnsupportedHost { .. } => "identity_unsupported_host",
            Self::Certificate(_) => "entra_certificate_form",
            Self::VaultReference(_) => "vault_reference_form",
            Self::Override => "identity_override",
        }
    }

    /// What to do about it, where that is more than correcting the value.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Missing("AZURE_FEDERATED_TOKEN_FILE") => {
                "label the pod azure.workload.identity/use: \"true\" and name a service account that is federated"
            }
            Self::IdentityEndpoint => {
                "the platform sets IDENTITY_ENDPOINT; remove what overwrites it"
            }
            Self::ResourceIdOnAppService => "az identity show --ids <resource id> --query clientId",
            Self::UnsupportedHost { .. } => {
                "unset those variables if this is another kind of host, or use a client secret or a certificate"
            }
            Self::Certificate(_) => {
                "from a PFX file: openssl pkcs12 -in certificate.pfx -nodes -out certificate.pem"
            }
            _ => return None,
        })
    }
}
