//! Who is compared, and how each is started.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::load::Load;
use crate::process;
use crate::workspace::Workspace;

/// The relay's processor and the generator's.
pub(crate) const RELAY_CPU: usize = 0;
pub(crate) const LOAD_CPU: usize = 1;

/// Longest wait for a peer to listen.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// Somebody who stands between a client and an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Talkline,
    TalklineTls,
    HaproxyTcp,
    HaproxyHttp,
    HaproxyTls,
    Nginx,
    /// tokio's `copy_bidirectional`.
    Raw,
    Fastwebsockets,
    Tungstenite,
    /// One receive and one send, and only their time counts.
    Floor,
    /// Nobody: the generator talks to itself.
    Direct,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Talkline => "Talkline",
            Peer::TalklineTls => "Talkline, TLS upstream",
            Peer::HaproxyTcp => "HAProxy tcp",
            Peer::HaproxyHttp => "HAProxy http",
            Peer::HaproxyTls => "HAProxy tcp, TLS upstream",
            Peer::Nginx => "nginx http",
            Peer::Raw => "copy_bidirectional",
            Peer::Fastwebsockets => "fastwebsockets, naive",
            Peer::Tungstenite => "tokio-tungstenite, naive",
            Peer::Floor => "one recv + one send",
            Peer::Direct => "no relay",
        }
    }

    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Peer::Talkline | Peer::TalklineTls)
    }

    pub(crate) fn start(self, tools: &Tools, load: &Load) -> Result<Relay> {
        let folder = tools.folder.join(format!("{self:?}").to_lowercase());
        fs::create_dir_all(&folder)?;
        let mut spawned = match self {
            Peer::Direct => return Ok(Relay::direct(load.plain)),
            Peer::Talkline => talkline(tools, &folder, &format!("http://{}", load.plain)),
            Peer::TalklineTls => {
                let mut command = talkline(tools, &folder, &format!("https://{}", load.tls))?;
                command.env("SSL_CERT_FILE", &load.authority);
                Ok(command)
            }
            Peer::HaproxyTcp | Peer::HaproxyHttp | Peer::HaproxyTls => {
                return haproxy(self, tools, load, &folder);
            }
            Peer::Nginx => return nginx(tools, load, &folder),
            Peer::Raw => Ok(naive(tools, &tools.binaries.raw, load)),
            Peer::Fastwebsockets => Ok(naive(tools, &tools.binaries.fastwebsockets, load)),
            Peer::Tungstenite => Ok(naive(tools, &tools.binaries.tungstenite, load)),
            Peer::Floor => Ok(naive(tools, &tools.binaries.floor, load)),
        }?;
        let log = fs::File::create(folder.join("log"))?;
        spawned
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = spawned
            .spawn()
            .with_context(|| process::cannot_start(&spawned))?;
        let stdout = child
            .stdout
            .take()
            .context("standard output was asked for")?;
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address = line.trim().rsplit(['/', ' ']).next().unwrap_or_default();
        let mut relay = Relay {
            address: load.plain,
            child: Some(child),
            answers: (self == Peer::Floor).then_some(stdout),
        };
        relay.address = address.parse().with_context(|| {
            format!(
                "{} said `{}`; see {}",
                self.name(),
                line.trim(),
                folder.display()
            )
        })?;
        Ok(relay)
    }
}

/// What cargo built.
pub(crate) struct Binaries {
    pub(crate) talkline: PathBuf,
    pub(crate) load: PathBuf,
    pub(crate) floor: PathBuf,
    pub(crate) raw: PathBuf,
    pub(crate) fastwebsockets: PathBuf,
    pub(crate) tungstenite: PathBuf,
}

/// What this machine has.
pub(crate) struct Tools {
    pub(crate) binaries: Binaries,
    pub(crate) haproxy: Option<String>,
    pub(crate) nginx: Option<String>,
    /// Whether processes can be kept to a processor of their own.
    pins: bool,
    folder: PathBuf,
    /// What is left out for want of a tool.
    pub(crate) missing: Vec<String>,
}

impl Tools {
    pub(crate) fn find(workspace: &Workspace, binaries: Binaries) -> Result<Tools> {
        let haproxy = process::first_line("haproxy", &["-v"])?;
        // It prints its version on standard error.
        let nginx = Command::new("nginx").arg("-v").output();
        let nginx = nginx.ok().map(|output| {
            String::from_utf8_lossy(&output.stderr)
                .trim()
                .replace("nginx version: ", "")
        });
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let pins = cpus > LOAD_CPU && process::first_line("taskset", &["--version"])?.is_some();
        let mut missing = Vec::new();
        if haproxy.is_none() {
            missing.push("HAProxy: not found (Debian: apt-get install haproxy)".to_owned());
        }
        if nginx.is_none() {
            missing.push("nginx: not found (Debian: apt-get install nginx)".to_owned());
        }
        if !pins {
            missing.push("CPU pinning: needs taskset and two processors".to_owned());
        }
        Ok(Tools {
            binaries,
            haproxy,
            nginx,
            pins,
            folder: workspace.target.join("bench"),
            missing,
        })
    }

    pub(crate) fn present(&self, peers: &[Peer]) -> Vec<Peer> {
        peers
            .iter()
            .copied()
            .filter(|peer| match peer {
                Peer::HaproxyTcp | Peer::HaproxyHttp | Peer::HaproxyTls => self.haproxy.is_some(),
                Peer::Nginx => self.nginx.is_some(),
                _ => true,
            })
            .collect()
    }

