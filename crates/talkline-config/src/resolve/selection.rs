//! Which provider is the default one, and which variables speak for it.

use crate::{
    Inputs, Problem,
    keys::{self, DEPLOYMENT_VARIABLES},
    reader::located,
    shown::cleaned,
    structure::is_azure_key,
    tree::{Place, Table, Value, dotted},
};

/// The choice of the default provider, made before its settings are read.
pub(super) struct Selection {
    /// What `talk.realtime.provider` says or what stands for it.
    pub(super) choice: Choice,
    /// Key of the default provider's table: `openai` where `azure-openai` is an alias for it.
    pub(super) table: String,
    /// Whether the alias `azure-openai` was used for a table of another name.
    pub(super) by_alias: bool,
    /// Variables that say "Azure", or try to.
    pub(super) azure_variables: Vec<String>,
    /// Ids of all provider tables, and of providers that routes name.
    ids: Vec<String>,
}

/// How the default provider was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// `talk.realtime.provider`.
    Written,
    /// The only provider there is.
    Only,
    /// Variables say Azure.
    Variables,
    /// Several providers, none chosen.
    Ambiguous,
    /// None at all.
    Nothing,
}

impl Selection {
    /// Whether a provider's table is Talkline's business even in a file of OpenClaw's.
    pub(super) fn uses(&self, id: &str) -> bool {
        self.table == id
            || matches!(id, "openai" | "azure-openai" | "custom")
            || self.ids.iter().any(|used| used == id)
    }
}

pub(super) fn select(root: &Table, inputs: &Inputs<'_>) -> Selection {
    let text = |path: &[&str]| match &root.at(path)?.node.value {
        Value::Text(text) if !text.trim().is_empty() => Some(text.clone()),
        _ => None,
    };
    let tables: Vec<&str> = match root
        .at(&["talk", "realtime", "providers"])
        .map(|e| &e.node.value)
    {
        Some(Value::Table(providers)) => providers
            .entries
            .iter()
            .map(|entry| entry.key.as_str())
            .collect(),
        _ => Vec::new(),
    };
    let mut ids: Vec<String> = tables
        .iter()
        .filter(|id| text(&["talk", "realtime", "providers", id, "type"]).is_some())
        .map(|id| (*id).to_owned())
        .collect();
    if let Some(Value::Table(routes)) = root
        .at(&["talk", "realtime", "routes"])
        .map(|e| &e.node.value)
    {
        ids.extend(
            routes
                .entries
                .iter()
                .filter_map(|entry| match &entry.node.value {
                    Value::Text(id) => Some(id.clone()),
                    _ => None,
                }),
        );
    }
    let azure_variables = azure_variables(inputs);
    let (choice, id) = match (text(&["talk", "realtime", "provider"]), tables.as_slice()) {
        (Some(id), _) => (Choice::Written, id),
        (None, [only]) => (Choice::Only, (*only).to_owned()),
        (None, []) if !azure_variables.is_empty() => (Choice::Variables, "azure-openai".to_owned()),
        (None, []) => (Choice::Nothing, String::new()),
        (None, _) => (Choice::Ambiguous, String::new()),
    };
    let by_alias =
        id == "azure-openai" && !tables.contains(&"azure-openai") && tables.contains(&"openai");
    let table = if by_alias { "openai".to_owned() } else { id };
    Selection {
        choice,
        table,
        by_alias,
        azure_variables,
        ids,
    }
}

/// Variables that mean Azure, set to anything: the known ones and misspellings of them.
fn azure_variables(inputs: &Inputs<'_>) -> Vec<String> {
    let mut known = vec!["AZURE_OPENAI_ENDPOINT"];
    known.extend(DEPLOYMENT_VARIABLES);
    let means_azure = |name: &&String| known.contains(&name.as_str()) || near_miss(name).is_some();
    inputs
        .variables
        .keys()
        .filter(means_azure)
        .cloned()
        .collect()
}

