//! The load generator: jobs come in on standard input, what was found goes out, one JSON object a line.
#![forbid(unsafe_code)]

use std::io::{self, BufRead as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use talkline_benches::job::Job;
use talkline_benches::world::{Listeners, run};
use talkline_benches::tls;

fn main() -> Result<()> {
    let ca_file = std::env::args_os().nth(1).map(PathBuf::from);
    let ca_file = ca_file.context("usage: load CA_FILE (the certificate of its upstream goes there)")?;
    let mut listeners = Listeners::bind(tls::server(&ca_file)?)?;
    let mut stdout = io::stdout().lock();
    writeln!(
        stdout,
        "{}",
        serde_json::json!({
            "plain": listeners.plain.local_addr()?,
            "tls": listeners.tls.local_addr()?,
        })
    )?;
    for line in io::stdin().lock().lines() {
        let job: Job = serde_json::from_str(&line?)?;
        let answer = match run(&mut listeners, &job) {
            Ok(found) => serde_json::to_value(found)?,
            Err(error) => serde_json::json!({ "error": format!("{error:#}") }),
        };
        writeln!(stdout, "{answer}")?;
        stdout.flush()?;
    }
    Ok(())
}
