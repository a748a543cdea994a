//! The naive reader that the guard is held against: it parses every message whole, with `serde_json`, and
//! applies the rules to the tree. It knows nothing of streaming, spans or splicing.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use talkline_session::policy::{
    Choice, Helpers, Json, McpServers, OnViolation, Rules, TokensMax, Tools, Tracing,
};

const DEPTH_MAX: usize = 64;
const VALUES_MAX: usize = 16_384;

/// A JSON value, keys in their order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Whole(i128),
    Number(f64),
    String(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// What may become of a message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// This goes upstream.
    Pass(Tree),
    /// Nothing does.
    Blocked,
}

impl Tree {
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(message).ok()?;
        let mut values = 0;
        let seed = Seed {
            depth: 0,
            values: &mut values,
        };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let tree = seed.deserialize(&mut deserializer).ok()?;
        deserializer.end().ok()?;
        Some(tree)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        let members = match self {
            Self::Object(members) => members.as_slice(),
            _ => &[],
        };
        members.iter().map(|(key, _)| key.as_str())
    }

    fn set(&mut self, key: &str, value: Option<Self>) {
        let Self::Object(members) = self else { return };
        let at = members.iter().position(|(k, _)| k == key);
        match (at, value) {
            (Some(at), Some(value)) => members[at].1 = value,
            (Some(at), None) => {
                members.remove(at);
            }
            (None, Some(value)) => members.push((key.to_owned(), value)),
            (None, None) => {}
        }
    }

    fn str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    fn of(json: &Json) -> Self {
        Self::parse(json.as_str().as_bytes()).expect("a rule's JSON is JSON")
    }

    /// The same value with the members of every object sorted.
    fn sorted(&self) -> Self {
        match self {
            Self::Array(items) => Self::Array(items.iter().map(Self::sorted).collect()),
            Self::Object(members) => {
                let mut members: Vec<_> = members
                    .iter()
                    .map(|(k, v)| (k.clone(), v.sorted()))
                    .collect();
                members.sort_by(|a, b| a.0.cmp(&b.0));
                Self::Object(members)
            }
            other => other.clone(),
        }
    }
}

