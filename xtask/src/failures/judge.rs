//! What must hold of every failure, whatever its snapshot says.

use serde_json::Value;

use super::observed::{Observed, Phase, Scenario, Told, Trap};

const CLIENTS: [&str; 3] = ["python", "node", "browser"];

/// "Normal", "going away", "no code" and "connection lost" (RFC 6455, section 7.4.1): none of them
/// tells an application that something is wrong and whether to try again.
const SAYS_NOTHING: [u16; 4] = [1000, 1001, 1005, 1006];

/// A scenario that fails to show a failure proves nothing; the issue asks for thirty.
const SCENARIOS_MIN: usize = 30;

/// What is wrong with what was seen of one scenario.
pub(crate) fn scenario(scenario: &Scenario, has_doctor: bool) -> Vec<String> {
    let mut problems = clients(scenario);
    for (client, lines) in &scenario.log {
        problems.extend(log(scenario, client, lines));
    }
    if has_doctor {
        problems.extend(doctor(scenario));
    }
    except_known(problems, scenario.fixme.as_deref())
}

/// Leaves out the complaint that is known; where there is none, says that.
fn except_known(mut problems: Vec<String>, fixme: Option<&str>) -> Vec<String> {
    let Some(fixme) = fixme else {
        return problems;
    };
    let found = problems.len();
    problems.retain(|problem| !problem.contains(fixme));
    if problems.len() == found {
        problems.push(format!("is repaired; remove its fixme: {fixme}"));
    }
    problems
}

fn clients(scenario: &Scenario) -> Vec<String> {
    let mut problems = Vec::new();
    for client in CLIENTS {
        match scenario.clients.get(client) {
            Some(told) => problems.extend(
                told_all(scenario, told)
                    .into_iter()
                    .map(|problem| format!("{client}: {problem}")),
            ),
            None => problems.push(format!("{client}: was told nothing")),
        }
    }
    let mut ends = scenario
        .clients
        .values()
        .map(|told| (told.code(), &told.closed));
    let first = ends.next();
    if ends.any(|end| Some(end) != first) {
        problems.push("the clients were not told the same".to_owned());
    }
    problems
}

/// Cause, fix and the upstream's own words, and an end that says that this is a failure.
fn told_all(scenario: &Scenario, told: &Told) -> Vec<String> {
    let mut problems = Vec::new();
    if !scenario.in_band {
        return problems;
    }
    if let Some(raised) = &told.raised {
        problems.push(format!("failed with {raised}"));
    }
    if told.code().is_none() {
        problems.push("no code names the cause".to_owned());
    }
    if !names_fix(told) && scenario.phase == Phase::Refused {
        problems.push("no message names the next step".to_owned());
    }
    if let Some(said) = &scenario.said
        && !told.messages().any(|message| message.contains(said))
    {
        problems.push(format!("the upstream's words are lost: {said}"));
    }
    match &told.closed {
        Some(closed) if scenario.closes == Some(closed.code) => {}
        Some(closed) if SAYS_NOTHING.contains(&closed.code) => {
            problems.push(format!("close code {} says nothing", closed.code));
        }
        Some(closed) if closed.reason.is_empty() => {
            problems.push("the close frame has no reason".to_owned());
        }
        None if scenario.until.is_none() => problems.push("the session did not end".to_owned()),
        Some(_) | None => {}
    }
    problems
}

fn names_fix(told: &Told) -> bool {
    told.messages().any(|message| {
        message
            .split_once("Next step: ")
            .is_some_and(|(_, step)| !step.trim().is_empty())
    })
}

/// One line for the end of each session, which names the cause that the client was told; and a fix,
/// there or in a line before it.
fn log(scenario: &Scenario, client: &str, lines: &[Value]) -> Vec<String> {
    let ends: Vec<&Value> = lines.iter().filter(|line| is_end(line)).collect();
    let [end] = ends.as_slice() else {
        return vec![format!(
            "log: {} lines for the end of {client}'s session",
            ends.len()
        )];
    };
    if !scenario.in_band {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let told = scenario.clients.get(client);
    if scenario.phase == Phase::Refused && end["code"].as_str() != told.and_then(Told::code) {
        problems.push(format!("log: another code than {client} was told"));
    }
    let has_next_step = |line: &Value| {
        line["next_step"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    };
    // Of a session that had begun, one of the two is enough: the upstream's own events go to the
    // client as they came.
    let told_fix = scenario.phase == Phase::Session && told.is_some_and(names_fix);
    if !told_fix && !lines.iter().any(has_next_step) {
        problems.push(format!("log: no next step for {client}"));
    }
    problems
}

fn is_end(line: &Value) -> bool {
    matches!(
        line["message"].as_str(),
        Some("session ended" | "session refused")
    )
}

/// Where the configuration or the way is at fault, `doctor` says so and how to repair it.
fn doctor(scenario: &Scenario) -> Option<String> {
    let doctor = scenario.doctor.as_ref()?;
    if scenario.phase == Phase::Session {
        return None;
    }
    let mut errors = doctor.errors().peekable();
    if errors.peek().is_none() || doctor.exit == 0 {
        return Some(format!("doctor finds nothing wrong (exit {})", doctor.exit));
    }
    let has_fix = |finding: &Value| {
        finding["fixHint"]
            .as_str()
            .is_some_and(|hint| !hint.is_empty())
    };
    (!errors.any(has_fix)).then(|| "doctor names no fix".to_owned())
}

/// What is wrong with the run as a whole.
pub(crate) fn whole(observed: &Observed) -> Vec<String> {
    let mut problems: Vec<String> = observed
        .missing
        .iter()
        .map(|name| format!("none shows {name}"))
        .collect();
    if observed.scenarios.len() < SCENARIOS_MIN {
        problems.push(format!("only {}", observed.scenarios.len()));
    }
    if !observed.key_was_used {
        problems.push("the key whose leaks are looked for never reached the simulator".to_owned());
    }
    problems
}

/// Nothing for OpenAI, nothing beyond loopback at all, and a trap that does see.
pub(crate) fn trap(trap: &Trap) -> Vec<String> {
    let mut problems = Vec::new();
    let during = &trap.during;
    if during.queries_for_openai() > 0 {
        problems.push(format!("was looked up: {:?}", during.queries));
    }
    if during.connections() > 0 {
        problems.push(format!(
            "connections left loopback: {:?}",
            during.connections
        ));
    }
    if during.packets_missed > 0 {
        problems.push(format!("{} packets were not seen", during.packets_missed));
    }
    let caught = &trap.control;
    if caught.queries_for_openai() == 0 || caught.connections_to_openai() == 0 {
        problems.push("does not catch a session with OpenAI".to_owned());
    }
    problems
}

#[cfg(test)]
mod tests;
