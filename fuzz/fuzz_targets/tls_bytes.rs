//! Any bytes as what a TLS server says, cut anywhere: the client's stream ends the handshake in an error, or waits.
#![no_main]

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use libfuzzer_sys::fuzz_target;
use rustls::{ClientConfig, RootCertStore};
use talkline_tls::TlsStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A server that says `bytes`, some at a time, and hangs up or stays.
struct Server<'a> {
    bytes: &'a [u8],
    step: usize,
    hangs_up: bool,
}

impl AsyncRead for Server<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.bytes.is_empty() && !self.hangs_up {
            return Poll::Pending;
        }
        let taken = self.step.min(self.bytes.len()).min(buffer.remaining());
        let (now, later) = self.bytes.split_at(taken);
        buffer.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Server<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fuzz_target!(|input: (u8, bool, &[u8])| {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let nobody = RootCertStore::empty();
        Arc::new(ClientConfig::builder().with_root_certificates(nobody).with_no_client_auth())
    });
    let (step, hangs_up, bytes) = input;
    let server = Server { bytes, step: usize::from(step) + 1, hangs_up };
    let name = "azure.test".try_into().expect("a name");
    let mut connecting = std::pin::pin!(TlsStream::connect(Arc::clone(config), name, server));
    match connecting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(_)) => panic!("nobody is trusted"),
        Poll::Ready(Err(_)) => {}
        Poll::Pending => assert!(!hangs_up, "it waits for somebody who is gone"),
    }
});
