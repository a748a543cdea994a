use serde_json::json;

use super::*;
use crate::failures::observed::{Caught, Closed, Doctor};

fn told(message: &str, close: u16) -> Told {
    Told {
        errors: vec![json!({"code": "azure_x", "message": message})],
        closed: Some(Closed {
            code: close,
            reason: "azure_x".to_owned(),
        }),
        ..Told::default()
    }
}

/// A refusal that is as it should be.
fn refused() -> Scenario {
    let line = json!({"message": "session refused", "code": "azure_x", "next_step": "Do."});
    Scenario {
        in_band: true,
        said: Some("no entry".to_owned()),
        clients: CLIENTS
            .map(|client| {
                (
                    client.to_owned(),
                    told("It said: no entry. Next step: Do.", 1008),
                )
            })
            .into(),
        log: CLIENTS
            .map(|client| (client.to_owned(), vec![line.clone()]))
            .into(),
        ..Scenario::default()
    }
}

#[track_caller]
fn check(change: impl FnOnce(&mut Scenario), expected: &str) {
    let mut changed = refused();
    change(&mut changed);
    let problems = scenario(&changed, true).join("; ");
    assert!(
        problems.contains(expected) && problems.is_empty() == expected.is_empty(),
        "{problems}"
    );
}

fn node(scenario: &mut Scenario) -> &mut Told {
    scenario.clients.get_mut("node").unwrap()
}

#[test]
fn a_failure_names_cause_and_fix_in_the_client() {
    check(|_| {}, "");
    check(|it| node(it).errors[0]["code"] = json!(""), "node: no code");
    check(
        |it| *node(it) = told("no entry", 1008),
        "node: no message names the next step",
    );
    check(
        |it| *node(it) = told("no entry. Next step: ", 1008),
        "names the next step",
    );
    check(
        |it| *node(it) = told("Next step: Do.", 1008),
        "words are lost: no entry",
    );
    check(
        |it| node(it).raised = Some("E".to_owned()),
        "node: failed with E",
    );
    check(
        |it| drop(it.clients.remove("browser")),
        "browser: was told nothing",
    );
}

#[test]
fn a_failure_never_ends_like_a_success() {
    for code in SAYS_NOTHING {
        check(
            |it| node(it).closed.as_mut().unwrap().code = code,
            "says nothing",
        );
    }
    check(
        |it| node(it).closed.as_mut().unwrap().code = 1011,
        "not told the same",
    );
    check(
        |it| node(it).closed.as_mut().unwrap().reason.clear(),
        "has no reason",
    );
    check(|it| node(it).closed = None, "did not end");
    check(
        |it| {
            it.until = Some("error".to_owned());
            it.clients.values_mut().for_each(|told| told.closed = None);
        },
        "",
    );
}

#[test]
fn the_log_says_the_same_once() {
    let line = |scenario: &mut Scenario| scenario.log.get_mut("node").unwrap().pop().unwrap();
    check(|it| drop(line(it)), "log: 0 lines for the end of node");
    check(
        |it| {
            let lines = it.log.get_mut("node").unwrap();
            let next_step = lines[0]["next_step"].take();
            lines.insert(0, json!({"message": "before", "next_step": next_step}));
        },
        "",
    );
    let put = |it: &mut Scenario, field: &str, value: &str| {
        it.log.get_mut("node").unwrap()[0][field] = json!(value);
    };
    check(
        |it| put(it, "code", "other"),
        "log: another code than node was told",
    );
    check(|it| put(it, "next_step", ""), "log: no next step for node");
}

#[test]
fn doctor_finds_it_and_knows_what_to_do() {
    let doctor = |exit, finding| {
        move |it: &mut Scenario| {
            it.doctor = Some(Doctor {
                exit,
                findings: vec![finding],
            });
        }
    };
    check(
        doctor(1, json!({"severity": "error", "fixHint": "Do."})),
        "",
    );
    check(
        doctor(1, json!({"severity": "error"})),
        "doctor names no fix",
    );
    check(
        doctor(1, json!({"severity": "warning"})),
        "doctor finds nothing wrong",
    );
    check(
        doctor(0, json!({"severity": "error"})),
        "doctor finds nothing wrong",
    );
}

#[test]
fn a_fixme_is_removed_when_it_is_repaired() {
    let fixme = Some("did not end".to_owned());
    check(|it| it.fixme.clone_from(&fixme), "is repaired");
    let end = |it: &mut Scenario| it.clients.values_mut().for_each(|told| told.closed = None);
    check(
        |it| {
            it.fixme.clone_from(&fixme);
            end(it);
        },
        "",
    );
    check(
        |it| {
            it.fixme.clone_from(&fixme);
            end(it);
            node(it).raised = Some("E".to_owned());
        },
        "node: failed with E",
    );
}

#[test]
fn the_trap_sees_and_saw_nothing() {
    let caught = |name: &str, address: &str| Caught {
        queries: [(name.to_owned(), 1)].into(),
        connections: match address {
            "" => [].into(),
            _ => [(address.to_owned(), 1)].into(),
        },
        packets_missed: 0,
    };
    let control = || caught("api.openai.com", "198.51.100.7:443");
    let check = |during: Caught, control: Caught, expected: &str| {
        let problems = trap(&Trap { during, control }).join("; ");
        assert!(
            problems.contains(expected) && problems.is_empty() == expected.is_empty(),
            "{problems}"
        );
    };
    check(caught("x.invalid", ""), control(), "");
    check(caught("api.openai.com", ""), control(), "was looked up");
    check(caught("eu.api.openai.com", ""), control(), "was looked up");
    check(
        caught("x.invalid", "8.8.8.8:53/udp"),
        control(),
        "left loopback",
    );
    check(
        caught("x.invalid", ""),
        caught("api.openai.com", ""),
        "does not catch",
    );
    let missed = Caught {
        packets_missed: 1,
        ..Caught::default()
    };
    check(missed, control(), "packets were not seen");
}