struct Seed<'v> {
    depth: usize,
    values: &'v mut usize,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        *self.values += 1;
        if self.depth > DEPTH_MAX || *self.values > VALUES_MAX {
            return Err(D::Error::custom("excessive"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Whole(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Whole(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
        match value.abs() < 1e300 {
            true => Ok(Tree::Number(value)),
            false => Err(E::custom("out of range")),
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(Seed {
            depth: self.depth + 1,
            values: &mut *self.values,
        })? {
            items.push(item);
        }
        Ok(Tree::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut members: Vec<(String, Tree)> = Vec::new();
        while let Some(key) = access.next_key::<String>()? {
            if key.contains('\0') || members.iter().any(|(known, _)| *known == key) {
                return Err(A::Error::custom("ambiguous"));
            }
            let value = access.next_value_seed(Seed {
                depth: self.depth + 1,
                values: &mut *self.values,
            })?;
            members.push((key, value));
        }
        Ok(Tree::Object(members))
    }
}

/// What should become of a message of the client's.
pub(crate) fn outcome(rules: &Rules, helpers: &Helpers, message: &[u8]) -> Outcome {
    let Some(mut event) = Tree::parse(message) else {
        return Outcome::Blocked;
    };
    match apply(rules, helpers, &mut event) {
        Some(()) => Outcome::Pass(event),
        None => Outcome::Blocked,
    }
}

/// Whether a message is an audio append in the shape that may be streamed, or short enough not to be.
pub(crate) fn is_streamable(message: &[u8]) -> bool {
    let Some(event) = Tree::parse(message) else {
        return false;
    };
    let appends = [
        "input_audio_buffer.append",
        "session.input_audio_buffer.append",
        "session.input_audio.append",
    ];
    let is_append = event
        .get("type")
        .and_then(Tree::str)
        .is_some_and(|t| appends.contains(&t));
    let base64 = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+/=-_".contains(&b))
    };
    let is_audio = event.get("audio").and_then(Tree::str).is_some_and(base64);
    let is_id = event
        .get("event_id")
        .is_none_or(|id| id.str().is_some_and(str::is_ascii));
    is_append
        && is_audio
        && is_id
        && event
            .keys()
            .all(|key| matches!(key, "type" | "audio" | "event_id"))
        && !message.contains(&b'\\')
}

const TOP: &[&str] = &["type", "session", "response", "item"];
const SETTINGS: &[&str] = &[
    "instructions",
    "prompt",
    "voice",
    "tools",
    "model",
    "max_output_tokens",
    "max_response_output_tokens",
    "tracing",
    "audio",
    "input_audio_transcription",
    "conversation",
    "input",
];
const SERVERS: &[&str] = &["server_url", "connector_id", "tunnel_id"];

/// No key is another spelling of a known one.
fn spelt(tree: &Tree, known: &[&str]) -> Option<()> {
    let bad = tree.keys().any(|key| {
        known
            .iter()
            .any(|k| k.to_lowercase() == key.to_ascii_lowercase() && *k != key)
    });
    (!bad).then_some(())
}

fn apply(rules: &Rules, helpers: &Helpers, event: &mut Tree) -> Option<()> {
    if !matches!(event, Tree::Object(_)) {
        return None;
    }
    spelt(event, TOP)?;
    let name = event.get("type")?.str()?.to_owned();
    let instructing = ["instructions", "thinking", "commentary"]
        .iter()
        .any(|kind| name == format!("session.{kind}.append"));
    if !rules.events.allows(&name) || (instructing && pins(rules)) {
        return None;
    }
    let original = event.clone();
    for (key, session) in [("session", true), ("response", false)] {
        match event.get(key).cloned() {
            None | Some(Tree::Null) => {}
            Some(mut found @ Tree::Object(_)) => {
                settings(rules, helpers, &mut found, session)?;
                event.set(key, Some(found));
            }
            Some(_) => return None,
        }
    }
    if let Some(it) = event.get("item") {
        item(rules, it)?;
    }
    servers(rules, &remaining(&original, event))
}

/// What is left of the client's own.
fn remaining(original: &Tree, corrected: &Tree) -> Tree {
    match (original, corrected) {
        (Tree::Object(_), Tree::Object(members)) => {
            let theirs = |(key, value): &(String, Tree)| {
                let original = original.get(key)?;
                Some((key.clone(), remaining(original, value)))
            };
            Tree::Object(members.iter().filter_map(theirs).collect())
        }
        (Tree::Array(theirs), Tree::Array(items)) => {
            let left = items.iter().filter(|item| theirs.contains(item));
            Tree::Array(left.cloned().collect())
        }
        _ if original == corrected => original.clone(),
        _ => Tree::Null,
    }
}

fn pins(rules: &Rules) -> bool {
    rules.instructions.is_some() || rules.prompt.is_some()
}

/// The corrected value of a setting that breaks a rule: `None` blocks, `Some(None)` takes it out.
fn corrected(rules: &Rules, session: bool, right: Option<Tree>) -> Option<Option<Tree>> {
    match rules.on_violation {
        OnViolation::Refuse => None,
        OnViolation::Rewrite if session => Some(right),
        OnViolation::Rewrite => Some(None),
    }
}

fn settings(rules: &Rules, helpers: &Helpers, tree: &mut Tree, session: bool) -> Option<()> {
    spelt(tree, SETTINGS)?;
    if pins(rules) {
        let right = rules.instructions.clone().map(Tree::String);
        if let Some(found) = tree.get("instructions")
            && Some(found) != right.as_ref()
        {
            tree.set("instructions", corrected(rules, session, right)?);
        }
        let right = rules.prompt.as_ref().map(Tree::of);
        if let Some(found) = tree.get("prompt")
            && *found != Tree::Null
            && Some(found.sorted()) != right.as_ref().map(Tree::sorted)
        {
            tree.set("prompt", corrected(rules, session, right)?);
        }
    }
    choice(rules, &rules.voice, tree, "voice", session)?;
    choice(rules, &rules.model, tree, "model", session)?;
    mapped(tree, "model", &helpers.model_deployments);
    for key in ["max_output_tokens", "max_response_output_tokens"] {
        let Some(found) = tree.get(key) else { continue };
        let (right, fits): (u64, &dyn Fn(i128) -> bool) = match rules.max_output_tokens {
            TokensMax::Free => continue,
            TokensMax::Fixed(n) => (n, &move |asked| asked == i128::from(n)),
            TokensMax::AtMost(n) => (n, &move |asked| (0..=i128::from(n)).contains(&asked)),
        };
        let fits = matches!(found, Tree::Whole(asked) if fits(*asked));
        if !fits {
            tree.set(
                key,
                corrected(rules, session, Some(Tree::Whole(right.into())))?,
            );
        }
    }
    if let Some(found) = tree.get("tools").cloned() {
        match (&rules.tools, found) {
            (Tools::Fixed(right), found) => {
                if found.sorted() != Tree::of(right).sorted() {
                    tree.set("tools", corrected(rules, session, Some(Tree::of(right)))?);
                }
            }
            (_, Tree::Null) | (Tools::Free, Tree::Array(_)) => {}
            (Tools::Named(names), Tree::Array(tools)) => {
                let mut kept = Vec::new();
                for tool in tools {
                    if !matches!(tool, Tree::Object(_)) {
                        return None;
                    }
                    let name = tool.get("name").and_then(Tree::str).unwrap_or("\0");
                    if is_server(&tool) || names.iter().any(|n| n == name) {
                        kept.push(tool);
                    } else if rules.on_violation == OnViolation::Refuse {
                        return None;
                    }
                }
                tree.set("tools", Some(Tree::Array(kept)));
            }
            _ => return None,
        }
    }
    if let Some(found) = tree.get("tracing") {
        let corrected = match &rules.tracing {
            _ if helpers.drop_tracing => Some(None),
            Tracing::Free => None,
            Tracing::Off if *found == Tree::Null => None,
            Tracing::Off => Some(corrected(rules, session, None)?),
            Tracing::Fixed(right) if found.sorted() == Tree::of(right).sorted() => None,
            Tracing::Fixed(right) => Some(corrected(rules, session, Some(Tree::of(right)))?),
        };
        if let Some(corrected) = corrected {
            tree.set("tracing", corrected);
        }
    }
    transcription(rules, helpers, tree, "input_audio_transcription", session)?;
    if !session {
        let aside = match tree.get("conversation") {
            None | Some(Tree::Null) => false,
            Some(conversation) => conversation.str() != Some("auto"),
        };
        if aside && !rules.out_of_band {
            return None;
        }
        match tree.get("input") {
            None | Some(Tree::Null) => {}
            Some(Tree::Array(items)) if rules.out_of_band => {
                items.iter().try_for_each(|it| item(rules, it))?;
            }
            Some(_) => return None,
        }
    }
    let Some(mut audio) = inner(tree, "audio")? else {
        return Some(());
    };
    spelt(&audio, &["input", "output"])?;
    if let Some(mut output) = inner(&audio, "output")? {
        spelt(&output, &["voice"])?;
        choice(rules, &rules.voice, &mut output, "voice", session)?;
        audio.set("output", Some(output));
    }
    if let Some(mut input) = inner(&audio, "input")? {
        spelt(&input, &["transcription"])?;
        transcription(rules, helpers, &mut input, "transcription", session)?;
        audio.set("input", Some(input));
    }
    tree.set("audio", Some(audio));
    Some(())
}

/// An object in an object: absent and null count as nothing, all else blocks.
fn inner(tree: &Tree, key: &str) -> Option<Option<Tree>> {
    match tree.get(key) {
        None | Some(Tree::Null) => Some(None),
        Some(found @ Tree::Object(_)) => Some(Some(found.clone())),
        Some(_) => None,
    }
}

fn first(choice: &Choice) -> Option<Tree> {
    match choice {
        Choice::Free => None,
        Choice::Fixed(only) => Some(Tree::String(only.clone())),
        Choice::OneOf(names) => names.first().cloned().map(Tree::String),
    }
}

fn choice(rules: &Rules, choice: &Choice, tree: &mut Tree, key: &str, session: bool) -> Option<()> {
    let Some(found) = tree.get(key) else {
        return Some(());
    };
    let fits = match choice {
        Choice::Free => true,
        Choice::Fixed(only) => found.str() == Some(only),
        Choice::OneOf(names) => names.iter().any(|name| found.str() == Some(name)),
    };
    if !fits {
        tree.set(key, corrected(rules, session, first(choice))?);
    }
    Some(())
}

fn mapped(tree: &mut Tree, key: &str, names: &BTreeMap<String, String>) {
    let name = tree
        .get(key)
        .and_then(Tree::str)
        .and_then(|name| names.get(name));
    if let Some(name) = name {
        tree.set(key, Some(Tree::String(name.clone())));
    }
}

fn transcription(
    rules: &Rules,
    helpers: &Helpers,
    tree: &mut Tree,
    key: &str,
    session: bool,
) -> Option<()> {
    let Some(mut found) = inner(tree, key)? else {
        return Some(());
    };
    spelt(&found, &["model"])?;
    if found.get("model").is_none() {
        found.set("model", first(&rules.transcription_model));
    } else {
        choice(
            rules,
            &rules.transcription_model,
            &mut found,
            "model",
            session,
        )?;
    }
    mapped(&mut found, "model", &helpers.transcription_deployments);
    tree.set(key, Some(found));
    Some(())
}

fn item(rules: &Rules, item: &Tree) -> Option<()> {
    if !matches!(item, Tree::Object(_)) {
        return None;
    }
    spelt(item, &["type", "role"])?;
    if !pins(rules) {
        return Some(());
    }
    let role = item.get("role");
    let kind = item.get("type");
    let role_fits = role.is_none_or(|r| matches!(r.str(), Some("user" | "assistant")));
    let known = |kind: &Tree| {
        let known =
            "message function_call function_call_output item_reference mcp_approval_response";
        kind.str()
            .is_some_and(|kind| known.split(' ').any(|known| known == kind))
    };
    (role_fits && kind.is_none_or(known)).then_some(())
}

fn is_server(tool: &Tree) -> bool {
    tool.get("type").and_then(Tree::str) == Some("mcp")
        || SERVERS.iter().any(|key| tool.get(key).is_some())
}

/// No list of tools, wherever it stands, names a server that is not allowed.
fn servers(rules: &Rules, tree: &Tree) -> Option<()> {
    let McpServers::Only(allowed) = &rules.mcp_servers else {
        return Some(());
    };
    match tree {
        Tree::Array(items) => items.iter().try_for_each(|item| servers(rules, item)),
        Tree::Object(members) => members.iter().try_for_each(|(key, value)| match value {
            Tree::Array(tools) if key.eq_ignore_ascii_case("tools") => {
                tools.iter().try_for_each(|tool| {
                    if !matches!(tool, Tree::Object(_)) {
                        return None;
                    }
                    spelt(tool, &["type", "name"])?;
                    spelt(tool, SERVERS)?;
                    if !is_server(tool) {
                        let kind = tool.get("type");
                        return kind
                            .is_none_or(|k| k.str() == Some("function"))
                            .then_some(());
                    }
                    let named: Vec<&Tree> = SERVERS.iter().filter_map(|k| tool.get(k)).collect();
                    let fits = |server: &&Tree| {
                        server.str().is_some_and(|s| allowed.iter().any(|a| a == s))
                    };
                    (!named.is_empty() && named.iter().all(fits)).then_some(())
                })
            }
            _ => servers(rules, value),
        }),
        _ => Some(()),
    }
}
