//! All sessions of a job, driven by one thread.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::ServerConfig;

use crate::connection::{Connection, End, Phase, Stream};
use crate::job::{Found, Job, Pattern, Quantiles};
use crate::process;
use crate::traffic::Template;
use crate::wire::{self, Header, Piece};

const PLAIN: Token = Token(0);
const TLS: Token = Token(1);
const FIRST: usize = 2;

/// Longest wait for a session to open.
const OPEN_TIME_MAX: Duration = Duration::from_secs(30);
/// After the last frame, for the relay to come to rest.
const REST: Duration = Duration::from_millis(1500);
/// Time after the end of all sessions at which memory is looked at again.
const AFTER: Duration = Duration::from_secs(2);
/// Bytes that a stalled session's upstream keeps ready.
const FLOOD_BYTES: usize = 256 * 1024;
/// Frames that are sent before what has come is taken.
const FRAMES_PER_TURN: usize = 64;
const RECEIVE_BYTES: usize = 256 * 1024;
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Both listeners, for as long as the generator runs.
pub struct Listeners {
    pub plain: TcpListener,
    pub tls: TcpListener,
    pub configuration: Arc<ServerConfig>,
}

impl Listeners {
    /// Listens on ports of the system's choice.
    ///
    /// # Errors
    /// When there are none.
    pub fn bind(configuration: Arc<ServerConfig>) -> Result<Listeners> {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        Ok(Listeners {
            plain: TcpListener::bind(any)?,
            tls: TcpListener::bind(any)?,
            configuration,
        })
    }
}

/// A session's two connections, as indices.
#[derive(Clone, Copy, Debug, Default)]
struct Session {
    client: Option<usize>,
    upstream: Option<usize>,
    opened_at: u64,
    is_open: bool,
    /// Its client does not read any more; the connection to its upstream says when the relay has ended it.
    is_stalled: bool,
}

struct World<'a> {
    job: &'a Job,
    listeners: &'a mut Listeners,
    poll: Poll,
    start: Instant,
    connections: Vec<Option<Connection>>,
    sessions: Vec<Session>,
    open: usize,
    append: Template,
    delta: Template,
    scratch: Vec<u8>,
    buffer: Vec<u8>,
    latency: Histogram<u64>,
    set_up: Histogram<u64>,
    counts: bool,
    /// The sessions are being closed on purpose.
    closing: bool,
    found: Found,
}

/// Does one job.
///
/// # Errors
/// When the sessions cannot be opened.
pub fn run(listeners: &mut Listeners, job: &Job) -> Result<Found> {
    let poll = Poll::new()?;
    poll.registry()
        .register(&mut listeners.plain, PLAIN, Interest::READABLE)?;
    poll.registry()
        .register(&mut listeners.tls, TLS, Interest::READABLE)?;
    let histogram = || Histogram::new_with_bounds(1, 60_000_000_000, 3);
    let mut world = World {
        job,
        listeners,
        poll,
        start: Instant::now(),
        connections: Vec::new(),
        sessions: Vec::new(),
        open: 0,
        append: Template::append(),
        delta: Template::delta(),
        scratch: Vec::new(),
        buffer: vec![0; RECEIVE_BYTES],
        latency: histogram()?,
        set_up: histogram()?,
        counts: false,
        closing: false,
        found: Found::default(),
    };
    let done = world.job();
    let World {
        listeners,
        poll,
        latency,
        set_up,
        mut found,
        ..
    } = world;
    poll.registry().deregister(&mut listeners.plain)?;
    poll.registry().deregister(&mut listeners.tls)?;
    done?;
    found.latency = Quantiles::of(&latency);
    found.set_up = Quantiles::of(&set_up);
    Ok(found)
}

