//! The page of all commands and flags, from the definitions that the program itself reads.

use std::fmt::Write as _;

use clap::{Command, CommandFactory as _};

use crate::cli::Cli;

const PREFACE: &str = "\
# Command line

Made from the code: change `crates/talkline/src/cli.rs`, then run
`TALKLINE_BLESS=1 cargo test -p talkline --bin talkline reference`.
";

fn page() -> String {
    let mut page = String::from(PREFACE);
    let mut root = Cli::command().term_width(100).disable_help_subcommand(true);
    root.build();
    entry(&mut page, &root);
    page
}

fn entry(page: &mut String, command: &Command) {
    let name = command.get_bin_name().unwrap_or("talkline").to_owned();
    let help = command
        .clone()
        .term_width(100)
        .render_long_help()
        .to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = write!(
        page,
        "\n## {name}\n\n```text\n{}\n```\n",
        lines.join("\n").trim_end()
    );
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        entry(page, sub);
    }
}

/// `TALKLINE_BLESS=1` writes the file anew.
#[test]
fn the_reference_page_is_fresh() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    let fresh = page();
    if std::env::var_os("TALKLINE_BLESS").is_some() {
        std::fs::write(&path, &fresh).expect("the page is written");
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == fresh,
        "docs/reference/cli.md is stale: run `TALKLINE_BLESS=1 cargo test -p talkline --bin talkline reference`"
    );
    assert!(page().contains("## talkline healthcheck"));
}