/// The variable that a misspelt one was probably meant to be.
fn near_miss(name: &str) -> Option<&'static str> {
    let known: Vec<&str> = keys::KEYS
        .iter()
        .flat_map(|spec| spec.variables.iter().copied())
        .filter(|known| known.starts_with("AZURE_OPENAI_"))
        .collect();
    if !name.to_ascii_uppercase().starts_with("AZURE") || known.contains(&name) {
        return None;
    }
    known
        .into_iter()
        .map(|known| {
            (
                strsim::normalized_damerau_levenshtein(known, &name.to_ascii_uppercase()),
                known,
            )
        })
        .filter(|(score, _)| *score >= 0.9)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// Whether the default provider is an Azure one.
///
/// `azure-openai` always is, `openai` when any `azure*` key or variable speaks of Azure and no
/// `type` says otherwise.
pub(super) fn default_is_azure(selection: &Selection, root: &Table) -> bool {
    let provider = ["talk", "realtime", "providers", selection.table.as_str()];
    let table = match root.at(&provider).map(|entry| &entry.node.value) {
        Some(Value::Table(table)) => Some(table),
        _ => None,
    };
    let written = table
        .and_then(|table| table.get("type"))
        .map(|entry| &entry.node.value);
    if let Some(Value::Text(written)) = written {
        return written == "azure-openai";
    }
    let azure_key = table.is_some_and(|table| table.entries.iter().any(|e| is_azure_key(&e.key)));
    selection.by_alias
        || selection.table == "azure-openai"
        || (selection.table == "openai" && (azure_key || !selection.azure_variables.is_empty()))
}

/// The layer of the environment: variables that stand for keys.
///
/// A variable with a key only ever speaks for the default provider, and only for one of its own
/// kind: `OPENAI_API_KEY` never reaches Azure, `AZURE_OPENAI_API_KEY` nothing but Azure.
pub(super) fn variable_layer(
    selection: &Selection,
    root: &Table,
    inputs: &Inputs<'_>,
    problems: &mut Vec<Problem>,
) -> Table {
    let mut layer = Layer {
        inputs,
        root,
        out: Table::default(),
        problems,
    };
    layer.set(&["server", "listen"], "TALKLINE_LISTEN");
    layer.set(&["admin", "key"], "TALKLINE_ADMIN_KEY");
    for name in &selection.azure_variables {
        if let Some(meant) = near_miss(name) {
            let message = format!("the variable {} is not read", cleaned(name));
            let problem = Problem::warning("variable.near-miss", message)
                .hint(format!("did you mean {meant}?"));
            layer.push(problem, name);
        }
    }
    if matches!(selection.choice, Choice::Ambiguous | Choice::Nothing) {
        return layer.out;
    }
    let provider = ["talk", "realtime", "providers", selection.table.as_str()];
    let key = |key: &'static str| -> [&str; 5] {
        [provider[0], provider[1], provider[2], provider[3], key]
    };
    if default_is_azure(selection, root) {
        layer.set(&key("azureEndpoint"), "AZURE_OPENAI_ENDPOINT");
        layer.deployment(&key("azureDeployment"));
        layer.set(&key("azureApiVersion"), "AZURE_OPENAI_API_VERSION");
        let kind_path = [&provider[..], &["auth", "kind"]].concat();
        match root.at(&kind_path).map(|entry| &entry.node.value) {
            Some(Value::Text(kind)) if keys::is_entra(kind) => layer.ignored_key(kind),
            _ => layer.set_secret(&key("apiKey"), "AZURE_OPENAI_API_KEY"),
        }
        if layer.value("OPENAI_API_KEY").is_some() && layer.speaks_for(selection) {
            let problem = Problem::warning(
                "variable.openai-key-unused",
                "OPENAI_API_KEY is set but Azure is configured; the key is not used",
            )
            .hint("unset it, or set type = \"openai\" in the provider's table to talk to OpenAI");
            layer.push(problem, "OPENAI_API_KEY");
        }
        return layer.out;
    }
    if let Some(name) = selection.azure_variables.first() {
        let message = format!(
            "{} is set but the provider is not Azure; it is not used",
            cleaned(name)
        );
        let problem = Problem::warning("variable.ignored", message)
            .hint("set provider = \"azure-openai\" to use it");
        layer.push(problem, name);
    }
    let written = |key: &str| match &root
        .at(&[provider[0], provider[1], provider[2], provider[3], key])?
        .node
        .value
    {
        Value::Text(text) => Some(text.as_str()),
        _ => None,
    };
    let custom = selection.table == "custom" || written("type") == Some("custom");
    let openai = selection.table == "openai" || written("type") == Some("openai");
    if custom {
        // The key goes with its own base URL only, never to one that a file names.
        if layer.set(&key("baseUrl"), "OPENAI_BASE_URL") {
            layer.set_secret(&key("apiKey"), "OPENAI_API_KEY");
        }
    } else if openai {
        layer.set(&key("baseUrl"), "OPENAI_BASE_URL");
        layer.set_secret(&key("apiKey"), "OPENAI_API_KEY");
    }
    layer.out
}

