//! From inputs to a configuration, or to everything that is wrong with them.

mod access;
mod admin;
mod clients;
mod limit_store;
mod limits;
mod names;
mod oidc;
mod policies;
mod prices;
mod provider;
mod providers;
mod selection;
mod server;
mod tokens;

use std::collections::BTreeSet;

pub use server::web_origin;

use crate::{
    Config, Format, Inputs, Problem, Reload, Report, Resolved, Severity, Transport, Ui,
    keys::{self, Known},
    problem::ShownFile,
    read,
    reader::{Reader, located},
    shown::cleaned,
    structure,
    tree::{Place, Table, Value, dotted, segments},
};

/// Resolves files, variables and flags into a configuration.
///
/// Nothing is read but what `inputs` holds. Precedence: flag, variable, file, default.
///
/// # Errors
///
/// A [`Report`] with every problem at once, warnings included, when one of them is an error. No
/// part of it holds a secret.
pub fn resolve(inputs: &Inputs<'_>) -> Result<Resolved, Report> {
    let (trees, files, mut problems) = read_files(inputs);
    let Some(trees) = trees else {
        return Err(report(problems, files, inputs));
    };

    let mut root = keys::defaults();
    trees.iter().for_each(|tree| root.merge(tree.clone()));
    let (flags, flag_problems) = flag_layer(inputs);
    problems.extend(flag_problems);
    let selection = {
        let mut written = root.clone();
        written.merge(flags.clone());
        selection::select(&written, inputs)
    };
    for (tree, file) in trees.iter().zip(inputs.files) {
        let used = |id: &str| selection.uses(id);
        problems.extend(structure::check(tree, file.format, inputs, &used));
    }
    let overlay = selection::variable_layer(&selection, &root, inputs, &mut problems);
    root.merge(overlay);
    root.merge(flags);

    let mut reader = Reader::new(inputs, &root);
    reader.problems = problems;
    let config = config(&mut reader, &selection);
    let Reader {
        problems,
        mut settings,
        ..
    } = reader;
    settings.sort_by(|a, b| a.key.cmp(&b.key));
    settings.dedup_by(|a, b| a.key == b.key);
    let failed = problems
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    let report = report(problems, files, inputs);
    match config {
        Some(config) if !failed => Ok(Resolved {
            config,
            warnings: report,
            settings,
        }),
        _ => Err(report),
    }
}

fn config(reader: &mut Reader<'_>, selection: &selection::Selection) -> Option<Config> {
    reader.flag(&["allowPlaintextSecrets"]);
    let providers = providers::read(reader, selection);
    let transport = transport(reader, &providers);
    let server = server::read(reader);
    let clients = clients::read(reader, server.as_ref(), &providers);
    let limits = limits::read(reader);
    let ui = Ui {
        enabled: reader
            .flag(&["ui", "enabled"])
            .is_some_and(|found| found.value),
    };
    let reload = Reload {
        watch: reader.duration(&["reload", "watch"]),
    };
    let prices = prices::read(reader);
    let admin = admin::read(reader, &providers);
    let tokens = tokens::read(reader, &providers);
    let limit_store = limit_store::read(reader, &providers);
    let policies = policies::read(reader);
    Some(Config {
        server: server?,
        clients: clients?,
        tokens: tokens?,
        limit_store: limit_store?,
        admin,
        ui,
        routes: providers.routes?,
        transport: transport?,
        policies,
        limits,
        reload,
        prices,
        identities: providers.identities,
        watched_keys: providers.watched_keys,
        vault_identity: providers.vault_identity,
    })
}

