//! HTTP answers, proper and faulty.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use hyper::http::StatusCode;
use serde_json::Value;

use super::fault::Fault;

/// What a fake does about a request.
#[derive(Debug)]
pub(super) enum Reaction {
    /// Answers after this time.
    Answer(Answer, Duration),
    /// Never answers.
    Hang,
}

impl From<Answer> for Reaction {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer, Duration::ZERO)
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: Vec<(&'static str, String)>,
    body: Payload,
}

impl Answer {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json; charset=utf-8", body.to_string())
    }

    pub(super) fn html(status: u16, body: &str) -> Self {
        Self::new(status, "text/html; charset=utf-8", body.to_owned())
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn new(status: u16, content_type: &str, body: String) -> Self {
        Self {
            status,
            headers: vec![("content-type", content_type.to_owned())],
            body: Payload {
                claimed_bytes: body.len() as u64,
                pending: Some(Bytes::from(body)),
            },
        }
    }

    fn stalls(mut self) -> Self {
        self.body.claimed_bytes *= 2;
        self
    }
}

impl Fault {
    /// The fault as a reaction, with `proper` for those that only delay it.
    pub(super) fn react(&self, proper: impl FnOnce() -> Answer) -> Reaction {
        let answer = match self {
            Self::BlackHole | Self::Closes | Self::Hangs => return Reaction::Hang,
            Self::Slow(delay) => return Reaction::Answer(proper(), *delay),
            Self::StallsMidBody => json_text(r#"{"token_type":"Bearer","#).stalls(),
            Self::Html(status) => Answer::html(
                *status,
                "<!DOCTYPE html>\n<html><head><title>Access denied</title></head><body><h1>Access denied</h1>\
                 <p>This request was blocked by the network's security policy.</p></body></html>\n",
            ),
            Self::Garbage => json_text("{\"access_token\": \u{fffd}\u{1}not json"),
            Self::Empty => json_text(""),
            Self::ServerError => Answer::new(500, "text/plain", "Internal Server Error".to_owned()),
            Self::Unavailable => Answer::new(503, "text/plain", "Service Unavailable".to_owned()),
            Self::Redirect(to) => {
                Answer::html(302, "<html><body>Object moved</body></html>").header("location", to)
            }
            Self::HugeBody(bytes) => json_text(&huge_array(*bytes)),
        };
        answer.into()
    }
}

fn json_text(text: &str) -> Answer {
    Answer::new(200, "application/json; charset=utf-8", text.to_owned())
}

/// A JSON array of exactly so many bytes (two at least).
fn huge_array(bytes: usize) -> String {
    let zeros = bytes.saturating_sub(3) / 2;
    let mut text = String::with_capacity(bytes + 2);
    text.push_str("[0");
    for _ in 0..zeros {
        text.push_str(",0");
    }
    text.push(']');
    text.push_str(if text.len() < bytes { " " } else { "" });
    text
}

/// A body that may claim to be longer than it is, and then never ends.
#[derive(Debug)]
pub(super) struct Payload {
    pending: Option<Bytes>,
    claimed_bytes: u64,
}

impl Body for Payload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.pending.take() {
            Some(bytes) => {
                self.claimed_bytes -= (bytes.len() as u64).min(self.claimed_bytes);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            None if self.claimed_bytes == 0 => Poll::Ready(None),
            // Nobody wakes it: that is the fault.
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.claimed_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.claimed_bytes)
    }
}

/// Falls back to 500 if a configured address or name is no header value.
pub(super) fn finish(answer: Answer) -> Response<Payload> {
    let mut builder = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        builder = builder.header(*name, value);
    }
    builder.body(answer.body).unwrap_or_else(|error| {
        tracing::warn!(%error, "the answer could not be formed");
        let mut response = Response::new(Payload {
            pending: None,
            claimed_bytes: 0,
        });
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}
