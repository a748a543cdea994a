//! What the doctor found: outcomes with their evidence, findings with their remedy.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Check;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Works, but probably not as meant, or not for long.
    Warning,
    /// Sessions fail.
    Error,
}

impl Severity {
    /// The severity as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// Something that is wrong, with its remedy. Holds no secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The check that found it.
    pub check: Check,
    /// Stable identifier of what was found, such as `azure_key_invalid` or `key.unknown`.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub message: String,
    /// The configuration key that it is about.
    pub path: Option<String>,
    /// What to do.
    pub fix_hint: Option<String>,
    /// What it was concluded from.
    pub evidence: Map<String, Value>,
    /// Where it is documented.
    pub docs_url: String,
}

impl Finding {
    pub(crate) fn new(
        check: Check,
        severity: Severity,
        code: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            check,
            code: code.into(),
            severity,
            message: message.into(),
            path: None,
            fix_hint: None,
            evidence: Map::new(),
            docs_url: check.docs_url(),
        }
    }

    pub(crate) fn fix(mut self, hint: impl Into<String>) -> Self {
        self.fix_hint = Some(hint.into());
        self
    }

    pub(crate) fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    fn to_json(&self) -> Value {
        json!({
            "checkId": self.check.id(),
            "code": self.code,
            "severity": self.severity.as_str(),
            "message": self.message,
            "path": self.path,
            "fixHint": self.fix_hint,
            "evidence": self.evidence,
            "docsUrl": self.docs_url,
        })
    }
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is wrong, or nothing worse than [`Severity::Info`].
    Passed,
    /// There are findings; this is the worst of them.
    Found(Severity),
    /// It did not run, for this reason.
    Skipped(String),
}

impl Outcome {
    /// The outcome as a word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Found(_) => "found",
            Outcome::Skipped(_) => "skipped",
        }
    }
}

/// One check of one upstream, or of the relay as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckResult {
    /// Which check.
    pub check: Check,
    /// The id of the provider in the configuration, for checks of an upstream.
    pub provider: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// From the start of the run to the start of the check.
    pub started: Duration,
    /// How long it took.
    pub took: Duration,
    /// What was seen, whether or not something is wrong.
    pub evidence: Map<String, Value>,
}

/// Everything the doctor saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DoctorReport {
    /// Every check, run or skipped, in the order of the list and then of the providers' ids.
    pub checks: Vec<CheckResult>,
    /// Every finding, in the same order.
    pub findings: Vec<Finding>,
    /// How long the whole took.
    pub took: Duration,
}

impl DoctorReport {
    /// Whether there is a finding of this severity or a worse one.
    pub fn has_findings(&self, severity_min: Severity) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.severity >= severity_min)
    }

    /// The report under the field names of OpenClaw's `doctor --json`, with `evidence`, `docsUrl`
    /// and the outcomes beside them. `ok` means no finding of `severity_min` or above.
    pub fn to_json(&self, severity_min: Severity) -> Value {
        let (run, skipped): (Vec<_>, Vec<_>) = Check::ALL
            .into_iter()
            .filter(|check| self.checks.iter().any(|result| result.check == *check))
            .partition(|check| {
                self.checks.iter().any(|result| {
                    result.check == *check && !matches!(result.outcome, Outcome::Skipped(_))
                })
            });
        let ids = |checks: Vec<Check>| checks.into_iter().map(Check::id).collect::<Vec<_>>();
        json!({
            "schemaVersion": 1,
            "ok": !self.has_findings(severity_min),
            "checksRun": ids(run),
            "checksSkipped": ids(skipped),
            "findings": self.findings.iter().map(Finding::to_json).collect::<Vec<_>>(),
            "checks": self.checks.iter().map(CheckResult::to_json).collect::<Vec<_>>(),
            "durationMs": millis(self.took),
        })
    }

    /// Removes what `scrub` removes from every text that came from elsewhere.
    pub(crate) fn scrub(&mut self, scrub: &dyn Fn(&str) -> String) {
        for result in &mut self.checks {
            scrub_map(&mut result.evidence, scrub);
        }
        for finding in &mut self.findings {
            finding.message = scrub(&finding.message);
            finding.fix_hint = finding.fix_hint.as_deref().map(scrub);
            scrub_map(&mut finding.evidence, scrub);
        }
    }
}

impl CheckResult {
    fn to_json(&self) -> Value {
        let reason = match &self.outcome {
            Outcome::Skipped(reason) => Some(reason),
            Outcome::Passed | Outcome::Found(_) => None,
        };
        json!({
            "checkId": self.check.id(),
            "provider": self.provider,
            "outcome": self.outcome.as_str(),
            "reason": reason,
            "startedMs": millis(self.started),
            "durationMs": millis(self.took),
            "evidence": self.evidence,
        })
    }
}

/// Milliseconds with one decimal.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}

fn scrub_map(map: &mut Map<String, Value>, scrub: &dyn Fn(&str) -> String) {
    map.values_mut().for_each(|value| scrub_value(value, scrub));
}

fn scrub_value(value: &mut Value, scrub: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = scrub(text),
        Value::Array(items) => items.iter_mut().for_each(|item| scrub_value(item, scrub)),
        Value::Object(map) => scrub_map(map, scrub),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
