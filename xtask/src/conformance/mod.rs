//! Corpora of bytes that a relay must survive, thrown at the real binary.
//!
//! A corpus is a file of JSON lines, named on the command line: it need not be part of the
//! repository. Each suite starts the relay in front of an upstream of its own ([`upstream`]) and
//! compares what comes back with what the corpus expects.

mod handshakes;
mod relay;
mod upstream;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::report::Tally;
use crate::workspace::Workspace;

/// What was asked for on the command line.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    handshakes: Option<PathBuf>,
}

impl Asked {
    fn parse(arguments: &[&str]) -> Result<Asked> {
        let mut asked = Asked::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let slot = match *argument {
                "--handshakes" => &mut asked.handshakes,
                other => bail!("`{other}` is no suite: --handshakes FILE"),
            };
            let Some(file) = arguments.next() else {
                bail!("{argument} takes a file");
            };
            *slot = Some(PathBuf::from(file));
        }
        if asked == Asked::default() {
            bail!("name a suite: --handshakes FILE");
        }
        Ok(asked)
    }
}

/// `cargo xtask conformance`: runs the suites that are named.
///
/// # Errors
/// When a case ended in another way than its corpus expects, or a suite could not run.
pub(crate) fn run(workspace: &Workspace, arguments: &[&str]) -> Result<()> {
    let asked = Asked::parse(arguments)?;
    let mut tally = Tally::default();
    if let Some(corpus) = &asked.handshakes {
        tally += handshakes::run(workspace, corpus)?;
    }
    println!("{tally}");
    if tally.failed > 0 {
        bail!("{} cases failed", tally.failed);
    }
    if tally.passed == 0 {
        bail!("no case ran");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_named_with_their_files() {
        let asked = Asked::parse(&["--handshakes", "h.jsonl"]).unwrap();
        assert_eq!(asked.handshakes, Some(PathBuf::from("h.jsonl")));
        for wrong in [&[][..], &["--handshakes"], &["h.jsonl"]] {
            assert!(Asked::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
