//! One HTTP request of the relay's own, to somebody who is no Realtime upstream: OpenAI's endpoint
//! for client secrets, an issuer's keys.
//!
//! No redirect is followed: a 3xx is an answer like any other. Head, body and time are bounded.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, header, response::Parts};
use http_body_util::BodyExt as _;
use hyper::{
    body::{Body, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use talkline_dialect::{Phase, Refusal};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::dial::Driver;

/// From sending the request to the end of its answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
const ANSWER_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of an answer's body. A longer one is cut, and then does not parse.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Sends a request on a stream that leads to its host, and reads the answer.
///
/// # Errors
///
/// [`Refusal`] when there is no whole answer.
///
/// # Cancel safety
///
/// Dropping the future closes the connection.
pub(crate) async fn exchange<IO, B>(
    io: IO,
    mut request: Request<B>,
) -> Result<(Parts, Bytes), Refusal>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let own = [
        (header::ACCEPT, "application/json"),
        (header::CONNECTION, "close"),
        (
            header::USER_AGENT,
            concat!("talkline/", env!("CARGO_PKG_VERSION")),
        ),
    ];
    for (name, value) in own {
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    let (mut sender, connection) = http1::Builder::new()
        .max_header_size(ANSWER_HEAD_BYTES_MAX)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| failed(&error))?;
    let mut driver = Driver::new(connection);
    let answered = async {
        let response = sender.send_request(request).await;
        let (parts, body) = response.map_err(|error| failed(&error))?.into_parts();
        Ok((parts, read(body).await?))
    };
    let answered = driver
        .until(Instant::now() + ANSWER_TIME_MAX, answered)
        .await;
    answered.unwrap_or(Err(Refusal::TimedOut(Phase::Upgrade)))
}

async fn read(mut body: Incoming) -> Result<Bytes, Refusal> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| failed(&error))?.into_data() else {
            continue;
        };
        let room = ANSWER_BYTES_MAX - read.len();
        read.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            break;
        }
    }
    Ok(read.freeze())
}

pub(crate) fn failed(error: &dyn std::error::Error) -> Refusal {
    Refusal::Failed(Phase::Upgrade, error.to_string())
}
