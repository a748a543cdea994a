//! The log subscriber.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// Identity and TLS libraries log requests at their lower levels; they are heard from warnings up.
const QUIET: &[&str] = &[
    "azure_identity=warn",
    "typespec_client_core=warn",
    "rustls=warn",
    "hyper=info",
];

/// Sends log lines to standard error.
pub(crate) fn start(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let mut filter = EnvFilter::try_new(filter).context("--log-level is not a filter")?;
    for directive in QUIET {
        filter = filter.add_directive(
            directive
                .parse()
                .context("a built-in filter is malformed")?,
        );
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Pretty => builder.pretty().try_init(),
        LogFormat::Compact => builder.compact().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("the log could not be started: {error}"))
}
