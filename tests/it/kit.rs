//! What the tests share: the processes, a raw client, a listener that must stay unused.

use std::{
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use talkline_sim::{
    Builder, Pace, Running, Simulator,
    caller::{Call, CallError, Secret, Speed, TurnOptions, TurnReport, spoken_turn},
    clips,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use crate::recording;

/// Long enough for a loaded machine; nothing waits this long unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const CLIENT_KEY: &str = "CANARY-CLIENT-KEY-31d0-b7e1f09a44c2d5886";
pub const AZURE_KEY: &str = "CANARY-AZURE-KEY-77aa-0c9d3e5b8812f46a73";
pub const DEPLOYMENT: &str = "gpt-realtime";

/// A simulator that answers without the pauses of real speech.
pub async fn simulator() -> Running {
    quick().start().await.expect("the simulator starts")
}

pub fn quick() -> Builder {
    Simulator::builder().api_key(AZURE_KEY).pace(Pace::Fast {
        delta_every: Duration::ZERO,
    })
}

/// The configuration of the seed, for an Azure resource at `endpoint`.
pub fn azure(endpoint: &str) -> String {
    azure_deployment(endpoint, DEPLOYMENT)
}

pub fn azure_deployment(endpoint: &str, deployment: &str) -> String {
    format!(
        "server.listen = \"127.0.0.1:0\"\n\
         clients.keys = [{{ name = \"test\", env = \"CLIENT_KEY\" }}]\n\
         talk.realtime.provider = \"openai\"\n\
         talk.realtime.transport = \"gateway-relay\"\n\
         talk.realtime.providers.openai.azureEndpoint = \"{endpoint}\"\n\
         talk.realtime.providers.openai.azureDeployment = \"{deployment}\"\n\
         talk.realtime.providers.openai.apiKey = {{ env = \"AZURE_KEY\" }}\n\
         server.allowedHosts = [\"relay.test\"]\n"
    )
}

/// Where [`tls_server`] puts the certificate that vouches for its own, in PEM.
pub const AUTHORITY: &str = "authority.pem";

/// A server's side for `name`, and [`AUTHORITY`] in `folder`.
pub fn tls_server(name: &str, folder: &Path) -> Arc<rustls::ServerConfig> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(DnType::CommonName, "authority of one test");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join(AUTHORITY), authority.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    talkline_gateway::tls::server_config_from(
        vec![certificate.der().clone()],
        PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    )
    .unwrap()
}

/// Lets one source open as many sessions at once as a test wants.
pub const CROWD: &str = "limits.maxHandshakesPerSource = 1000\nlimits.maxHandshakes = 1000\n";

/// The binary with an environment of its own: nothing of the developer's leaks in.
pub fn talkline(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_talkline"));
    command
        .env_clear()
        .env("HOME", home)
        .env("CLIENT_KEY", CLIENT_KEY)
        .env("AZURE_KEY", AZURE_KEY)
        .current_dir(home)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// `run`, with the log that these tests read.
pub fn run_arguments() -> [&'static str; 5] {
    let level = if recording::is_on() { "trace" } else { "info" };
    ["run", "--log-format", "json", "--log-level", level]
}

/// The same binary, started by a shell after `script`, with the same environment.
pub fn talkline_after(home: &Path, script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &format!("{script}; exec \"$0\" \"$@\"")])
        .arg(env!("CARGO_BIN_EXE_talkline"))
        .env_clear()
        .env("HOME", home)
        .env("CLIENT_KEY", CLIENT_KEY)
        .env("AZURE_KEY", AZURE_KEY)
        .current_dir(home)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// What a command that ends by itself printed.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// Runs the binary to its end.
pub async fn ended(mut command: Command) -> Ended {
    let output = timeout(PATIENCE * 3, command.output())
        .await
        .expect("it ends")
        .expect("it starts");
    recording::keep("stdout", &output.stdout);
    recording::keep("stderr", &output.stderr);
    Ended {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A running relay.
pub struct Relay {
    child: Child,
    log: JoinHandle<String>,
    /// `ws://127.0.0.1:PORT` or `wss://…`.
    pub url: String,
    /// `IP:PORT` of the relay's own listener, whatever stands in front of it.
    pub listener: String,
    /// `IP:PORT` of the listener for operators, where the configuration has one.
    pub operators: Option<String>,
    pub home: TempDir,
}

impl Relay {
    pub async fn start(configuration: &str) -> Self {
        Self::start_env(configuration, &[], &[]).await
    }

    pub async fn start_with(configuration: &str, arguments: &[&str]) -> Self {
        Self::start_env(configuration, arguments, &[]).await
    }

    pub async fn start_env(
        configuration: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(home.path().join("talkline.toml"), configuration).expect("a file");
        let mut command = talkline(home.path());
        command
            .args(run_arguments())
            .args(arguments)
            .envs(variables.iter().copied());
        Self::spawn(home, command).await
    }

    /// Starts a command that ends up running `talkline run`, in a home that has its configuration.
    pub async fn spawn(home: TempDir, mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stderr = child.stderr.take().expect("stderr is piped");
        let mut kept = recording::file("log");
        let log = tokio::spawn(async move {
            let mut text = Vec::new();
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
                text.extend_from_slice(&buffer[..read]);
                if let Some(file) = &mut kept {
                    file.write_all(&buffer[..read])
                        .expect("the recording is written");
                }
            }
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let first = timeout(PATIENCE, lines.next_line())
            .await
            .expect("it says where it listens");
        let Some(line) = first.expect("stdout is text") else {
            panic!(
                "the relay ended at once: {}",
                log.await.expect("the log is read")
            );
        };
        let url = line
            .strip_prefix("listening on ")
            .expect("it says where it listens");
        let (scheme, listener) = url.split_once("://").expect("a URL");
        let configuration = std::fs::read_to_string(home.path().join("talkline.toml"));
        let operators = match configuration.is_ok_and(|text| text.contains("admin.listen")) {
            true => {
                let second = timeout(PATIENCE, lines.next_line()).await;
                let line = second.expect("it says where operators go");
                let line = line.expect("stdout is text").expect("another line");
                let address = line.strip_prefix("operators on http://");
                Some(address.expect("an address").to_owned())
            }
            false => None,
        };
        let url = if recording::is_on() {
            format!("{scheme}://{}", recording::tee(listener.to_owned()).await)
        } else {
            url.to_owned()
        };
        Self {
            child,
            log,
            listener: listener.to_owned(),
            operators,
            url,
            home,
        }
    }

    pub fn authority(&self) -> &str {
        self.url.split_once("://").expect("a URL").1
    }

    pub fn call(&self, path: &str) -> Call {
        Call {
            bearer: Some(Secret::new(CLIENT_KEY)),
            ..Call::new(format!("{}{path}", self.url))
        }
    }

    /// A call to the path of the OpenAI SDKs.
    pub fn plain_call(&self) -> Call {
        self.call(&format!("/v1/realtime?model={DEPLOYMENT}"))
    }

    /// What the listener for operators answers to a GET.
    pub async fn operators_get(&self, path: &str) -> String {
        let operators = self.operators.as_deref().expect("a listener for operators");
        let request = format!("GET {path} HTTP/1.1\r\nHost: {operators}\r\n\r\n");
        raw(operators, request.as_bytes()).await
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill")
            .args([name, &pid])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// Open descriptors of the process.
    pub fn descriptors(&self) -> usize {
        let pid = self.child.id().expect("it runs");
        let open = std::fs::read_dir(format!("/proc/{pid}/fd"));
        open.expect("a system with /proc").count()
    }

    /// Sessions that the relay counts, by its metrics. It has a listener for operators.
    pub async fn active(&self) -> u64 {
        let operators = self
            .operators
            .as_deref()
            .expect("operators have a listener");
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {operators}\r\n\r\n");
        let page = raw(operators, request.as_bytes()).await;
        let counts: Vec<u64> = page
            .lines()
            .filter_map(|line| {
                line.strip_prefix("talkline_sessions_active")?
                    .split(' ')
                    .nth(1)
            })
            .map(|count| count.parse().expect("a count"))
            .collect();
        assert!(!counts.is_empty(), "{page}");
        counts.iter().sum()
    }

    pub async fn exit_status(&mut self) -> ExitStatus {
        timeout(PATIENCE, self.child.wait())
            .await
            .expect("it ends")
            .expect("it can be waited for")
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// The log of a relay that has ended.
    pub async fn log_of_the_dead(self) -> String {
        timeout(PATIENCE, self.log)
            .await
            .expect("the log ends")
            .expect("the log is read")
    }

    /// Ends the relay and returns its log.
    pub async fn log(mut self) -> String {
        self.signal("-TERM");
        self.exit_status().await;
        timeout(PATIENCE, self.log)
            .await
            .expect("the log ends")
            .expect("the log is read")
    }
}

/// One spoken turn, as fast as it goes.
pub async fn turn(call: &Call) -> Result<TurnReport, CallError> {
    let question = clips::QUESTION.wav().expect("the bundled question");
    let options = TurnOptions {
        speed: Speed::Fast,
        ..TurnOptions::default()
    };
    spoken_turn(call, &question, &options).await
}

/// Sends raw bytes and reads the answer's head and body up to the end of the stream or a silence.
pub async fn raw(authority: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(authority)
        .await
        .expect("the relay listens");
    stream
        .write_all(request)
        .await
        .expect("the request is sent");
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("the relay hangs up");
    String::from_utf8_lossy(&answer).into_owned()
}

/// A listener that stands in for api.openai.com and counts who comes.
pub struct Trap {
    port: u16,
    caught: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Trap {
    pub async fn set() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let caught = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&caught);
        let accepting = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self {
            port,
            caught,
            accepting,
        }
    }

    /// Value of `--resolve` that leads api.openai.com here.
    pub fn resolve(&self) -> String {
        format!("api.openai.com:443:127.0.0.1:{}", self.port)
    }

    pub fn caught(&self) -> usize {
        self.caught.load(Ordering::SeqCst)
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A way to the simulator that counts who takes it.
pub struct Counter {
    pub url: String,
    dials: Arc<AtomicUsize>,
    /// Those that are open.
    open: watch::Sender<usize>,
}

impl Counter {
    pub async fn before(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let dials = Arc::<AtomicUsize>::default();
        let open = watch::Sender::new(0);
        let (counted, sockets) = (Arc::clone(&dials), open.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                sockets.send_modify(|open| *open += 1);
                let sockets = sockets.clone();
                tokio::spawn(async move {
                    if let Ok(far) = TcpStream::connect(upstream).await {
                        join(stream, far).await;
                    }
                    sockets.send_modify(|open| *open -= 1);
                });
            }
        });
        Self { url, dials, open }
    }

    /// How often it was taken.
    pub fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }

    /// Waits until nobody takes it.
    pub async fn idle(&self) {
        let mut open = self.open.subscribe();
        let idle = timeout(PATIENCE, open.wait_for(|open| *open == 0)).await;
        let _ = idle.expect("the upstream's sockets are closed").unwrap();
    }
}

/// Carries bytes both ways until the relay has hung up, whether the far side has or not.
async fn join(mut relay: TcpStream, mut far: TcpStream) {
    /// What a far side may take to see that the relay says no more.
    const LINGER: Duration = Duration::from_millis(500);
    let (mut from_relay, mut to_relay) = relay.split();
    let (mut from_far, mut to_far) = far.split();
    let up = async {
        let _ = copy(&mut from_relay, &mut to_far).await;
        let _ = to_far.shutdown().await;
    };
    let down = async {
        let _ = copy(&mut from_far, &mut to_relay).await;
        let _ = to_relay.shutdown().await;
    };
    tokio::pin!(up, down);
    tokio::select! {
        () = &mut up => drop(timeout(LINGER, down).await),
        () = &mut down => up.await,
    }
}

/// A WebSocket client that shows what it got, byte for byte.
pub struct RawSession {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Status line and headers of the answer.
    pub head: String,
}

/// A frame as it came: opcode and payload.
#[derive(Debug, PartialEq, Eq)]
pub struct RawFrame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl RawFrame {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.payload).expect("a JSON event")
    }

    pub fn close(&self) -> (u16, &str) {
        assert_eq!(self.opcode, 8, "{self:?}");
        let code = u16::from_be_bytes([self.payload[0], self.payload[1]]);
        (
            code,
            std::str::from_utf8(&self.payload[2..]).expect("a reason in UTF-8"),
        )
    }
}

impl RawSession {
    pub async fn open(authority: &str, target: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(authority)
            .await
            .expect("the relay listens");
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        stream
            .write_all(request.as_bytes())
            .await
            .expect("the request is sent");
        let mut session = Self {
            stream,
            buffer: Vec::new(),
            head: String::new(),
        };
        loop {
            if let Some(end) = session
                .buffer
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            {
                let head: Vec<u8> = session.buffer.drain(..end + 4).collect();
                session.head = String::from_utf8(head).expect("an HTTP head");
                return session;
            }
            assert!(
                session.fill().await,
                "the relay hung up: {:?}",
                session.buffer
            );
        }
    }

    /// What follows the head of a refusal, to the end.
    pub async fn body(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    /// The next frame, or `None` at the end of the stream.
    pub async fn frame(&mut self) -> Option<RawFrame> {
        loop {
            if let Some((header, length)) = self.header()
                && self.buffer.len() >= header + length
            {
                let opcode = self.buffer[0] & 0x0f;
                let payload = self.buffer[header..header + length].to_vec();
                self.buffer.drain(..header + length);
                return Some(RawFrame { opcode, payload });
            }
            if !self.fill().await {
                assert!(self.buffer.is_empty(), "a frame was cut short");
                return None;
            }
        }
    }

    /// The whole frames up to a frame that is cut short.
    pub async fn until_cut(&mut self) -> Vec<RawFrame> {
        while self.fill().await {}
        let mut frames = Vec::new();
        while self
            .header()
            .is_some_and(|(header, length)| self.buffer.len() >= header + length)
        {
            frames.extend(self.frame().await);
        }
        assert!(
            !self.buffer.is_empty(),
            "no frame was cut short: {frames:?}"
        );
        frames
    }

    /// All frames to the end, or `None` if the last one was cut short. Pings and a close are answered.
    pub async fn rest(&mut self) -> Option<Vec<RawFrame>> {
        let mut frames = Vec::new();
        loop {
            while self
                .header()
                .is_some_and(|(header, length)| self.buffer.len() >= header + length)
            {
                let frame = self.frame().await.expect("it is whole");
                let answer = match frame.opcode {
                    9 => Some(10),
                    8 => Some(8),
                    _ => None,
                };
                if let Some(opcode) = answer {
                    // Who has hung up meanwhile wants no answer.
                    let _ = self.stream.write_all(&masked(opcode, &frame.payload)).await;
                }
                frames.push(frame);
            }
            if !self.fill().await {
                return self.buffer.is_empty().then_some(frames);
            }
        }
    }

    /// The next frame that is not a ping.
    pub async fn event(&mut self) -> RawFrame {
        loop {
            let frame = self.frame().await.expect("another frame");
            if frame.opcode != 9 {
                return frame;
            }
        }
    }

    pub async fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.stream
            .write_all(&masked(opcode, payload))
            .await
            .expect("the frame is sent");
    }

    fn header(&self) -> Option<(usize, usize)> {
        let second = *self.buffer.get(1)?;
        assert_eq!(second & 0x80, 0, "a server's frame is not masked");
        match second {
            126 => Some((
                4,
                usize::from(u16::from_be_bytes(self.buffer.get(2..4)?.try_into().ok()?)),
            )),
            127 => {
                let length = u64::from_be_bytes(self.buffer.get(2..10)?.try_into().ok()?);
                Some((10, usize::try_from(length).ok()?))
            }
            short => Some((2, usize::from(short))),
        }
    }

    async fn fill(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        read.expect("the relay says something").unwrap_or(0) > 0
    }
}

/// A frame of a client's.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![0x80 | opcode];
    match u8::try_from(payload.len()) {
        Ok(short @ ..126) => frame.push(0x80 | short),
        _ => {
            let length = u16::try_from(payload.len()).expect("at most 64 KiB");
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(
        payload
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ mask[at % 4]),
    );
    frame
}
