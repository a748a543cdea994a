//! Typed access to the tree; what does not fit becomes a problem and reads as absent.

use std::time::Duration;

use crate::{
    Format, Inputs, Problem, Setting, Source,
    keys::{self, Kind, Known},
    shown::{cleaned, shown},
    structure::LONG_NUMBER,
    tree::{Entry, Node, Place, Table, Value, dotted},
};

/// Reads keys out of the merged tree and gathers problems and effective settings.
pub(crate) struct Reader<'t> {
    pub(crate) inputs: &'t Inputs<'t>,
    pub(crate) root: &'t Table,
    pub(crate) problems: Vec<Problem>,
    pub(crate) settings: Vec<Setting>,
}

/// A value with the place it came from.
#[derive(Clone)]
pub(crate) struct Found<'t, T> {
    pub(crate) value: T,
    pub(crate) entry: &'t Entry,
    pub(crate) path: Vec<String>,
}

impl<'t> Reader<'t> {
    pub(crate) fn new(inputs: &'t Inputs<'t>, root: &'t Table) -> Self {
        Self {
            inputs,
            root,
            problems: Vec::new(),
            settings: Vec::new(),
        }
    }

    pub(crate) fn entry(&self, path: &[&str]) -> Option<&'t Entry> {
        self.root.at(path)
    }

    /// The table at a path; `None` where there is none. A value that is no table is reported by
    /// the check of the structure.
    pub(crate) fn table(&self, path: &[&str]) -> Option<&'t Table> {
        match &self.entry(path)?.node.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The names in the table at a path, as they are written; none where there is no table.
    pub(crate) fn names(&self, path: &[&str]) -> Vec<String> {
        let entries = self
            .table(path)
            .into_iter()
            .flat_map(|table| &table.entries);
        entries.map(|entry| entry.key.clone()).collect()
    }

    pub(crate) fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Whether this was written in a JSON file, which may be OpenClaw's.
    pub(crate) fn is_in_json(&self, place: &Place) -> bool {
        let Place::File { file, .. } = place else {
            return false;
        };
        let file = self.inputs.files.get(*file);
        file.is_some_and(|file| file.format == Format::Json5)
    }

    /// Whether a problem already stands at this key.
    pub(crate) fn has_problem(&self, path: &[&str]) -> bool {
        let key = dotted(path);
        self.problems
            .iter()
            .any(|problem| problem.key.as_deref() == Some(&key))
    }

    /// Points a problem at a place.
    pub(crate) fn at(&self, problem: Problem, place: &Place) -> Problem {
        located(problem, place, self.inputs)
    }

    pub(crate) fn at_key<T>(&self, problem: Problem, found: &Found<'_, T>) -> Problem {
        self.at(problem.key(dotted(&found.path)), &found.entry.key_place)
    }

    pub(crate) fn at_value<T>(&self, problem: Problem, found: &Found<'_, T>) -> Problem {
        self.at(problem.key(dotted(&found.path)), &found.entry.node.place)
    }

    pub(crate) fn source(&self, place: &Place) -> Source {
        source(place, self.inputs)
    }

    pub(crate) fn setting(&mut self, key: String, value: String, place: &Place) {
        let source = self.source(place);
        self.settings.push(Setting { key, value, source });
    }

    pub(crate) fn text(&mut self, path: &[&str]) -> Option<Found<'t, String>> {
        let found = self.found(path)?;
        let text = match &found.entry.node.value {
            Value::Text(text) => text.clone(),
            Value::Date(date) => {
                let hint = format!("write it in quotes: \"{date}\"");
                return self.wrong_type(&found, "a string", Some(hint));
            }
            _ => return self.wrong_type(&found, "a string", None),
        };
        if text.trim().is_empty() {
            let problem = Problem::error("value.empty", "the value is empty")
                .hint("write a value, or remove the key");
            let problem = self.at_value(problem, &found);
            self.problem(problem);
            return None;
        }
        let is_url = matches!(keys::known(path), Known::Key(spec) if spec.kind == Kind::Url);
        if !is_url {
            self.record(&found, quoted(&text));
        }
        Some(Found {
            value: text,
            entry: found.entry,
            path: found.path,
        })
    }

    pub(crate) fn flag(&mut self, path: &[&str]) -> Option<Found<'t, bool>> {
        let found = self.found(path)?;
        let value = match &found.entry.node.value {
            Value::Bool(value) => *value,
            Value::Text(text) if found.entry.node.place.is_untyped() && text == "true" => true,
            Value::Text(text) if found.entry.node.place.is_untyped() && text == "false" => false,
            _ => return self.wrong_type(&found, "true or false", None),
        };
        self.record(&found, value.to_string());
        Some(Found {
            value,
            entry: found.entry,
            path: found.path,
        })
    }

    /// A flag that has a default.
    pub(crate) fn flag_or_off(&mut self, path: &[&str]) -> bool {
        self.flag(path).is_some_and(|found| found.value)
    }

    /// A list of texts, each with its own place.
    pub(crate) fn list(&mut self, path: &[&str]) -> Vec<(String, Place)> {
        let Some(found) = self.found(path) else {
            return Vec::new();
        };
        let place = found.entry.node.place.clone();
        let items: Vec<(String, Place)> = match &found.entry.node.value {
            Value::Text(text) if place.is_untyped() => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| (item.to_owned(), place.clone()))
                .collect(),
            Value::Array(items) => {
                let mut out = Vec::new();
                for Node { place, value } in items {
                    match value {
                        Value::Text(text) if !text.trim().is_empty() => {
                            out.push((text.clone(), place.clone()));
                        }
                        other => {
                            let message = format!("expected a string, found {}", described(other));
                            let problem = Problem::error("value.type", message).key(dotted(path));
                            let problem = self.at(problem, place);
                            self.problem(problem);
                        }
                    }
                }
                out
            }
            Value::Text(text) => {
                let hint = format!("write [{}]", quoted(text));
                self.wrong_type::<()>(&found, "a list of strings", Some(hint));
                return Vec::new();
            }
            _ => {
                self.wrong_type::<()>(&found, "a list of strings", None);
                return Vec::new();
            }
        };
        let written: Vec<String> = items.iter().map(|(item, _)| quoted(item)).collect();
        self.record(&found, format!("[{}]", written.join(", ")));
        items
    }

    /// One of the words that the key's entry in the table lists.
    pub(crate) fn choice(&mut self, path: &[&str]) -> Option<Found<'t, String>> {
        let found = self.text(path)?;
        let Known::Key(keys::KeySpec {
            kind: Kind::Choice(choices),
            ..
        }) = keys::known(path)
        else {
            return Some(found);
        };
        if choices.contains(&found.value.as_str()) {
            return Some(found);
        }
        let all = choices
            .iter()
            .map(|choice| format!("`{choice}`"))
            .collect::<Vec<_>>()
            .join(", ");
        let hint = match keys::suggestion(&found.value, choices) {
            Some(choice) => format!("did you mean `{choice}`? Possible are {all}"),
            None => format!("possible are {all}"),
        };
        let message = format!("{} is not possible here", shown(&found.value));
        let problem = self.at_value(Problem::error("value.choice", message).hint(hint), &found);
        self.problem(problem);
        None
    }

    /// A duration; a problem reads as the default, so that reading can go on.
    pub(crate) fn duration(&mut self, path: &[&str]) -> Duration {
        let Some(found) = self.found(path) else {
            return Duration::ZERO;
        };
        let read = match &found.entry.node.value {
            Value::Text(text) => parse_duration(text),
            Value::Integer(number) => {
                let hint = format!("write the unit: \"{number}s\" or \"{number}ms\"");
                self.wrong_type::<()>(&found, "a duration with a unit", Some(hint));
                return Duration::ZERO;
            }
            _ => None,
        };
        let Some(duration) = read else {
            self.wrong_type::<()>(
                &found,
                "a duration",
                Some("such as \"500ms\", \"20s\", \"5m\" or \"1h\"".into()),
            );
            return Duration::ZERO;
        };
        if let Known::Key(keys::KeySpec {
            kind: Kind::Duration { min, max },
            ..
        }) = keys::known(path)
            && !(*min..=*max).contains(&duration)
        {
            self.out_of_range(
                &found,
                &keys::duration_text(*min),
                &keys::duration_text(*max),
            );
        }
        self.record(&found, quoted(&keys::duration_text(duration)));
        duration
    }

    /// A number of bytes or of things.
    pub(crate) fn amount(&mut self, path: &[&str]) -> u64 {
        let Some(found) = self.found(path) else {
            return 0;
        };
        let Known::Key(keys::KeySpec { kind, .. }) = keys::known(path) else {
            return 0;
        };
        let is_size = matches!(kind, Kind::Size { .. });
        let read = match &found.entry.node.value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::Text(text) if is_size => parse_size(text),
            Value::Text(text) if found.entry.node.place.is_untyped() => text.parse().ok(),
            _ => None,
        };
        let (expected, hint) = match is_size {
            true => ("a size", Some("such as \"64KiB\" or \"24MiB\"".to_owned())),
            false => ("a whole number", None),
        };
        let Some(amount) = read else {
            self.wrong_type::<()>(&found, expected, hint);
            return 0;
        };
        match kind {
            Kind::Size { min, max } if !(*min..=*max).contains(&amount) => {
                self.out_of_range(&found, &keys::size_text(*min), &keys::size_text(*max));
            }
            Kind::Count { min, max } if !(*min..=*max).contains(&amount) => {
                self.out_of_range(&found, &min.to_string(), &max.to_string());
            }
            _ => {}
        }
        let written = if is_size {
            quoted(&keys::size_text(amount))
        } else {
            amount.to_string()
        };
        self.record(&found, written);
        amount
    }

    pub(crate) fn found(&self, path: &[&str]) -> Option<Found<'t, ()>> {
        let entry = self.entry(path)?;
        Some(Found {
            value: (),
            entry,
            path: path.iter().map(|part| (*part).to_owned()).collect(),
        })
    }

    fn record<T>(&mut self, found: &Found<'_, T>, value: String) {
        self.setting(dotted(&found.path), value, &found.entry.key_place);
    }

    fn wrong_type<T>(
        &mut self,
        found: &Found<'_, ()>,
        expected: &str,
        hint: Option<String>,
    ) -> Option<T> {
        let message = format!(
            "expected {expected}, found {}",
            described(&found.entry.node.value)
        );
        let mut problem = Problem::error("value.type", message);
        problem.hint = hint;
        let problem = self.at_value(problem, found);
        self.problem(problem);
        None
    }

    fn out_of_range(&mut self, found: &Found<'_, ()>, min: &str, max: &str) {
        let problem = Problem::error("value.range", "the value is out of range")
            .hint(format!("write a value from {min} to {max}"));
        let problem = self.at_value(problem, found);
        self.problem(problem);
    }
}

