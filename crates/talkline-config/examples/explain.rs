//! Says what is wrong with a configuration, or what it comes to.
//!
//! `cargo run -p talkline-config --example explain [FILE]` reads FILE and the environment; without
//! a file it explains a configuration in which much went wrong.

use std::{collections::BTreeMap, process::ExitCode};

use talkline_config::{DeveloperTools, Format, Inputs, SourceFile, Style, resolve};

const BROKEN: &str = r#"
[talk.realtime]
provider = "openai"
transport = "webrtc"

[talk.realtime.providers.openai]
azureEndpont = "https://voice.openai.azure.com"
azureDeployment = "<gpt-realtime-deployment>"
azureApiVersion = "v1"
apiKey = "0123456789abcdef0123456789abcdef"

[server]
listen = "8080"

[clients]
allowAnonymous = "yes"
"#;

#[expect(
    clippy::disallowed_methods,
    reason = "the example does the I/O that the library leaves out"
)]
#[expect(clippy::print_stdout, reason = "an example's output")]
fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    let (name, text) = match &argument {
        Some(path) => match std::fs::read_to_string(path) {
            Ok(text) => (path.clone(), text),
            Err(error) => {
                println!("{path}: {error}");
                return ExitCode::from(2);
            }
        },
        None => ("broken.toml".to_owned(), BROKEN.to_owned()),
    };
    let variables: BTreeMap<String, String> = if argument.is_some() {
        std::env::vars().collect()
    } else {
        BTreeMap::new()
    };
    let format = Format::of_file_name(&name);
    let result = resolve(&Inputs {
        files: &[SourceFile { name, text, format }],
        variables: &variables,
        flags: &[],
        developer_tools: DeveloperTools::default(),
        is_exposed: &|_| false,
        read_secret_file: &|path| std::fs::read_to_string(path).map_err(|error| error.to_string()),
    });
    match result {
        Ok(resolved) => {
            if !resolved.warnings.is_empty() {
                println!("{}\n", resolved.warnings.render(Style::Plain));
            }
            for setting in &resolved.settings {
                println!("{} = {}  # {}", setting.key, setting.value, setting.source);
            }
            ExitCode::SUCCESS
        }
        Err(report) => {
            println!("{}", report.render(Style::Plain));
            if argument.is_some() {
                ExitCode::from(78)
            } else {
                ExitCode::SUCCESS
            }
        }
    }
}
