//! One file for each scenario: what was told and logged, as text that a person can review.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::observed::{Doctor, Scenario, Told};

/// The order in which clients are shown, and their names.
const CLIENTS: [(&str, &str); 3] = [
    ("python", "openai-python"),
    ("node", "openai-node"),
    ("browser", "browser"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Compare,
    Rewrite,
}

/// Clients that were told the same stand together.
pub(crate) fn text(scenario: &Scenario) -> String {
    let mut text = format!("{}\n{}\n", scenario.name, scenario.story);
    if let Some(fixme) = &scenario.fixme {
        let _ = writeln!(text, "FIXME {fixme}");
    }
    let told = |client: &str| scenario.clients.get(client).map(told_lines);
    for (clients, lines) in alike(told) {
        let _ = write!(text, "\ntold to {clients}\n{}", indented(&lines));
    }
    let logged = |client: &str| {
        let lines = scenario.log.get(client)?;
        Some(lines.iter().map(flat).collect::<Vec<_>>().join("\n"))
    };
    for (clients, lines) in alike(logged) {
        let _ = write!(text, "\nlogged of {clients}\n{}", indented(&lines));
    }
    if let Some(doctor) = &scenario.doctor {
        let _ = write!(text, "\ndoctor says\n{}", indented(&doctor_lines(doctor)));
    }
    text
}

/// Groups clients by what `show` says of them, in the order of [`CLIENTS`].
fn alike(show: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let mut groups: Vec<(Vec<&str>, String)> = Vec::new();
    for (client, name) in CLIENTS {
        let Some(shown) = show(client) else { continue };
        match groups.iter_mut().find(|(_, lines)| *lines == shown) {
            Some((names, _)) => names.push(name),
            None => groups.push((vec![name], shown)),
        }
    }
    let joined = |(names, lines): (Vec<&str>, String)| (names.join(", "), lines);
    groups.into_iter().map(joined).collect()
}

fn told_lines(told: &Told) -> String {
    let mut lines = Vec::new();
    for error in &told.errors {
        lines.push(flat(&json!({ "error": error })));
    }
    for response in &told.responses {
        lines.push(flat(&json!({ "response": response })));
    }
    if let Some(raised) = &told.raised {
        lines.push(format!("raised: {raised}"));
    }
    lines.push(match &told.closed {
        Some(closed) => format!("closed: {} {}", closed.code, closed.reason),
        None => "closed: by the client".to_owned(),
    });
    lines.join("\n")
}

fn doctor_lines(doctor: &Doctor) -> String {
    let findings = doctor.findings.iter().map(flat);
    let mut lines = vec![format!("exit: {}", doctor.exit)];
    lines.extend(findings);
    lines.join("\n")
}

/// `path.to.key: value` lines, sorted by path; what is null is left out, since clients differ in
/// whether they show it.
fn flat(value: &Value) -> String {
    let mut lines = BTreeMap::new();
    flatten("", value, &mut lines);
    let lines: Vec<String> = lines
        .into_iter()
        .map(|(path, value)| format!("{path}: {value}"))
        .collect();
    lines.join("\n")
}

fn flatten(path: &str, value: &Value, lines: &mut BTreeMap<String, String>) {
    let below = |name: &str| match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    };
    match value {
        Value::Null => {}
        Value::Object(map) => {
            for (name, value) in map {
                flatten(&below(name), value, lines);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                flatten(&below(&index.to_string()), value, lines);
            }
        }
        Value::String(text) => {
            lines.insert(path.to_owned(), text.clone());
        }
        Value::Bool(_) | Value::Number(_) => {
            lines.insert(path.to_owned(), value.to_string());
        }
    }
}

fn indented(lines: &str) -> String {
    let indent = |line: &str| match line {
        "" => "\n".to_owned(),
        _ => format!("  {}\n", line.trim_end()),
    };
    lines.lines().map(indent).collect()
}

/// Compares with the file, or writes it.
///
/// # Errors
/// When the file says something else, and where; when it cannot be read or written.
pub(crate) fn check(file: &Path, text: &str, mode: Mode) -> Result<()> {
    if mode == Mode::Rewrite {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        return fs::write(file, text).with_context(|| format!("writing {}", file.display()));
    }
    let expected = match fs::read_to_string(file) {
        Ok(expected) => expected,
        Err(_) => bail!("has no snapshot"),
    };
    if let Some(difference) = first_difference(&expected, text) {
        bail!("differs from its snapshot\n{difference}");
    }
    Ok(())
}

fn first_difference(expected: &str, found: &str) -> Option<String> {
    let (mut expected, mut found) = (expected.lines(), found.lines());
    loop {
        match (expected.next(), found.next()) {
            (None, None) => return None,
            (one, other) if one == other => {}
            (one, other) => {
                let shown = |line: Option<&str>| line.unwrap_or("(the end)").to_owned();
                return Some(format!("  - {}\n  + {}", shown(one), shown(other)));
            }
        }
    }
}

/// Snapshots of scenarios that are no more; removed when rewriting.
///
/// # Errors
/// When the folder cannot be read or a file not removed.
pub(crate) fn stale<'a>(
    folder: &Path,
    names: impl Iterator<Item = &'a str>,
    mode: Mode,
) -> Result<Vec<String>> {
    let known: BTreeSet<String> = names.map(|name| format!("{name}.txt")).collect();
    let mut stale = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if known.contains(&name) {
            continue;
        }
        match mode {
            Mode::Rewrite => fs::remove_file(entry.path())?,
            Mode::Compare => stale.push(format!("the snapshot {name} belongs to none")),
        }
    }
    Ok(stale)
}

#[cfg(test)]
mod tests;
