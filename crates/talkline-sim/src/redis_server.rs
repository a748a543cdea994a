//! A real Redis server, started for a test: what replicas share is not faked.

use std::{
    io,
    path::PathBuf,
    process::{Command as Plain, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
};

/// Starts until one gets its port. A port is chosen by binding it and letting it go, so another process
/// may be quicker.
const ATTEMPTS: usize = 5;

/// A `redis-server` on loopback that keeps nothing on disk. Killed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    password: Option<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// The program, where it is installed (Debian: the package `redis-server`).
    #[must_use]
    pub fn program() -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|folder| folder.join("redis-server"))
            .find(|program| program.is_file())
    }

    /// Starts a server on a free port; returns when it accepts connections.
    ///
    /// # Errors
    ///
    /// When the program is missing or does not start.
    pub async fn start(password: Option<&str>) -> io::Result<Self> {
        let mut error = io::Error::other("not tried");
        for _ in 0..ATTEMPTS {
            let port = TcpListener::bind(("127.0.0.1", 0))
                .await?
                .local_addr()?
                .port();
            let mut server = Self {
                port,
                password: password.map(str::to_owned),
                child: None,
            };
            match server.start_again().await {
                Ok(()) => return Ok(server),
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    /// The URL of database 0.
    #[must_use]
    pub fn url(&self) -> String {
        let password = self
            .password
            .as_deref()
            .map(|password| format!(":{password}@"));
        format!(
            "redis://{}127.0.0.1:{}",
            password.unwrap_or_default(),
            self.port
        )
    }

    /// Kills the server, which forgets everything. Its port is refused from then on.
    ///
    /// # Errors
    ///
    /// When the process cannot be killed.
    pub async fn kill(&mut self) -> io::Result<()> {
        match self.child.take() {
            Some(mut child) => child.kill().await,
            None => Ok(()),
        }
    }

    /// Starts it on the same port as before, empty.
    ///
    /// # Errors
    ///
    /// When the program is missing or does not start.
    pub async fn start_again(&mut self) -> io::Result<()> {
        let program = Self::program().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "redis-server is not installed")
        })?;
        let mut command = Command::new(program);
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .env_clear()
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        if let Some(password) = &self.password {
            command.args(["--requirepass", password]);
        }
        let mut child = command.spawn()?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("no output"))?;
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await? {
            if line.contains("Ready to accept connections") {
                // Read on, so that its log never blocks it.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                self.child = Some(child);
                return Ok(());
            }
        }
        Err(io::Error::other("redis-server ended before it was ready"))
    }

    /// Stops it where it stands: connections stay open and nothing is answered, as in a partition.
    ///
    /// # Errors
    ///
    /// When it does not run or cannot be signalled.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal("-STOP")
    }

    /// Lets it go on after [`Self::freeze`].
    ///
    /// # Errors
    ///
    /// When it does not run or cannot be signalled.
    pub fn thaw(&self) -> io::Result<()> {
        self.signal("-CONT")
    }

    fn signal(&self, signal: &str) -> io::Result<()> {
        let id = self.child.as_ref().and_then(Child::id);
        let id = id.ok_or_else(|| io::Error::other("redis-server does not run"))?;
        let status = Plain::new("kill")
            .args([signal, &id.to_string()])
            .status()?;
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other("kill failed")),
        }
    }
}
