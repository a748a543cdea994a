//! Decides how TLS records move between rustls and a byte stream, on the client's side.
//!
//! [`TlsStream`] is rustls' [unbuffered connection](rustls::unbuffered) behind tokio's
//! [`AsyncRead`](tokio::io::AsyncRead) and [`AsyncWrite`](tokio::io::AsyncWrite). It reads straight into
//! a buffer that all streams of the thread share, decrypts there, and hands over what it got after one
//! read. An idle stream owns no buffer: bytes stay with it only while a record is incomplete, the
//! reader's buffer is full, or the socket takes no more.
//!
//! It does not know who is on the other side, what a certificate is good for (the
//! [`ClientConfig`](rustls::ClientConfig) does), deadlines, or the protocol inside.
#![forbid(unsafe_code)]

mod carry;
mod engine;
mod scratch;
mod stream;

pub use stream::TlsStream;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
