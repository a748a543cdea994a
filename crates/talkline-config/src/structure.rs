//! Which keys a file may hold, before anyone asks what they mean.

use crate::{
    Format, Inputs, Problem,
    keys::{self, Kind, Known},
    reader::located,
    shown::{blot, blot_runs, looks_secret, shown},
    tree::{Entry, Node, Place, Table, Value, dotted},
};

/// Reports keys that the table does not know and tables that are none.
///
/// `used` says whether a provider is one that Talkline may use: a JSON file can be OpenClaw's,
/// whose other providers are not Talkline's business.
pub(crate) fn check(
    table: &Table,
    format: Format,
    inputs: &Inputs<'_>,
    used: &dyn Fn(&str) -> bool,
) -> Vec<Problem> {
    let mut check = Check {
        format,
        inputs,
        used,
        problems: Vec::new(),
    };
    check.table(table, &mut Vec::new());
    check.problems
}

/// Whether a key speaks of Azure, however it is spelt.
pub(crate) fn is_azure_key(key: &str) -> bool {
    let plain: String = key.chars().filter(|c| !matches!(c, '_' | '-')).collect();
    plain.to_ascii_lowercase().starts_with("azure")
}

/// Digits from which on a number may be a key that lacks its quotes.
pub(crate) const LONG_NUMBER: usize = 12;

struct Check<'a> {
    format: Format,
    inputs: &'a Inputs<'a>,
    used: &'a dyn Fn(&str) -> bool,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn table(&mut self, table: &Table, path: &mut Vec<String>) {
        for (index, entry) in table.entries.iter().enumerate() {
            path.push(entry.key.clone());
            if self.is_ours(entry, path) {
                if table.entries[..index]
                    .iter()
                    .any(|earlier| earlier.key == entry.key)
                {
                    let problem = Problem::error("key.duplicate", "this key stands here twice")
                        .hint("remove one of them");
                    self.push(problem, entry, path);
                }
                self.entry(entry, path);
            }
            path.pop();
        }
    }

    fn entry(&mut self, entry: &Entry, path: &mut Vec<String>) {
        match (keys::known(path), &entry.node.value) {
            (Known::Key(_), _) => {}
            (Known::Table, Value::Table(inner)) => self.table(inner, path),
            (Known::Table, other) => {
                let message = format!("expected a table, found {}", other.kind());
                let problem = Problem::error("value.type", message).key(dotted(path));
                self.problems
                    .push(located(problem, &entry.node.place, self.inputs));
            }
            (Known::Unknown, _) => self.unknown(entry, path),
        }
    }

    fn unknown(&mut self, entry: &Entry, path: &[String]) {
        let parent = &path[..path.len() - 1];
        let siblings = keys::children(parent);
        let suggestion = keys::suggestion(&entry.key, &siblings);
        let message = format!("unknown key {}", shown(&entry.key));
        let elsewhere = || {
            let spec = keys::KEYS.iter().find(|spec| {
                spec.path
                    .rsplit('.')
                    .next()
                    .is_some_and(|last| last == entry.key)
            })?;
            Some(format!(
                "this key belongs at {}",
                spec.path.replace('*', "<name>")
            ))
        };
        let hint = match suggestion {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => {
                elsewhere().unwrap_or_else(|| format!("possible here are {}", siblings.join(", ")))
            }
        };
        let foreign =
            self.format == Format::Json5 && suggestion.is_none() && !is_azure_key(&entry.key);
        let problem = match foreign {
            true => Problem::warning("key.ignored", message).hint("Talkline does not read it"),
            false => Problem::error("key.unknown", message).hint(hint),
        };
        self.push(problem, entry, path);
    }

    /// Whether this is for Talkline to judge. In TOML everything is.
    fn is_ours(&mut self, entry: &Entry, path: &[String]) -> bool {
        if self.format == Format::Toml || is_azure_key(&entry.key) {
            return true;
        }
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            [top] => {
                let own = keys::children::<&str>(&[]);
                if !own.contains(top)
                    && let Some(meant) = keys::suggestion(top, &own).filter(|_| near(top))
                {
                    let message = format!("{} is not read", shown(top));
                    let problem = Problem::warning("key.ignored", message)
                        .hint(format!("did you mean `{meant}`?"));
                    self.push(problem, entry, &[(*top).to_owned()]);
                }
                own.contains(top)
            }
            ["talk", section] => *section == "realtime",
            ["talk", "realtime", key] => !keys::OPENCLAW_REALTIME.contains(key),
            ["talk", "realtime", "providers", id] => match &entry.node.value {
                Value::Table(table) => {
                    (self.used)(id) || table.entries.iter().any(|entry| is_azure_key(&entry.key))
                }
                _ => (self.used)(id),
            },
            ["talk", "realtime", "providers", _, key] => !keys::OPENCLAW_PROVIDER.contains(key),
            _ => true,
        }
    }

    fn push(&mut self, problem: Problem, entry: &Entry, path: &[String]) {
        let path: Vec<&str> = path
            .iter()
            .map(|segment| {
                if looks_secret(segment) {
                    "…"
                } else {
                    segment.as_str()
                }
            })
            .collect();
        self.problems.push(located(
            problem.key(dotted(&path)),
            &entry.key_place,
            self.inputs,
        ));
    }
}

/// OpenClaw has many sections of its own: only a near miss of one of ours is worth a word.
fn near(top: &str) -> bool {
    [
        "server",
        "clients",
        "tokens",
        "limits",
        "allowPlaintextSecrets",
    ]
    .iter()
    .any(|own| {
        strsim::normalized_damerau_levenshtein(&top.to_lowercase(), &own.to_lowercase()) >= 0.8
    })
}

