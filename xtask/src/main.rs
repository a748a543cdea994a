//! What a developer or CI runs: `ci`, `test`, `failures`, `deploy`, `tidy`. Depends on no product crate.
//!
//! Everything here starts processes and reads what they say; the decisions
//! (what counts as a violation, how reports add up) are functions over data
//! with their own tests.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool talks to its user on these"
)]

mod bench;
mod book;
mod browser;
mod canary;
mod ci;
mod conformance;
mod deploy;
mod failures;
mod nightly;
mod packages;
mod process;
mod provision;
mod report;
mod sdk;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;

use crate::test::Suites;
use crate::workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask <command>

  ci [--fail-fast]      everything that must hold before a change lands
  test [--rust|--sdk|--browser]
                        every test; the last line is `N passed, N failed, N skipped`
  canary                secrets searched for in all that the processes let out
  conformance           hostile bytes against the real binary: --frames FILE, --handshakes FILE,
                        --autobahn (the Autobahn cases by kosoku), --wstest (by the original),
                        --network (loss and partitions, in a network namespace),
                        --crowd ROUNDS (many clients at one moment)
  bench                 what relaying costs, beside HAProxy, nginx and others found here
                        (--quick; --write puts the table into the documentation; --instructions counts
                        those of the scanner by valgrind, TALKLINE_BLESS=1 keeps the counts)
  failures              every failure as clients, log and doctor tell it, against snapshots
                        (TALKLINE_BLESS=1 rewrites them)
  nightly               what takes long: soak (--minutes N), more seeds, crowds, fuzzing (--fuzz-seconds N),
                        Miri, wstest, instruction counts, deb and reproducible
  deploy                what stands in deploy/, each artefact by its own tool
  book                  the documentation, built and its links checked
  packages              image, deb, sbom and reproducible, one after the other (slow)
  image                 the container image, built and run as its user (slow)
  deb                   the Debian package (slow)
  sbom                  the bill of materials, in CycloneDX (slow)
  reproducible          the same binary from two folders (slow)
  tidy                  the rules of the house: layers, manifests, links, lock files
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["ci"] => run(|workspace| ci::run(workspace, ci::OnFailure::GoOn)),
        ["ci", "--fail-fast"] => run(|workspace| ci::run(workspace, ci::OnFailure::Stop)),
        ["test"] => run(|workspace| test::run(workspace, Suites::All)),
        ["test", "--rust"] => run(|workspace| test::run(workspace, Suites::Rust)),
        ["test", "--browser"] => run(|workspace| test::run(workspace, Suites::Browser)),
        ["test", "--sdk"] => run(|workspace| test::run(workspace, Suites::Sdk)),
        ["bench", rest @ ..] => run(|workspace| bench::run(workspace, rest)),
        ["canary"] => run(canary::run),
        [conformance::NETWORK_INNER, binary, folder] => conformance::network_inner(binary, folder),
        ["conformance", suites @ ..] => run(|workspace| conformance::run(workspace, suites)),
        ["failures"] => run(failures::run),
        ["nightly", rest @ ..] => run(|workspace| nightly::run(workspace, rest)),
        ["deploy"] => run(deploy::run),
        ["book"] => run(book::run),
        ["packages"] => run(packages::all),
        ["image"] => run(packages::image),
        ["deb"] => run(packages::deb),
        ["sbom"] => run(packages::sbom),
        ["reproducible"] => run(packages::reproducible),
        ["tidy"] => run(tidy::run),
        ["help" | "-h" | "--help"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: impl FnOnce(&Workspace) -> Result<()>) -> Result<()> {
    command(&Workspace::discover()?)
}
