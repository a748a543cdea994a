//! Everything that a relay is made of, read from the configuration and not yet in use: at the start, and again at
//! every reload.

use std::{path::PathBuf, sync::Arc};

use rustls::ServerConfig;
use talkline_config::{Config, Problem, Report, Severity};
use talkline_gateway::Options;
use tracing::{error, warn};

use super::watched::Watched;
use crate::{
    cli::RunArguments, configuration, credentials::Credentials, exit::Exit, vault::VaultKeys,
};

/// A configuration that can be run.
pub(super) struct Prepared {
    pub(super) config: Config,
    pub(super) options: Options,
    pub(super) vault: VaultKeys,
}

/// What reading the configuration came to.
pub(super) struct Reading {
    pub(super) outcome: Result<Prepared, Wrong>,
    /// The files that it depends on, as they were when they were read.
    pub(super) files: Watched,
}

/// Why there is nothing to run.
pub(super) enum Wrong {
    /// The configuration has errors.
    Configuration(Report),
    /// A file cannot be read, or an identity cannot be built.
    Other(Exit),
}

impl Wrong {
    /// How a process ends that has nothing else to run.
    pub(super) fn into_exit(self) -> Exit {
        match self {
            Wrong::Configuration(report) => {
                Exit::Configuration(report.render(configuration::style()))
            }
            Wrong::Other(exit) => exit,
        }
    }
}

/// Reads files and variables; sends nothing.
pub(super) fn read(arguments: &RunArguments, tls: Option<&Arc<ServerConfig>>) -> Reading {
    // Before they are read: a change in between is seen as one.
    let mut files = Watched::default();
    files.add(configuration::files(&arguments.config));
    let (resolved, secrets) = match configuration::resolve_noting_files(&arguments.config) {
        Ok(read) => read,
        Err(exit) => {
            let outcome = Err(Wrong::Other(exit));
            return Reading { outcome, files };
        }
    };
    files.add(secrets);
    let outcome = resolved.map_err(Wrong::Configuration).and_then(|resolved| {
        log_warnings(&resolved.warnings);
        if let Some(tls) = &resolved.config.server.tls {
            files.add([&tls.cert, &tls.key].map(PathBuf::from));
        }
        let credentials =
            Credentials::new(&resolved.config, &arguments.resolve).map_err(Wrong::Other)?;
        let options = Options {
            tls: tls.cloned(),
            resolve: arguments.resolve.clone(),
            token_sources: credentials.token_sources,
            watched_keys: credentials.watched_keys,
            key_readers: credentials.vault.readers(),
            ..Options::default()
        };
        Ok(Prepared {
            config: resolved.config,
            options,
            vault: credentials.vault,
        })
    });
    Reading { outcome, files }
}

fn log_warnings(warnings: &Report) {
    for problem in warnings.problems() {
        let (
            at,
            Problem {
                code, key, hint, ..
            },
        ) = (place(problem), problem);
        warn!(code, key, at, hint, "{}", problem.message);
    }
}

/// Logs what keeps a configuration from being taken over, each with its place.
pub(super) fn log_errors(report: &Report) {
    let errors = report.problems().iter();
    for problem in errors.filter(|problem| problem.severity == Severity::Error) {
        let (
            at,
            Problem {
                code, key, hint, ..
            },
        ) = (place(problem), problem);
        error!(code, key, at, hint, "{}", problem.message);
    }
}

fn place(problem: &Problem) -> Option<String> {
    problem.source.as_ref().map(ToString::to_string)
}
