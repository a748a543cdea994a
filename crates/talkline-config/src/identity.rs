//! What a relay needs besides the configuration's values: identities that sign in to Entra, and
//! keys that change while it runs. Plain data; whoever runs the configuration makes it work.

use std::fmt;

use talkline_auth::{KeyCell, Secret, TokenCell};

/// A Microsoft Entra ID identity that one provider signs in with.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Name of the provider.
    pub provider: String,
    /// Where the provider's credential looks for its token. Empty until a driver fills it.
    pub cell: TokenCell,
    /// Where tokens come from.
    pub kind: IdentityKind,
    /// Why this kind, for a log line: `auth.kind`, or what made `auto` choose.
    pub reason: String,
    /// What tokens are asked for, such as `https://cognitiveservices.azure.com/.default`.
    pub scope: String,
}

/// The identity that reads keys from Key Vault, chosen from the environment as `auto` is.
#[derive(Clone, Debug)]
pub struct VaultIdentity {
    /// Where tokens come from.
    pub kind: IdentityKind,
    /// Why this kind, for a log line.
    pub reason: String,
}

/// A kind of Entra identity with everything that it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityKind {
    /// The identity of the Azure host that the process runs on.
    ManagedIdentity(HostIdentity),
    /// A Kubernetes service account that is federated with an application.
    WorkloadIdentity {
        /// The application.
        application: Application,
        /// Path of the service account's token, which is replaced about once an hour.
        token_file: String,
    },
    /// An application with a client secret.
    ClientSecret {
        /// The application.
        application: Application,
        /// Its secret.
        secret: ClientSecret,
    },
    /// An application with a certificate.
    ClientAssertion {
        /// The application.
        application: Application,
        /// Path of the certificate (PEM).
        certificate: String,
        /// Path of its private key (PEM); the same file when both stand in one.
        certificate_key: String,
    },
    /// Whoever is signed in to the Azure CLI.
    AzureCli {
        /// Tenant to ask for a token in, where it is not the CLI's own choice.
        tenant_id: Option<String>,
    },
    /// Whoever is signed in to the Azure Developer CLI.
    AzureDeveloperCli {
        /// Tenant to ask for a token in, where it is not the CLI's own choice.
        tenant_id: Option<String>,
    },
}

impl IdentityKind {
    /// The value of `auth.kind` that stands for it; also the name of its token source.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::ManagedIdentity(_) => "managed-identity",
            Self::WorkloadIdentity { .. } => "workload-identity",
            Self::ClientSecret { .. } => "client-secret",
            Self::ClientAssertion { .. } => "client-assertion",
            Self::AzureCli { .. } => "azure-cli",
            Self::AzureDeveloperCli { .. } => "azd",
        }
    }

    /// The secret that it holds.
    pub(crate) fn secret(&self) -> Option<&Secret> {
        match self {
            Self::ClientSecret { secret, .. } => Some(&secret.0),
            Self::ManagedIdentity(_)
            | Self::WorkloadIdentity { .. }
            | Self::ClientAssertion { .. }
            | Self::AzureCli { .. }
            | Self::AzureDeveloperCli { .. } => None,
        }
    }
}

/// Which of a host's identities is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostIdentity {
    /// The one that the host was created with.
    System,
    /// A user-assigned one, by client id.
    ClientId(String),
    /// A user-assigned one, by object (principal) id.
    ObjectId(String),
    /// A user-assigned one, by Azure resource id.
    ResourceId(String),
}

/// An application registered in Entra.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// The tenant's id or one of its domain names.
    pub tenant_id: String,
    /// The application's (client) id.
    pub client_id: String,
    /// Who issues the tokens: `https://host[:port]`.
    pub authority: String,
}

/// The secret of an application.
#[derive(Clone, Debug)]
pub struct ClientSecret(pub Secret);

impl PartialEq for ClientSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose() == other.0.expose()
    }
}

impl Eq for ClientSecret {}

/// The keys of one provider that may change while the relay runs.
#[derive(Clone, Debug)]
pub struct WatchedKey {
    /// Name of the provider.
    pub provider: String,
    /// Where the provider's credential looks for its key. Keys from Key Vault are empty in it until
    /// somebody has fetched them.
    pub cell: KeyCell,
    /// Where `apiKey` is kept.
    pub primary: KeyPlace,
    /// Where `apiKeySecondary` is kept, if there is one.
    pub secondary: Option<KeyPlace>,
}

/// Where a key is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// In a file that holds nothing else, by its path.
    File(String),
    /// In Azure Key Vault.
    KeyVault(KeyVaultReference),
    /// Where it is read once: a variable, or a part of a file.
    Fixed,
}

/// A secret in Azure Key Vault, in its normal form: `https://<vault>/secrets/<name>[/<version>]`.
///
/// Source: <https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates>.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyVaultReference {
    // Invariant: a vault's host name, and name and version in the characters that Azure allows, so
    // that a URL made of them cannot lead anywhere else. Made by `parse` alone.
    vault: String,
    name: String,
    version: Option<String>,
}

/// Why a text is no [`KeyVaultReference`]; holds nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyVaultReferenceError(&'static str);

