//! The items of a conversation.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::audio::Format;
use super::shape::Fault;
use super::usage::Tokens;
use super::{Dialect, SAMPLES_PER_MS};
use crate::ids;

/// Items kept; the oldest are forgotten first, as `truncation: auto` does.
const ITEMS_MAX: usize = 1024;

/// One item, as the client sees it, and what it costs to read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Item {
    pub(crate) value: Value,
    tokens: Tokens,
    /// Length of an assistant's audio, which can be truncated.
    spoken_ms: Option<u64>,
}

impl Item {
    /// Words of the user, committed from the input buffer.
    pub(crate) fn heard(id: &str, ms: u64) -> Self {
        let content = json!([{"type": "input_audio", "transcript": null}]);
        Self {
            value: message(id, "user", &content),
            tokens: Tokens::of_heard_ms(ms),
            spoken_ms: None,
        }
    }

    /// Words of the assistant.
    pub(crate) fn spoken(value: Value, tokens: Tokens, ms: u64) -> Self {
        Self {
            value,
            tokens,
            spoken_ms: Some(ms),
        }
    }

    /// An item that the client made.
    pub(crate) fn from_client(
        given: &Value,
        dialect: Dialect,
        format: Format,
    ) -> Result<Self, Fault> {
        let kind = required(given, "item", "type")?;
        let id = match given.get("id") {
            None | Some(Value::Null) => ids::id("item"),
            Some(Value::String(id)) => id.clone(),
            Some(other) => return Err(Fault::wrong_type("item.id", "a string", other)),
        };
        let mut value = given.clone();
        value["id"] = json!(id);
        value["object"] = json!("realtime.item");
        value["status"] = json!("completed");
        let tokens = match kind {
            "message" => content_tokens(given, dialect, format)?,
            "function_call" => {
                required(given, "item", "name")?;
                Tokens::of_text(required(given, "item", "arguments")?)
            }
            "function_call_output" => {
                required(given, "item", "call_id")?;
                Tokens::of_text(required(given, "item", "output")?)
            }
            "mcp_call" | "mcp_list_tools" | "mcp_approval_request" | "mcp_approval_response" => {
                Tokens::default()
            }
            other => {
                let supported = ["message", "function_call", "function_call_output"];
                return Err(Fault::invalid("item.type", other, &supported));
            }
        };
        Ok(Self {
            value,
            tokens,
            spoken_ms: None,
        })
    }

    /// The text of a user's message, if it is in text.
    pub(crate) fn written_by_user(&self) -> Option<String> {
        let parts = self.value.get("content")?.as_array()?;
        let texts: Vec<&str> = parts
            .iter()
            .filter(|part| part["type"] == "input_text")
            .filter_map(|part| part["text"].as_str())
            .collect();
        (self.value["role"] == "user" && !texts.is_empty()).then(|| texts.join(" "))
    }

    fn id(&self) -> &str {
        self.value["id"].as_str().unwrap_or_default()
    }
}

/// Checks a message's role and parts, and counts what they hold.
fn content_tokens(given: &Value, dialect: Dialect, format: Format) -> Result<Tokens, Fault> {
    let role = required(given, "item", "role")?;
    let supported: &[&str] = match (role, dialect) {
        ("user", _) => &["input_text", "input_audio", "input_image"],
        ("system", _) => &["input_text"],
        ("assistant", Dialect::Ga) => &["output_text", "output_audio"],
        ("assistant", Dialect::Preview) => &["text", "audio"],
        _ => {
            return Err(Fault::invalid(
                "item.role",
                role,
                &["user", "assistant", "system"],
            ));
        }
    };
    let content = given
        .get("content")
        .ok_or_else(|| Fault::missing("item.content"))?;
    let parts = content
        .as_array()
        .ok_or_else(|| Fault::wrong_type("item.content", "an array", content))?;
    let count = |(index, part): (usize, &Value)| {
        let path = format!("item.content[{index}]");
        let kind = required(part, &path, "type")?;
        if !supported.contains(&kind) {
            return Err(Fault::invalid(&format!("{path}.type"), kind, supported));
        }
        match kind {
            "input_audio" => {
                let bytes = STANDARD.decode(required(part, &path, "audio")?).ok();
                let samples = bytes.and_then(|bytes| format.decode(&bytes));
                let samples = samples.ok_or_else(|| super::bad_audio("an invalid value"))?;
                Ok(Tokens::of_heard_ms(samples.len() as u64 / SAMPLES_PER_MS))
            }
            "input_text" | "output_text" | "text" => {
                Ok(Tokens::of_text(required(part, &path, "text")?))
            }
            _ => Ok(Tokens::default()),
        }
    };
    parts.iter().enumerate().map(count).sum()
}

