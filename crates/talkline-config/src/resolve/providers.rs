//! Which providers there are, and what they come to together.

use std::{collections::BTreeMap, sync::Arc};

use talkline_auth::Secret;
use talkline_session::policy::Helpers;

use super::{
    names::{aliases, is_model, model_name},
    provider::{One, Provider, auth},
    selection::{Choice, Selection, default_is_azure},
};
use crate::{
    Identity, Problem, Routes, VaultIdentity, WatchedKey, keys,
    reader::Reader,
    shown::{cleaned, shown},
    structure::is_azure_key,
    tree::{Entry, dotted},
};

/// What the provider tables come to.
pub(super) struct Providers {
    /// `None` when one of the providers or routes has a problem.
    pub(super) routes: Option<Routes>,
    pub(super) default_is_azure: bool,
    /// Every upstream key, so that nobody hands one to clients.
    pub(super) keys: Vec<Secret>,
    pub(super) identities: Vec<Identity>,
    pub(super) watched_keys: Vec<WatchedKey>,
    pub(super) vault_identity: Option<VaultIdentity>,
}

pub(super) fn read(reader: &mut Reader<'_>, selection: &Selection) -> Providers {
    let azure = default_is_azure(selection, reader.root);
    let mut out = Providers {
        routes: None,
        default_is_azure: azure,
        keys: Vec::new(),
        identities: Vec::new(),
        watched_keys: Vec::new(),
        vault_identity: None,
    };
    if !is_chosen(reader, selection) {
        return out;
    }
    reader.text(&["talk", "realtime", "provider"]);
    let allow_any_model = reader.flag_or_off(&["talk", "realtime", "allowAnyModel"]);
    let realtime_model = realtime_model(reader);
    let ids = ids(reader, selection);

    let mut providers = BTreeMap::new();
    let mut sound = true;
    for id in &ids {
        let is_default = *id == selection.table;
        let one = One {
            id,
            is_default,
            azure,
            realtime_model: &realtime_model,
            allow_any_model,
        };
        match one.read(reader) {
            Some(provider) => {
                out.keys.extend(provider.secrets.iter().cloned());
                out.identities.extend(provider.identity.clone());
                out.watched_keys.extend(provider.watched_key.clone());
                providers.insert(id.clone(), provider);
            }
            None => sound = false,
        }
    }
    out.vault_identity = auth::vault_identity(reader, &out.watched_keys);
    let aliases = aliases(reader, selection, &ids, &providers, realtime_model);
    let (true, Some(aliases)) = (sound, aliases) else {
        return out;
    };
    let helpers = helpers(&providers, &aliases);
    let upstreams = providers
        .into_iter()
        .map(|(id, one)| (id, Arc::new(one.upstream)))
        .collect();
    let default = selection.table.clone();
    out.routes = Routes::new(upstreams, aliases, default, allow_any_model)
        .map(|routes| routes.with_helpers(helpers));
    out
}

/// What providers do for their clients: what they were told to, with the names that lead to them.
fn helpers(
    providers: &BTreeMap<String, Provider>,
    aliases: &BTreeMap<String, String>,
) -> BTreeMap<String, Arc<Helpers>> {
    let mut out = BTreeMap::new();
    for (id, provider) in providers {
        let mut helpers = provider.helpers.clone();
        if let (true, Some(deployment)) = (provider.maps_models, provider.upstream.deployment()) {
            let names = aliases
                .iter()
                .filter(|(name, to)| *to == id && *name != deployment);
            let names = names.map(|(name, _)| (name.clone(), deployment.to_owned()));
            helpers.model_deployments = names.collect();
        }
        if !helpers.is_empty() {
            out.insert(id.clone(), Arc::new(helpers));
        }
    }
    out
}

fn realtime_model(reader: &mut Reader<'_>) -> Option<String> {
    let found = reader.text(&["talk", "realtime", "model"])?;
    if is_model(&found.value) {
        return Some(found.value);
    }
    let problem = reader.at_value(model_name(), &found);
    reader.problem(problem);
    None
}

