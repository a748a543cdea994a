//! One session on its stream: bytes in, events out, as the state machine says.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep_until, timeout};

use super::Rules;
use crate::clock::now_unix;
use crate::misbehaviour::Misbehaviour;
use crate::session::{Output, Session, Terms};
use crate::ws::{self, Incoming, Opcode, Parser, Role};

/// Longest wait for a client that does not read.
const WRITE_MAX: Duration = Duration::from_secs(30);
/// Longest wait for the client's side of the close handshake.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// Fragments of a session that fragments: small enough to cut every event.
const FRAGMENT_BYTES: usize = 97;

/// Whether the session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    /// What is outgoing ends with a close frame.
    Over,
    /// The connection is to end after what is outgoing, without a close frame.
    Drop,
}

/// Holds a session until it is over. `unsent` goes out before anything else; `read` is what the client has sent
/// since its request.
pub(super) async fn hold<S>(
    stream: S,
    unsent: Vec<u8>,
    read: &[u8],
    terms: Terms,
    rules: Arc<Rules>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let session = Session::new(&terms, rules, Instant::now(), now_unix());
    let mut parser = Parser::new(Role::Server);
    parser.buffer.extend_from_slice(read);
    let line = Line {
        stream,
        parser,
        session,
        misbehaviour: terms.misbehaviour,
        outgoing: unsent,
    };
    if let Err(error) = line.run().await {
        tracing::debug!(%error, "a session's connection broke");
    }
}

struct Line<S> {
    stream: S,
    parser: Parser,
    session: Session,
    misbehaviour: Option<Misbehaviour>,
    /// Bytes to write at the next opportunity.
    outgoing: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    async fn run(mut self) -> io::Result<()> {
        match self.misbehaviour {
            Some(Misbehaviour::ClosesAfter101) => return Ok(()),
            Some(Misbehaviour::ClosesMidFrame) => return self.send_half().await,
            _ => {}
        }
        loop {
            if self.handle_incoming() == Next::Over {
                return self.finish().await;
            }
            match self.collect_outgoing() {
                Next::Over => return self.close().await,
                Next::Drop => return self.finish().await,
                // What is finished goes out before more is read.
                Next::GoOn => self.write().await?,
            }
            let due = self.session.poll_timeout();
            let reads = self.misbehaviour != Some(Misbehaviour::StopsReading);
            tokio::select! {
                read = self.stream.read_buf(&mut self.parser.buffer), if reads => {
                    if read? == 0 {
                        return Ok(());
                    }
                }
                () = sleep_until(due.into()) => self.session.handle_timeout(Instant::now()),
            }
        }
    }

    /// Takes all whole messages from the buffer. `Over` means that the close frame to answer with is outgoing.
    fn handle_incoming(&mut self) -> Next {
        loop {
            let incoming = match self.parser.next() {
                Ok(Some(incoming)) => incoming,
                Ok(None) => return Next::GoOn,
                Err(violation) => {
                    tracing::debug!(%violation, "the client broke the protocol");
                    let close = ws::close_frame(Role::Server, violation.code, violation.reason);
                    self.outgoing.extend(close);
                    return Next::Over;
                }
            };
            match incoming {
                Incoming::Text(text) => self.session.handle_text(&text, Instant::now()),
                Incoming::Ping(payload) if self.misbehaviour != Some(Misbehaviour::NoPong) => {
                    self.outgoing
                        .extend(ws::frame(Role::Server, true, Opcode::Pong, &payload));
                }
                Incoming::Ping(_) | Incoming::Pong(_) => {}
                Incoming::Binary(_) => {
                    let close = ws::close_frame(Role::Server, 1003, "events are text messages");
                    self.outgoing.extend(close);
                    return Next::Over;
                }
                Incoming::Close(status) => {
                    let close = match status {
                        Some((code, _)) => ws::close_frame(Role::Server, code, ""),
                        None => ws::frame(Role::Server, true, Opcode::Close, b""),
                    };
                    self.outgoing.extend(close);
                    return Next::Over;
                }
            }
        }
    }

    /// Frames all that the session has to say. `Over` means that the last of it is a close frame.
    fn collect_outgoing(&mut self) -> Next {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Event(text)
                    if self.misbehaviour == Some(Misbehaviour::FragmentedReplies) =>
                {
                    self.outgoing
                        .extend(ws::fragmented_text(Role::Server, &text, FRAGMENT_BYTES));
                }
                Output::Event(text) => self.outgoing.extend(ws::text_frame(Role::Server, &text)),
                Output::Close { code, reason } => {
                    self.outgoing
                        .extend(ws::close_frame(Role::Server, code, reason));
                    return Next::Over;
                }
                Output::Drop => return Next::Drop,
            }
        }
        Next::GoOn
    }

    async fn write(&mut self) -> io::Result<()> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        let outgoing = std::mem::take(&mut self.outgoing);
        timeout(WRITE_MAX, async {
            self.stream.write_all(&outgoing).await?;
            self.stream.flush().await
        })
        .await?
    }

    /// Writes what is outgoing and ends the connection, as servers do first after a close.
    async fn finish(mut self) -> io::Result<()> {
        self.write().await?;
        self.end().await
    }

    /// The session closes: wait for the client's close frame, then end the connection.
    async fn close(mut self) -> io::Result<()> {
        self.write().await?;
        let answered = async {
            loop {
                match self.parser.next() {
                    Ok(Some(Incoming::Close(_))) | Err(_) => return Ok(()),
                    Ok(Some(_)) => {}
                    Ok(None) => {
                        if self.stream.read_buf(&mut self.parser.buffer).await? == 0 {
                            return io::Result::Ok(());
                        }
                    }
                }
            }
        };
        timeout(CLOSE_MAX, answered).await??;
        self.end().await
    }

    /// Ends the connection so that what was written last arrives: with bytes unread, closing a TCP socket resets it.
    async fn end(mut self) -> io::Result<()> {
        let drained = async {
            self.stream.shutdown().await?;
            let mut discarded = [0; 4096];
            while self.stream.read(&mut discarded).await? > 0 {}
            Ok(())
        };
        timeout(CLOSE_MAX, drained).await?
    }

    /// Sends the first half of the first event's frame, and no more.
    async fn send_half(mut self) -> io::Result<()> {
        self.collect_outgoing();
        self.outgoing.truncate(self.outgoing.len() / 2);
        self.write().await
    }
}