fn message(id: &str, role: &str, content: &Value) -> Value {
    json!({
        "id": id,
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": role,
        "content": content,
    })
}

/// A string that must be there.
fn required<'a>(object: &'a Value, path: &str, name: &str) -> Result<&'a str, Fault> {
    let path = format!("{path}.{name}");
    let value = object.get(name).ok_or_else(|| Fault::missing(&path))?;
    value
        .as_str()
        .ok_or_else(|| Fault::wrong_type(&path, "a string", value))
}

/// Items in order.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    items: Vec<Item>,
}

impl Conversation {
    pub(crate) fn last_id(&self) -> Option<String> {
        self.items.last().map(|item| item.id().to_owned())
    }

    pub(crate) fn tokens(&self) -> Tokens {
        self.items.iter().map(|item| item.tokens).sum()
    }

    pub(crate) fn find(&self, id: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.id() == id)
    }

    /// Adds an item at the end.
    pub(crate) fn push(&mut self, item: Item) {
        if self.items.len() == ITEMS_MAX {
            self.items.remove(0);
        }
        self.items.push(item);
    }

    /// Adds a client's item after the one named, at the start for `root`, else at the end. Returns it, and the id
    /// of the item before it.
    pub(crate) fn insert(
        &mut self,
        item: Item,
        after: Option<&str>,
    ) -> Result<(Item, Option<String>), Fault> {
        if self.find(item.id()).is_some() {
            let message = format!(
                "Error adding item: an item with id '{}' already exists.",
                item.id()
            );
            return Err(Fault::new("item_create_duplicate_item_id", message).at("item.id"));
        }
        let index = match after {
            None => self.items.len(),
            Some("root") => 0,
            Some(id) => {
                let found = self.items.iter().position(|item| item.id() == id);
                let missing = || {
                    let message = format!(
                        "Error adding item: the previous item with id '{id}' does not exist."
                    );
                    Fault::new("item_create_invalid_previous_item_id", message)
                        .at("previous_item_id")
                };
                found.ok_or_else(missing)? + 1
            }
        };
        let previous = index
            .checked_sub(1)
            .map(|before| self.items[before].id().to_owned());
        if index == self.items.len() {
            self.push(item.clone());
        } else {
            self.items.insert(index, item.clone());
            self.items.truncate(ITEMS_MAX);
        }
        Ok((item, previous))
    }

    /// Writes the transcript of a heard item into it, where `conversation.item.retrieve` finds it.
    pub(crate) fn transcribe(&mut self, id: &str, transcript: &str) {
        let heard = self.items.iter_mut().find(|item| item.id() == id);
        if let Some(part) = heard.and_then(|item| item.value.pointer_mut("/content/0/transcript")) {
            *part = json!(transcript);
        }
    }

    /// Forgets the end of an assistant's audio, and with it the transcript, as the service does.
    pub(crate) fn truncate(&mut self, id: &str, end_ms: u64) -> Result<(), Fault> {
        let found = self.items.iter_mut().find(|item| item.id() == id);
        let spoken = found.and_then(|item| item.spoken_ms.map(|ms| (item, ms)));
        let Some((item, length_ms)) = spoken else {
            let message = format!("Item with item_id not found: {id}");
            return Err(Fault::new("item_truncate_invalid_item_id", message).at("item_id"));
        };
        if end_ms > length_ms {
            let message =
                format!("Audio content of {length_ms}ms is already shorter than {end_ms}ms");
            return Err(Fault::new("invalid_value", message).at("audio_end_ms"));
        }
        item.spoken_ms = Some(end_ms);
        item.tokens = Tokens::of_spoken_ms(end_ms);
        if let Some(part) = item.value.pointer_mut("/content/0/transcript") {
            *part = Value::Null;
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, id: &str) -> Result<(), Fault> {
        let Some(index) = self.items.iter().position(|item| item.id() == id) else {
            let message = format!("Error deleting item: the item with id '{id}' does not exist.");
            return Err(Fault::new("item_delete_invalid_item_id", message).at("item_id"));
        };
        self.items.remove(index);
        Ok(())
    }
}
