//! Parses arguments, builds the runtime, picks implementations, maps errors to exit codes.
//!
//! Nothing is decided here that a test would want to drive without a process: configuration is
//! resolved by `talkline-config`, sessions are served by `talkline-gateway`.
#![forbid(unsafe_code)]

mod check;
mod cli;
mod configuration;
mod credentials;
mod demo;
mod dev_tls;
mod doctor;
mod exit;
mod healthcheck;
mod limit_store;
mod logs;
#[cfg(feature = "otlp")]
mod otlp;
mod output;
#[cfg(test)]
mod reference;
mod run;
mod sim;
mod talk;
mod token;
mod transcript;
#[cfg(feature = "key-vault")]
mod vault;
#[cfg(not(feature = "key-vault"))]
#[path = "no_vault.rs"]
mod vault;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::{
    cli::{Cli, Command, ConfigCommand, TokenCommand},
    exit::Exit,
};

/// Gives the memory of sessions that have ended back to the system, which the C library's allocator keeps: its
/// pages stay in use as long as one small piece of them does.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Doctor(arguments) => doctor::doctor(&arguments),
        Command::Healthcheck(arguments) => healthcheck::healthcheck(&arguments),
        Command::Demo(arguments) => demo::demo(&arguments),
        Command::Talk(arguments) => talk::talk(&arguments),
        Command::Sim(arguments) => sim::sim(&arguments),
        Command::Token(TokenCommand::Create(arguments)) => token::create(&arguments),
        Command::Token(TokenCommand::Inspect(arguments)) => token::inspect(&arguments),
        Command::Token(TokenCommand::Revoke(arguments)) => token::revoke(&arguments),
        Command::Config(ConfigCommand::Show(arguments)) => check::show(&arguments),
        Command::Config(ConfigCommand::Schema) => output::line(&talkline_config::schema()),
        Command::Completions { shell } => completions(shell),
        Command::Version(arguments) => version(arguments.json),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            output::failure(&exit);
            ExitCode::from(exit.status())
        }
    }
}

fn completions(shell: clap_complete::Shell) -> Result<(), Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "talkline", &mut script);
    output::bytes(&script)
}

fn version(json: bool) -> Result<(), Exit> {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        output::line(&serde_json::json!({"name": "talkline", "version": version}).to_string())
    } else {
        output::line(&format!("talkline {version}"))
    }
}
