//! The live probes of `talkline doctor`: goes the way of a session step by step and says where it ends.
//!
//! Every probe takes host, path and credential from the same [`UpstreamRequest`] that the relay
//! dials, over the same dialler, so that what works here works there. The credential leaves for
//! nowhere else: one probe carries none, and the alternatives that are tried after a refusal stay
//! with the same resource name under a suffix of Azure (see
//! [`Credential::siblings`](talkline_auth::Credential::siblings)).
//!
//! ```no_run
//! # async fn diagnose(resolved: talkline_config::Resolved) {
//! use talkline_gateway::doctor::{Doctor, DoctorOptions, Selection, Severity};
//!
//! let doctor = Doctor::new(Ok(resolved), DoctorOptions::default());
//! let report = doctor.run(&Selection::default(), &|_| {}).await;
//! let clean = !report.has_findings(Severity::Warning);
//! # drop(clean);
//! # }
//! ```
//!
//! [`UpstreamRequest`]: talkline_dialect::UpstreamRequest

mod alternatives;
mod board;
mod catalogue;
mod certificate;
mod claims;
mod line;
mod local;
mod regions;
mod render;
mod report;
mod session;
mod turn;

pub use board::Progress;
pub use catalogue::{Check, Selection, UnknownCheck, reference};
pub use claims::TokenClaims;
pub use render::Style;
pub use report::{CheckResult, DoctorReport, Finding, Outcome, Severity};
pub use turn::{Turn, TurnCall, TurnCaller, TurnFuture};

use std::{path::PathBuf, sync::Arc, time::Duration};

use talkline_config::{Report, Resolved};
use tokio::time::Instant;

use crate::{ResolveOverride, doctor::board::Board};

/// Time for all checks together, the spoken turn aside.
const RUN_MAX: Duration = Duration::from_secs(10);
/// Providers that are probed; a configuration with more has its first ones probed.
const PROVIDERS_MAX: usize = 16;

/// What comes from somewhere other than the configuration.
#[derive(Clone, Default)]
pub struct DoctorOptions {
    /// Loopback addresses that stand in for upstream names, for tests.
    pub resolve: Vec<ResolveOverride>,
    /// Files that secrets were read from; only who may read them is looked at.
    pub secret_files: Vec<PathBuf>,
    /// Who holds the spoken turn, if one is asked for.
    pub turn: Option<Arc<dyn TurnCaller>>,
}

/// Diagnoses one configuration.
pub struct Doctor {
    configuration: Result<Resolved, Report>,
    options: DoctorOptions,
}

impl Doctor {
    /// Takes what [`talkline_config::resolve`] made of a configuration, sound or not. Opens nothing.
    pub fn new(configuration: Result<Resolved, Report>, options: DoctorOptions) -> Self {
        Self {
            configuration,
            options,
        }
    }

    /// Runs the selected checks: those that do not need each other at the same time, and all of
    /// them within ten seconds, the spoken turn aside.
    ///
    /// `progress` is told when a check starts and ends.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes every connection; what was found so far is lost.
    pub async fn run(
        &self,
        selection: &Selection,
        progress: &(dyn Fn(Progress<'_>) + Sync),
    ) -> DoctorReport {
        let board = Board::new(selection, progress, Instant::now() + RUN_MAX);
        let resolved = match &self.configuration {
            Ok(resolved) => {
                local::config(&board, &resolved.warnings);
                resolved
            }
            Err(report) => {
                local::config(&board, report);
                return board.finish(&[]);
            }
        };
        let config = &resolved.config;
        let lines: Vec<_> = config
            .routes
            .providers()
            .take(PROVIDERS_MAX)
            .filter_map(|(id, upstream)| line::Line::new(&board, id, upstream, &self.options))
            .collect();
        local::secrets(&board, &lines, &self.options.secret_files);
        local::clients_open(&board, config);
        local::process_files(&board, config);
        tokio::join!(local::listener_port(&board, config), line::run_all(&lines));
        if let Some(caller) = &self.options.turn {
            turn::run(&board, config, &self.options, caller.as_ref()).await;
        }
        let scrub = |text: &str| {
            lines
                .iter()
                .fold(text.to_owned(), |text, line| line.scrub(&text))
        };
        let providers: Vec<_> = lines.iter().map(line::Line::provider).collect();
        let mut report = board.finish(&providers);
        report.scrub(&scrub);
        report
    }
}
