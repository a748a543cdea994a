//! A client and an upstream on the outer ends of a relay, and a reader of frames that shares no code
//! with the product.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use talkline_session::Inspect;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::{Budget, Leg, Limits, Options, Session, Stop, Summary, UpstreamMasking, relay};

pub(super) const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

pub(super) const TEXT: u8 = 0x81;
pub(super) const BINARY: u8 = 0x82;
pub(super) const CLOSE: u8 = 0x88;
pub(super) const PING: u8 = 0x89;
pub(super) const PONG: u8 = 0x8A;

/// A frame as it was on the wire, payload unmasked.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Wire {
    pub(super) first: u8,
    pub(super) key: Option<[u8; 4]>,
    pub(super) payload: Vec<u8>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = &self.payload[..self.payload.len().min(160)];
        write!(
            f,
            "{:02x} {} {:?}",
            self.first,
            self.payload.len(),
            String::from_utf8_lossy(head)
        )
    }
}

/// Encodes a frame from the upstream.
pub(super) fn plain(first: u8, payload: &[u8]) -> Vec<u8> {
    encode(first, None, payload)
}

/// Encodes a frame from the client.
pub(super) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    encode(first, Some(KEY), payload)
}

pub(super) fn encode(first: u8, key: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mask_bit = u8::from(key.is_some()) << 7;
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..=125 => bytes.push(mask_bit | short as u8),
        medium @ 126..=65_535 => {
            bytes.push(mask_bit | 126);
            bytes.extend((medium as u16).to_be_bytes());
        }
        long => {
            bytes.push(mask_bit | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(key.iter().flatten());
    let key = key.unwrap_or_default();
    bytes.extend(
        payload
            .iter()
            .enumerate()
            .map(|(i, byte)| byte ^ key[i & 3]),
    );
    bytes
}

pub(super) fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

/// Takes whole frames off the front of the bytes; what stays is a partial one.
pub(super) fn decode(bytes: &mut Vec<u8>) -> Vec<Wire> {
    let mut frames = Vec::new();
    let mut at = 0;
    while let Some((frame, used)) = decode_one(&bytes[at..]) {
        frames.push(frame);
        at += used;
    }
    bytes.drain(..at);
    frames
}

fn decode_one(bytes: &[u8]) -> Option<(Wire, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    let (length, mut at) = match second & 0x7F {
        126 => (
            usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
            4,
        ),
        127 => (
            u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize,
            10,
        ),
        short => (usize::from(short), 2),
    };
    let mut key = None;
    if second & 0x80 != 0 {
        key = Some(bytes.get(at..at + 4)?.try_into().ok()?);
        at += 4;
    }
    let turn: [u8; 4] = key.unwrap_or_default();
    let payload = bytes.get(at..at + length)?;
    let payload = payload
        .iter()
        .enumerate()
        .map(|(i, byte)| byte ^ turn[i & 3])
        .collect();
    Some((
        Wire {
            first,
            key,
            payload,
        },
        at + length,
    ))
}

/// One outer end.
pub(super) struct Peer {
    pub(super) io: DuplexStream,
    pub(super) rest: Vec<u8>,
}

impl Peer {
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
    }

    /// The next frame; panics when the stream ends first, or nothing comes for an hour.
    pub(super) async fn frame(&mut self) -> Wire {
        loop {
            if let Some((frame, used)) = decode_one(&self.rest) {
                self.rest.drain(..used);
                return frame;
            }
            let read =
                tokio::time::timeout(Duration::from_secs(3600), self.io.read_buf(&mut self.rest));
            assert_ne!(
                read.await.expect("a frame").unwrap(),
                0,
                "ended; left over {:x?}",
                self.rest
            );
        }
    }

    pub(super) async fn expect(&mut self, first: u8, payload: &[u8]) {
        let frame = self.frame().await;
        assert!(
            frame.first == first && frame.payload == payload,
            "{frame:?}"
        );
    }

    pub(super) async fn expect_close(&mut self, code: u16) {
        let frame = self.frame().await;
        assert_eq!(
            (frame.first, frame.payload.get(..2)),
            (CLOSE, Some(&code.to_be_bytes()[..])),
            "{frame:?}"
        );
    }

    pub(super) async fn expect_error(&mut self, code: &str) {
        let frame = self.frame().await;
        assert_eq!(frame.first, TEXT);
        let text = String::from_utf8(frame.payload).unwrap();
        assert!(text.starts_with(r#"{"type":"error","event_id":"#), "{text}");
        assert!(text.contains(&format!(r#""code":"{code}""#)), "{text}");
    }

    /// Waits for the end of the stream; returns the frames before it. Nothing partial may be left.
    pub(super) async fn rest(&mut self) -> Vec<Wire> {
        while self.io.read_buf(&mut self.rest).await.unwrap() > 0 {}
        let frames = decode(&mut self.rest);
        assert!(
            self.rest.is_empty(),
            "partial frame of {} bytes",
            self.rest.len()
        );
        frames
    }

    pub(super) async fn expect_end(&mut self) {
        assert_eq!(self.rest().await, []);
    }
}

/// A relay and its two outer ends.
pub(super) struct Talk {
    pub(super) client: Peer,
    pub(super) upstream: Peer,
    pub(super) stop: Option<oneshot::Sender<Stop>>,
    pub(super) relayed: JoinHandle<Summary>,
}

pub(super) struct Setup {
    pub(super) limits: Limits,
    pub(super) masking: UpstreamMasking,
    pub(super) budget: Option<Arc<Budget>>,
    pub(super) guard: Option<Box<dyn Inspect>>,
    pub(super) pipe_bytes: usize,
    pub(super) client_early: Bytes,
    pub(super) upstream_early: Bytes,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            // Pings are looked at where they are the subject.
            limits: Limits {
                ping_interval: None,
                ..Limits::default()
            },
            masking: UpstreamMasking::Verbatim,
            budget: None,
            guard: None,
            pipe_bytes: 1 << 20,
            client_early: Bytes::new(),
            upstream_early: Bytes::new(),
        }
    }
}

impl Setup {
    pub(super) fn start(self) -> Talk {
        let (client_outer, client) = tokio::io::duplex(self.pipe_bytes);
        let (upstream_outer, upstream) = tokio::io::duplex(self.pipe_bytes);
        let client = Leg {
            io: client,
            early: self.client_early,
        };
        let upstream = Leg {
            io: upstream,
            early: self.upstream_early,
        };
        let mut session = Session::new(self.limits, now());
        if let Some(guard) = self.guard {
            session = session.guarded(guard);
        }
        let options = Options {
            upstream_masking: self.masking,
            budget: self.budget,
        };
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            match stopped.await {
                Ok(stop) => stop,
                Err(_) => std::future::pending().await,
            }
        };
        let relayed = tokio::spawn(relay(client, upstream, session, options, stopped));
        Talk {
            client: Peer {
                io: client_outer,
                rest: Vec::new(),
            },
            upstream: Peer {
                io: upstream_outer,
                rest: Vec::new(),
            },
            stop: Some(stop),
            relayed,
        }
    }
}

pub(super) fn talk() -> Talk {
    Setup::default().start()
}

pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Asserts how long something took on the paused clock.
pub(super) fn check_elapsed(since: Instant, at_least: Duration, at_most: Duration) {
    let elapsed = now() - since;
    assert!(
        (at_least..=at_most).contains(&elapsed),
        "{elapsed:?} not in {at_least:?}..={at_most:?}"
    );
}
