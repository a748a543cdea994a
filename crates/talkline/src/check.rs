//! `check` and `config show`: what a configuration means, without opening a socket.

use serde_json::json;
use talkline_config::{Config, KeyPlace, KeyVaultReference, Report, Severity};

use crate::{
    cli::{CheckArguments, OutputFormat, ShowArguments},
    configuration,
    exit::Exit,
    output,
};

/// Exits 0 for a configuration that runs, 78 for one that does not, 1 for warnings when they are
/// denied, 2 when a file cannot be read.
pub(crate) fn check(arguments: &CheckArguments) -> Result<(), Exit> {
    let resolved = configuration::resolve(&arguments.config)?;
    let report = match &resolved {
        Ok(resolved) => &resolved.warnings,
        Err(report) => report,
    };
    let rendered = match arguments.output {
        OutputFormat::Human => report.render(configuration::style()),
        OutputFormat::Json => {
            let config = resolved.as_ref().ok().map(|resolved| &resolved.config);
            output::line(&findings(report, config))?;
            String::new()
        }
    };
    match &resolved {
        Err(_) => Err(Exit::Configuration(rendered)),
        Ok(resolved) => {
            if !rendered.is_empty() {
                output::note(&rendered);
            }
            if arguments.deny_warnings && !report.is_empty() {
                return Err(Exit::Findings("there are warnings".into()));
            }
            if arguments.output == OutputFormat::Human {
                output::line(&summary(&resolved.config))?;
            }
            Ok(())
        }
    }
}

/// Prints the effective values.
pub(crate) fn show(arguments: &ShowArguments) -> Result<(), Exit> {
    let resolved = configuration::load(&arguments.config)?;
    if !resolved.warnings.is_empty() {
        output::note(&resolved.warnings.render(configuration::style()));
    }
    let mut text = String::new();
    for setting in &resolved.settings {
        let origin = if arguments.origin {
            format!("  # {}", setting.source)
        } else {
            String::new()
        };
        text.push_str(&format!("{} = {}{origin}\n", setting.key, setting.value));
    }
    output::bytes(text.as_bytes())
}

fn summary(config: &Config) -> String {
    let mut text = String::from("The configuration is valid.\n");
    for (name, upstream) in config.routes.providers() {
        let deployment = upstream.deployment().unwrap_or("the client's model");
        text.push_str(&format!(
            "  {name}: {} at {}, {deployment}\n",
            upstream.provider(),
            upstream.origin()
        ));
    }
    for identity in &config.identities {
        text.push_str(&format!(
            "  {}: signs in with {} ({}) for {}; no token was asked for\n",
            identity.provider,
            identity.kind.as_str(),
            identity.reason,
            identity.scope
        ));
    }
    for (provider, reference) in in_key_vault(config) {
        text.push_str(&format!(
            "  {provider}: a key is kept at {reference}; it was not read\n"
        ));
    }
    text
}

/// Keys that only a running relay reads.
fn in_key_vault(config: &Config) -> impl Iterator<Item = (&str, &KeyVaultReference)> {
    config.watched_keys.iter().flat_map(|key| {
        let places = [Some(&key.primary), key.secondary.as_ref()];
        places
            .into_iter()
            .flatten()
            .filter_map(|place| match place {
                KeyPlace::KeyVault(reference) => Some((key.provider.as_str(), reference)),
                KeyPlace::File(_) | KeyPlace::Fixed => None,
            })
    })
}

/// What `check` leaves to `run`, because it would need a socket.
fn skipped(config: &Config) -> Vec<&'static str> {
    let identity = (!config.identities.is_empty()).then_some("entra-token");
    let vault = in_key_vault(config).next().map(|_| "key-vault");
    identity.into_iter().chain(vault).collect()
}

/// Findings under the field names of OpenClaw's `doctor --json`, so that its tools can show them.
fn findings(report: &Report, config: Option<&Config>) -> String {
    let findings: Vec<_> = report
        .problems()
        .iter()
        .map(|problem| {
            json!({
                "checkId": problem.code,
                "severity": match problem.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                },
                "message": problem.message,
                "path": problem.key,
                "fixHint": problem.hint,
                "source": problem.source.as_ref().map(ToString::to_string),
            })
        })
        .collect();
    json!({
        "schemaVersion": 1,
        "ok": config.is_some(),
        "checksRun": ["config"],
        "checksSkipped": config.map(skipped).unwrap_or_default(),
        "findings": findings,
    })
    .to_string()
}
