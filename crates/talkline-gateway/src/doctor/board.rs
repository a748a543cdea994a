//! Where the results of checks come together, whoever runs them.

use std::{
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::{
    Check, Selection,
    report::{CheckResult, DoctorReport, Finding, Outcome, Severity},
};

/// What goes on while the doctor works.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// A check starts, of this provider's upstream or of the relay.
    Started(Check, Option<&'a str>),
    /// A check ended.
    Ended(Check, Option<&'a str>, &'a Outcome),
}

/// What a check came to. `value` is what later checks build on: without one they do not run.
pub(super) struct Probe<T> {
    pub(super) value: Option<T>,
    pub(super) evidence: Map<String, Value>,
    pub(super) findings: Vec<Finding>,
    /// Why there was nothing to check.
    pub(super) skipped: Option<String>,
}

impl<T> Probe<T> {
    pub(super) fn passed(value: T) -> Self {
        Self {
            value: Some(value),
            evidence: Map::new(),
            findings: Vec::new(),
            skipped: None,
        }
    }

    pub(super) fn failed(finding: Finding) -> Self {
        Self {
            value: None,
            evidence: Map::new(),
            findings: vec![finding],
            skipped: None,
        }
    }

    /// Nothing to check, and nothing that keeps later checks from running.
    pub(super) fn skipped(value: T, reason: impl Into<String>) -> Self {
        Self {
            skipped: Some(reason.into()),
            ..Self::passed(value)
        }
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.evidence.insert(name.to_owned(), value.into());
        self
    }

    pub(super) fn finding(mut self, finding: Finding) -> Self {
        self.findings.push(finding);
        self
    }
}

/// Results so far, and what is asked for.
pub(super) struct Board<'a> {
    selection: &'a Selection,
    progress: &'a (dyn Fn(Progress<'_>) + Sync),
    started: Instant,
    deadline: Instant,
    report: Mutex<DoctorReport>,
}

impl<'a> Board<'a> {
    pub(super) fn new(
        selection: &'a Selection,
        progress: &'a (dyn Fn(Progress<'_>) + Sync),
        deadline: Instant,
    ) -> Self {
        Self {
            selection,
            progress,
            started: Instant::now(),
            deadline,
            report: Mutex::default(),
        }
    }

    /// When the run has to be over.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Runs a check if it is wanted, until the run's deadline at the latest.
    pub(super) async fn check<T>(
        &self,
        check: Check,
        provider: Option<&str>,
        probe: impl Future<Output = Probe<T>>,
    ) -> Option<T> {
        self.check_until(self.deadline, check, provider, probe)
            .await
    }

    /// The same with a deadline of its own.
    pub(super) async fn check_until<T>(
        &self,
        deadline: Instant,
        check: Check,
        provider: Option<&str>,
        probe: impl Future<Output = Probe<T>>,
    ) -> Option<T> {
        if !self.selection.contains(check) {
            return None;
        }
        (self.progress)(Progress::Started(check, provider));
        let started = Instant::now();
        let probe = timeout_at(deadline, probe).await.unwrap_or_else(|_| {
            let message = "the check did not end in the time that the doctor has";
            Probe::failed(
                Finding::new(check, Severity::Error, "too_slow", message)
                    .fix("run it again with --only, or look at the checks that took longest"),
            )
        });
        self.record(check, provider, started, probe)
    }

    /// Notes a check that takes no time.
    pub(super) fn note<T>(
        &self,
        check: Check,
        provider: Option<&str>,
        probe: impl FnOnce() -> Probe<T>,
    ) -> Option<T> {
        if !self.selection.contains(check) {
            return None;
        }
        let started = Instant::now();
        self.record(check, provider, started, probe())
    }

    fn record<T>(
        &self,
        check: Check,
        provider: Option<&str>,
        started: Instant,
        probe: Probe<T>,
    ) -> Option<T> {
        let worst = probe.findings.iter().map(|finding| finding.severity).max();
        let outcome = match (probe.skipped, worst) {
            (Some(reason), _) => Outcome::Skipped(reason),
            (None, None | Some(Severity::Info)) => Outcome::Passed,
            (None, Some(worst)) => Outcome::Found(worst),
        };
        (self.progress)(Progress::Ended(check, provider, &outcome));
        let mut report = self.report();
        report
            .findings
            .extend(probe.findings.into_iter().map(|mut finding| {
                if let Some(provider) = provider {
                    finding.evidence.insert("provider".into(), provider.into());
                }
                for (name, value) in &probe.evidence {
                    finding
                        .evidence
                        .entry(name.clone())
                        .or_insert_with(|| value.clone());
                }
                finding
            }));
        report.checks.push(CheckResult {
            check,
            provider: provider.map(str::to_owned),
            outcome,
            started: started - self.started,
            took: started.elapsed(),
            evidence: probe.evidence,
        });
        probe.value
    }

    /// Whether a check of the provider's upstream ran and found nothing that ends sessions.
    pub(super) fn passed(&self, check: Check, provider: &str) -> bool {
        matches!(
            self.report().outcome(check, Some(provider)),
            Some(Outcome::Passed | Outcome::Found(Severity::Warning))
        )
    }

    /// Everything in order, with the reasons of what did not run.
    pub(super) fn finish(&self, providers: &[&str]) -> DoctorReport {
        let took = self.started.elapsed();
        let mut report = std::mem::take(&mut *self.report());
        for check in Check::ALL {
            let lines: Vec<Option<&str>> = match is_of_an_upstream(check) {
                true if !providers.is_empty() => providers.iter().copied().map(Some).collect(),
                _ => vec![None],
            };
            for provider in lines {
                if report.outcome(check, provider).is_none() {
                    let reason = if self.selection.contains(check) {
                        missing_need(&report, check, provider)
                    } else {
                        "not asked for".to_owned()
                    };
                    report.checks.push(CheckResult {
                        check,
                        provider: provider.map(str::to_owned),
                        outcome: Outcome::Skipped(reason),
                        started: took,
                        took: Duration::ZERO,
                        evidence: Map::new(),
                    });
                }
            }
        }
        report
            .checks
            .sort_by(|one, other| (one.check, &one.provider).cmp(&(other.check, &other.provider)));
        let provider = |finding: &Finding| finding.evidence.get("provider").map(Value::to_string);
        report
            .findings
            .sort_by_key(|finding| (finding.check, provider(finding)));
        report.took = took;
        report
    }

    fn report(&self) -> MutexGuard<'_, DoctorReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DoctorReport {
    /// How a check of a provider's upstream ended, or of the relay. Without a provider, that of
    /// the first one.
    fn outcome(&self, check: Check, provider: Option<&str>) -> Option<&Outcome> {
        self.checks
            .iter()
            .find(|result| {
                result.check == check
                    && (result.provider.is_none()
                        || provider.is_none()
                        || result.provider.as_deref() == provider)
            })
            .map(|result| &result.outcome)
    }
}