/// The file's text with everything that may be a secret blotted out, lengths kept.
pub(crate) fn showable(text: &str, table: Option<&Table>) -> String {
    let mut shown = text.to_owned();
    match table {
        Some(table) => blot_values(&mut shown, table, &mut Vec::new()),
        None => blot_lines(&mut shown),
    }
    blot_runs(&mut shown);
    shown
}

fn blot_values(text: &mut String, table: &Table, path: &mut Vec<String>) {
    for entry in &table.entries {
        path.push(entry.key.clone());
        let kind = match keys::known(path) {
            Known::Key(spec) => Some(spec.kind),
            Known::Table | Known::Unknown => None,
        };
        blot_node(text, &entry.node, kind, path);
        path.pop();
    }
}

fn blot_node(text: &mut String, node: &Node, kind: Option<Kind>, path: &mut Vec<String>) {
    let Place::File { span, .. } = &node.place else {
        return;
    };
    match (&node.value, kind) {
        (Value::Table(table), _) => blot_values(text, table, path),
        (Value::Array(items), _) => {
            items
                .iter()
                .for_each(|item| blot_node(text, item, kind, path));
        }
        (Value::Text(value), Some(Kind::Url)) => blot_url(text, span.clone(), value),
        (Value::Text(value), Some(Kind::Id(form))) if !form.admits(value) => {
            blot(text, span.clone());
        }
        (Value::Text(value), Some(kind))
            if !matches!(kind, Kind::Secret | Kind::Secrets) && !value.contains("PRIVATE KEY") => {}
        (Value::Text(value), None) if is_reference(path, value) => {}
        (Value::Text(_), _) => blot(text, span.clone()),
        (Value::Null | Value::Bool(_) | Value::Date(_), _) => {}
        (Value::Integer(_) | Value::Float, None) if matches!(keys::known(path), Known::Table) => {}
        (Value::Integer(_) | Value::Float, Some(kind))
            if !matches!(kind, Kind::Secret | Kind::Secrets) && span.len() < LONG_NUMBER => {}
        (Value::Integer(_) | Value::Float, Some(Kind::Count { .. } | Kind::Size { .. })) => {}
        // A key of digits alone, without its quotes.
        (Value::Integer(_) | Value::Float, _) => blot(text, span.clone()),
    }
}

/// Whether the value names the source of a secret reference, and is no secret put there by mistake.
fn is_reference(path: &[String], value: &str) -> bool {
    let Some((last, parent)) = path.split_last() else {
        return false;
    };
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let names_source = match last.as_str() {
        "env" => value.bytes().all(word) && !value.starts_with(|c: char| c.is_ascii_digit()),
        "id" => value.starts_with('/') || value.bytes().all(|b| word(b) && !b.is_ascii_lowercase()),
        "credential" => crate::secret::is_credential_name(value),
        "keyvault" => crate::KeyVaultReference::parse(value).is_ok(),
        "file" | "source" | "provider" | "name" => true,
        _ => false,
    };
    let is_secret = |end: usize| matches!(keys::known(&parent[..end]), Known::Key(spec) if matches!(spec.kind, Kind::Secret | Kind::Secrets));
    names_source && (1..=parent.len()).any(is_secret)
}

fn blot_url(text: &mut String, span: std::ops::Range<usize>, value: &str) {
    let Some((_, rest)) = value.split_once("://") else {
        if !value.contains('.') || value.contains(['@', '?']) {
            blot(text, span);
        }
        return;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') || rest.contains(['?', '#']) {
        // From the scheme on, nothing is known to be harmless.
        let written = text.get(span.clone()).unwrap_or_default();
        let start = span.start + written.find("://").map_or(0, |at| at + 3);
        let keep = if authority.contains('@') {
            0
        } else {
            rest.find(['?', '#']).unwrap_or(0)
        };
        let start = (start + keep).min(span.end);
        blot(text, start..span.end);
    }
}

/// For a text that cannot be parsed: a line stays readable only if it holds nothing but a table
/// header or a key that takes no secret.
fn blot_lines(text: &mut String) {
    let secretless = |line: &str| {
        let line = line.trim();
        let header = line.starts_with('[')
            && line
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"[]._- ".contains(&b));
        let key = line.split(['=', ':']).next().unwrap_or_default();
        let key = key.trim_matches([' ', '\t', '"', '\'', '{']);
        let last = key.rsplit('.').next().unwrap_or_default();
        let known = keys::KEYS.iter().any(|spec| {
            let plain = matches!(
                spec.kind,
                Kind::Text | Kind::Choice(_) | Kind::Bool | Kind::TextList
            ) || matches!(
                spec.kind,
                Kind::Duration { .. } | Kind::Size { .. } | Kind::Count { .. }
            ) || (spec.kind == Kind::Url && !line.contains(['@', '?']));
            plain && spec.path.rsplit('.').next() == Some(last)
        });
        let one_pair = line.matches(['=']).count() <= 1 && !line.contains([',', '#']);
        header || (known && one_pair) || !line.bytes().any(|b| b.is_ascii_alphanumeric())
    };
    let mut ranges = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if !secretless(line) {
            // The key itself may stay: it is what the message is about.
            let value = line.find(['=', ':']).map_or(0, |at| at + 1);
            let value = if line[..value].contains(['"', '\'', '{', '#']) {
                0
            } else {
                value
            };
            let words = line[value..]
                .char_indices()
                .filter(|(_, c)| c.is_alphanumeric());
            ranges
                .extend(words.map(|(at, c)| start + value + at..start + value + at + c.len_utf8()));
        }
        start += line.len();
    }
    for range in ranges {
        blot(text, range);
    }
}
