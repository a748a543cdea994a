//! A peer: the relay that fastwebsockets' own examples lead to. Each side's frames are read whole,
//! unmasked, checked and written to the other.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fastwebsockets::{Frame, OpCode, WebSocket, WebSocketError, handshake, upgrade};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

type Socket = WebSocket<TokioIo<Upgraded>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let upstream = std::env::args().nth(1).context("usage: fastwebsockets UPSTREAM")?;
    let upstream: SocketAddr = upstream.parse()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (client, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        let service = service_fn(move |request| answer(request, upstream));
        let connection = http1::Builder::new()
            .serve_connection(TokioIo::new(client), service)
            .with_upgrades();
        tokio::spawn(connection);
    }
}

async fn answer(
    mut request: Request<Incoming>,
    upstream: SocketAddr,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let target = request.uri().clone();
    let (response, client) = upgrade::upgrade(&mut request)?;
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let request = Request::get(target)
        .header("host", upstream.to_string())
        .header("upgrade", "websocket")
        .header("connection", "upgrade")
        .header("sec-websocket-key", handshake::generate_key())
        .header("sec-websocket-version", "13")
        .body(Empty::<Bytes>::new())
        .map_err(|_| WebSocketError::InvalidConnectionHeader)?;
    let (upstream, _) = handshake::client(&Executor, request, stream).await?;
    tokio::spawn(async move {
        if let Ok(client) = client.await {
            relay(client, upstream).await;
        }
    });
    Ok(response)
}

struct Executor;

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        tokio::spawn(future);
    }
}

async fn relay(mut client: Socket, mut upstream: Socket) {
    for socket in [&mut client, &mut upstream] {
        socket.set_auto_pong(false);
        socket.set_auto_close(false);
    }
    let (client_reads, client_writes) = client.split(tokio::io::split);
    let (upstream_reads, upstream_writes) = upstream.split(tokio::io::split);
    let up = tokio::spawn(copy(client_reads, upstream_writes));
    let _ = copy(upstream_reads, client_writes).await;
    up.abort();
}

async fn copy<R, W>(
    mut from: fastwebsockets::WebSocketRead<R>,
    mut to: fastwebsockets::WebSocketWrite<W>,
) -> Result<(), WebSocketError>
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    loop {
        let frame = from
            .read_frame(&mut |_| async { Ok::<_, WebSocketError>(()) })
            .await?;
        let closes = frame.opcode == OpCode::Close;
        // A frame that was read keeps its mask, which a server must not send.
        to.write_frame(Frame::new(frame.fin, frame.opcode, None, frame.payload))
            .await?;
        to.flush().await?;
        if closes {
            return Ok(());
        }
    }
}
