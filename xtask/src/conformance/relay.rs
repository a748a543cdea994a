//! The real binary in front of an upstream, for the length of a suite.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::process;

/// The key that the relay presents to the upstream: what no client may see, and the only credential
/// that the upstream may see.
pub(crate) const UPSTREAM_KEY: &str = "conformance-upstream-key";

/// A running `talkline`, killed when it is dropped.
pub(crate) struct Relay {
    child: Child,
    pub(crate) address: SocketAddr,
    /// What it logs.
    pub(crate) log: PathBuf,
}

impl Relay {
    /// Starts the binary with a configuration; `extra` holds further lines of it. The model is `m`,
    /// and clients need no key.
    ///
    /// # Errors
    /// When it does not start; its log then says why.
    pub(crate) fn start(
        talkline: &Path,
        folder: &Path,
        upstream: SocketAddr,
        extra: &str,
    ) -> Result<Relay> {
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let configuration = folder.join("talkline.toml");
        let text = format!(
            "server.listen = \"127.0.0.1:0\"\n\
             clients.allowAnonymous = true\n\
             talk.realtime.provider = \"azure-openai\"\n\
             talk.realtime.providers.azure-openai.azureEndpoint = \"http://{upstream}\"\n\
             talk.realtime.providers.azure-openai.azureDeployment = \"m\"\n\
             talk.realtime.providers.azure-openai.apiKey = {{ env = \"UPSTREAM_KEY\" }}\n\
             {extra}"
        );
        fs::write(&configuration, text)?;
        let log = folder.join("relay.log");
        let mut command = Command::new(talkline);
        command
            .args(["run", "--log-format", "json", "--config"])
            .arg(&configuration)
            .env_clear()
            .env("HOME", folder)
            .env("UPSTREAM_KEY", UPSTREAM_KEY)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?);
        let mut child = command
            .spawn()
            .with_context(|| process::cannot_start(&command))?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let Some(address) = line.trim().strip_prefix("listening on ws://") else {
            let _ = child.kill();
            child.wait()?;
            bail!("the relay did not start; see {}", log.display());
        };
        Ok(Relay {
            address: address.parse().context("the relay's address")?,
            child,
            log,
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to be done about any other failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
