//! What a client's thread spends on frames over loopback, with this stream and with tokio-rustls.
//!
//! `cargo run --release -p talkline-tls --example compare [-- <frames>]`. Processor time is what Linux counts for the thread.

#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::PrivatePkcs8KeyDer;
use talkline_tls::TlsStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// 180 ms of audio towards the client in an event, and 40 ms of it towards the server.
const DOWN_BYTES: usize = 12 << 10;
const UP_BYTES: usize = 2_620;
const NAME: &str = "azure.test";
/// Runs of each, in turns.
const RUNS: usize = 5;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Counts the reads that gave something.
struct Counted {
    io: TcpStream,
    reads: u64,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        self.reads += 1;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Nanoseconds that this thread has run.
fn thread_time() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = text.split_whitespace().next().unwrap_or_default();
    first.parse().map_err(io::Error::other)
}

/// Says a frame whenever one has come.
async fn serve(listener: TcpListener, config: Arc<ServerConfig>) -> Result<(), Failure> {
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut stream = acceptor.accept(stream).await?;
        let (mut up, down) = (vec![0; UP_BYTES], vec![7; DOWN_BYTES]);
        while stream.read_exact(&mut up).await.is_ok() {
            stream.write_all(&down).await?;
            stream.flush().await?;
        }
    }
}

/// Nanoseconds a round, in which a frame goes up and one comes down.
async fn rounds<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S, count: u64) -> io::Result<u64> {
    let (up, mut down) = (vec![3; UP_BYTES], vec![0; 64 << 10]);
    let mut started = 0;
    // The first half is for warming up.
    for round in 0..count * 2 {
        if round == count {
            started = thread_time()?;
        }
        io.write_all(&up).await?;
        io.flush().await?;
        let mut read = 0;
        while read < DOWN_BYTES {
            match io.read(&mut down).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => read += more,
            }
        }
    }
    Ok((thread_time()? - started) / count)
}

fn main() -> Result<(), Failure> {
    let frames = std::env::args().nth(1).map_or(Ok(20_000), |n| n.parse())?;
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())?;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);

    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
    };
    let near = runtime()?;
    let listener = near.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let listener = listener.into_std()?;
    std::thread::spawn(move || {
        runtime()?.block_on(async { serve(TcpListener::from_std(listener)?, server.into()).await })
    });

    near.block_on(async {
        let dial = async || {
            let io = TcpStream::connect(address).await?;
            io.set_nodelay(true)?;
            Ok::<_, io::Error>(Counted { io, reads: 0 })
        };
        for _ in 0..RUNS {
            let mut ours =
                TlsStream::connect(Arc::clone(&client), NAME.try_into()?, dial().await?).await?;
            let our_time = rounds(&mut ours, frames).await?;
            let our_reads = ours.get_ref().reads;
            drop(ours);

            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&client));
            let mut theirs = connector.connect(NAME.try_into()?, dial().await?).await?;
            let their_time = rounds(&mut theirs, frames).await?;
            let their_reads = theirs.get_ref().0.reads;
            drop(theirs);

            let per_frame = |reads: u64| reads as f64 / (frames * 2) as f64;
            println!(
                "talkline-tls {our_time} ns, {:.2} reads a round; tokio-rustls {their_time} ns, {:.2} reads; ratio {:.2}",
                per_frame(our_reads),
                per_frame(their_reads),
                our_time as f64 / their_time as f64,
            );
        }
        Ok(())
    })
}
