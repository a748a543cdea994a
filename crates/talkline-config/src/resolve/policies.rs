//! `policies.*`: what a session may say.

use std::{collections::BTreeMap, sync::Arc};

use talkline_session::policy::{
    Choice, DEFAULT_EVENTS, Events, Hide, Json, McpServers, OnViolation, Policy, Rules, TokensMax,
    Tools, Tracing,
};

use super::providers::listed;
use crate::{
    Policies, Problem, keys,
    reader::{Found, Reader},
    shown::{cleaned, looks_secret, shown},
    tree::Value,
};

/// Rules have no meaning where nothing is looked at.
const MODE: &str = "mode";

/// In `events`, the events that are allowed where nothing is said.
const DEFAULT: &str = "default";

/// In `events` and `mcpServers`, whatever there is.
const ANY: &str = "*";

/// Longest instructions, in bytes: they have to fit in one event beside the tools.
const INSTRUCTIONS_BYTES_MAX: usize = 128 << 10;

/// Reads every policy; those with a problem of their own are left out.
pub(super) fn read(reader: &mut Reader<'_>) -> Policies {
    let names = reader.names(&["policies"]);
    let mut policies = BTreeMap::new();
    for name in &names {
        let mut one = One { reader, name };
        if let Some(policy) = one.read() {
            policies.insert(name.clone(), Arc::new(policy));
        }
    }
    check_uses(reader, &names);
    Policies::new(policies)
}

/// Reports clients whose policy does not exist.
fn check_uses(reader: &mut Reader<'_>, names: &[String]) {
    let own = reader.names(&["clients", "access"]);
    let paths = own
        .iter()
        .map(|client| vec!["clients", "access", client, "policy"])
        .chain([vec!["clients", "defaults", "policy"]]);
    for path in paths {
        let Some(found) = reader.found(&path) else {
            continue;
        };
        let Value::Text(name) = &found.entry.node.value else {
            continue;
        };
        if name.trim().is_empty() || names.contains(name) {
            continue;
        }
        let candidates: Vec<&str> = names.iter().map(String::as_str).collect();
        let hint = match (keys::suggestion(name, &candidates), names) {
            (Some(meant), _) => format!("did you mean \"{}\"?", cleaned(meant)),
            (None, []) => "write its rules under policies.<name>".to_owned(),
            (None, names) => format!("configured are {}", listed(names)),
        };
        let message = format!("there is no session policy {}", shown(name));
        let problem = Problem::error("policy.unknown", message).hint(hint);
        let problem = reader.at_value(problem, &found);
        reader.problem(problem);
    }
}

/// One policy while it is read.
struct One<'r, 't, 'n> {
    reader: &'r mut Reader<'t>,
    name: &'n str,
}

impl<'t> One<'_, 't, '_> {
    fn read(&mut self) -> Option<Policy> {
        if !is_name(self.name) {
            let found = self.reader.found(&["policies", self.name])?;
            let problem = Problem::error("policy.name", "this is no name for a policy")
                .key("policies")
                .hint("a name has 1 to 64 letters, digits, `-`, `_` and `.`");
            let problem = self.reader.at(problem, &found.entry.key_place);
            self.reader.problem(problem);
            return None;
        }
        self.reader.table(&["policies", self.name])?;
        let before = self.reader.problems.len();
        let mode = self.choice(MODE);
        if mode.is_some_and(|found| found.value == "transparent") {
            self.refuse_rules();
            return Some(Policy::transparent());
        }
        let rules = self.rules();
        let is_sound = self.reader.problems[before..]
            .iter()
            .all(|problem| problem.severity == crate::Severity::Warning);
        is_sound.then(|| Policy::pinned(rules))
    }

    fn rules(&mut self) -> Rules {
        let on_violation = self
            .choice("onViolation")
            .filter(|found| found.value == "refuse")
            .map_or(OnViolation::Rewrite, |_| OnViolation::Refuse);
        let instructions = self.instructions();
        let tools = self.tools();
        let hide = Hide {
            instructions: self.flag("hideInstructions", instructions.is_some()),
            tools: self.flag("hideTools", matches!(tools, Tools::Fixed(_))),
        };
        Rules {
            on_violation,
            instructions,
            prompt: None,
            voice: self.names("voice", "voices"),
            tools,
            model: self.names("model", "models"),
            transcription_model: self.names("transcriptionModel", "transcriptionModels"),
            max_output_tokens: self.tokens(),
            tracing: match self.choice("tracing").map(|found| found.value).as_deref() {
                None => Tracing::Free,
                Some("auto") => Json::new("\"auto\"").map_or(Tracing::Off, Tracing::Fixed),
                Some(_) => Tracing::Off,
            },
            mcp_servers: self.servers(),
            events: self.events(),
            out_of_band: self.flag("outOfBandResponses", false),
            hide,
            initial: None,
        }
    }

