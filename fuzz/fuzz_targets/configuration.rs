//! Any text, in either format, is a configuration or a report; never a panic, never a shown secret.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use talkline_config::{DeveloperTools, Format, Inputs, SourceFile, Style, resolve};

const CANARY: &str = "CANARY-0123456789abcdef";

fuzz_target!(|input: (bool, &str)| {
    let (json, text) = input;
    let file = SourceFile {
        name: "fuzzed".into(),
        text: text.into(),
        format: if json { Format::Json5 } else { Format::Toml },
    };
    let variables = BTreeMap::from([("KEY".to_owned(), CANARY.to_owned())]);
    let resolved = resolve(&Inputs {
        files: &[file],
        variables: &variables,
        flags: &[],
        developer_tools: DeveloperTools::default(),
        is_exposed: &|_| false,
        read_secret_file: &|_| Ok(CANARY.to_owned()),
    });
    let shown = match &resolved {
        Ok(resolved) => format!("{:?} {}", resolved.config, resolved.warnings.render(Style::Plain)),
        Err(report) => report.render(Style::Plain),
    };
    assert!(text.contains(CANARY) || !shown.contains(CANARY), "{shown}");
});
