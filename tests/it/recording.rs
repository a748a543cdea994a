//! Everything that leaves the processes, on disk, for `cargo xtask canary` to search.
//!
//! Outside such a run nothing is recorded and nothing stands between the tests and the binary.

use std::{
    fs::File,
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Names the folder; set by `cargo xtask canary`.
const FOLDER_VARIABLE: &str = "TALKLINE_CANARY_FOLDER";

static COUNT: AtomicUsize = AtomicUsize::new(0);

pub fn is_on() -> bool {
    std::env::var_os(FOLDER_VARIABLE).is_some()
}

/// A new file for one stream of bytes, if anything is recorded.
pub fn file(kind: &str) -> Option<File> {
    let folder = PathBuf::from(std::env::var_os(FOLDER_VARIABLE)?);
    let number = COUNT.fetch_add(1, Ordering::SeqCst);
    Some(File::create(folder.join(format!("{number:04}-{kind}"))).expect("a recording"))
}

/// Keeps what a process printed.
pub fn keep(kind: &str, bytes: &[u8]) {
    if let Some(mut file) = file(kind) {
        file.write_all(bytes).expect("the recording is written");
    }
}

/// A loopback proxy that keeps every byte that the relay sends to its clients.
pub async fn tee(relay: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let relay = relay.clone();
            tokio::spawn(async move {
                if let Ok(relay) = TcpStream::connect(relay).await {
                    carry(client, relay).await;
                }
            });
        }
    });
    address
}

async fn carry(client: TcpStream, relay: TcpStream) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_relay, mut to_relay) = relay.into_split();
    let up = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_client, &mut to_relay).await;
        let _ = to_relay.shutdown().await;
    });
    let mut kept = file("to-client").expect("a recording is on");
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from_relay.read(&mut buffer).await {
        kept.write_all(&buffer[..read])
            .expect("the recording is written");
        if to_client.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to_client.shutdown().await;
    up.abort();
}
