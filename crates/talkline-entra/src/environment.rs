//! The variables that Azure hosts set, as data.

use std::{ffi::OsString, fmt};

use talkline_auth::Secret;

/// What the hosting environment says about itself.
///
/// Read once, through a function, so that a test or a configuration loader can stand in for the
/// process.
///
/// azure_identity reads the *process* environment by itself when it authenticates a managed
/// identity (`IDENTITY_ENDPOINT`, `IDENTITY_HEADER` and the four variables beside them); there is
/// no way to hand it values. What is given here decides where a request may go: when the two
/// disagree, the request is refused before a byte is sent.
///
/// ```
/// use talkline_entra::Environment;
///
/// let environment = Environment::read(|name| std::env::var(name).ok());
/// # let _ = environment;
/// ```
#[derive(Clone, Default)]
pub struct Environment {
    pub(crate) identity_endpoint: Option<String>,
    pub(crate) identity_header: Option<Secret>,
    pub(crate) identity_server_thumbprint: bool,
    pub(crate) imds_endpoint: bool,
    pub(crate) msi_endpoint: bool,
    pub(crate) msi_secret: bool,
    pub(crate) tenant_id: Option<String>,
    pub(crate) client_id: Option<String>,
    pub(crate) federated_token_file: Option<String>,
    pub(crate) client_secret: Option<Secret>,
    pub(crate) client_certificate_path: Option<String>,
    pub(crate) path: Option<OsString>,
    pub(crate) authority_host: Option<String>,
}

impl Environment {
    /// Asks `lookup` for every variable that any kind of credential needs:
    /// `IDENTITY_ENDPOINT`, `IDENTITY_HEADER`, `IDENTITY_SERVER_THUMBPRINT`, `IMDS_ENDPOINT`,
    /// `MSI_ENDPOINT`, `MSI_SECRET`, `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`,
    /// `AZURE_FEDERATED_TOKEN_FILE`, `AZURE_CLIENT_SECRET`, `AZURE_CLIENT_CERTIFICATE_PATH`,
    /// `AZURE_AUTHORITY_HOST`, and `PATH`, where developer tools are looked for.
    ///
    /// An empty `AZURE_*` variable counts as absent. The others count as present even when empty,
    /// because azure_identity chooses its endpoint that way.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let present = |name| lookup(name).is_some();
        let filled = |name| lookup(name).filter(|value| !value.is_empty());
        Self {
            identity_endpoint: lookup("IDENTITY_ENDPOINT"),
            identity_header: lookup("IDENTITY_HEADER").map(Secret::new),
            identity_server_thumbprint: present("IDENTITY_SERVER_THUMBPRINT"),
            imds_endpoint: present("IMDS_ENDPOINT"),
            msi_endpoint: present("MSI_ENDPOINT"),
            msi_secret: present("MSI_SECRET"),
            tenant_id: filled("AZURE_TENANT_ID"),
            client_id: filled("AZURE_CLIENT_ID"),
            federated_token_file: filled("AZURE_FEDERATED_TOKEN_FILE"),
            client_secret: filled("AZURE_CLIENT_SECRET").map(Secret::new),
            client_certificate_path: filled("AZURE_CLIENT_CERTIFICATE_PATH"),
            path: filled("PATH").map(OsString::from),
            authority_host: filled("AZURE_AUTHORITY_HOST"),
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            // A URL can carry a password.
            .field("identity_endpoint", &self.identity_endpoint.is_some())
            .field("identity_header", &self.identity_header)
            .field("tenant_id", &self.tenant_id)
            .field("client_id", &self.client_id)
            .field("federated_token_file", &self.federated_token_file)
            .field("client_secret", &self.client_secret)
            .field("client_certificate_path", &self.client_certificate_path)
            .field("authority_host", &self.authority_host)
            .finish_non_exhaustive()
    }
}
