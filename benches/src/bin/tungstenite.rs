//! A peer: the relay that tokio-tungstenite's own examples lead to. Each side's messages are read whole
//! and sent to the other.
#![forbid(unsafe_code)]

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::{accept_hdr_async, client_async};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let upstream = std::env::args().nth(1).context("usage: tungstenite UPSTREAM")?;
    let upstream: SocketAddr = upstream.parse()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (client, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        tokio::spawn(session(client, upstream));
    }
}

async fn session(client: TcpStream, upstream: SocketAddr) -> Result<()> {
    let mut target = String::new();
    #[expect(clippy::result_large_err, reason = "the signature that the crate asks for")]
    let keep = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        target = request.uri().to_string();
        Ok(response)
    };
    let client = accept_hdr_async(client, keep).await?;
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (upstream, _) = client_async(format!("ws://{upstream}{target}"), stream).await?;
    let (mut to_client, mut from_client) = client.split();
    let (mut to_upstream, mut from_upstream) = upstream.split();
    let up = async {
        while let Some(Ok(message)) = from_client.next().await {
            if to_upstream.send(message).await.is_err() {
                break;
            }
        }
    };
    let down = async {
        while let Some(Ok(message)) = from_upstream.next().await {
            if to_client.send(message).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
    Ok(())
}
