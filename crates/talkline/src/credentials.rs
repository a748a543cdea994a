//! From the identities and keys of a configuration to what fetches them.

use std::{path::PathBuf, sync::Arc};

use talkline_auth::{KeyCell, KeyFiles, TokenCell, TokenSource};
use talkline_config::{Config, HostIdentity, IdentityKind, KeyPlace, WatchedKey};
use talkline_entra::{
    Application, Authority, AzureCli, AzureDeveloperCli, CertificateFiles, ClientAssertion,
    ClientSecret, Environment, Identity, ManagedIdentity, Network, Scope, SetupError,
    WorkloadIdentity,
};
use talkline_gateway::{ResolveOverride, tls};
use tracing::{info, warn};

use crate::{exit::Exit, vault::VaultKeys};

/// What the gateway is given, and what keeps the rest of it fresh.
pub(crate) struct Credentials {
    pub(crate) token_sources: Vec<(TokenCell, Arc<dyn TokenSource>)>,
    /// The same identities with another scope, for `doctor`.
    pub(crate) other_scopes: Vec<(TokenCell, String, Arc<dyn TokenSource>)>,
    pub(crate) watched_keys: Vec<(KeyCell, KeyFiles)>,
    pub(crate) vault: VaultKeys,
}

impl Credentials {
    /// Builds a source for each identity; sends nothing.
    pub(crate) fn new(config: &Config, resolve: &[ResolveOverride]) -> Result<Self, Exit> {
        let environment = Environment::read(|name| std::env::var(name).ok());
        let network = network(resolve)?;
        let mut token_sources = Vec::new();
        let mut other_scopes = Vec::new();
        for identity in &config.identities {
            let refused = |error| refusal(&format!("provider `{}`", identity.provider), &error);
            let scope = Scope::parse(&identity.scope).map_err(refused)?;
            let source =
                source(&identity.kind, scope, &environment, network.clone()).map_err(refused)?;
            token_sources.push((identity.cell.clone(), source));
            if let Some(other) = other_scope(&identity.scope) {
                let scope = Scope::parse(other).map_err(refused)?;
                let source = self::source(&identity.kind, scope, &environment, network.clone())
                    .map_err(refused)?;
                other_scopes.push((identity.cell.clone(), other.to_owned(), source));
            }
            info!(
                provider = identity.provider,
                kind = identity.kind.as_str(),
                reason = identity.reason,
                scope = identity.scope,
                "signing in with Microsoft Entra ID"
            );
            warn_of_developer(&identity.kind);
        }
        Ok(Self {
            token_sources,
            other_scopes,
            watched_keys: config.watched_keys.iter().map(files).collect(),
            vault: VaultKeys::new(config, &environment, &network)?,
        })
    }
}

/// Microsoft's documents name two scopes for the same service; which of them a resource takes shows
/// only when it is asked
/// (<https://learn.microsoft.com/azure/ai-foundry/foundry-models/how-to/configure-entra-id>).
fn other_scope(scope: &str) -> Option<&'static str> {
    match scope {
        "https://cognitiveservices.azure.com/.default" => Some("https://ai.azure.com/.default"),
        "https://ai.azure.com/.default" => Some("https://cognitiveservices.azure.com/.default"),
        _ => None,
    }
}

/// The source for one kind of identity.
pub(crate) fn source(
    kind: &IdentityKind,
    scope: Scope,
    environment: &Environment,
    network: Network,
) -> Result<Arc<dyn TokenSource>, SetupError> {
    let application = |application: &talkline_config::Application| {
        Ok::<_, SetupError>(Application {
            tenant_id: application.tenant_id.clone(),
            client_id: application.client_id.clone(),
            authority: Authority::parse(&application.authority)?,
        })
    };
    Ok(match kind {
        IdentityKind::ManagedIdentity(which) => {
            let which = match which.clone() {
                HostIdentity::System => Identity::System,
                HostIdentity::ClientId(id) => Identity::ClientId(id),
                HostIdentity::ObjectId(id) => Identity::ObjectId(id),
                HostIdentity::ResourceId(id) => Identity::ResourceId(id),
            };
            Arc::new(ManagedIdentity::new(which, scope, environment, network)?)
        }
        IdentityKind::WorkloadIdentity {
            application: of,
            token_file,
        } => {
            let file = PathBuf::from(token_file);
            let application = application(of)?;
            Arc::new(WorkloadIdentity::new(application, file, scope, network)?)
        }
        IdentityKind::ClientSecret {
            application: of,
            secret,
        } => {
            let (application, secret) = (application(of)?, secret.0.clone());
            Arc::new(ClientSecret::new(application, secret, scope, network)?)
        }
        IdentityKind::ClientAssertion {
            application: of,
            certificate,
            certificate_key,
        } => {
            let files = CertificateFiles {
                certificate: certificate.into(),
                key: certificate_key.into(),
            };
            let application = application(of)?;
            Arc::new(ClientAssertion::from_files(
                application,
                files,
                scope,
                network,
            )?)
        }
        IdentityKind::AzureDeveloperCli { tenant_id } => Arc::new(AzureDeveloperCli::new(
            tenant_id.as_deref(),
            scope,
            environment,
        )?),
        IdentityKind::AzureCli { tenant_id } => {
            Arc::new(AzureCli::new(tenant_id.as_deref(), scope, environment)?)
        }
    })
}

