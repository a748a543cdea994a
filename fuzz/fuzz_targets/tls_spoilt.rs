//! A rustls server whose bytes are spoilt on the way, in the handshake or behind it: the client reads what was said,
//! or a beginning of it and an error, and never panics, hangs, or holds more than its bound.
#![no_main]

use std::collections::VecDeque;
use std::io::Write as _;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection};
use talkline_tls::TlsStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of plaintext in a stream's own memory, at most: what one read can give, and a vector's way of growing.
const BUFFERED_BYTES_MAX: usize = 256 << 10;

/// What happens to a byte of all that the server sends.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Harm {
    Flip(u8),
    Drop,
    Repeat,
    Insert(u8),
    HangUp,
}

/// What the server does behind the handshake.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Act {
    Say(u16),
    UpdateKeys,
    Close,
}

#[derive(Arbitrary, Debug)]
struct Script {
    old: bool,
    tickets: u8,
    /// Bytes that are given to the client at a time.
    step: u16,
    room: u16,
    acts: Vec<Act>,
    harms: Vec<(u16, Harm)>,
}

#[derive(Default)]
struct Wire {
    to_client: VecDeque<u8>,
    to_server: Vec<u8>,
    sent: usize,
    step: usize,
    hung_up: bool,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Wire>>);

impl Shared {
    fn with<R>(&self, look: impl FnOnce(&mut Wire) -> R) -> R {
        look(&mut self.0.lock().expect("one thread"))
    }
}

impl AsyncRead for Shared {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        self.with(|wire| {
            if wire.to_client.is_empty() && !wire.hung_up {
                return Poll::Pending;
            }
            let taken = wire.to_client.len().min(buffer.remaining()).min(wire.step);
            for byte in wire.to_client.drain(..taken) {
                buffer.put_slice(&[byte]);
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Shared {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.with(|wire| wire.to_server.extend_from_slice(bytes));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn configs() -> &'static (ServerConfig, [Arc<ClientConfig>; 2]) {
    static CONFIGS: OnceLock<(ServerConfig, [Arc<ClientConfig>; 2])> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["azure.test".to_owned()]).expect("a certificate");
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let certificate = made.cert.der().clone();
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .expect("a server");
        let client = |version| {
            let mut roots = RootCertStore::empty();
            roots.add(certificate.clone()).expect("a root");
            let config = ClientConfig::builder_with_protocol_versions(&[version]).with_root_certificates(roots);
            Arc::new(config.with_no_client_auth())
        };
        (server, [client(&TLS13), client(&TLS12)])
    })
}

/// Moves bytes between the two, and does harm on the way to the client.
fn exchange(server: &mut ServerConnection, wire: &Shared, harms: &[(u16, Harm)]) {
    let written = wire.with(|wire| std::mem::take(&mut wire.to_server));
    let mut rest = &written[..];
    while !rest.is_empty() && server.read_tls(&mut rest).is_ok_and(|read| read > 0) {
        if server.process_new_packets().is_err() {
            break;
        }
        let _ = std::io::copy(&mut server.reader(), &mut std::io::sink());
    }
    let mut sent = Vec::new();
    while server.wants_write() && server.write_tls(&mut sent).is_ok() {}
    wire.with(|wire| {
        for byte in sent {
            let at = wire.sent;
            wire.sent += 1;
            if wire.hung_up {
                return;
            }
            match harms.iter().find(|(place, _)| usize::from(*place) == at).map(|(_, harm)| *harm) {
                None => wire.to_client.push_back(byte),
                Some(Harm::Flip(bits)) => wire.to_client.push_back(byte ^ bits),
                Some(Harm::Drop) => {}
                Some(Harm::Repeat) => wire.to_client.extend([byte, byte]),
                Some(Harm::Insert(other)) => wire.to_client.extend([other, byte]),
                Some(Harm::HangUp) => wire.hung_up = true,
            }
        }
    });
}

fuzz_target!(|script: Script| {
    let (server, clients) = configs();
    let mut server = server.clone();
    server.send_tls13_tickets = usize::from(script.tickets);
    let mut server = ServerConnection::new(Arc::new(server)).expect("a server");
    server.set_buffer_limit(None);
    let wire = Shared(Arc::new(Mutex::new(Wire { step: usize::from(script.step) + 1, ..Wire::default() })));
    let mut cx = Context::from_waker(Waker::noop());

    let client = Arc::clone(&clients[usize::from(script.old)]);
    let name = "azure.test".try_into().expect("a name");
    let mut connecting = pin!(TlsStream::connect(client, name, wire.clone()));
    let mut connected = None;
    // Every round moves something, or nothing will ever move again.
    for _ in 0..8 {
        match connecting.as_mut().poll(&mut cx) {
            Poll::Ready(Ok(stream)) => {
                connected = Some(stream);
                break;
            }
            Poll::Ready(Err(_)) => return,
            Poll::Pending => exchange(&mut server, &wire, &script.harms),
        }
    }
    let Some(mut stream) = connected else {
        assert!(!script.harms.is_empty(), "a handshake without harm succeeds");
        return;
    };

    let mut said = Vec::new();
    let mut closed = false;
    let mut read = Vec::new();
    let mut room = vec![0; usize::from(script.room) + 1];
    for act in script.acts.iter().take(16).copied().map(Some).chain([None]) {
        exchange(&mut server, &wire, &script.harms);
        match act {
            Some(Act::Say(length)) if !closed => {
                let bytes: Vec<u8> = (0..length).map(|i| (usize::from(i) + said.len()) as u8).collect();
                server.writer().write_all(&bytes).expect("no limit");
                said.extend(bytes);
            }
            Some(Act::UpdateKeys) if !closed => drop(server.refresh_traffic_keys()),
            Some(Act::Close) => {
                server.send_close_notify();
                closed = true;
            }
            Some(_) | None => {}
        }
        exchange(&mut server, &wire, &script.harms);
        loop {
            let mut buffer = ReadBuf::new(&mut room);
            let polled = Pin::new(&mut stream).poll_read(&mut cx, &mut buffer);
            assert!(stream.buffered_bytes() <= BUFFERED_BYTES_MAX, "{}", stream.buffered_bytes());
            read.extend_from_slice(buffer.filled());
            match polled {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    assert!(closed && read == said, "a clean end is the whole of it");
                    return;
                }
                Poll::Ready(Ok(())) => {}
                // It yields now and then while there is more to read.
                Poll::Pending if wire.with(|wire| wire.to_client.is_empty() && !wire.hung_up) => break,
                Poll::Pending => {}
                Poll::Ready(Err(_)) => {
                    assert!(said.starts_with(&read));
                    assert!(!script.harms.is_empty(), "without harm there is no error");
                    return;
                }
            }
        }
        assert!(said.starts_with(&read), "what is read was said");
        let _ = Pin::new(&mut stream).poll_write(&mut cx, b"an answer");
        let _ = Pin::new(&mut stream).poll_flush(&mut cx);
    }
    if script.harms.is_empty() {
        assert_eq!(read.len(), said.len());
        assert_eq!(stream.buffered_bytes(), 0);
    }
});
