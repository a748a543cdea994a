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

use talkline_auth::{TokenCell, TokenSource};
use talkline_config::{Report, Resolved};
use tokio::{task::JoinSet, time::Instant};

use crate::{ResolveOverride, doctor::board::Board, tokens::Tokens};

/// Time for all checks together, the spoken turn aside.
const RUN_MAX: Duration = Duration::from_secs(10);
/// Providers that are probed; a configuration with more has its first ones probed.
const PROVIDERS_MAX: usize = 16;

/// Longest wait for an identity service: the checks behind it need the rest of the time.
const TOKEN_MAX: Duration = Duration::from_secs(4);

/// What comes from somewhere other than the configuration.
#[derive(Clone, Default)]
pub struct DoctorOptions {
    /// Loopback addresses that stand in for upstream names, for tests.
    pub resolve: Vec<ResolveOverride>,
    /// Files that secrets were read from; only who may read them is looked at.
    pub secret_files: Vec<PathBuf>,
    /// Who fetches the tokens of the configured identities.
    pub token_sources: Vec<(TokenCell, Arc<dyn TokenSource>)>,
    /// Who fetches tokens of the same identities for another scope, should an upstream refuse the
    /// configured one's: the identity's cell, the other scope, its source.
    pub other_scopes: Vec<(TokenCell, String, Arc<dyn TokenSource>)>,
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
        // Dropped at the end of the run, and with it whoever still waits for a token.
        let mut drivers = JoinSet::new();
        let tokens = Tokens::new(self.options.token_sources.clone());
        tokens.drive(&mut drivers);
        let mut lines = Vec::new();
        let mut without_token = Vec::new();
        for (id, upstream) in config.routes.providers().take(PROVIDERS_MAX) {
            if let Some(cell) = upstream.token_cell()
                && let Err(error) = tokens.usable(cell, TOKEN_MAX).await
            {
                line::note_missing_token(&board, id, &error);
                without_token.push(id);
                continue;
            }
            lines.extend(line::Line::new(&board, id, upstream, &self.options));
        }
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
        let mut providers: Vec<_> = lines.iter().map(line::Line::provider).collect();
        providers.extend(without_token);
        let mut report = board.finish(&providers);
        report.scrub(&scrub);
        report
    }
}
