//! `healthcheck`: asks a running relay whether it is well, for containers without a shell or curl.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::{cli::HealthcheckArguments, configuration, exit::Exit, output};

/// Time for the whole question; Docker's own default is 30 s.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of the answer that are read: the status line and a few headers.
const ANSWER_BYTES_MAX: u64 = 4096;

/// Asks `/healthz`, or `/readyz` with `--ready`, on the listener for operators where there is one, else
/// on the relay's own.
pub(crate) fn healthcheck(arguments: &HealthcheckArguments) -> Result<(), Exit> {
    let resolved = configuration::load(&arguments.config)?;
    let config = &resolved.config;
    let listen = match &config.admin {
        Some(admin) => admin.listen,
        None if config.server.tls.is_some() || arguments.config.tls_dev => {
            return Err(Exit::CouldNotRun(
                "the relay speaks TLS under its public name, which is not known here\n\
                 hint: set admin.listen, whose health is asked in plain text"
                    .into(),
            ));
        }
        None => config.server.listen,
    };
    let path = if arguments.ready {
        "/readyz"
    } else {
        "/healthz"
    };
    let address = reachable(listen);
    let status = ask(address, path)
        .map_err(|error| Exit::Findings(format!("{address} does not answer: {error}")))?;
    match status.as_str() {
        "200" => output::line("ok"),
        status => Err(Exit::Findings(format!("{path} answered {status}"))),
    }
}

/// An address that leads to a listener on this machine: one that listens on all of them is asked on
/// loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The status of a GET.
fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let deadline = Instant::now() + PATIENCE;
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        left.max(Duration::from_millis(1))
    };
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_write_timeout(Some(left()))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    stream.set_read_timeout(Some(left()))?;
    let mut answer = Vec::new();
    let mut taken = stream.take(ANSWER_BYTES_MAX);
    let mut piece = [0; 512];
    while !answer.contains(&b'\n') {
        match taken.read(&mut piece)? {
            0 => break,
            read => answer.extend_from_slice(&piece[..read]),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let mut words = text.split(' ');
    match (words.next(), words.next()) {
        (Some("HTTP/1.1"), Some(status)) if status.len() == 3 => Ok(status.to_owned()),
        _ => Err(std::io::Error::other("the answer is not HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        let check = |listen: &str, expected: &str| {
            let listen = listen.parse().expect("an address");
            assert_eq!(reachable(listen).to_string(), expected);
        };
        check("0.0.0.0:8080", "127.0.0.1:8080");
        check("[::]:8080", "[::1]:8080");
        check("10.0.0.4:9090", "10.0.0.4:9090");
    }
}