impl World<'_> {
    fn job(&mut self) -> Result<()> {
        let pids = self.pids();
        self.found.sessions = self.job.sessions;
        self.found.resident_before_kib = process::resident_kib(&pids);
        self.open_all()?;
        let warm_up = Duration::from_millis(self.job.warm_up_ms);
        let measured = Duration::from_millis(self.job.measure_ms);
        match self.job.pattern {
            Pattern::Burst { tick_us } | Pattern::Spread { tick_us } => {
                let mut schedule = Schedule::new(self.now(), tick_us, self.job.pattern, self.job.sessions);
                self.paced(&mut schedule, warm_up)?;
                self.measured(&pids, |world| world.paced(&mut schedule, measured))?;
            }
            Pattern::Saturation { window, .. } => {
                for session in 0..self.sessions.len() {
                    for _ in 0..window {
                        self.frame(session, End::Client, self.now());
                        self.frame(session, End::Upstream, self.now());
                    }
                }
                self.run_for(warm_up)?;
                self.measured(&pids, |world| world.run_for(measured))?;
            }
            Pattern::Idle { frames } => {
                for _ in 0..frames {
                    for session in 0..self.sessions.len() {
                        self.frame(session, End::Client, self.now());
                        self.frame(session, End::Upstream, self.now());
                    }
                    self.run_for(Duration::from_millis(50))?;
                }
                self.run_for(REST)?;
                self.measured(&pids, |world| world.run_for(measured))?;
            }
            Pattern::SetUp => {}
            Pattern::Stalled {
                neighbours,
                tick_us,
                evicted_within_ms,
            } => {
                let mut schedule = Schedule::new(self.now(), tick_us, self.job.pattern, neighbours);
                self.paced(&mut schedule, Duration::from_secs(1))?;
                self.measured(&pids, |world| world.paced(&mut schedule, measured))?;
                self.found.quiet = Quantiles::of(&self.latency);
                self.latency.reset();
                let stalled_at = self.now();
                self.stall(neighbours);
                self.paced(&mut schedule, warm_up)?;
                self.measured(&pids, |world| world.paced(&mut schedule, measured))?;
                self.note_memory();
                self.evicted(&mut schedule, stalled_at, evicted_within_ms * 1_000_000)?;
            }
        }
        if !matches!(self.job.pattern, Pattern::Stalled { .. }) {
            self.note_memory();
        }
        self.close_all()?;
        self.found.resident_after_kib = process::resident_kib(&self.pids());
        Ok(())
    }

    fn note_memory(&mut self) {
        self.found.resident_open_kib = process::resident_kib(&self.pids());
        self.found.socket_kib = process::socket_kib();
    }

    fn pids(&self) -> Vec<u32> {
        self.job.pid.map(process::family).unwrap_or_default()
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn measured(
        &mut self,
        pids: &[u32],
        work: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        let own = [std::process::id()];
        let own_cpu = process::cpu_nanoseconds(&own);
        let (cpu, ticks, from) = (process::cpu_nanoseconds(pids), process::cpu_ticks(pids), self.now());
        self.counts = true;
        let done = work(self);
        self.counts = false;
        let after = process::cpu_ticks(pids);
        self.found.cpu_ns = process::cpu_nanoseconds(pids).saturating_sub(cpu);
        self.found.generator_ns = process::cpu_nanoseconds(&own).saturating_sub(own_cpu);
        self.found.user_ticks = after.0.saturating_sub(ticks.0);
        self.found.system_ticks = after.1.saturating_sub(ticks.1);
        self.found.seconds = (self.now() - from) as f64 / 1e9;
        self.found.resident_busy_kib = process::resident_kib(pids);
        done
    }

    // === Opening and closing ===

    fn open_all(&mut self) -> Result<()> {
        let start = self.now();
        let mut last = Instant::now();
        let mut before = 0;
        while self.open < self.job.sessions {
            while self.sessions.len() < self.job.sessions
                && self.sessions.len() - self.open < self.job.opening
            {
                self.connect()?;
            }
            self.turn(Some(Duration::from_millis(100)))?;
            if self.open > before {
                (before, last) = (self.open, Instant::now());
            }
            if last.elapsed() > OPEN_TIME_MAX || self.found.lost > 0 {
                bail!(
                    "{} of {} sessions opened, {} lost",
                    self.open,
                    self.job.sessions,
                    self.found.lost
                );
            }
            if self.job.pattern == Pattern::SetUp {
                self.retire();
            }
        }
        self.found.set_up_seconds = (self.now() - start) as f64 / 1e9;
        Ok(())
    }

    fn connect(&mut self) -> Result<()> {
        let session = self.sessions.len();
        let opened_at = self.now();
        let stream = TcpStream::connect(self.job.relay)?;
        let mut connection = Connection::new(Stream::Plain(stream), End::Client);
        connection.session = Some(session);
        let client = self.register(connection)?;
        self.sessions.push(Session {
            client: Some(client),
            opened_at,
            ..Session::default()
        });
        Ok(())
    }

    /// Closes a session that has served its purpose, when only its opening is measured.
    fn retire(&mut self) {
        self.closing = true;
        for session in 0..self.sessions.len() {
            if self.sessions[session].is_open {
                let Session { client, upstream, .. } = self.sessions[session];
                for index in [client, upstream].into_iter().flatten() {
                    self.drop_connection(index);
                }
            }
        }
        self.closing = false;
    }

    fn close_all(&mut self) -> Result<()> {
        self.closing = true;
        for index in 0..self.connections.len() {
            if self.connections[index].as_ref().is_some_and(|it| it.end == End::Client) {
                self.drop_connection(index);
            }
        }
        self.run_for(AFTER)
    }

    fn register(&mut self, mut connection: Connection) -> Result<usize> {
        let index = self.connections.len();
        self.poll.registry().register(
            connection.stream.source(),
            Token(index + FIRST),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        self.connections.push(Some(connection));
        Ok(index)
    }

    fn drop_connection(&mut self, index: usize) {
        if let Some(mut connection) = self.connections[index].take() {
            let _ = self.poll.registry().deregister(connection.stream.source());
            if let Some(session) = connection.session {
                match connection.end {
                    End::Client => self.sessions[session].client = None,
                    End::Upstream => self.sessions[session].upstream = None,
                }
            }
        }
    }

    fn accept(&mut self, token: Token) -> Result<()> {
        loop {
            let listener = match token {
                PLAIN => &self.listeners.plain,
                _ => &self.listeners.tls,
            };
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accepting a connection of the relay"),
            };
            stream.set_nodelay(true)?;
            let stream = match token {
                PLAIN => Stream::Plain(stream),
                _ => Stream::tls(stream, &self.listeners.configuration)?,
            };
            self.register(Connection::new(stream, End::Upstream))?;
        }
    }

    // === The loop ===

    fn run_for(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(Some(end.saturating_duration_since(Instant::now())))?;
        }
        Ok(())
    }

    fn paced(&mut self, schedule: &mut Schedule, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            // What has come is taken in between, however much is due.
            for _ in 0..FRAMES_PER_TURN {
                let Some((session, from, due)) = schedule.next(self.now()) else {
                    break;
                };
                self.frame(session, from, due);
            }
            let pause = Duration::from_nanos(schedule.due().saturating_sub(self.now()));
            self.turn(Some(pause.min(end.saturating_duration_since(Instant::now()))))?;
        }
        Ok(())
    }

    fn turn(&mut self, timeout: Option<Duration>) -> Result<()> {
        let mut events = Events::with_capacity(1024);
        match self.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &events {
            if matches!(event.token(), PLAIN | TLS) {
                self.accept(event.token())?;
                continue;
            }
            let index = event.token().0 - FIRST;
            if event.is_writable() {
                self.writable(index);
            }
            // Writing may have finished a TLS handshake, and taken in what came with its last message.
            let is_tls = |it: &Connection| matches!(it.stream, Stream::Tls(_));
            if event.is_readable() || self.connections[index].as_ref().is_some_and(is_tls) {
                self.readable(index);
            }
        }
        Ok(())
    }

    fn writable(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index] else {
            return;
        };
        let is_new = connection.end == End::Client
            && connection.sent == 0
            && matches!(&connection.phase, Phase::Head(head) if head.is_empty());
        let sent = if is_new {
            let Some(session) = connection.session else {
                return;
            };
            connection.sent = 1;
            let request = format!(
                "GET /v1/realtime?model=s-{session} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n",
                self.job.relay
            );
            connection.send(request.as_bytes())
        } else {
            connection.resume()
        };
        if sent.is_err() {
            self.lost(index);
            return;
        }
        if self.counts_floods(index) {
            self.flood(index);
        }
    }

    fn lost(&mut self, index: usize) {
        // Whoever looks whether a relay listens may open a connection that asks for no session.
        let session = self.connections[index].as_ref().and_then(|it| it.session);
        match session.map(|session| self.sessions[session]) {
            Some(Session { is_stalled: true, .. }) => {
                self.found.evicted += u64::from(!self.closing);
            }
            Some(_) if !self.closing => self.found.lost += 1,
            _ => {}
        }
        self.drop_connection(index);
    }

    fn readable(&mut self, index: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(connection) = &mut self.connections[index] {
            if !connection.reads {
                break;
            }
            let read = match connection.stream.read(&mut buffer) {
                Ok(0) => {
                    self.lost(index);
                    break;
                }
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => {
                    self.lost(index);
                    break;
                }
            };
            let is_dry = connection.stream.short_read_is_dry() && read < buffer.len();
            if self.bytes(index, &buffer[..read]).is_err() {
                self.lost(index);
                break;
            }
            if is_dry {
                break;
            }
        }
        self.buffer = buffer;
    }

    fn bytes(&mut self, index: usize, bytes: &[u8]) -> Result<()> {
        let Some(connection) = &mut self.connections[index] else {
            return Ok(());
        };
        let Phase::Head(head) = &mut connection.phase else {
            return self.frames(index, bytes);
        };
        head.extend_from_slice(bytes);
        let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(());
        };
        let rest = head.split_off(end + 4);
        let head = String::from_utf8_lossy(head).into_owned();
        connection.phase = Phase::Open;
        match connection.end {
            End::Client => self.opened(index, &head)?,
            End::Upstream => self.answer(index, &head)?,
        }
        self.frames(index, &rest)
    }

    fn opened(&mut self, index: usize, head: &str) -> Result<()> {
        if !head.starts_with("HTTP/1.1 101 ") {
            eprintln!("refused: {head}");
            bail!("refused");
        }
        let now = self.now();
        let Some(connection) = &mut self.connections[index] else {
            return Ok(());
        };
        connection.sent = 0;
        if let Stream::Plain(stream) = &connection.stream {
            stream.set_nodelay(true)?;
        }
        let session = connection.session.context("a client has its session")?;
        self.sessions[session].is_open = true;
        self.open += 1;
        self.set_up.saturating_record(now - self.sessions[session].opened_at);
        Ok(())
    }

    fn answer(&mut self, index: usize, head: &str) -> Result<()> {
        let session: usize = head
            .split_once("model=s-")
            .and_then(|(_, rest)| rest.split([' ', '&']).next()?.parse().ok())
            .context("a request that names its session")?;
        let key = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
            .context("a key")?
            .1;
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            wire::accept(key.trim())
        );
        if let Some(connection) = &mut self.connections[index] {
            connection.session = Some(session);
            connection.send(answer.as_bytes())?;
        }
        self.sessions
            .get_mut(session)
            .context("a session of this job")?
            .upstream = Some(index);
        Ok(())
    }

    // === Frames ===

    /// Sends the next frame of a session from one end.
    fn frame(&mut self, session: usize, from: End, due: u64) {
        self.frames_at_once(session, from, due, 1);
    }

    /// Sends the next frames of a session from one end, in one write.
    fn frames_at_once(&mut self, session: usize, from: End, due: u64, count: usize) {
        let Session { client, upstream, .. } = self.sessions[session];
        let (Some(client), Some(upstream)) = (client, upstream) else {
            return;
        };
        let (sender, receiver, template) = match from {
            End::Client => (client, upstream, &self.append),
            End::Upstream => (upstream, client, &self.delta),
        };
        let Some(connection) = &mut self.connections[sender] else {
            return;
        };
        self.scratch.clear();
        for _ in 0..count {
            template.write(connection.sent, &mut self.scratch);
            connection.sent += 1;
        }
        let sent = connection.send(&self.scratch);
        if let Some(receiver) = &mut self.connections[receiver] {
            receiver.due.extend(std::iter::repeat_n(due, count));
        }
        if sent.is_err() {
            self.lost(sender);
        }
    }

    fn frames(&mut self, index: usize, bytes: &[u8]) -> Result<()> {
        let now = self.now();
        let mut rest = bytes;
        let mut arrived = 0;
        while let Some(connection) = &mut self.connections[index] {
            let Piece::Payload { header, offset, bytes, ends } = connection.reader.next(&mut rest)
            else {
                break;
            };
            if header.opcode >= 8 {
                control(connection, header, offset, bytes, ends)?;
                continue;
            }
            let template = match connection.end {
                End::Client => &self.delta,
                End::Upstream => &self.append,
            };
            if !template.matches(connection.received, header, offset, bytes) {
                self.found.corrupt += 1;
            }
            if !ends {
                continue;
            }
            connection.received += 1;
            let due = connection.due.pop_front();
            arrived += 1;
            if self.counts {
                self.found.frames += 1;
                self.found.bytes += header.payload_bytes as u64;
                if let Some(due) = due {
                    self.latency.saturating_record(now.saturating_sub(due).max(1));
                }
            }
        }
        if let (Some(connection), false) = (&self.connections[index], self.closing)
            && let Some(session) = connection.session
        {
            self.keep_going(session, connection.end.other(), now, arrived);
        }
        Ok(())
    }

    /// Sends, from one end, as many frames as have just arrived at the other.
    fn keep_going(&mut self, session: usize, from: End, due: u64, arrived: usize) {
        let Pattern::Saturation { together, .. } = self.job.pattern else {
            return;
        };
        match (arrived, together) {
            (0, _) => {}
            (_, true) => self.frames_at_once(session, from, due, arrived),
            (_, false) => {
                for _ in 0..arrived {
                    self.frame(session, from, due);
                }
            }
        }
    }

    // === Stalled readers ===

    /// Has all but the first sessions stall.
    fn stall(&mut self, neighbours: usize) {
        for session in neighbours..self.sessions.len() {
            self.sessions[session].is_stalled = true;
            let Session { client, upstream, .. } = self.sessions[session];
            if let Some(client) = client.and_then(|client| self.connections[client].as_mut()) {
                client.reads = false;
            }
            if let Some(upstream) = upstream {
                self.flood(upstream);
            }
        }
    }

    /// Waits until the relay has ended every stalled session, or the time is over.
    fn evicted(&mut self, schedule: &mut Schedule, stalled_at: u64, within_ns: u64) -> Result<()> {
        let stalled = self.sessions.iter().filter(|it| it.is_stalled).count() as u64;
        while self.found.evicted < stalled && self.now() - stalled_at < within_ns {
            self.paced(schedule, Duration::from_millis(100))?;
        }
        self.found.evicted_seconds = (self.now() - stalled_at) as f64 / 1e9;
        Ok(())
    }

    fn counts_floods(&self, index: usize) -> bool {
        self.connections[index].as_ref().is_some_and(|it| {
            it.end == End::Upstream && it.session.is_some_and(|session| self.sessions[session].is_stalled)
        })
    }

    fn flood(&mut self, index: usize) {
        loop {
            let Some(connection) = &mut self.connections[index] else {
                return;
            };
            if connection.waiting_bytes() > FLOOD_BYTES {
                return;
            }
            self.scratch.clear();
            self.delta.write(connection.sent, &mut self.scratch);
            connection.sent += 1;
            let sent: io::Result<()> = connection.send(&self.scratch);
            if sent.is_err() {
                return self.lost(index);
            }
        }
    }
}