    /// A command that runs on one processor, where that can be had.
    pub(crate) fn pinned(&self, cpu: usize, program: impl AsRef<Path>) -> Command {
        if !self.pins {
            return Command::new(program.as_ref());
        }
        let mut command = Command::new("taskset");
        command.args(["-c", &cpu.to_string()]).arg(program.as_ref());
        command
    }
}

/// A started peer; stopped when dropped.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    child: Option<Child>,
    answers: Option<BufReader<ChildStdout>>,
}

impl Relay {
    fn direct(address: SocketAddr) -> Relay {
        Relay {
            address,
            child: None,
            answers: None,
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// What the floor counted: nanoseconds and bytes.
    pub(crate) fn floor(&mut self) -> Result<Option<(u64, u64)>> {
        let (Some(answers), Some(child)) = (&mut self.answers, &mut self.child) else {
            return Ok(None);
        };
        let stdin = child
            .stdin
            .as_mut()
            .context("standard input was asked for")?;
        stdin.write_all(b"\n")?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let (nanoseconds, bytes) = line.trim().split_once(' ').context("two numbers")?;
        Ok(Some((nanoseconds.parse()?, bytes.parse()?)))
    }

    /// Waits until somebody listens.
    fn listening(child: Child, address: SocketAddr) -> Result<Relay> {
        let relay = Relay {
            address,
            child: Some(child),
            answers: None,
        };
        let deadline = Instant::now() + START_TIME_MAX;
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                bail!("nobody listens on {address}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(relay)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else {
            return;
        };
        // nginx has children of its own, which a kill would orphan.
        let asked = Command::new("kill")
            .args(["-TERM", &child.id().to_string()])
            .status();
        let deadline = Instant::now() + Duration::from_secs(2);
        while asked.is_ok() && Instant::now() < deadline {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn talkline(tools: &Tools, folder: &Path, upstream: &str) -> Result<Command> {
    let configuration = format!(
        "server.listen = \"127.0.0.1:0\"\n\
         clients.allowAnonymous = true\n\
         limits.maxSessions = 20000\n\
         limits.maxHandshakes = 1024\n\
         limits.maxHandshakesPerSource = 1024\n\
         limits.framesPerSecond = 0\n\
         limits.bytesPerSecond = \"0KiB\"\n\
         limits.drainGrace = \"0s\"\n\
         talk.realtime.provider = \"custom\"\n\
         talk.realtime.allowAnyModel = true\n\
         talk.realtime.providers.custom.baseUrl = \"{upstream}/v1\"\n\
         talk.realtime.providers.custom.auth.kind = \"none\"\n"
    );
    fs::write(folder.join("talkline.toml"), configuration)?;
    let mut command = tools.pinned(RELAY_CPU, &tools.binaries.talkline);
    command
        .args(["run", "--log-format", "json", "--log-level", "warn"])
        .env("HOME", folder)
        .current_dir(folder);
    Ok(command)
}

fn naive(tools: &Tools, binary: &Path, load: &Load) -> Command {
    let mut command = tools.pinned(RELAY_CPU, binary);
    command.arg(load.plain.to_string());
    command
}

/// HAProxy and nginx cannot be asked for a port of the system's choice; one that was just free is the next
/// best.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn haproxy(peer: Peer, tools: &Tools, load: &Load, folder: &Path) -> Result<Relay> {
    let address = free_port()?;
    let (mode, server) = match peer {
        Peer::HaproxyHttp => ("http", load.plain.to_string()),
        Peer::HaproxyTls => (
            "tcp",
            format!(
                "{} ssl verify required ca-file {}",
                load.tls,
                load.authority.display()
            ),
        ),
        _ => ("tcp", load.plain.to_string()),
    };
    // Its limit is derived from the descriptors that it may open, four a session.
    let configuration = format!(
        "global\n  nbthread 1\n  maxconn 9000\n\
         defaults\n  mode {mode}\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n  \
         timeout tunnel 1h\n\
         listen relay\n  bind {address}\n  server upstream {server}\n"
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, configuration)?;
    let log = fs::File::create(folder.join("log"))?;
    let child = tools
        .pinned(RELAY_CPU, "haproxy")
        .arg("-db")
        .arg("-f")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    Relay::listening(child, address)
        .with_context(|| format!("HAProxy; see {}", folder.join("log").display()))
}

fn nginx(tools: &Tools, load: &Load, folder: &Path) -> Result<Relay> {
    let address = free_port()?;
    let configuration = format!(
        "daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log {folder}/error.log;\n\
         events {{ worker_connections 20000; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path {folder}/body;\n  \
         proxy_temp_path {folder}/proxy;\n  fastcgi_temp_path {folder}/fastcgi;\n  \
         uwsgi_temp_path {folder}/uwsgi;\n  scgi_temp_path {folder}/scgi;\n  \
         server {{\n    listen {address} backlog=4096;\n    location / {{\n      \
         proxy_pass http://{};\n      proxy_http_version 1.1;\n      \
         proxy_set_header Upgrade $http_upgrade;\n      proxy_set_header Connection upgrade;\n      \
         proxy_read_timeout 1h;\n      proxy_send_timeout 1h;\n    }}\n  }}\n}}\n",
        load.plain,
        folder = folder.display(),
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, configuration)?;
    let log = fs::File::create(folder.join("log"))?;
    let child = tools
        .pinned(RELAY_CPU, "nginx")
        .arg("-e")
        .arg(folder.join("error.log"))
        .arg("-c")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    Relay::listening(child, address)
        .with_context(|| format!("nginx; see {}", folder.join("log").display()))
}