    fn choice(&mut self, key: &str) -> Option<Found<'t, String>> {
        let path = ["policies", self.name, key];
        self.reader.found(&path)?;
        self.reader.choice(&path)
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        let path = ["policies", self.name, key];
        self.reader.flag(&path).map_or(default, |found| found.value)
    }

    fn list(&mut self, key: &str) -> Option<Vec<String>> {
        let path = ["policies", self.name, key];
        let found = self.reader.found(&path)?;
        let before = self.reader.problems.len();
        let items = self.reader.list(&path);
        if items.is_empty() && self.reader.problems.len() == before {
            let problem = Problem::error("policy.empty-list", "the list allows nothing at all")
                .hint("write what is allowed, or remove the key");
            self.refuse(problem, &found);
        }
        Some(items.into_iter().map(|(item, _)| item).collect())
    }

    fn refuse<T>(&mut self, problem: Problem, found: &Found<'_, T>) {
        let problem = self.reader.at_value(problem, found);
        self.reader.problem(problem);
    }

    /// Reports the second of two keys that say the same thing.
    fn refuse_both(&mut self, keys: &[&str]) {
        let given: Vec<&str> = keys
            .iter()
            .copied()
            .filter(|key| self.reader.found(&["policies", self.name, key]).is_some())
            .collect();
        let [first, second, ..] = given.as_slice() else {
            return;
        };
        let message = format!("`{first}` and `{second}` both say what is allowed");
        let problem = Problem::error("policy.conflict", message).hint("keep one of them");
        if let Some(found) = self.reader.found(&["policies", self.name, second]) {
            let problem = self.reader.at_key(problem, &found);
            self.reader.problem(problem);
        }
    }

    /// Reports rules beside `mode = "transparent"`.
    fn refuse_rules(&mut self) {
        let Some(table) = self.reader.table(&["policies", self.name]) else {
            return;
        };
        let rule = table.entries.iter().find(|entry| entry.key != MODE);
        if let Some(rule) = rule
            && let Some(found) = self.reader.found(&["policies", self.name, &rule.key])
        {
            let message = "a transparent policy has no rules: nothing is looked at";
            let problem = Problem::error("policy.unused", message)
                .hint("write mode = \"pinned\", or remove the rules");
            let problem = self.reader.at_key(problem, &found);
            self.reader.problem(problem);
        }
    }

    fn instructions(&mut self) -> Option<String> {
        self.refuse_both(&["instructions", "instructionsFile"]);
        let (text, found) = match self.reader.text(&["policies", self.name, "instructions"]) {
            Some(found) => (found.value.clone(), found),
            None => self.file("instructionsFile")?,
        };
        if text.len() > INSTRUCTIONS_BYTES_MAX {
            let problem = Problem::error("policy.too-long", "the instructions are too long")
                .hint("write at most 128KiB");
            self.refuse(problem, &found);
        }
        Some(text)
    }

    /// The text of a file, without the line break at its end.
    fn file(&mut self, key: &str) -> Option<(String, Found<'t, String>)> {
        let found = self.reader.text(&["policies", self.name, key])?;
        match (self.reader.inputs.read_secret_file)(&found.value) {
            Ok(text) if text.trim().is_empty() => {
                let problem = Problem::error("policy.file-empty", "the file is empty")
                    .hint("write into it, or remove the key");
                self.refuse(problem, &found);
                None
            }
            Ok(text) => Some((text.trim_end_matches(['\n', '\r']).to_owned(), found)),
            Err(reason) => {
                let message = format!("the file cannot be read: {}", cleaned(&reason));
                let problem = Problem::error("policy.file-unreadable", message)
                    .hint("check the path and that the relay's user may read it");
                self.refuse(problem, &found);
                None
            }
        }
    }

    fn tools(&mut self) -> Tools {
        self.refuse_both(&["tools", "toolsFile", "toolNames"]);
        if let Some(names) = self.list("toolNames") {
            return Tools::Named(names);
        }
        let given = match self.reader.text(&["policies", self.name, "tools"]) {
            Some(found) => Some((found.value.clone(), found)),
            None => self.file("toolsFile"),
        };
        let Some((text, found)) = given else {
            return Tools::Free;
        };
        match Json::objects(text) {
            Some(tools) => Tools::Fixed(tools),
            None => {
                let problem = Problem::error("policy.tools", "this is no JSON list of tools").hint(
                    "write it as the Realtime API takes it: '[{\"type\": \"function\", \"name\": …}]'",
                );
                self.refuse(problem, &found);
                Tools::Free
            }
        }
    }

    fn names(&mut self, one: &str, several: &str) -> Choice {
        self.refuse_both(&[one, several]);
        if let Some(names) = self.list(several) {
            return Choice::OneOf(names);
        }
        let only = self.reader.text(&["policies", self.name, one]);
        only.map_or(Choice::Free, |found| Choice::Fixed(found.value))
    }

    fn tokens(&mut self) -> TokensMax {
        let path = ["policies", self.name, "maxOutputTokens"];
        let is_locked = self.flag("lockMaxOutputTokens", false);
        if self.reader.found(&path).is_none() {
            if let Some(found) = self
                .reader
                .found(&["policies", self.name, "lockMaxOutputTokens"])
                && is_locked
            {
                let message = "there is no number to hold on to";
                let problem = Problem::error("policy.tokens-missing", message)
                    .hint("write maxOutputTokens as well");
                self.refuse(problem, &found);
            }
            return TokensMax::Free;
        }
        match (self.reader.amount(&path), is_locked) {
            (tokens, true) => TokensMax::Fixed(tokens),
            (tokens, false) => TokensMax::AtMost(tokens),
        }
    }

    fn servers(&mut self) -> McpServers {
        match self.list("mcpServers") {
            Some(servers) if servers.iter().any(|server| server == ANY) => McpServers::Any,
            Some(servers) => McpServers::Only(servers),
            None => McpServers::default(),
        }
    }

    fn events(&mut self) -> Events {
        let Some(events) = self.list("events") else {
            return Events::Default;
        };
        if events.iter().any(|event| event == ANY) {
            return Events::Any;
        }
        let mut only: Vec<String> = Vec::new();
        for event in events {
            match event.as_str() {
                DEFAULT => only.extend(DEFAULT_EVENTS.iter().map(|event| (*event).to_owned())),
                _ => only.push(event),
            }
        }
        Events::Only(only)
    }
}

fn is_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&name.len()) && name.bytes().all(legal) && !looks_secret(name)
}
