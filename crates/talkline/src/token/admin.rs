//! One request to the listener for operators.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use talkline_auth::Secret;
use tokio::{net::TcpStream, time::timeout};

use crate::{exit::Exit, run};

/// From connecting to the last byte of the answer.
const TIME_MAX: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Posts JSON and returns the status and the body.
pub(super) fn post(
    address: SocketAddr,
    path: &str,
    key: &Secret,
    body: &str,
) -> Result<(u16, String), Exit> {
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", key.expose()))
        .context("the admin key cannot be sent in a header")?;
    bearer.set_sensitive(true);
    let request = Request::post(path)
        .header(header::HOST, address.to_string())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, bearer)
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .context("the request cannot be made")?;
    let unavailable = |error: String| Exit::Unavailable(format!("{address}: {error}"));
    run::runtime()?.block_on(async {
        match timeout(TIME_MAX, exchange(address, request)).await {
            Ok(answer) => answer.map_err(|error| unavailable(format!("{error:#}"))),
            Err(_) => Err(unavailable("it does not answer".to_owned())),
        }
    })
}

async fn exchange(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<(u16, String)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answered = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(anyhow::Error::from_boxed)?;
        Ok((
            status,
            String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        ))
    };
    tokio::pin!(connection, answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = &mut connection => {
            ended?;
            answered.await
        }
    }
}
