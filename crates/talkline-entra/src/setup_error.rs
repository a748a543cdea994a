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
    /// A host name is redirected to an address that is not loopback.
    #[error("an override must point to a loopback address")]
    Override,
}