/// Answers a ping of the relay's; other control frames say nothing here.
fn control(
    connection: &mut Connection,
    header: Header,
    offset: usize,
    bytes: &[u8],
    ends: bool,
) -> io::Result<()> {
    const PING: u8 = 9;
    if header.opcode != PING {
        return Ok(());
    }
    connection.control.truncate(offset);
    connection.control.extend_from_slice(bytes);
    if !ends {
        return Ok(());
    }
    let mut pong = vec![0x8a];
    match connection.end {
        // A key of zeros is legal, and leaves the payload as it is.
        End::Client => pong.extend([0x80 | connection.control.len() as u8, 0, 0, 0, 0]),
        End::Upstream => pong.push(connection.control.len() as u8),
    }
    let key = header.key;
    pong.extend(connection.control.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    connection.send(&pong)
}

/// Which frame is due next. A client speaks at every tick, its upstream at every third.
struct Schedule {
    start: u64,
    tick_ns: u64,
    sessions: usize,
    is_burst: bool,
    tick: u64,
    session: usize,
    /// The client's frame of this step has been handed out, the upstream's has not.
    upstream_is_next: bool,
}

impl Schedule {
    fn new(start: u64, tick_us: u64, pattern: Pattern, sessions: usize) -> Schedule {
        Schedule {
            start,
            tick_ns: tick_us * 1000,
            sessions,
            is_burst: matches!(pattern, Pattern::Burst { .. }),
            tick: 0,
            session: 0,
            upstream_is_next: false,
        }
    }

    fn due(&self) -> u64 {
        let offset = match self.is_burst {
            true => 0,
            false => self.tick_ns * self.session as u64 / self.sessions as u64,
        };
        self.start + self.tick * self.tick_ns + offset
    }

    fn next(&mut self, now: u64) -> Option<(usize, End, u64)> {
        let due = self.due();
        if due > now {
            return None;
        }
        let session = self.session;
        let shift = if self.is_burst { 0 } else { session as u64 };
        if !self.upstream_is_next && (self.tick + shift).is_multiple_of(3) {
            self.upstream_is_next = true;
            return Some((session, End::Client, due));
        }
        let from = match std::mem::take(&mut self.upstream_is_next) {
            true => End::Upstream,
            false => End::Client,
        };
        self.session += 1;
        if self.session == self.sessions {
            self.session = 0;
            self.tick += 1;
        }
        Some((session, from, due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_speaks_at_every_tick_and_its_upstream_at_every_third() {
        for pattern in [Pattern::Burst { tick_us: 40_000 }, Pattern::Spread { tick_us: 40_000 }] {
            let mut schedule = Schedule::new(0, 40_000, pattern, 4);
            let mut counts = [0; 2];
            let mut last = 0;
            while let Some((_, from, due)) = schedule.next(3 * 40_000_000 - 1) {
                counts[usize::from(from == End::Upstream)] += 1;
                assert!(due >= last);
                last = due;
            }
            assert_eq!(counts, [12, 4]);
        }
    }
}
