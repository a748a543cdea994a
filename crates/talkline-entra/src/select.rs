//! Which kind of credential an environment calls for.

use std::{fmt, sync::Arc};

use talkline_auth::TokenSource;

use crate::{
    Application, AzureCli, AzureDeveloperCli, CertificateFiles, ClientAssertion, ClientSecret,
    Environment, Identity, ManagedIdentity, Network, Scope, SetupError, WorkloadIdentity, tool,
};

/// A way to get tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// [`WorkloadIdentity`].
    WorkloadIdentity,
    /// [`ClientAssertion`].
    ClientAssertion,
    /// [`ClientSecret`].
    ClientSecret,
    /// [`ManagedIdentity`], and which.
    ManagedIdentity(Identity),
    /// [`AzureCli`].
    AzureCli,
    /// [`AzureDeveloperCli`].
    AzureDeveloperCli,
}

impl fmt::Display for Kind {
    /// The word that stands for the kind in a configuration file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WorkloadIdentity => "workload-identity",
            Self::ClientAssertion => "client-assertion",
            Self::ClientSecret => "client-secret",
            Self::ManagedIdentity(_) => "managed-identity",
            Self::AzureCli => "azure-cli",
            Self::AzureDeveloperCli => "azd",
        })
    }
}

/// Whether [`select`] may take the developer's own identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeveloperTools {
    /// It may, where the environment names no other identity.
    Allowed,
    /// It may not: a server that takes whoever happens to be signed in hides a mistake.
    Refused,
}

/// What [`select`] decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The way to get tokens.
    pub kind: Kind,
    /// Why, for the log; names variables, never their values.
    pub reason: String,
}

/// Decides for one kind by the variables that exist.
///
/// The first that applies:
///
/// 1. `AZURE_FEDERATED_TOKEN_FILE`: workload identity;
/// 2. `AZURE_CLIENT_CERTIFICATE_PATH`: client assertion;
/// 3. `AZURE_CLIENT_SECRET`: client secret;
/// 4. `IDENTITY_ENDPOINT` or `MSI_ENDPOINT`: managed identity;
/// 5. with [`DeveloperTools::Allowed`], `az` or else `azd` on `PATH`: that tool;
/// 6. managed identity of the metadata service of virtual machines.
///
/// This is to be called once: it is a decision, not an attempt. When tokens of the chosen kind
/// cannot be had, that is the error to show. Nothing is sent; in step 5 the directories of `PATH`
/// are looked at.
pub fn select(environment: &Environment, tools: DeveloperTools) -> Selection {
    let markers = [
        (
            "AZURE_FEDERATED_TOKEN_FILE",
            environment.federated_token_file.is_some(),
        ),
        (
            "AZURE_CLIENT_CERTIFICATE_PATH",
            environment.client_certificate_path.is_some(),
        ),
        ("AZURE_CLIENT_SECRET", environment.client_secret.is_some()),
        ("IDENTITY_ENDPOINT", environment.identity_endpoint.is_some()),
        ("MSI_ENDPOINT", environment.msi_endpoint),
    ];
    let mut set = markers
        .iter()
        .filter(|(_, set)| *set)
        .map(|(name, _)| *name);
    let Some(marker) = set.next() else {
        return unmarked(environment, tools);
    };
    let mut reason = format!("{marker} is set");
    let kind = match marker {
        "AZURE_FEDERATED_TOKEN_FILE" => Kind::WorkloadIdentity,
        "AZURE_CLIENT_CERTIFICATE_PATH" => Kind::ClientAssertion,
        "AZURE_CLIENT_SECRET" => Kind::ClientSecret,
        _ => managed_identity(environment, &mut reason),
    };
    let unused: Vec<_> = set.collect();
    if !unused.is_empty() {
        reason.push_str(&format!("; also set and not used: {}", unused.join(", ")));
    }
    Selection { kind, reason }
}

fn unmarked(environment: &Environment, tools: DeveloperTools) -> Selection {
    let mut reason = String::from("no variable names an identity");
    let found = |program| tool::find(program, environment.path.as_deref()).is_some();
    let kind = match tools {
        DeveloperTools::Allowed if found("az") => {
            reason.push_str(", developer tools are allowed, and az is on PATH");
            Kind::AzureCli
        }
        DeveloperTools::Allowed if found("azd") => {
            reason.push_str(", developer tools are allowed, and azd is on PATH");
            Kind::AzureDeveloperCli
        }
        DeveloperTools::Allowed => {
            reason.push_str(
                ", and neither az nor azd is on PATH: taken for a virtual machine or an AKS node",
            );
            managed_identity(environment, &mut reason)
        }
        DeveloperTools::Refused => {
            reason.push_str(": taken for a virtual machine or an AKS node");
            managed_identity(environment, &mut reason)
        }
    };
    Selection { kind, reason }
}

fn managed_identity(environment: &Environment, reason: &mut String) -> Kind {
    Kind::ManagedIdentity(match &environment.client_id {
        Some(id) => {
            reason.push_str("; AZURE_CLIENT_ID names a user-assigned identity");
            Identity::ClientId(id.clone())
        }
        None => Identity::System,
    })
}

