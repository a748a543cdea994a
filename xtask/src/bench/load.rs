//! The generator's process and what it answers.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use super::peers::{LOAD_CPU, Tools};

/// What the generator found; its own words.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Found {
    pub(crate) sessions: u64,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    pub(crate) cpu_ns: u64,
    pub(crate) generator_ns: u64,
    pub(crate) user_ticks: u64,
    pub(crate) system_ticks: u64,
    pub(crate) latency: Quantiles,
    pub(crate) set_up: Quantiles,
    pub(crate) set_up_seconds: f64,
    pub(crate) resident_before_kib: u64,
    pub(crate) resident_open_kib: u64,
    pub(crate) resident_busy_kib: u64,
    pub(crate) resident_after_kib: u64,
    pub(crate) socket_kib: u64,
    pub(crate) quiet: Quantiles,
    pub(crate) evicted: u64,
    pub(crate) evicted_seconds: f64,
    pub(crate) lost: u64,
    pub(crate) corrupt: u64,
    /// Of the two calls of the floor alone, for a frame.
    #[serde(skip)]
    pub(crate) floor_ns: Option<f64>,
}

/// In microseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

impl Found {
    /// Processor time of the relay for one frame, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        match self.floor_ns {
            Some(nanoseconds) => nanoseconds / 1000.0,
            None => self.cpu_ns as f64 / 1000.0 / self.frames.max(1) as f64,
        }
    }

    /// The share of its processor that the relay used, and the generator of its own, in percent. A relay is only
    /// driven to its limit while its own share is the greater.
    pub(crate) fn shares(&self) -> (f64, f64) {
        let percent = |nanoseconds: u64| nanoseconds as f64 / 1e7 / self.seconds;
        (percent(self.cpu_ns), percent(self.generator_ns))
    }

    /// A frame's mean length with its header, of which there is one of 8 bytes for three of 4 or so.
    pub(crate) fn wire_bytes_per_frame(&self) -> f64 {
        7.0 + self.bytes as f64 / self.frames.max(1) as f64
    }

    /// Resident memory that one session adds, in KiB.
    pub(crate) fn session_kib(&self) -> f64 {
        let added = self
            .resident_open_kib
            .saturating_sub(self.resident_before_kib);
        added as f64 / self.sessions as f64
    }
}

/// The running generator; killed when dropped.
pub(crate) struct Load {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Its upstream without TLS.
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    /// What vouches for the one with TLS.
    pub(crate) authority: PathBuf,
}

impl Load {
    pub(crate) fn start(tools: &Tools, folder: &Path) -> Result<Load> {
        #[derive(Deserialize)]
        struct Listening {
            plain: SocketAddr,
            tls: SocketAddr,
        }
        let authority = folder.join("authority.pem");
        let mut child = tools
            .pinned(LOAD_CPU, &tools.binaries.load)
            .arg(&authority)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.join("load.log"))?)
            .spawn()
            .context("cannot start the generator")?;
        let orders = child.stdin.take().context("standard input was asked for")?;
        let stdout = child
            .stdout
            .take()
            .context("standard output was asked for")?;
        let mut answers = BufReader::new(stdout).lines();
        let line = answers.next().context("the generator ended at once")??;
        let listening: Listening = serde_json::from_str(&line)?;
        Ok(Load {
            child,
            orders,
            answers,
            plain: listening.plain,
            tls: listening.tls,
            authority,
        })
    }

    pub(crate) fn job(&mut self, job: &Value) -> Result<Found> {
        writeln!(self.orders, "{job}")?;
        let line = self.answers.next().context("the generator ended")??;
        let answer: Value = serde_json::from_str(&line)?;
        if let Some(error) = answer["error"].as_str() {
            bail!("{error}");
        }
        Ok(serde_json::from_value(answer)?)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