struct Layer<'a> {
    inputs: &'a Inputs<'a>,
    root: &'a Table,
    out: Table,
    problems: &'a mut Vec<Problem>,
}

impl Layer<'_> {
    /// The variable's value; an empty one counts as unset.
    fn value(&self, name: &str) -> Option<&str> {
        self.inputs
            .variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.trim().is_empty())
    }

    fn set(&mut self, path: &[&str], name: &str) -> bool {
        let Some(value) = self.value(name) else {
            if self.inputs.variables.contains_key(name) {
                let problem = Problem::warning(
                    "variable.empty",
                    format!("the variable {name} is set but empty"),
                )
                .key(dotted(path))
                .hint("unset it, or give it a value");
                self.push(problem, name);
            }
            return false;
        };
        let place = Place::Variable(name.to_owned());
        let layer = Table::of_path(path, Value::Text(value.to_owned()), &place);
        self.out.merge(layer);
        true
    }

    fn set_secret(&mut self, path: &[&str], name: &str) {
        let in_file = self.root.at(path).map(|entry| &entry.node);
        let same = matches!(in_file.map(|node| &node.value), Some(Value::Table(reference))
            if matches!(reference.get("env").map(|e| &e.node.value), Some(Value::Text(env)) if env == name));
        if same {
            return;
        }
        let overrides = in_file.is_some();
        if self.set(path, name) && overrides {
            let problem = Problem::warning(
                "variable.overrides-file",
                format!("{name} takes the place of the file's `apiKey`"),
            )
            .key(dotted(path))
            .hint("variables go before files; unset it to use the file's reference");
            self.push(problem, name);
        }
    }

    /// Microsoft asks to leave the variable unset with keyless sign-in, since SDKs prefer it
    /// (<https://learn.microsoft.com/azure/ai-foundry/openai/realtime-audio-quickstart>).
    fn ignored_key(&mut self, kind: &str) {
        let name = "AZURE_OPENAI_API_KEY";
        if self.value(name).is_some() {
            let message = format!("{name} is set but not used: auth.kind is `{kind}`");
            let problem = Problem::warning("auth.key-variable-ignored", message)
                .hint("unset it, or remove auth.kind to sign in with the key");
            self.push(problem, name);
        }
    }

    /// Three names for one thing: the first that is set counts, others must agree.
    fn deployment(&mut self, path: &[&str]) {
        let set: Vec<(&str, String)> = DEPLOYMENT_VARIABLES
            .iter()
            .filter_map(|name| Some((*name, self.value(name)?.to_owned())))
            .collect();
        if let [(first, value), others @ ..] = set.as_slice()
            && let Some((other, _)) = others.iter().find(|(_, other)| other != value)
        {
            let message = format!("{first} and {other} name two deployments");
            let problem = Problem::error("variable.conflict", message)
                .key(dotted(path))
                .hint(format!("keep {first} and unset {other}"));
            self.push(problem, other);
        }
        match set.first() {
            Some((name, _)) => {
                self.set(path, name);
            }
            None => DEPLOYMENT_VARIABLES.iter().for_each(|name| {
                self.set(path, name);
            }),
        }
    }

    /// Whether it was the environment that brought Azure in.
    fn speaks_for(&self, selection: &Selection) -> bool {
        !selection.azure_variables.is_empty() || selection.table == "openai"
    }

    fn push(&mut self, problem: Problem, name: &str) {
        self.problems.push(located(
            problem,
            &Place::Variable(name.to_owned()),
            self.inputs,
        ));
    }
}