impl Selection {
    /// Builds the source, with everything it needs from `environment`; sends nothing.
    ///
    /// # Errors
    ///
    /// Those of the source's own constructor.
    pub fn source(
        &self,
        environment: &Environment,
        scope: Scope,
        network: Network,
    ) -> Result<Arc<dyn TokenSource>, SetupError> {
        Ok(match &self.kind {
            Kind::WorkloadIdentity => Arc::new(WorkloadIdentity::from_environment(
                environment,
                scope,
                network,
            )?),
            Kind::ClientAssertion => {
                let path = environment
                    .client_certificate_path
                    .as_ref()
                    .ok_or(SetupError::Missing("AZURE_CLIENT_CERTIFICATE_PATH"))?;
                let files = CertificateFiles {
                    certificate: path.into(),
                    key: path.into(),
                };
                let application = Application::from_environment(environment)?;
                Arc::new(ClientAssertion::from_files(
                    application,
                    files,
                    scope,
                    network,
                )?)
            }
            Kind::ClientSecret => {
                let secret = environment
                    .client_secret
                    .clone()
                    .ok_or(SetupError::Missing("AZURE_CLIENT_SECRET"))?;
                let application = Application::from_environment(environment)?;
                Arc::new(ClientSecret::new(application, secret, scope, network)?)
            }
            Kind::ManagedIdentity(identity) => Arc::new(ManagedIdentity::new(
                identity.clone(),
                scope,
                environment,
                network,
            )?),
            Kind::AzureCli => Arc::new(AzureCli::new(
                environment.tenant_id.as_deref(),
                scope,
                environment,
            )?),
            Kind::AzureDeveloperCli => Arc::new(AzureDeveloperCli::new(
                environment.tenant_id.as_deref(),
                scope,
                environment,
            )?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(set: &[(&str, &str)]) -> Environment {
        Environment::read(|name| {
            let (_, value) = set.iter().find(|(key, _)| *key == name)?;
            Some((*value).to_owned())
        })
    }

    #[test]
    fn one_kind_is_chosen_and_said_why() {
        fn check(set: &[&str], kind: &str, reason: &str) {
            let set: Vec<_> = set.iter().map(|name| (*name, "v")).collect();
            let selection = select(&environment(&set), DeveloperTools::Refused);
            assert_eq!(selection.kind.to_string(), kind, "{set:?}");
            assert_eq!(selection.reason, reason, "{set:?}");
        }
        let federated = "AZURE_FEDERATED_TOKEN_FILE";
        let certificate = "AZURE_CLIENT_CERTIFICATE_PATH";
        let secret = "AZURE_CLIENT_SECRET";
        let endpoint = "IDENTITY_ENDPOINT";
        let managed = "managed-identity";
        check(
            &[federated],
            "workload-identity",
            "AZURE_FEDERATED_TOKEN_FILE is set",
        );
        check(
            &[certificate],
            "client-assertion",
            "AZURE_CLIENT_CERTIFICATE_PATH is set",
        );
        check(&[secret], "client-secret", "AZURE_CLIENT_SECRET is set");
        check(&[endpoint], managed, "IDENTITY_ENDPOINT is set");
        check(&["MSI_ENDPOINT"], managed, "MSI_ENDPOINT is set");
        check(
            &[endpoint, "AZURE_CLIENT_ID"],
            managed,
            "IDENTITY_ENDPOINT is set; AZURE_CLIENT_ID names a user-assigned identity",
        );
        check(
            &[secret, endpoint, federated],
            "workload-identity",
            "AZURE_FEDERATED_TOKEN_FILE is set; also set and not used: AZURE_CLIENT_SECRET, IDENTITY_ENDPOINT",
        );
        check(
            &[],
            managed,
            "no variable names an identity: taken for a virtual machine or an AKS node",
        );
        check(
            &["AZURE_TENANT_ID", "AZURE_CLIENT_ID"],
            managed,
            "no variable names an identity: taken for a virtual machine or an AKS node; \
             AZURE_CLIENT_ID names a user-assigned identity",
        );
    }

    #[test]
    fn an_empty_variable_chooses_nothing() {
        let set = [
            ("AZURE_FEDERATED_TOKEN_FILE", ""),
            ("AZURE_CLIENT_SECRET", ""),
            ("AZURE_CLIENT_CERTIFICATE_PATH", ""),
            ("AZURE_CLIENT_ID", ""),
        ];
        let selection = select(&environment(&set), DeveloperTools::Refused);
        assert_eq!(selection.kind, Kind::ManagedIdentity(Identity::System));
    }

    #[cfg(unix)]
    #[test]
    fn developer_tools_are_taken_only_where_allowed() {
        use std::os::unix::fs::PermissionsExt as _;

        fn check(programs: &[&str], tools: DeveloperTools, variables: &[&str], kind: &str) {
            let directory = tempfile::tempdir().unwrap();
            for program in programs {
                let file = directory.path().join(program);
                std::fs::write(&file, "").unwrap();
                std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
            }
            let path = directory.path().to_str().unwrap();
            let mut set = vec![("PATH", path)];
            set.extend(variables.iter().map(|name| (*name, "v")));
            let selection = select(&environment(&set), tools);
            assert_eq!(selection.kind.to_string(), kind, "{selection:?}");
        }
        let both = ["az", "azd"];
        check(&both, DeveloperTools::Refused, &[], "managed-identity");
        check(&both, DeveloperTools::Allowed, &[], "azure-cli");
        check(&["azd"], DeveloperTools::Allowed, &[], "azd");
        check(&[], DeveloperTools::Allowed, &[], "managed-identity");
        let secret = ["AZURE_CLIENT_SECRET"];
        check(&both, DeveloperTools::Allowed, &secret, "client-secret");
        let endpoint = ["IDENTITY_ENDPOINT"];
        check(
            &both,
            DeveloperTools::Allowed,
            &endpoint,
            "managed-identity",
        );
    }
}
