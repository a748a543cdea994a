//! From a client's model name to the upstream that answers it.

use std::{collections::BTreeMap, sync::Arc};

use talkline_dialect::Upstream;
use talkline_session::policy::Helpers;

/// Model names and where they lead.
#[derive(Clone, Debug)]
pub struct Routes {
    providers: BTreeMap<String, Arc<Upstream>>,
    /// What a provider does for its clients; absent where it does nothing.
    helpers: BTreeMap<String, Arc<Helpers>>,
    no_helpers: Arc<Helpers>,
    /// Client model name to provider id. Invariant: every value is a key of `providers`.
    aliases: BTreeMap<String, String>,
    /// Invariant: a key of `providers`.
    default_provider: String,
    allow_any_model: bool,
}

/// Where a client's model name leads.
#[derive(Clone, Copy, Debug)]
pub struct RouteMatch<'a> {
    /// Target and credential.
    pub upstream: &'a Arc<Upstream>,
    /// What the provider does for its clients' session settings.
    pub helpers: &'a Arc<Helpers>,
    /// Id of the provider in the configuration.
    pub provider: &'a str,
    /// The name that the client asked for; without one, the default provider's deployment or
    /// model, and where it has none, its id.
    pub alias: &'a str,
}

/// The client asked for a model that no route knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no route for model `{}`; configured are: {}", shown(asked), available.join(", "))]
pub struct UnknownModel {
    /// What was asked.
    pub asked: String,
    /// What exists, sorted.
    pub available: Vec<String>,
}

fn shown(asked: &str) -> String {
    asked
        .chars()
        .take(64)
        .flat_map(char::escape_debug)
        .collect()
}

impl Routes {
    pub(crate) fn new(
        providers: BTreeMap<String, Arc<Upstream>>,
        aliases: BTreeMap<String, String>,
        default_provider: String,
        allow_any_model: bool,
    ) -> Option<Self> {
        let known = aliases
            .values()
            .chain([&default_provider])
            .all(|id| providers.contains_key(id));
        known.then(|| Self {
            providers,
            helpers: BTreeMap::new(),
            no_helpers: Arc::default(),
            aliases,
            default_provider,
            allow_any_model,
        })
    }

    /// Gives providers their helpers, by id.
    pub(crate) fn with_helpers(mut self, helpers: BTreeMap<String, Arc<Helpers>>) -> Self {
        self.helpers = helpers;
        self
    }

    /// The upstream for a client's `model` (or `deployment`), or the default one for `None`.
    ///
    /// # Errors
    ///
    /// [`UnknownModel`] when the name is not configured and `talk.realtime.allowAnyModel` is off.
    pub fn resolve<'a>(&'a self, alias: Option<&'a str>) -> Result<RouteMatch<'a>, UnknownModel> {
        let found = match alias {
            None => Some((self.default_provider.as_str(), self.default_alias())),
            Some(name) => match self.aliases.get(name) {
                Some(provider) => Some((provider.as_str(), name)),
                None if self.allow_any_model => Some((self.default_provider.as_str(), name)),
                None => None,
            },
        };
        let upstream = found.and_then(|(provider, _)| self.providers.get(provider));
        match (found, upstream) {
            (Some((provider, alias)), Some(upstream)) => Ok(RouteMatch {
                upstream,
                helpers: self.helpers.get(provider).unwrap_or(&self.no_helpers),
                provider,
                alias,
            }),
            _ => Err(UnknownModel {
                asked: alias.unwrap_or_default().to_owned(),
                available: self.aliases.keys().cloned().collect(),
            }),
        }
    }

    /// Provider ids with their upstreams, sorted by id.
    pub fn providers(&self) -> impl Iterator<Item = (&str, &Arc<Upstream>)> {
        self.providers
            .iter()
            .map(|(id, upstream)| (id.as_str(), upstream))
    }

    /// Model names that clients may ask for, with the provider that each leads to, sorted.
    pub fn aliases(&self) -> impl Iterator<Item = (&str, &str)> {
        self.aliases
            .iter()
            .map(|(alias, provider)| (alias.as_str(), provider.as_str()))
    }

    /// Id of the provider that answers when a client names no model.
    pub fn default_provider(&self) -> &str {
        &self.default_provider
    }

    /// Whether any name is accepted and led to the default provider.
    pub fn allows_any_model(&self) -> bool {
        self.allow_any_model
    }

    fn default_alias(&self) -> &str {
        self.providers
            .get(&self.default_provider)
            .and_then(|upstream| upstream.deployment())
            .unwrap_or(&self.default_provider)
    }
}
