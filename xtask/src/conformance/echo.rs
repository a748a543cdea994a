//! The peers of the Autobahn cases: whoever is tested sends back each message it gets.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context as _, Result, bail};

use super::talkline::Relay;
use super::wire;

/// The key of every frame that the echo sends as a client. A fixed one is enough on loopback.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Starts an upstream that sends every message back; it serves until the process ends.
///
/// # Errors
/// When there is no port.
pub(crate) fn upstream() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // What goes wrong here is seen by the suite, which misses its echo.
            thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let (head, early) = wire::read_head(&mut stream)?;
    let key = wire::header(&head, "sec-websocket-key").context("a request without key")?;
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        wire::accept(key)
    )?;
    echo(stream, early, None)
}

/// Opens a session through the relay and sends back what comes, until it is closed.
///
/// # Errors
/// When the relay refuses the session, or the stream breaks, as many cases want it.
pub(crate) fn client(relay: &Relay, model: &str) -> Result<()> {
    let (stream, early) = relay.open(model)?;
    stream.set_read_timeout(None)?;
    echo(stream, early, Some(KEY))
}

/// Frame by frame: a fragmented message comes back in the same fragments.
fn echo(mut stream: TcpStream, mut buffer: Vec<u8>, key: Option<[u8; 4]>) -> Result<()> {
    let mut scratch = vec![0; 64 * 1024];
    loop {
        while let Some((frame, used)) = wire::frame(&buffer) {
            buffer.drain(..used);
            let opcode = match frame.opcode {
                wire::PING => wire::PONG,
                wire::PONG => continue,
                other => other,
            };
            stream.write_all(&wire::encode(frame.fin, opcode, &frame.payload, key))?;
            if frame.opcode == wire::CLOSE {
                stream.shutdown(Shutdown::Write)?;
                io::copy(&mut stream, &mut io::sink())?;
                return Ok(());
            }
        }
        let read = stream.read(&mut scratch)?;
        if read == 0 {
            return Ok(());
        }
        buffer.extend_from_slice(&scratch[..read]);
    }
}

/// Asks a fuzzing server something outside of the relay; returns the payload of its first message.
///
/// # Errors
/// When it does not answer 101.
pub(crate) fn ask(server: SocketAddr, target: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server)?;
    request(&mut stream, server, target)?;
    let (head, mut buffer) = wire::read_head(&mut stream)?;
    if !head.starts_with("HTTP/1.1 101 ") {
        bail!("{target}: {}", head.lines().next().unwrap_or_default());
    }
    let mut scratch = [0; 4096];
    loop {
        if let Some((frame, _)) = wire::frame(&buffer) {
            // It has what it came for; how the two part is of no account.
            let _ = stream.write_all(&wire::encode(true, wire::CLOSE, &[], Some(KEY)));
            let _ = io::copy(&mut stream, &mut io::sink());
            return Ok(frame.payload);
        }
        let read = stream.read(&mut scratch)?;
        if read == 0 {
            return Ok(Vec::new());
        }
        buffer.extend_from_slice(&scratch[..read]);
    }
}

fn request(stream: &mut TcpStream, server: SocketAddr, target: &str) -> io::Result<()> {
    write!(
        stream,
        "GET {target} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// Stands between the relay and a fuzzing server, which names its cases in the path: a session for the
/// model `case-7` asks for case 7 there. Bytes after the request pass as they are.
///
/// # Errors
/// When there is no port.
pub(crate) fn case_by_model(server: SocketAddr, agent: &'static str) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || adapt(stream, server, agent));
        }
    });
    Ok(address)
}

fn adapt(mut relay: TcpStream, server: SocketAddr, agent: &str) -> Result<()> {
    relay.set_nodelay(true)?;
    let (head, early) = wire::read_head(&mut relay)?;
    let case = head
        .split_once("model=case-")
        .and_then(|(_, rest)| rest.split([' ', '&']).next())
        .context("a model that names no case")?;
    // The original suite refuses a request for another host than it is.
    let is_host = |line: &&str| line.to_ascii_lowercase().starts_with("host:");
    let headers: Vec<&str> = head
        .split("\r\n")
        .skip(1)
        .filter(|line| !is_host(line))
        .collect();
    let address = server;
    let mut server = TcpStream::connect(address)?;
    server.set_nodelay(true)?;
    write!(
        server,
        "GET /runCase?case={case}&agent={agent} HTTP/1.1\r\nHost: {address}\r\n{}",
        headers.join("\r\n")
    )?;
    server.write_all(&early)?;
    let (mut from_relay, mut to_server) = (relay.try_clone()?, server.try_clone()?);
    let up = thread::spawn(move || {
        let _ = io::copy(&mut from_relay, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let _ = io::copy(&mut server, &mut relay);
    let _ = relay.shutdown(Shutdown::Write);
    let _ = up.join();
    Ok(())
}