/// A value's kind, and the value itself where it cannot be a secret.
fn described(value: &Value) -> String {
    match value {
        Value::Bool(value) => format!("`{value}`"),
        Value::Integer(number) if number.to_string().len() < LONG_NUMBER => format!("`{number}`"),
        Value::Text(text) => shown(text),
        other => other.kind().to_owned(),
    }
}

pub(crate) fn quoted(text: &str) -> String {
    format!(
        "\"{}\"",
        cleaned(text).replace('\\', "\\\\").replace('"', "\\\"")
    )
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(number.checked_mul(3600)?)),
        _ => None,
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "" | "B" => Some(number),
        "KiB" => number.checked_mul(1 << 10),
        "MiB" => number.checked_mul(1 << 20),
        _ => None,
    }
}

/// Points a problem at a place of the inputs.
pub(crate) fn located(mut problem: Problem, place: &Place, inputs: &Inputs<'_>) -> Problem {
    problem.source = match place {
        Place::Default => None,
        place => Some(source(place, inputs)),
    };
    if let Place::File { file, span } = place {
        problem.file = Some(*file);
        problem.span = Some(span.clone());
    }
    problem
}

pub(crate) fn source(place: &Place, inputs: &Inputs<'_>) -> Source {
    match place {
        Place::Default => Source::Default,
        Place::Flag(flag) => Source::Flag(flag.clone()),
        Place::Variable(name) => Source::Variable(name.clone()),
        Place::File { file, span } => {
            let Some(source) = inputs.files.get(*file) else {
                return Source::Default;
            };
            let before = source.text.as_bytes().get(..span.start).unwrap_or_default();
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            Source::File {
                name: source.name.clone(),
                line,
            }
        }
    }
}
