//! OpenAI itself, and endpoints that speak its language.

use talkline_auth::{Credential, Custom, OpenAi, OriginRules};
use talkline_dialect::{CustomUpstream, OpenAiUpstream, Upstream};
use talkline_session::policy::Helpers;

use super::{One, Provider, Type, auth::SignIn, key::ApiKey};
use crate::{
    Problem,
    endpoint::{EndpointKind, EndpointRules, normalise},
    reader::Reader,
};

impl One<'_> {
    pub(super) fn openai(&self, reader: &mut Reader<'_>) -> Option<Provider> {
        let path = self.path("baseUrl");
        let endpoint = match reader.entry(&path) {
            Some(_) => {
                let rules = EndpointRules::default();
                let missing = || Problem::error("value.empty", "the value is empty");
                self.endpoint(reader, EndpointKind::OpenAi, &path, &rules, missing)
            }
            None => normalise(
                EndpointKind::OpenAi,
                "https://api.openai.com",
                &EndpointRules::default(),
            )
            .ok(),
        };
        let sign_in = self.sign_in(reader, Type::OpenAi, "");
        let key = self.api_key(reader, Type::OpenAi, "OPENAI_API_KEY");
        let (model, names) = self.model(reader);
        let named = self.require_name(reader, &names);
        let (endpoint, key) = (endpoint?, key?);
        sign_in?;
        named?;
        let origin =
            self.origin::<OpenAi>(reader, "baseUrl", &endpoint, &OriginRules::default())?;
        let secrets = key.secrets();
        let (credential, watched_key) = key.credential(self.id, origin);
        let upstream = Upstream::OpenAi(OpenAiUpstream { credential, model });
        Some(Provider {
            upstream,
            secrets,
            identity: None,
            watched_key,
            names,
            helpers: Helpers::default(),
            maps_models: false,
        })
    }

    pub(super) fn custom(&self, reader: &mut Reader<'_>) -> Option<Provider> {
        let allowed_hosts = self.allowed_hosts(reader);
        let allow_insecure = reader.flag_or_off(&self.path("allowInsecureUpstream"));
        let rules = EndpointRules {
            allowed_hosts: &allowed_hosts,
            allow_insecure,
        };
        let endpoint = self.endpoint(
            reader,
            EndpointKind::Custom,
            &self.path("baseUrl"),
            &rules,
            || {
                Problem::error(
                    "custom.base-url-missing",
                    "a custom provider needs its base URL",
                )
                .hint("write baseUrl = \"https://host.example/v1\" or set OPENAI_BASE_URL")
            },
        );
        let sign_in = self.sign_in(reader, Type::Custom, "");
        let key = match &sign_in {
            Some(SignIn::Nothing) => None,
            _ => self.api_key(reader, Type::Custom, "OPENAI_API_KEY"),
        };
        let (model, names) = self.model(reader);
        let named = self.require_name(reader, &names);
        let endpoint = endpoint?;
        named?;
        let rules = OriginRules {
            allowed_hosts,
            allow_insecure,
        };
        let origin = self.origin::<Custom>(reader, "baseUrl", &endpoint, &rules)?;
        let secrets = key.iter().flat_map(ApiKey::secrets).collect();
        let (credential, watched_key) = match (sign_in?, key) {
            (SignIn::Nothing, _) => (Credential::<Custom>::none(origin), None),
            (_, Some(key)) => key.credential(self.id, origin),
            (_, None) => return None,
        };
        let upstream = Upstream::Custom(CustomUpstream {
            credential,
            base_path: endpoint.base_path,
            model,
        });
        Some(Provider {
            upstream,
            secrets,
            identity: None,
            watched_key,
            names,
            helpers: Helpers::default(),
            maps_models: false,
        })
    }
}
