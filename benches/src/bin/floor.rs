//! The floor: one receive and one send for what comes, and the processor time of those two calls alone.
//!
//! Waiting for the kernel to say which sockets are ready is not counted, and nothing is looked at. What a
//! relay costs beyond this is its own. A line on standard input is answered with the nanoseconds and the
//! bytes since the line before.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{ClockId, clock_gettime};

const LISTENER: Token = Token(usize::MAX);
const STDIN: Token = Token(usize::MAX - 1);

fn main() -> Result<()> {
    let upstream = std::env::args().nth(1).context("usage: floor UPSTREAM")?;
    let upstream: SocketAddr = upstream.parse()?;
    let mut poll = Poll::new()?;
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let mut listener = TcpListener::bind(any)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let input = io::stdin();
    poll.registry()
        .register(&mut SourceFd(&input.as_raw_fd()), STDIN, Interest::READABLE)?;
    println!("listening on {}", listener.local_addr()?);
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut events = Events::with_capacity(4096);
    let (mut spent, mut passed) = (0, 0);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        let mut ready = Vec::with_capacity(4096);
        for event in &events {
            match event.token() {
                LISTENER => accept(&listener, upstream, &poll, &mut streams)?,
                STDIN => {
                    let mut line = String::new();
                    if input.read_line(&mut line)? == 0 {
                        return Ok(());
                    }
                    println!("{spent} {passed}");
                    (spent, passed) = (0, 0);
                }
                Token(index) if event.is_readable() => ready.push(index),
                _ => {}
            }
        }
        let before = processor_time();
        for &index in &ready {
            match pass(&mut streams, index, &mut buffer) {
                Ok(bytes) => passed += bytes,
                Err(_) => {
                    streams[index] = None;
                    streams[index ^ 1] = None;
                }
            }
        }
        spent += processor_time() - before;
    }
}

fn processor_time() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The two ends of a session stand side by side.
fn accept(
    listener: &TcpListener,
    upstream: SocketAddr,
    poll: &Poll,
    streams: &mut Vec<Option<TcpStream>>,
) -> Result<()> {
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // Connecting is no part of what is measured, and loopback answers at once.
        let upstream = std::net::TcpStream::connect_timeout(&upstream, Duration::from_secs(5))?;
        upstream.set_nonblocking(true)?;
        for mut stream in [client, TcpStream::from_std(upstream)] {
            stream.set_nodelay(true)?;
            let token = Token(streams.len());
            poll.registry().register(&mut stream, token, Interest::READABLE)?;
            streams.push(Some(stream));
        }
    }
}

/// One receive, one send; more only when the buffer was full or the other side is.
fn pass(streams: &mut [Option<TcpStream>], index: usize, buffer: &mut [u8]) -> io::Result<usize> {
    let mut passed = 0;
    loop {
        let Some(from) = &mut streams[index] else {
            return Ok(passed);
        };
        let read = match from.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(passed),
            Err(error) => return Err(error),
        };
        passed += read;
        let to = streams[index ^ 1].as_mut().ok_or(ErrorKind::NotConnected)?;
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            match to.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
        if read < buffer.len() {
            return Ok(passed);
        }
    }
}
