//! A guard in front of any WebSocket server: passes the handshake through as it is, then relays only
//! what is valid.
//!
//! ```text
//! cargo run -p talkline-relay --example guard -- 127.0.0.1:9000 127.0.0.1:9001
//! ```
//!
//! listens on the first address and connects to the second one for every client. It takes any request
//! for a handshake; a real service checks it (and answers for its upstream) before it relays.
#![expect(
    clippy::print_stdout,
    reason = "the example's only way to say anything"
)]

use std::io;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use talkline_relay::{Leg, Limits, Options, Session, Summary, UpstreamMasking, relay};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longest head of a request or response, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(upstream)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: guard LISTEN UPSTREAM"));
    };
    let listener = TcpListener::bind(&listen).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (client, _) = listener.accept().await?;
        let upstream = upstream.clone();
        tokio::spawn(async move {
            match serve(client, &upstream).await {
                Ok(summary) => println!("{:?}", summary.end),
                Err(error) => println!("no session: {error}"),
            }
        });
    }
}

async fn serve(mut client: TcpStream, address: &str) -> io::Result<Summary> {
    client.set_nodelay(true)?;
    let (request, client_early) = read_head(&mut client).await?;
    let mut upstream = TcpStream::connect(address).await?;
    upstream.set_nodelay(true)?;
    upstream.write_all(&request).await?;
    let (response, upstream_early) = read_head(&mut upstream).await?;
    client.write_all(&response).await?;
    let session = Session::new(Limits::default(), Instant::now());
    let options = Options {
        budget: None,
        upstream_masking: UpstreamMasking::Fresh,
    };
    let client = Leg {
        io: client,
        early: client_early,
    };
    let upstream = Leg {
        io: upstream,
        early: upstream_early,
    };
    Ok(relay(client, upstream, session, options, std::future::pending()).await)
}

/// Reads up to the empty line that ends a head; returns the head and what came behind it.
async fn read_head(io: &mut (impl AsyncRead + Unpin)) -> io::Result<(Bytes, Bytes)> {
    let mut head = BytesMut::new();
    while head.len() < HEAD_BYTES_MAX {
        if io.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            let early = head.split_off(end + 4);
            return Ok((head.freeze(), early.freeze()));
        }
    }
    Err(io::Error::other("head too long"))
}
