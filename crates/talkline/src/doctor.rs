//! `doctor`: goes the way of a session step by step, and says where it ends.

use std::{io::IsTerminal as _, sync::Arc, time::Duration};

use talkline_gateway::doctor::{
    Doctor, DoctorOptions, DoctorReport, Outcome, Progress, Selection, Severity, Style, Turn,
    TurnCall, TurnCaller, TurnFuture,
};
use talkline_sim::{
    caller::{Call, CallError, Dialect, Secret, TurnOptions, spoken_turn},
    clips,
};

use crate::{
    cli::{DoctorArguments, MinimumSeverity, OutputFormat},
    configuration,
    credentials::Credentials,
    exit::Exit,
    output,
    run::runtime,
};

/// Exits 0 when nothing was found, 1 for findings of `--severity-min` and above, 2 when it could
/// not run.
pub(crate) fn doctor(arguments: &DoctorArguments) -> Result<(), Exit> {
    let selection = Selection::new(&arguments.only, &arguments.skip, arguments.turn)
        .map_err(|error| Exit::CouldNotRun(error.to_string()))?;
    let (resolved, secret_files) = configuration::resolve_noting_files(&arguments.config)?;
    let mut credentials = match &resolved {
        Ok(resolved) => Some(Credentials::new(&resolved.config, &arguments.resolve)?),
        Err(_) => None,
    };
    let options = DoctorOptions {
        resolve: arguments.resolve.clone(),
        secret_files,
        token_sources: credentials
            .as_mut()
            .map(|credentials| std::mem::take(&mut credentials.token_sources))
            .unwrap_or_default(),
        other_scopes: credentials
            .as_mut()
            .map(|credentials| std::mem::take(&mut credentials.other_scopes))
            .unwrap_or_default(),
        turn: arguments
            .turn
            .then(|| Arc::new(Speaker) as Arc<dyn TurnCaller>),
    };
    let doctor = Doctor::new(resolved, options);
    let progress: &(dyn Fn(Progress<'_>) + Sync) = if std::io::stderr().is_terminal() {
        &show_progress
    } else {
        &|_| {}
    };
    let report = runtime()?.block_on(async {
        if let Some(credentials) = &mut credentials {
            credentials.vault.fill().await?;
        }
        Ok::<_, Exit>(doctor.run(&selection, progress).await)
    })?;
    let severity_min = match arguments.severity_min {
        MinimumSeverity::Info => Severity::Info,
        MinimumSeverity::Warning => Severity::Warning,
        MinimumSeverity::Error => Severity::Error,
    };
    print(&report, arguments.output, severity_min)?;
    if report.has_findings(severity_min) {
        return Err(Exit::Findings(String::new()));
    }
    Ok(())
}

fn print(report: &DoctorReport, format: OutputFormat, severity_min: Severity) -> Result<(), Exit> {
    match format {
        OutputFormat::Json => output::line(&report.to_json(severity_min).to_string()),
        OutputFormat::Human => {
            let terminal = std::io::stdout().is_terminal();
            output::line(&report.render(Style {
                colour: terminal && std::env::var_os("NO_COLOR").is_none(),
                waterfall: terminal,
            }))
        }
    }
}

fn show_progress(progress: Progress<'_>) {
    // The report tells the rest; this tells that something goes on.
    if let Progress::Ended(check, provider, outcome) = progress
        && !matches!(outcome, Outcome::Skipped(_))
    {
        let provider = provider.map(|provider| format!(" ({provider})"));
        let provider = provider.unwrap_or_default();
        output::note(&format!("… {check}{provider}: {}", outcome.as_str()));
    }
}

/// Asks the bundled question.
struct Speaker;

impl TurnCaller for Speaker {
    fn call(&self, call: TurnCall) -> TurnFuture<'_> {
        Box::pin(async move {
            let question = clips::QUESTION
                .wav()
                .map_err(|error| format!("the bundled question is damaged: {error}"))?;
            let dialect = if call.speaks_preview() {
                Dialect::Preview
            } else {
                Dialect::Ga
            };
            let call = Call {
                bearer: Some(Secret::new(call.key.expose())),
                dialect,
                ..Call::new(call.url)
            };
            // A transcription deployment may not exist, and is not what is asked about.
            let options = TurnOptions {
                transcription_model: None,
                ..TurnOptions::default()
            };
            let report = spoken_turn(&call, &question, &options)
                .await
                .map_err(|error: CallError| error.to_string())?;
            let audible = !report.missing().contains(&"audible reply");
            Ok(Turn {
                first_audio: report.latencies.speech_end_to_first_audio,
                reply_audio: if audible {
                    report.reply().duration()
                } else {
                    Duration::ZERO
                },
                total: report.latencies.total,
                tokens: report.usage["total_tokens"].as_u64(),
            })
        })
    }
}
