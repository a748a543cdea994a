//! Saying no in band, to a client whose handshake is done.

use std::time::Duration;

use talkline_frame::{Direction, OpCode, Scanner, Step};
use talkline_session::{Close, Side};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::{Leg, Limits, frames};

/// Bytes that are read at a time while waiting for the client's close frame.
const READ_BYTES: usize = 4 << 10;

/// Tells a client why it gets no session: the events, as text messages, then a close frame.
///
/// JavaScript clients see neither the status nor the body of a failed handshake, but every SDK shows an
/// `error` event. `code` and `reason` go through [`Close::new`]. Then waits for the client to answer
/// with a close frame or to hang up, and drops the connection; all within `deadline`.
///
/// # Cancel safety
///
/// Dropping the future drops the connection at once; what was not written by then is lost.
pub async fn refuse<C>(
    client: Leg<C>,
    events: &[String],
    code: u16,
    reason: &str,
    deadline: Duration,
) where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let mut farewell = Vec::new();
    for event in events {
        frames::append_text(&mut farewell, Side::Client, event.clone());
    }
    frames::append_close(&mut farewell, Side::Client, &Close::new(code, reason));
    // Whether the client heard all of it cannot be known, and makes no difference to what follows.
    let _ = timeout(deadline, say(client, &farewell)).await;
}

async fn say<C>(mut client: Leg<C>, farewell: &[u8]) -> std::io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    client.io.write_all(farewell).await?;
    client.io.flush().await?;
    let mut scanner = Scanner::new(Direction::ClientToUpstream, Limits::default().frames);
    let mut over = is_over(&mut scanner, &client.early);
    let mut buffer = vec![0; READ_BYTES];
    while !over {
        let read = client.io.read(&mut buffer).await?;
        over = read == 0 || is_over(&mut scanner, &buffer[..read]);
    }
    client.io.shutdown().await?;
    // Bytes that were never read would turn the end of the connection into a reset, which can overtake
    // the close frame.
    while client.io.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Whether the client has answered, or stopped making sense.
fn is_over(scanner: &mut Scanner, mut bytes: &[u8]) -> bool {
    loop {
        match scanner.step(bytes) {
            Ok((_, Step::NeedMore)) => return false,
            Ok((_, Step::FrameEnd(end))) if end.opcode == OpCode::Close => return true,
            Ok((consumed, _)) => bytes = &bytes[consumed..],
            Err(_) => return true,
        }
    }
}