/// Ids of the providers to read, sorted: all of them but those of OpenClaw's that Talkline has no
/// use for.
fn ids(reader: &Reader<'_>, selection: &Selection) -> Vec<String> {
    let ours = |entry: &&Entry| {
        !reader.is_in_json(&entry.key_place)
            || selection.uses(&entry.key)
            || has_azure_key(reader, &entry.key)
    };
    let tables = reader.table(&["talk", "realtime", "providers"]);
    let entries = tables.into_iter().flat_map(|tables| &tables.entries);
    let mut ids: Vec<String> = entries
        .filter(ours)
        .map(|entry| entry.key.clone())
        .chain([selection.table.clone()])
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

/// Whether there is a default provider; if not, says how to choose one.
fn is_chosen(reader: &mut Reader<'_>, selection: &Selection) -> bool {
    let provider_path = ["talk", "realtime", "provider"];
    match selection.choice {
        Choice::Nothing => {
            let problem = Problem::error("config.nothing", "no Realtime provider is configured").hint(
                "either set AZURE_OPENAI_ENDPOINT, AZURE_OPENAI_DEPLOYMENT_NAME and AZURE_OPENAI_API_KEY, \
                 or write talk.realtime.provider and its table in talkline.toml",
            );
            reader.problem(problem.key(dotted(&provider_path)));
            false
        }
        Choice::Ambiguous => {
            let ids = table_ids(reader);
            let problem = Problem::error("provider.ambiguous", "several providers and none chosen")
                .key(dotted(&provider_path))
                .hint(format!(
                    "set talk.realtime.provider to one of {}",
                    listed(&ids)
                ));
            let problem = match reader.entry(&["talk", "realtime", "providers"]) {
                Some(entry) => reader.at(problem, &entry.key_place),
                None => problem,
            };
            reader.problem(problem);
            false
        }
        Choice::Written => is_known(reader, selection),
        Choice::Only | Choice::Variables => true,
    }
}

/// Whether `talk.realtime.provider` names a table, or a built-in provider where there is no table.
fn is_known(reader: &mut Reader<'_>, selection: &Selection) -> bool {
    let ids = table_ids(reader);
    let built_in = keys::TYPES.contains(&selection.table.as_str());
    if ids.contains(&selection.table) || (built_in && ids.is_empty()) {
        return true;
    }
    let Some(found) = reader.found(&["talk", "realtime", "provider"]) else {
        return false;
    };
    let mut candidates: Vec<&str> = ids.iter().map(String::as_str).collect();
    if ids.is_empty() {
        candidates.extend(keys::TYPES);
    }
    let hint = match keys::suggestion(&selection.table, &candidates) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!(
            "write one of {}, or add its table under talk.realtime.providers",
            listed(&candidates)
        ),
    };
    let message = format!(
        "provider {} has no table under talk.realtime.providers",
        shown(&selection.table)
    );
    let problem = reader.at_value(
        Problem::error("provider.unknown", message).hint(hint),
        &found,
    );
    reader.problem(problem);
    false
}

fn table_ids(reader: &Reader<'_>) -> Vec<String> {
    let place = |entry: &&Entry| !entry.key_place.is_untyped();
    reader
        .table(&["talk", "realtime", "providers"])
        .map(|table| {
            table
                .entries
                .iter()
                .filter(place)
                .map(|entry| entry.key.clone())
                .collect()
        })
        .unwrap_or_default()
}

pub(super) fn listed<S: AsRef<str>>(ids: &[S]) -> String {
    ids.iter()
        .map(|id| format!("\"{}\"", cleaned(id.as_ref())))
        .collect::<Vec<_>>()
        .join(", ")
}

fn has_azure_key(reader: &Reader<'_>, id: &str) -> bool {
    reader
        .table(&["talk", "realtime", "providers", id])
        .is_some_and(|table| table.entries.iter().any(|entry| is_azure_key(&entry.key)))
}
