//! What the stage writes down: `observed.json`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

const OPENAI: &str = "api.openai.com";
/// The address that the stage's name server gives for OpenAI's API.
const OPENAI_ADDRESS: &str = "198.51.100.7:";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Observed {
    pub(crate) scenarios: Vec<Scenario>,
    /// What the simulator can do wrong and no scenario shows.
    pub(crate) missing: Vec<String>,
    /// Where a secret was printed.
    pub(crate) leaks: Vec<String>,
    /// Whether the simulator saw the key that must not leak.
    pub(crate) key_was_used: bool,
    pub(crate) has_doctor: bool,
    pub(crate) trap: Option<Trap>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) story: String,
    pub(crate) phase: Phase,
    /// What must come through of the upstream's own words.
    pub(crate) said: Option<String>,
    /// The event at which the client hangs up.
    pub(crate) until: Option<String>,
    /// Whether the relay has a way of saying anything.
    pub(crate) in_band: bool,
    /// The upstream's own close code, which is passed on.
    pub(crate) closes: Option<u16>,
    /// A piece of the one complaint that is known.
    pub(crate) fixme: Option<String>,
    pub(crate) seconds: f64,
    /// By `python`, `node`, `browser`.
    pub(crate) clients: BTreeMap<String, Told>,
    /// Log lines on the session of each client.
    pub(crate) log: BTreeMap<String, Vec<Value>>,
    pub(crate) doctor: Option<Doctor>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// There was no session.
    #[default]
    Refused,
    /// It went wrong after the 101.
    Session,
}

/// What one client was told.
#[derive(Clone, Default, Deserialize)]
pub(crate) struct Told {
    /// The `error` object of each error event.
    pub(crate) errors: Vec<Value>,
    /// Status and details of each reply that ended.
    pub(crate) responses: Vec<Value>,
    /// `None` when the client ended the session itself.
    pub(crate) closed: Option<Closed>,
    /// What the client failed with, beside the close.
    pub(crate) raised: Option<String>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

impl Told {
    /// The code of what went wrong, of an error event or else of a failed reply.
    pub(crate) fn code(&self) -> Option<&str> {
        let of_event = self.errors.first().map(|error| &error["code"]);
        let details = self.responses.first().map(|response| &response["details"]);
        let of_reply = details.map(|details| &details["error"]["code"]);
        let reason = details.map(|details| &details["reason"]);
        [of_event, of_reply, reason]
            .into_iter()
            .flatten()
            .find_map(Value::as_str)
            .filter(|code| !code.is_empty())
    }

    /// Every message that an application could show.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &str> {
        let of_events = self.errors.iter().map(|error| &error["message"]);
        let of_replies = self
            .responses
            .iter()
            .map(|response| &response["details"]["error"]["message"]);
        of_events.chain(of_replies).filter_map(Value::as_str)
    }
}

#[derive(Clone, Default, Deserialize)]
pub(crate) struct Doctor {
    pub(crate) exit: i32,
    pub(crate) findings: Vec<Value>,
}

impl Doctor {
    pub(crate) fn errors(&self) -> impl Iterator<Item = &Value> {
        self.findings
            .iter()
            .filter(|finding| finding["severity"] == "error")
    }

    /// The id of the first error, or else of the first finding.
    pub(crate) fn finding(&self) -> Option<&str> {
        let first = self.errors().next().or(self.findings.first())?;
        first["checkId"].as_str()
    }
}

/// What went beyond loopback.
#[derive(Deserialize)]
pub(crate) struct Trap {
    /// While the scenarios were played.
    pub(crate) during: Caught,
    /// After a session with OpenAI configured, which the trap has to see.
    pub(crate) control: Caught,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Caught {
    /// How often each name was looked up.
    pub(crate) queries: BTreeMap<String, u64>,
    /// How often each `address:port` was connected to.
    pub(crate) connections: BTreeMap<String, u64>,
    /// Packets that went by unseen.
    pub(crate) packets_missed: u64,
}

impl Caught {
    pub(crate) fn queries_for_openai(&self) -> u64 {
        let of_openai = |name: &&String| name.ends_with(OPENAI);
        let names = self.queries.keys().filter(of_openai);
        names.map(|name| self.queries[name]).sum()
    }

    pub(crate) fn connections_to_openai(&self) -> u64 {
        let to_openai = self.connections.iter();
        to_openai
            .filter(|(address, _)| address.starts_with(OPENAI_ADDRESS))
            .map(|(_, count)| count)
            .sum()
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.values().sum()
    }
}
