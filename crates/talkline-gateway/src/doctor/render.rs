//! The report for people: one line a check with its time, then the findings with their remedies.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Map, Value};

use super::{
    Check,
    report::{CheckResult, DoctorReport, Finding, Outcome, Severity},
};

/// Columns of the waterfall.
const WATERFALL_COLUMNS: usize = 24;
/// Characters of evidence in a check's line.
const EVIDENCE_CHARS_MAX: usize = 90;

/// How the report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// With ANSI colours.
    pub colour: bool,
    /// With bars that show when each check ran.
    pub waterfall: bool,
}

impl DoctorReport {
    /// The text to show to a person.
    pub fn render(&self, style: Style) -> String {
        let mut text = String::new();
        let shown = |result: &&CheckResult| !matches!(&result.outcome, Outcome::Skipped(reason) if reason == "not asked for");
        let results: Vec<_> = self.checks.iter().filter(shown).collect();
        let of_the_relay = results.iter().filter(|result| result.provider.is_none());
        of_the_relay.for_each(|result| self.line(&mut text, result, style));
        let mut providers: Vec<_> = results
            .iter()
            .filter_map(|result| result.provider.as_deref())
            .collect();
        providers.sort_unstable();
        providers.dedup();
        for provider in providers {
            let _ = writeln!(text, "\n{provider}");
            for result in results
                .iter()
                .filter(|result| result.provider.as_deref() == Some(provider))
            {
                self.line(&mut text, result, style);
            }
        }
        for finding in &self.findings {
            finding.render(&mut text, style);
        }
        let run = results
            .iter()
            .filter(|result| !matches!(result.outcome, Outcome::Skipped(_)))
            .count();
        let count = |severity| {
            self.findings
                .iter()
                .filter(|finding| finding.severity == severity)
                .count()
        };
        let _ = writeln!(
            text,
            "\n{run} checks in {}: {} errors, {} warnings, {} hints",
            time(self.took),
            count(Severity::Error),
            count(Severity::Warning),
            count(Severity::Info)
        );
        text
    }

    fn line(&self, text: &mut String, result: &CheckResult, style: Style) {
        let (word, colour) = match &result.outcome {
            Outcome::Passed => ("ok", GREEN),
            Outcome::Found(Severity::Error) => ("FAIL", RED),
            Outcome::Found(_) => ("warn", YELLOW),
            Outcome::Skipped(_) => ("skip", GREY),
        };
        let word = painted(&format!("{word:<4}"), colour, style);
        let _ = write!(text, "  {word}  {:<24}", result.check.id());
        if let Outcome::Skipped(reason) = &result.outcome {
            let _ = writeln!(text, " {:>9} {reason}", "");
            return;
        }
        let _ = write!(text, " {:>9}", time(result.took));
        if style.waterfall {
            let _ = write!(text, " {}", self.bar(result));
        }
        let _ = writeln!(text, "  {}", evidence(result.check, &result.evidence));
    }

    /// Where in the run the check lies.
    fn bar(&self, result: &CheckResult) -> String {
        let whole = self.took.as_secs_f64().max(f64::MIN_POSITIVE);
        let column = |at: Duration| {
            let share = (at.as_secs_f64() / whole).clamp(0.0, 1.0);
            (share * WATERFALL_COLUMNS as f64) as usize
        };
        let start = column(result.started).min(WATERFALL_COLUMNS - 1);
        let end = column(result.started + result.took).clamp(start + 1, WATERFALL_COLUMNS);
        format!(
            "│{:start$}{}{:rest$}│",
            "",
            "█".repeat(end - start),
            "",
            rest = WATERFALL_COLUMNS - end
        )
    }
}

impl Finding {
    fn render(&self, text: &mut String, style: Style) {
        let colour = match self.severity {
            Severity::Error => RED,
            Severity::Warning => YELLOW,
            Severity::Info => GREY,
        };
        let head = painted(
            &format!("{}[{}]", self.severity.as_str(), self.code),
            colour,
            style,
        );
        let _ = writeln!(
            text,
            "\n{head} {}: {}",
            self.check.id(),
            printable(&self.message)
        );
        if let Some(path) = &self.path {
            let _ = writeln!(text, "  key:  {}", printable(path));
        }
        if let Some(hint) = &self.fix_hint {
            let _ = writeln!(text, "  fix:  {}", printable(hint));
        }
        let upstream: Vec<_> = [
            ("upstreamCode", "code"),
            ("upstreamMessage", "message"),
            ("requestId", "request id"),
            ("region", "region"),
        ]
        .into_iter()
        .filter_map(|(name, word)| Some(format!("{word} {}", self.evidence.get(name)?.as_str()?)))
        .collect();
        if !upstream.is_empty() {
            let _ = writeln!(text, "  said: {}", printable(&upstream.join(", ")));
        }
        let _ = writeln!(text, "  docs: {}", self.docs_url);
    }
}

