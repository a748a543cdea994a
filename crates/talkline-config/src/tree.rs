//! What was written, in one shape for every format, each key and value with its place.

use std::ops::Range;

/// Where a key or value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Bytes of the file with this index.
    File { file: usize, span: Range<usize> },
    /// An environment variable, by name.
    Variable(String),
    /// A flag, by name.
    Flag(String),
    /// The documented defaults.
    Default,
}

impl Place {
    /// Whether values here are plain text, to be read by the rules of the key.
    pub(crate) fn is_untyped(&self) -> bool {
        matches!(self, Place::Variable(_) | Place::Flag(_))
    }
}

#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

#[derive(Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    /// No key takes one: its value is of no use.
    Float,
    Text(String),
    /// A TOML date or time, as written.
    Date(String),
    Array(Vec<Node>),
    Table(Table),
}

impl Value {
    /// The kind of value in a reader's words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Integer(_) | Value::Float => "a number",
            Value::Text(_) => "a string",
            Value::Date(_) => "a date",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// Keys with their values, in the order of the file. JSON may hold a key twice; the last one wins.
#[derive(Clone, Default)]
pub(crate) struct Table {
    pub(crate) entries: Vec<Entry>,
}

#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Place,
    pub(crate) node: Node,
}

impl Table {
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.key == key)
    }

    /// The entry at the end of a path of tables.
    pub(crate) fn at(&self, path: &[&str]) -> Option<&Entry> {
        let (last, parents) = path.split_last()?;
        let mut table = self;
        for key in parents {
            table = table.table(key)?;
        }
        table.get(last)
    }

    fn table(&self, key: &str) -> Option<&Table> {
        match &self.get(key)?.node.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// Lays `over` on top: tables are joined, every other value replaces what it covers.
    pub(crate) fn merge(&mut self, over: Table) {
        for entry in over.entries {
            let under = self
                .entries
                .iter_mut()
                .rev()
                .find(|under| under.key == entry.key);
            match (under, entry) {
                (
                    Some(Entry {
                        node:
                            Node {
                                value: Value::Table(under),
                                ..
                            },
                        ..
                    }),
                    Entry {
                        node:
                            Node {
                                value: Value::Table(over),
                                ..
                            },
                        ..
                    },
                ) => under.merge(over),
                (Some(under), entry) => *under = entry,
                (None, entry) => self.entries.push(entry),
            }
        }
    }

    /// A table that holds one value at the end of a path, everything at one place.
    pub(crate) fn of_path(path: &[&str], value: Value, place: &Place) -> Table {
        let mut node = Node {
            place: place.clone(),
            value,
        };
        for key in path.iter().rev() {
            let entry = Entry {
                key: (*key).to_owned(),
                key_place: place.clone(),
                node,
            };
            node = Node {
                place: place.clone(),
                value: Value::Table(Table {
                    entries: vec![entry],
                }),
            };
        }
        match node.value {
            Value::Table(table) => table,
            _ => Table::default(),
        }
    }
}

/// A path as one writes it in TOML: `talk.realtime.routes."gpt-4.1"`.
pub(crate) fn dotted<S: AsRef<str>>(path: &[S]) -> String {
    path.iter()
        .map(|segment| quoted_key(segment.as_ref()))
        .collect::<Vec<_>>()
        .join(".")
}

fn quoted_key(segment: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !segment.is_empty() && segment.bytes().all(bare) {
        return segment.to_owned();
    }
    format!("\"{}\"", crate::shown::cleaned(segment))
}

/// The segments of a dotted path; quoted segments may hold dots.
pub(crate) fn segments(path: &str) -> Vec<String> {
    let (mut out, mut segment, mut quoted) = (Vec::new(), String::new(), false);
    for character in path.chars() {
        match character {
            '"' => quoted = !quoted,
            '.' if !quoted => out.push(std::mem::take(&mut segment)),
            other => segment.push(other),
        }
    }
    out.push(segment);
    out
}