/// Suffixes under which Azure gives out vault names, and what a token for them is asked for.
const VAULTS: &[(&str, &str)] = &[
    (".vault.azure.net", "https://vault.azure.net/.default"),
    (
        ".vault.usgovcloudapi.net",
        "https://vault.usgovcloudapi.net/.default",
    ),
    (".vault.azure.cn", "https://vault.azure.cn/.default"),
];

/// How App Service writes a reference.
pub(crate) const APP_SERVICE_PREFIX: &str = "@Microsoft.KeyVault(";

impl KeyVaultReference {
    /// Parses the secret's URL, or App Service's `@Microsoft.KeyVault(…)` in both of its forms
    /// (<https://learn.microsoft.com/azure/app-service/app-service-key-vault-references>).
    ///
    /// ```
    /// use talkline_config::KeyVaultReference;
    ///
    /// let url = "https://talk.vault.azure.net/secrets/openai-key";
    /// assert_eq!(KeyVaultReference::parse(url)?.to_string(), url);
    /// let app_service = "@Microsoft.KeyVault(VaultName=talk;SecretName=openai-key)";
    /// assert_eq!(KeyVaultReference::parse(app_service)?.to_string(), url);
    /// # Ok::<(), talkline_config::KeyVaultReferenceError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`KeyVaultReferenceError`] when the host is no vault's, or name or version have characters
    /// that Key Vault does not allow.
    pub fn parse(text: &str) -> Result<Self, KeyVaultReferenceError> {
        let text = text.trim();
        match text.strip_prefix(APP_SERVICE_PREFIX) {
            Some(inner) => Self::of_app_service(inner),
            None => Self::of_url(text),
        }
    }

    fn of_url(url: &str) -> Result<Self, KeyVaultReferenceError> {
        let bad = KeyVaultReferenceError(
            "it is not of the form https://<vault>.vault.azure.net/secrets/<name>",
        );
        let (scheme, rest) = url.split_once("://").ok_or(bad)?;
        if !scheme.eq_ignore_ascii_case("https") {
            return Err(bad);
        }
        let (vault, path) = rest.split_once('/').ok_or(bad)?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut segments = path.split('/');
        let (secrets, name) = (segments.next(), segments.next().ok_or(bad)?);
        let version = segments.next();
        if secrets != Some("secrets") || segments.next().is_some() {
            return Err(bad);
        }
        Self::new(vault, name, version)
    }

    fn of_app_service(inner: &str) -> Result<Self, KeyVaultReferenceError> {
        let bad = KeyVaultReferenceError(
            "@Microsoft.KeyVault(…) names either a SecretUri or a VaultName and a SecretName",
        );
        let inner = inner.strip_suffix(')').ok_or(bad)?;
        let (mut vault, mut name, mut version) = (None, None, None);
        for part in inner.split(';').map(str::trim) {
            let (key, value) = part.split_once('=').ok_or(bad)?;
            match key.trim().to_ascii_lowercase().as_str() {
                "secreturi" => return Self::of_url(value.trim()),
                "vaultname" => vault = Some(value.trim()),
                "secretname" => name = Some(value.trim()),
                "secretversion" => version = Some(value.trim()),
                _ => return Err(bad),
            }
        }
        let host = format!("{}.vault.azure.net", vault.ok_or(bad)?);
        Self::new(&host, name.ok_or(bad)?, version.filter(|v| !v.is_empty()))
    }

    fn new(vault: &str, name: &str, version: Option<&str>) -> Result<Self, KeyVaultReferenceError> {
        let vault = vault.to_ascii_lowercase();
        let word = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let label = VAULTS
            .iter()
            .find_map(|(suffix, _)| vault.strip_suffix(suffix));
        // https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates
        if !label.is_some_and(|label| {
            (3..=24).contains(&label.len())
                && word(label)
                && label.starts_with(|c: char| c.is_ascii_alphabetic())
                && !label.ends_with('-')
        }) {
            return Err(KeyVaultReferenceError(
                "its host is no vault, such as <vault>.vault.azure.net",
            ));
        }
        if !((1..=127).contains(&name.len()) && word(name)) {
            return Err(KeyVaultReferenceError(
                "a secret's name has 1 to 127 letters, digits and `-`",
            ));
        }
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let version = version.map(str::to_ascii_lowercase);
        if version
            .as_ref()
            .is_some_and(|version| version.len() != 32 || !version.bytes().all(hex))
        {
            return Err(KeyVaultReferenceError(
                "a secret's version has 32 hexadecimal digits",
            ));
        }
        Ok(Self {
            vault,
            name: name.to_owned(),
            version,
        })
    }

    /// Host name of the vault.
    pub fn vault(&self) -> &str {
        &self.vault
    }

    /// Name of the secret.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version, when one is pinned: then it never changes.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// What a token for the vault is asked for.
    pub fn scope(&self) -> &'static str {
        VAULTS
            .iter()
            .find(|(suffix, _)| self.vault.ends_with(suffix))
            .map_or(VAULTS[0].1, |(_, scope)| scope)
    }
}

impl fmt::Display for KeyVaultReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}/secrets/{}", self.vault, self.name)?;
        match &self.version {
            Some(version) => write!(f, "/{version}"),
            None => Ok(()),
        }
    }
}
