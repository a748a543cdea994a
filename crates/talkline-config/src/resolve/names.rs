//! The model names that lead to providers.

use std::collections::BTreeMap;

use super::{provider::Provider, providers::listed, selection::Selection};
use crate::{
    Problem, keys,
    reader::Reader,
    shown::{cleaned, looks_secret, shown},
    tree::dotted,
};

/// Names that clients may ask for. `None` when a route leads nowhere.
pub(super) fn aliases(
    reader: &mut Reader<'_>,
    selection: &Selection,
    ids: &[String],
    providers: &BTreeMap<String, Provider>,
    realtime_model: Option<String>,
) -> Option<BTreeMap<String, String>> {
    let mut aliases = BTreeMap::new();
    let routes = reader.names(&["talk", "realtime", "routes"]);
    let mut sound = true;
    for alias in &routes {
        let Some(found) = reader.text(&["talk", "realtime", "routes", alias]) else {
            sound = false;
            continue;
        };
        let by_alias = selection.by_alias && found.value == "azure-openai";
        let id = if by_alias {
            &selection.table
        } else {
            &found.value
        };
        if ids.contains(id) && is_model(alias) {
            aliases.insert(alias.clone(), id.clone());
            continue;
        }
        sound = false;
        let problem = if is_model(alias) {
            let candidates: Vec<&str> = ids.iter().map(String::as_str).collect();
            let hint = match keys::suggestion(id, &candidates) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("configured are {}", listed(ids)),
            };
            let message = format!("the route leads to {}, which is no provider", shown(id));
            reader.at_value(
                Problem::error("route.unknown-provider", message).hint(hint),
                &found,
            )
        } else {
            reader.at_key(model_name(), &found)
        };
        reader.problem(problem);
    }
    if !routes.is_empty() {
        return sound.then_some(aliases);
    }
    let default = &selection.table;
    let own = providers
        .get(default)
        .into_iter()
        .flat_map(|one| one.names.iter().cloned());
    for name in own.chain(realtime_model) {
        aliases.insert(name, default.clone());
    }
    for (id, provider) in providers.iter().filter(|(id, _)| *id != default) {
        for name in &provider.names {
            let taken = aliases.entry(name.clone()).or_insert_with(|| id.clone());
            if taken != id && taken != default {
                sound = false;
                let message = format!(
                    "{} could mean provider \"{}\" or \"{}\"",
                    shown(name),
                    cleaned(taken),
                    cleaned(id)
                );
                let problem = Problem::error("route.ambiguous", message)
                    .key("talk.realtime.routes")
                    .hint(format!(
                        "write talk.realtime.routes.{} = \"{}\"",
                        dotted(&[name]),
                        cleaned(id)
                    ));
                reader.problem(problem);
            }
        }
    }
    sound.then_some(aliases)
}

pub(super) fn is_model(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic())
        && !looks_secret(name)
}

pub(super) fn model_name() -> Problem {
    Problem::error("model.name", "this is no name of a model")
        .hint("a model's name has at most 128 visible ASCII characters and no space")
}
