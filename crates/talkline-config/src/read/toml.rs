//! TOML to tree.

use toml::de::{DeTable, DeValue};

use super::SyntaxError;
use crate::tree::{Entry, Node, Place, Table, Value};

pub(super) fn read(text: &str, file: usize) -> Result<Table, Vec<SyntaxError>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table(root.get_ref(), file));
    }
    let error = |error: &toml::de::Error| SyntaxError {
        message: error.message().to_owned(),
        span: error.span().unwrap_or(0..0),
    };
    Err(errors.iter().map(error).collect())
}

fn table(source: &DeTable<'_>, file: usize) -> Table {
    let mut entries: Vec<Entry> = source
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_place: Place::File {
                file,
                span: key.span(),
            },
            node: node(
                value.get_ref(),
                Place::File {
                    file,
                    span: value.span(),
                },
                file,
            ),
        })
        .collect();
    entries.sort_by_key(|entry| match &entry.key_place {
        Place::File { span, .. } => span.start,
        _ => 0,
    });
    Table { entries }
}

fn node(source: &DeValue<'_>, place: Place, file: usize) -> Node {
    let value = match source {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            match i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()) {
                Ok(number) => Value::Integer(number),
                // Out of range: no key takes such a number, and its text is of no use.
                Err(_) => Value::Float,
            }
        }
        DeValue::Float(_) => Value::Float,
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| {
                    node(
                        item.get_ref(),
                        Place::File {
                            file,
                            span: item.span(),
                        },
                        file,
                    )
                })
                .collect(),
        ),
        DeValue::Table(inner) => Value::Table(table(inner, file)),
    };
    Node { place, value }
}