fn is_of_an_upstream(check: Check) -> bool {
    check == Check::Clock || check.id().starts_with("upstream.")
}

/// Which of a check's needs kept it from running, and why.
fn missing_need(report: &DoctorReport, check: Check, provider: Option<&str>) -> String {
    for need in check.needs() {
        match report.outcome(*need, provider) {
            Some(Outcome::Found(Severity::Error)) => return format!("needs {need}, which failed"),
            Some(Outcome::Skipped(reason)) if reason == "not asked for" => {
                return format!("needs {need}, which was left out");
            }
            Some(Outcome::Skipped(_)) | None => return format!("needs {need}, which did not run"),
            Some(Outcome::Passed | Outcome::Found(_)) => {}
        }
    }
    "there was nothing to look at".to_owned()
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_run_ends_at_its_deadline() {
        let selection = Selection::default();
        let told = Mutex::new(Vec::new());
        let progress = |progress: Progress<'_>| {
            let line = match progress {
                Progress::Started(check, _) => format!("{check} starts"),
                Progress::Ended(check, _, outcome) => format!("{check} {}", outcome.as_str()),
            };
            told.lock().unwrap().push(line);
        };
        let deadline = Duration::from_secs(10);
        let board = Board::new(&selection, &progress, Instant::now() + deadline);
        board.note(Check::Config, None, || Probe::passed(()));
        let never = board.check(Check::Dns, Some("azure"), pending::<Probe<()>>());
        assert_eq!(never.await, None);
        let not_asked = board.check(Check::Turn, None, pending::<Probe<()>>());
        assert_eq!(not_asked.await, None);

        let report = board.finish(&["azure"]);
        assert_eq!(report.took, deadline);
        assert_eq!(report.findings[0].code, "too_slow");
        assert_eq!(report.findings[0].evidence["provider"], "azure");
        assert_eq!(report.checks.len(), Check::ALL.len());
        assert_eq!(
            report.outcome(Check::Tcp, Some("azure")),
            Some(&Outcome::Skipped("needs upstream.dns, which failed".into()))
        );
        let told = told.into_inner().unwrap();
        assert_eq!(
            told,
            ["config passed", "upstream.dns starts", "upstream.dns found"]
        );
    }
}