fn transport(reader: &mut Reader<'_>, providers: &providers::Providers) -> Option<Transport> {
    let found = reader.choice(&["talk", "realtime", "transport"])?;
    let (transport, reason) = match found.value.as_str() {
        "webrtc" => (
            Transport::Webrtc,
            "with WebRTC the browser talks to Azure itself, past the relay and its checks",
        ),
        "provider-websocket" => (
            Transport::ProviderWebsocket,
            "Azure takes no browser key on a WebSocket, so the browser cannot connect by itself",
        ),
        "managed-room" => (
            Transport::ManagedRoom,
            "a managed room has its own provider connection and never meets Azure",
        ),
        _ => return Some(Transport::GatewayRelay),
    };
    if providers.default_is_azure {
        let message = format!(
            "transport `{}` does not work with Azure: {reason}",
            transport.as_str()
        );
        let problem = Problem::error("transport.not-with-azure", message)
            .hint("write transport = \"gateway-relay\"");
        let problem = reader.at_value(problem, &found);
        reader.problem(problem);
    }
    Some(transport)
}

type Read = (Option<Vec<Table>>, Vec<ShownFile>, Vec<Problem>);

/// Reads every file; trees only when all could be read.
fn read_files(inputs: &Inputs<'_>) -> Read {
    let (mut trees, mut files, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for (index, file) in inputs.files.iter().enumerate() {
        let tree = read::read(&file.text, file.format, index);
        let text = structure::showable(&file.text, tree.as_ref().ok());
        files.push(ShownFile {
            name: cleaned(&file.name),
            text,
        });
        match tree {
            Ok(tree) => trees.push(tree),
            Err(errors) => problems.extend(errors.into_iter().map(|error| {
                let problem = Problem::error("file.syntax", cleaned(&error.message))
                    .hint(syntax_hint(file.format));
                located(
                    problem,
                    &Place::File {
                        file: index,
                        span: error.span,
                    },
                    inputs,
                )
            })),
        }
    }
    let all_read = trees.len() == inputs.files.len();
    (all_read.then_some(trees), files, problems)
}

fn syntax_hint(format: Format) -> &'static str {
    match format {
        Format::Toml => "TOML: keys to the left of `=`, texts in quotes",
        Format::Json5 => "JSON5: keys and values parted by `:`, texts in quotes",
    }
}

fn flag_layer(inputs: &Inputs<'_>) -> (Table, Vec<Problem>) {
    let (mut layer, mut problems) = (Table::default(), Vec::new());
    for flag in inputs.flags {
        let place = Place::Flag(flag.flag.clone());
        let path = segments(&flag.key);
        match keys::known(&path) {
            Known::Key(_) => {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                layer.merge(Table::of_path(
                    &path,
                    Value::Text(flag.value.clone()),
                    &place,
                ));
            }
            Known::Table | Known::Unknown => {
                let problem = Problem::error(
                    "key.unknown",
                    "the flag stands for a key that does not exist",
                )
                .key(dotted(&path));
                problems.push(located(problem, &place, inputs));
            }
        }
    }
    (layer, problems)
}

/// Hints are phrased in TOML; beside a place in a JSON file they are to be read as JSON5.
fn speak_json(problem: &mut Problem, inputs: &Inputs<'_>) {
    let file = problem.file.and_then(|file| inputs.files.get(file));
    if file.is_some_and(|file| file.format == Format::Json5) {
        problem.hint = problem.hint.take().map(|hint| hint.replace(" = ", ": "));
    }
}

/// Sorts problems as one reads: by file and place, then those without a place.
fn report(mut problems: Vec<Problem>, files: Vec<ShownFile>, inputs: &Inputs<'_>) -> Report {
    problems
        .iter_mut()
        .for_each(|problem| speak_json(problem, inputs));
    problems.sort_by_key(|problem| match (&problem.file, &problem.span) {
        (Some(file), Some(span)) => (*file, span.start),
        _ => (usize::MAX, 0),
    });
    let mut seen = BTreeSet::new();
    problems.retain(|problem| {
        let start = problem.span.as_ref().map(|span| span.start);
        seen.insert((
            problem.code,
            problem.key.clone(),
            problem.file,
            start,
            problem.message.clone(),
        ))
    });
    Report {
        problems,
        files: files.into(),
    }
}
