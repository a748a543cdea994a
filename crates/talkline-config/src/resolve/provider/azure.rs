//! Azure's own keys.

use std::collections::BTreeMap;

use talkline_auth::{Azure, Credential, OriginRules};
use talkline_dialect::{AzureApi, AzureUpstream, Upstream};
use talkline_session::policy::Helpers;

use super::{One, Provider, Type, auth::SignIn, is_model, key::ApiKey, model_name};
use crate::{
    Identity, Problem,
    endpoint::{Endpoint, EndpointKind, EndpointRules},
    reader::{Reader, quoted},
    shown::shown,
};

/// Versions of the preview path that Azure no longer serves
/// (<https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle>).
const RETIRED_VERSIONS: [&str; 1] = ["2024-10-01-preview"];

enum AzureSignIn {
    Key(ApiKey),
    Entra(Identity),
}

impl One<'_> {
    pub(super) fn azure(&self, reader: &mut Reader<'_>) -> Option<Provider> {
        let allowed_hosts = self.allowed_hosts(reader);
        let endpoint = self.azure_endpoint(reader, &allowed_hosts);
        self.warn_of_government(reader, endpoint.as_ref());
        let deployment = self.azure_deployment(reader, endpoint.as_ref());
        let api = self.azure_api(reader, endpoint.as_ref());
        let sign_in = self.azure_sign_in(reader, endpoint.as_ref());
        let aliases = self.aliases(reader);
        let helpers = Helpers {
            transcription_deployments: self.transcription_deployments(reader),
            drop_tracing: reader.flag_or_off(&self.path("azureDropTracing")),
            ..Helpers::default()
        };
        let maps_models = reader.flag_or_off(&self.path("azureMapSessionModel"));
        let (endpoint, deployment, api, sign_in) = (endpoint?, deployment?, api?, sign_in?);
        let rules = OriginRules {
            allowed_hosts,
            allow_insecure: false,
        };
        let origin = self.origin::<Azure>(reader, "azureEndpoint", &endpoint, &rules)?;
        let (secrets, credential, identity, watched_key) = match sign_in {
            AzureSignIn::Key(key) => {
                let secrets = key.secrets();
                let (credential, watched_key) = key.credential(self.id, origin);
                (secrets, credential, None, watched_key)
            }
            AzureSignIn::Entra(identity) => {
                let credential = Credential::entra(origin, identity.cell.clone());
                let secrets = identity.kind.secret().into_iter().cloned().collect();
                (secrets, credential, Some(identity), None)
            }
        };
        let mut names = vec![deployment.clone()];
        names.extend(aliases);
        Some(Provider {
            upstream: Upstream::Azure(AzureUpstream {
                credential,
                base_path: endpoint.base_path,
                api,
                deployment,
            }),
            secrets,
            identity,
            watched_key,
            names,
            helpers,
            maps_models,
        })
    }

    /// Names of models that clients ask for to transcribe their speech, each with the deployment that
    /// Azure knows it by (<https://learn.microsoft.com/azure/ai-foundry/openai/realtime-audio-reference>).
    fn transcription_deployments(&self, reader: &mut Reader<'_>) -> BTreeMap<String, String> {
        let key = "azureTranscriptionDeployments";
        let models = reader.names(&self.path(key));
        let mut deployments = BTreeMap::new();
        for model in models {
            let path = ["talk", "realtime", "providers", self.id, key, &model];
            let Some(found) = reader.text(&path) else {
                continue;
            };
            let problem = if !is_model(&model) {
                reader.at_key(model_name(), &found)
            } else if !is_deployment(&found.value) {
                let message =
                    "a deployment's name has at most 64 letters, digits, `-`, `_` and `.`";
                let problem = Problem::error("azure.deployment-name", message)
                    .hint("write the name that the portal lists under \"Deployments\"");
                reader.at_value(problem, &found)
            } else {
                deployments.insert(model, found.value);
                continue;
            };
            reader.problem(problem);
        }
        deployments
    }

    /// A key or an identity; says what stands in the way of an identity at this endpoint.
    fn azure_sign_in(
        &self,
        reader: &mut Reader<'_>,
        endpoint: Option<&Endpoint>,
    ) -> Option<AzureSignIn> {
        let host = endpoint.map_or("", Endpoint::host);
        match self.sign_in(reader, Type::Azure, host)? {
            SignIn::Key => {
                let key = self.api_key(reader, Type::Azure, "AZURE_OPENAI_API_KEY")?;
                self.refuse_openai_key(reader, &key)?;
                Some(AzureSignIn::Key(key))
            }
            SignIn::Nothing => None,
            SignIn::Entra(identity) => {
                let endpoint = endpoint?;
                self.refuse_regional(reader, endpoint)?;
                Some(AzureSignIn::Entra(identity))
            }
        }
    }

    /// OpenAI's keys start like this; sent to Azure, one would leave its owner's hands for nothing.
    fn refuse_openai_key(&self, reader: &mut Reader<'_>, key: &ApiKey) -> Option<()> {
        let is_openai = |secret: &talkline_auth::Secret| {
            ["sk-", "ek_"]
                .iter()
                .any(|prefix| secret.expose().starts_with(prefix))
        };
        if !key.secrets().iter().any(is_openai) {
            return Some(());
        }
        let problem = Problem::error(
            "azure.key-of-openai",
            "this is a key of OpenAI, not of Azure",
        )
        .key(crate::tree::dotted(&self.path("apiKey")))
        .hint("refer to KEY1 of the Azure resource: az cognitiveservices account keys list");
        let problem = match reader.found(&self.path("apiKey")) {
            Some(found) => reader.at_value(problem, &found),
            None => problem,
        };
        reader.problem(problem);
        None
    }

    /// Government clouds list no Realtime model
    /// (<https://learn.microsoft.com/azure/ai-foundry/openai/azure-government>).
    fn warn_of_government(&self, reader: &mut Reader<'_>, endpoint: Option<&Endpoint>) {
        if !endpoint.is_some_and(|endpoint| endpoint.host().ends_with(".azure.us")) {
            return;
        }
        let message = "Azure Government offers no Realtime model";
        let problem = Problem::warning("azure.government", message)
            .hint("use a resource of the public cloud, or make sure that the model has arrived");
        let problem = match reader.found(&self.path("azureEndpoint")) {
            Some(found) => reader.at_value(problem, &found),
            None => problem,
        };
        reader.problem(problem);
    }

    /// Source: <https://learn.microsoft.com/azure/ai-services/cognitive-services-custom-subdomains>.
    fn refuse_regional(&self, reader: &mut Reader<'_>, endpoint: &Endpoint) -> Option<()> {
        if !endpoint.host().ends_with(".api.cognitive.microsoft.com") {
            return Some(());
        }
        let message = "a regional endpoint takes keys only: Microsoft Entra ID needs the resource's own host name";
        let problem = Problem::error("auth.regional-endpoint", message)
            .hint("write https://<resource>.openai.azure.com; a resource without a custom subdomain gets one with `az cognitiveservices account update --custom-domain`");
        let problem = match reader.found(&self.path("azureEndpoint")) {
            Some(found) => reader.at_value(problem, &found),
            None => problem,
        };
        reader.problem(problem);
        None
    }

    fn azure_endpoint(
        &self,
        reader: &mut Reader<'_>,
        allowed_hosts: &[String],
    ) -> Option<Endpoint> {
        let rules = EndpointRules {
            allowed_hosts,
            allow_insecure: false,
        };
        let path = self.path("azureEndpoint");
        self.endpoint(reader, EndpointKind::Azure, &path, &rules, || {
            Problem::error("azure.endpoint-missing", "Azure needs the endpoint of the resource").hint(
                "write azureEndpoint = \"https://<resource>.openai.azure.com\" or set AZURE_OPENAI_ENDPOINT",
            )
        })
    }

    fn azure_deployment(
        &self,
        reader: &mut Reader<'_>,
        endpoint: Option<&Endpoint>,
    ) -> Option<String> {
        let path = self.path("azureDeployment");
        let pasted = endpoint.and_then(|endpoint| endpoint.deployment.as_deref());
        let Some(found) = reader.text(&path) else {
            let hint = match pasted {
                Some(name) if is_deployment(name) => {
                    format!("write azureDeployment = {}, as the endpoint's URL has it", quoted(name))
                }
                _ => "write azureDeployment = \"<name of the deployment>\" or set AZURE_OPENAI_DEPLOYMENT_NAME; \
                      it is the deployment's name, not the model's"
                    .to_owned(),
            };
            self.missing(reader, "azureDeployment", || {
                Problem::error(
                    "azure.deployment-missing",
                    "Azure needs the name of the deployment",
                )
                .hint(hint)
            });
            return None;
        };
        if found.value.contains(['<', '>', '{', '}']) {
            let problem = Problem::error(
                "value.placeholder",
                "this is a placeholder, not a deployment",
            )
            .hint("write the name that the portal lists under \"Deployments\"");
            let problem = reader.at_value(problem, &found);
            reader.problem(problem);
            return None;
        }
        if !is_deployment(&found.value) {
            let message = "a deployment's name has at most 64 letters, digits, `-`, `_` and `.`";
            let hint = match found.value.contains("://") {
                true => "write only the name; the URL belongs in `azureEndpoint`",
                false => "write the name that the portal lists under \"Deployments\"",
            };
            let problem = Problem::error("azure.deployment-name", message).hint(hint);
            let problem = reader.at_value(problem, &found);
            reader.problem(problem);
            return None;
        }
        if let Some(pasted) = pasted.filter(|pasted| *pasted != found.value) {
            let message = format!(
                "the endpoint's URL names the deployment {}, this key another",
                shown(pasted)
            );
            let problem = Problem::error("azure.deployment-disagrees", message)
                .hint("remove the path and query from `azureEndpoint`, or correct this name");
            let problem = reader.at_value(problem, &found);
            reader.problem(problem);
            return None;
        }
        Some(found.value)
    }

    fn azure_api(&self, reader: &mut Reader<'_>, endpoint: Option<&Endpoint>) -> Option<AzureApi> {
        let path = self.path("azureApiVersion");
        let pasted = endpoint.and_then(|endpoint| endpoint.api_version.as_deref());
        let Some(found) = reader.text(&path) else {
            if reader.entry(&path).is_some() {
                return None;
            }
            if let (Some(pasted), Some(found)) = (pasted, reader.found(&self.path("azureEndpoint")))
            {
                let message = "the api-version in the endpoint's URL is not used: without azureApiVersion the GA path is";
                let hint = match is_api_version(pasted) {
                    true => format!(
                        "write azureApiVersion = \"{pasted}\" for the preview path, or remove the query"
                    ),
                    false => "remove the query from the endpoint".to_owned(),
                };
                let problem = Problem::warning("azure.api-version-in-endpoint", message).hint(hint);
                let problem = reader.at_value(problem, &found);
                reader.problem(problem);
            }
            return Some(AzureApi::Ga);
        };
        let refused = if matches!(
            found.value.as_str(),
            "v1" | "ga" | "GA" | "latest" | "preview"
        ) {
            Some((
                "azure.api-version-ga",
                "the GA path `/openai/v1/realtime` has no api-version; Azure refuses one there"
                    .to_owned(),
                "remove azureApiVersion for GA, or write a version such as \"2025-04-01-preview\" for the preview path",
            ))
        } else if !is_api_version(&found.value) {
            Some((
                "azure.api-version",
                format!("{} is not an api-version", shown(&found.value)),
                "write it as YYYY-MM-DD or YYYY-MM-DD-preview, or remove it for the GA path",
            ))
        } else if pasted.is_some_and(|pasted| pasted != found.value) {
            Some((
                "azure.api-version-disagrees",
                "the endpoint's URL names another api-version".to_owned(),
                "remove the query from `azureEndpoint`",
            ))
        } else {
            None
        };
        if let Some((code, message, hint)) = refused {
            let problem = reader.at_value(Problem::error(code, message).hint(hint), &found);
            reader.problem(problem);
            return None;
        }
        if RETIRED_VERSIONS.contains(&found.value.as_str()) {
            let message = format!("api-version {} is retired", shown(&found.value));
            let problem = Problem::warning("azure.api-version-retired", message)
                .hint("remove azureApiVersion for the GA path, or write \"2025-04-01-preview\"");
            let problem = reader.at_value(problem, &found);
            reader.problem(problem);
        }
        Some(AzureApi::Preview {
            api_version: found.value,
        })
    }
}

fn is_deployment(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !matches!(name, "." | "..")
}

/// `YYYY-MM-DD` or `YYYY-MM-DD-preview`, with a month and day that exist.
fn is_api_version(text: &str) -> bool {
    let date = text.strip_suffix("-preview").unwrap_or(text);
    let parts: Vec<&str> = date.split('-').collect();
    let number = |part: &str, digits: usize| {
        let plain = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u32>().ok().filter(|_| plain)
    };
    match parts.as_slice() {
        [year, month, day] => {
            number(year, 4).is_some_and(|year| year >= 2020)
                && number(month, 2).is_some_and(|month| (1..=12).contains(&month))
                && number(day, 2).is_some_and(|day| (1..=31).contains(&day))
        }
        _ => false,
    }
}