/// Says that the relay is somebody.
pub(crate) fn warn_of_developer(kind: &IdentityKind) {
    if let IdentityKind::AzureCli { .. } | IdentityKind::AzureDeveloperCli { .. } = kind {
        warn!(
            kind = kind.as_str(),
            "the relay acts as whoever is signed in on this machine (--dev)"
        );
    }
}

/// A setting or a host that an identity cannot be built with.
pub(crate) fn refusal(what: &str, error: &SetupError) -> Exit {
    let mut text = format!("error: {what}: {error} [{}]", error.code());
    if let Some(hint) = error.hint() {
        text.push_str(&format!("\nhint: {hint}"));
    }
    Exit::Configuration(text)
}

/// Straight to the identity services, except where a test has put something on loopback.
fn network(resolve: &[ResolveOverride]) -> Result<Network, Exit> {
    let tls = tls::client_config()
        .map_err(|error| Exit::CouldNotRun(format!("TLS cannot be set up: {error}")))?;
    resolve
        .iter()
        .try_fold(Network::new(&tls), |network, stand_in| {
            network.with_override(&stand_in.host, stand_in.port, stand_in.address())
        })
        .map_err(|error| refusal("--resolve", &error))
}

fn files(key: &WatchedKey) -> (KeyCell, KeyFiles) {
    let path = |place: Option<&KeyPlace>| match place {
        Some(KeyPlace::File(path)) => Some(PathBuf::from(path)),
        Some(KeyPlace::KeyVault(_) | KeyPlace::Fixed) | None => None,
    };
    let files = KeyFiles {
        primary: path(Some(&key.primary)),
        secondary: path(key.secondary.as_ref()),
    };
    (key.cell.clone(), files)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use talkline_config::{DeveloperTools, Format, Inputs, SourceFile, Style};

    use super::*;

    const VARIABLES: &[(&str, &str)] = &[
        ("TALKLINE_CLIENT_KEY", "client-key-of-some-length"),
        ("AZURE_TENANT_ID", "10000000-0000-4000-8000-000000000001"),
        ("AZURE_CLIENT_ID", "20000000-0000-4000-8000-000000000002"),
        ("AZURE_CLIENT_SECRET", "secret"),
        ("AZURE_FEDERATED_TOKEN_FILE", "/token"),
        ("AZURE_CLIENT_CERTIFICATE_PATH", "/certificate.pem"),
        ("PATH", "/usr/bin"),
    ];

    fn config(endpoint: &str, kind: &str) -> Config {
        let file = SourceFile {
            name: "talkline.toml".into(),
            format: Format::Toml,
            text: format!(
                "[talk.realtime.providers.azure-openai]\nazureEndpoint = \"{endpoint}\"\nazureDeployment = \"voice\"\nauth.kind = \"{kind}\"\n"
            ),
        };
        let variables: BTreeMap<String, String> = VARIABLES
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let resolved = talkline_config::resolve(&Inputs {
            files: &[file],
            variables: &variables,
            flags: &[],
            developer_tools: DeveloperTools::Allowed,
            is_exposed: &|_| false,
            read_secret_file: &|_| Err("no files".into()),
        });
        match resolved {
            Ok(resolved) => resolved.config,
            Err(report) => panic!("{}", report.render(Style::Plain)),
        }
    }

    fn environment() -> Environment {
        Environment::read(|name| {
            let (_, value) = VARIABLES.iter().find(|(key, _)| *key == name)?;
            Some((*value).to_owned())
        })
    }

    /// The cell is made before the source; both must say the same in logs.
    #[test]
    fn every_kind_has_a_source_of_its_name() {
        for kind in [
            "managed-identity",
            "workload-identity",
            "client-secret",
            "client-assertion",
            "azure-cli",
            "azd",
        ] {
            let identity = config("https://r.openai.azure.com", kind)
                .identities
                .remove(0);
            let scope = Scope::parse(&identity.scope).unwrap();
            let network = network(&[]).unwrap();
            let source = source(&identity.kind, scope, &environment(), network).unwrap();
            assert_eq!(source.name(), kind);
            assert_eq!(identity.cell.source_name(), kind);
        }
    }

    /// Two crates know the audiences: the resolver, which opens no socket, and the one that asks.
    #[test]
    fn both_tables_of_scopes_agree() {
        for host in [
            "r.openai.azure.com",
            "r.cognitiveservices.azure.com",
            "r.services.ai.azure.com",
            "r.openai.azure.us",
            "r.cognitiveservices.azure.us",
            "r.openai.azure.cn",
        ] {
            let identity = config(&format!("https://{host}"), "managed-identity")
                .identities
                .remove(0);
            assert_eq!(
                identity.scope,
                talkline_entra::scope_for_host(host),
                "{host}"
            );
        }
    }

    /// … and what `auto` chooses.
    #[test]
    fn both_selectors_agree() {
        let chosen = &config("https://r.openai.azure.com", "auto").identities[0];
        let selection =
            talkline_entra::select(&environment(), talkline_entra::DeveloperTools::Allowed);
        assert_eq!(chosen.kind.as_str(), selection.kind.to_string());
        assert_eq!(chosen.reason, selection.reason);
    }

    #[test]
    fn an_override_leads_to_loopback() {
        let stand_in = ResolveOverride::parse("login.microsoftonline.com:443:127.0.0.1:9443");
        assert!(network(&[stand_in.unwrap()]).is_ok());
    }
}