/// The parts of the evidence that fit in a line.
fn evidence(check: Check, evidence: &Map<String, Value>) -> String {
    let mut parts = Vec::new();
    for (name, value) in evidence {
        match (check, value) {
            (Check::Dns, Value::Array(addresses)) => {
                parts.extend(addresses.iter().filter_map(|address| {
                    Some(format!(
                        "{} ({})",
                        address["address"].as_str()?,
                        address["kind"].as_str()?
                    ))
                }));
            }
            (Check::Secrets, Value::Object(key)) => {
                let print = key
                    .get("fingerprint")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                parts.push(format!("{name} {print}"));
            }
            (Check::Alternatives, Value::Array(tried)) => {
                parts.extend(tried.iter().filter_map(|attempt| {
                    Some(format!(
                        "{}: {}",
                        attempt["tried"].as_str()?,
                        attempt["outcome"].as_str()?
                    ))
                }));
            }
            (_, Value::String(text)) => parts.push(format!("{name} {text}")),
            (_, Value::Number(number)) => parts.push(format!("{name} {number}")),
            (_, Value::Bool(yes)) => {
                parts.push(format!("{name} {}", if *yes { "yes" } else { "no" }))
            }
            (_, Value::Null | Value::Array(_) | Value::Object(_)) => {}
        }
    }
    let text = printable(&parts.join(", "));
    if text.chars().count() <= EVIDENCE_CHARS_MAX {
        return text;
    }
    text.chars()
        .take(EVIDENCE_CHARS_MAX - 1)
        .chain(['…'])
        .collect()
}

fn time(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
    } else {
        format!("{:.2} s", duration.as_secs_f64())
    }
}

const RED: u8 = 31;
const GREEN: u8 = 32;
const YELLOW: u8 = 33;
const GREY: u8 = 90;

fn painted(text: &str, colour: u8, style: Style) -> String {
    if style.colour {
        format!("\u{1b}[{colour}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// Without what would move a terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(style: Style, expected: &str) {
        let result = |check, provider: Option<&str>, outcome, started, took| CheckResult {
            check,
            provider: provider.map(str::to_owned),
            outcome,
            started: Duration::from_millis(started),
            took: Duration::from_millis(took),
            evidence: Map::from_iter([("status".to_owned(), Value::from(401))]),
        };
        let needs = Outcome::Skipped("needs upstream.upgrade, which failed".into());
        let report = DoctorReport {
            checks: vec![
                result(Check::Config, None, Outcome::Passed, 0, 0),
                result(
                    Check::Upgrade,
                    Some("azure"),
                    Outcome::Found(Severity::Error),
                    50,
                    50,
                ),
                result(Check::Session, Some("azure"), needs, 100, 0),
                result(
                    Check::Turn,
                    None,
                    Outcome::Skipped("not asked for".into()),
                    100,
                    0,
                ),
            ],
            findings: vec![
                Finding::new(
                    Check::Upgrade,
                    Severity::Error,
                    "azure_key_invalid",
                    "no\u{1b}[2J",
                )
                .path("talk.realtime.providers.azure.apiKey")
                .fix("another key"),
            ],
            took: Duration::from_millis(100),
        };
        assert_eq!(report.render(style), expected);
    }

    #[test]
    fn for_a_pipe_and_for_a_terminal() {
        let style = Style {
            colour: false,
            waterfall: false,
        };
        check(
            style,
            "\
\x20 ok    config                      0.0 ms  status 401

azure
  FAIL  upstream.upgrade           50.0 ms  status 401
  skip  upstream.session                   needs upstream.upgrade, which failed

error[azure_key_invalid] upstream.upgrade: no[2J
  key:  talk.realtime.providers.azure.apiKey
  fix:  another key
  docs: docs/reference/doctor.md#upstreamupgrade

2 checks in 100.0 ms: 1 errors, 0 warnings, 0 hints
",
        );
        let style = Style {
            colour: true,
            waterfall: true,
        };
        check(
            style,
            "  \u{1b}[32mok  \u{1b}[0m  config                      0.0 ms │█                       │  status 401\n\n\
             azure\n  \u{1b}[31mFAIL\u{1b}[0m  upstream.upgrade           50.0 ms │            ████████████│  status 401\n  \
             \u{1b}[90mskip\u{1b}[0m  upstream.session                   needs upstream.upgrade, which failed\n\n\
             \u{1b}[31merror[azure_key_invalid]\u{1b}[0m upstream.upgrade: no[2J\n  key:  talk.realtime.providers.azure.apiKey\n  \
             fix:  another key\n  docs: docs/reference/doctor.md#upstreamupgrade\n\n\
             2 checks in 100.0 ms: 1 errors, 0 warnings, 0 hints\n",
        );
    }
}
