//! The client's side of a session, as far as the doctor holds one: a few events, one at a time.

use std::{io, time::Duration};

use bytes::{Buf as _, BytesMut};
use serde_json::Value;
use talkline_frame::{Direction, Limits, OpCode, Scanner, Step};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

/// Longest event that is read; `session.created` has a few KiB.
const EVENT_BYTES_MAX: u64 = 1 << 20;
/// Time for the upstream's close frame.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// A byte stream, encrypted or not.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// What the upstream sent.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// A JSON event.
    Event(Value),
    /// A message that is not one.
    NotAnEvent,
    /// A close frame, with its code and reason.
    Closed(Option<u16>, String),
    /// The end of the stream without a close frame.
    Dropped,
    /// Bytes that break the WebSocket protocol, by this rule.
    Malformed(&'static str),
}

/// An open session.
pub(super) struct Session {
    io: Box<dyn Io>,
    buffer: BytesMut,
    scanner: Scanner,
    message: Vec<u8>,
    control: Vec<u8>,
    in_control: bool,
}

impl Session {
    pub(super) fn new(io: Box<dyn Io>, early: &[u8]) -> Self {
        let limits = Limits {
            frame_bytes_max: EVENT_BYTES_MAX,
            message_bytes_max: EVENT_BYTES_MAX,
            ..Limits::default()
        };
        Self {
            io,
            buffer: BytesMut::from(early),
            scanner: Scanner::new(Direction::UpstreamToClient, limits),
            message: Vec::new(),
            control: Vec::new(),
            in_control: false,
        }
    }

    /// The next message or the end of the session. Pings are answered on the way.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe but for a pong that may be cut short: what was read stays in the session.
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            match self.scanner.step(&self.buffer) {
                Err(violation) => return Heard::Malformed(violation.reason()),
                Ok((_, Step::NeedMore)) => {
                    self.buffer.clear();
                    match self.io.read_buf(&mut self.buffer).await {
                        Ok(0) | Err(_) => return Heard::Dropped,
                        Ok(_) => {}
                    }
                }
                Ok((taken, Step::Header(header))) => {
                    self.in_control = header.opcode.is_control();
                    self.buffer.advance(taken);
                }
                Ok((taken, Step::Payload)) => {
                    let into = if self.in_control {
                        &mut self.control
                    } else {
                        &mut self.message
                    };
                    into.extend_from_slice(&self.buffer[..taken]);
                    self.buffer.advance(taken);
                }
                Ok((_, Step::FrameEnd(end))) => match end.opcode {
                    OpCode::Ping => {
                        let payload = std::mem::take(&mut self.control);
                        if self.send(PONG, &payload).await.is_err() {
                            return Heard::Dropped;
                        }
                    }
                    OpCode::Pong => self.control.clear(),
                    OpCode::Close => {
                        let payload = std::mem::take(&mut self.control);
                        let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                        return Heard::Closed(end.close_code, reason.into_owned());
                    }
                    OpCode::Text | OpCode::Binary | OpCode::Continuation => {
                        if end.message.is_some() {
                            let message = std::mem::take(&mut self.message);
                            return match serde_json::from_slice(&message) {
                                Ok(event) => Heard::Event(event),
                                Err(_) => Heard::NotAnEvent,
                            };
                        }
                    }
                },
            }
        }
    }

    /// Sends an event.
    pub(super) async fn say(&mut self, event: &Value) -> io::Result<()> {
        self.send(TEXT, event.to_string().as_bytes()).await
    }

    /// Sends close 1000 and waits a moment for the answer. What else comes is not looked at.
    pub(super) async fn close(mut self) -> Option<Heard> {
        if self.send(CLOSE, &1000_u16.to_be_bytes()).await.is_err() {
            return Some(Heard::Dropped);
        }
        let answer = timeout(CLOSE_MAX, async {
            loop {
                match self.next().await {
                    Heard::Event(_) | Heard::NotAnEvent => {}
                    end => return end,
                }
            }
        });
        let answer = answer.await.ok();
        // A TLS close_notify is good manners; that it arrives is not waited for.
        let _ = timeout(CLOSE_MAX, self.io.shutdown()).await;
        answer
    }

    async fn send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let frame = masked_frame(opcode, payload);
        self.io.write_all(&frame).await?;
        self.io.flush().await
    }
}

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PONG: u8 = 10;

/// A whole frame of a client (RFC 6455 section 5.2). The doctor sends none of 64 KiB or more.
fn masked_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut mask = [0; 4];
    getrandom::fill(&mut mask).expect("the operating system has randomness");
    let mut frame = vec![0x80 | opcode];
    match u16::try_from(payload.len()) {
        Ok(length @ 0..=125) => frame.push(0x80 | length as u8),
        Ok(length) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    async fn check(bytes: &[u8], expected: Heard) {
        // All at once, and byte by byte: where the segments end must not matter.
        for early in [bytes.len(), 0] {
            let (near, mut far) = tokio::io::duplex(1);
            let mut session = Session::new(Box::new(near), &bytes[..early]);
            let hearing = async {
                let heard = session.next().await;
                // The other end is not kept waiting for what nobody reads.
                drop(session);
                heard
            };
            let feeding = async {
                let _ = far.write_all(&bytes[early..]).await;
                let _ = far.shutdown().await;
                let _ = tokio::io::copy(&mut far, &mut tokio::io::sink()).await;
            };
            let (heard, ()) = tokio::join!(hearing, feeding);
            assert_eq!(heard, expected, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn what_is_heard() {
        check(b"\x81\x02{}", Heard::Event(json!({}))).await;
        check(b"\x01\x01{\x80\x01}", Heard::Event(json!({}))).await;
        check(b"\x01\x01{\x8a\x01x\x80\x01}", Heard::Event(json!({}))).await;
        check(b"\x81\x01x", Heard::NotAnEvent).await;
        check(
            b"\x88\x04\x03\xe8ab",
            Heard::Closed(Some(1000), "ab".into()),
        )
        .await;
        check(b"\x88\x00", Heard::Closed(None, String::new())).await;
        check(b"\x81\x05ab", Heard::Dropped).await;
        check(b"", Heard::Dropped).await;
        check(b"HTTP/1.1 200", Heard::Malformed("reserved_bits")).await;
    }

    #[tokio::test]
    async fn pings_are_answered_and_frames_masked() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut session = Session::new(Box::new(near), b"\x89\x02hi\x88\x00");
        assert_eq!(session.next().await, Heard::Closed(None, String::new()));
        let mut pong = [0; 8];
        far.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong[..2], [0x8a, 0x82]);
        assert_eq!([pong[6] ^ pong[2], pong[7] ^ pong[3]], *b"hi");
        for length in [0, 125, 126, 65_535, 65_536] {
            let frame = masked_frame(TEXT, &vec![b'x'; length]);
            let mut scanner = Scanner::new(Direction::ClientToUpstream, Limits::default());
            let mut at = 0;
            loop {
                match scanner.step(&frame[at..]).unwrap() {
                    (taken, Step::Header(_) | Step::Payload) => at += taken,
                    (_, Step::FrameEnd(end)) => break assert_eq!(end.payload_bytes, length as u64),
                    (_, Step::NeedMore) => panic!("the frame of {length} bytes is cut short"),
                }
            }
        }
    }
}
