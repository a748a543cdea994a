//! The real binary in front of an upstream of ours.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::wire;

/// Longest wait for anything that the relay owes at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A running relay; killed when dropped.
pub(crate) struct Relay {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Relay {
    /// Starts `binary` with a custom provider at `upstream`, for any model and for anybody.
    ///
    /// # Errors
    /// When it does not start to listen.
    pub(crate) fn start(
        binary: &Path,
        folder: &Path,
        upstream: SocketAddr,
        more: &str,
    ) -> Result<Relay> {
        fs::create_dir_all(folder)?;
        let configuration = folder.join("talkline.toml");
        let text = format!(
            "server.listen = \"127.0.0.1:0\"\n\
             clients.allowAnonymous = true\n\
             limits.maxHandshakesPerSource = 1024\n\
             limits.framesPerSecond = 0\n\
             limits.bytesPerSecond = \"0KiB\"\n\
             talk.realtime.provider = \"custom\"\n\
             talk.realtime.allowAnyModel = true\n\
             talk.realtime.providers.custom.baseUrl = \"http://{upstream}/v1\"\n\
             talk.realtime.providers.custom.auth.kind = \"none\"\n\
             {more}"
        );
        fs::write(&configuration, text)?;
        let log = folder.join("log");
        let mut child = Command::new(binary)
            .args(["run", "--log-format", "json", "--log-level", "info"])
            .env_clear()
            .env("HOME", folder)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let stdout = child
            .stdout
            .take()
            .context("standard output was asked for")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let Some(address) = line.trim().strip_prefix("listening on ws://") else {
            let _ = child.kill();
            let _ = child.wait();
            bail!("the relay did not start: {}", fs::read_to_string(&log)?);
        };
        let relay = Relay {
            address: address.parse()?,
            child,
        };
        relay.settle()?;
        Ok(relay)
    }

    /// Waits until all threads are up, which they are when one of them answers: what the process holds open
    /// from then on is held for sessions.
    fn settle(&self) -> Result<()> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n",
            self.address
        )?;
        std::io::copy(&mut stream, &mut std::io::sink()).context("the relay's health")?;
        Ok(())
    }

    /// Open descriptors, where `/proc` tells.
    pub(crate) fn descriptors(&self) -> Option<usize> {
        Some(
            fs::read_dir(format!("/proc/{}/fd", self.child.id()))
                .ok()?
                .count(),
        )
    }

    /// Opens a session for a model; returns the stream and the bytes that came with the 101.
    ///
    /// # Errors
    /// When the relay answers anything but 101.
    pub(crate) fn open(&self, model: &str) -> Result<(TcpStream, Vec<u8>)> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET /v1/realtime?model={model} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n",
            self.address
        )?;
        let (head, rest) = wire::read_head(&mut stream).context("the relay's answer")?;
        if !head.starts_with("HTTP/1.1 101 ") {
            bail!(
                "the relay answered {}",
                head.lines().next().unwrap_or_default()
            );
        }
        Ok((stream, rest))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
