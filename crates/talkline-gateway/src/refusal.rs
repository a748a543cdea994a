//! An HTTP answer that says no, and why.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;
use talkline_dialect::Diagnosis;

/// The problem document of a diagnosis.
pub(crate) fn problem(diagnosis: &Diagnosis) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(diagnosis.problem())));
    *response.status_mut() = StatusCode::from_u16(diagnosis.permanence.http_status())
        .unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if let Some(seconds) = diagnosis.retry_after_seconds() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A refusal before the WebSocket is open: status, stable code and a sentence, in the shape in which
/// OpenAI's API reports errors.
#[derive(Clone, Debug)]
pub(crate) struct HttpRefusal {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    /// The field of the request that is meant.
    param: Option<&'static str>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

impl HttpRefusal {
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            param: None,
            header: None,
        }
    }

    /// The relay itself has no room: tried again elsewhere, or in a second.
    pub(crate) fn busy(diagnosis: &Diagnosis) -> Self {
        let message = format!("{} {}", diagnosis.summary, diagnosis.next_step);
        Self::new(StatusCode::SERVICE_UNAVAILABLE, diagnosis.code, message)
            .with_header(header::RETRY_AFTER, "1")
    }

    /// What an upstream answered to a request of the relay's own.
    pub(crate) fn of_upstream(diagnosis: &Diagnosis) -> Self {
        let status = StatusCode::from_u16(diagnosis.permanence.http_status())
            .unwrap_or(StatusCode::BAD_GATEWAY);
        let message = format!("{} {}", diagnosis.summary, diagnosis.next_step);
        let refusal = Self::new(status, diagnosis.code, message);
        match diagnosis.retry_after_seconds() {
            Some(seconds) => refusal.with_retry_after(Duration::from_secs(seconds)),
            None => refusal,
        }
    }

    pub(crate) fn origin_not_allowed() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "origin_not_allowed",
            "pages of this origin may not open sessions; the operator adds it to server.allowedOrigins",
        )
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some(Box::new((name, HeaderValue::from_static(value))));
        self
    }

    /// Says when trying again can help, in whole seconds and never too early.
    pub(crate) fn with_retry_after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.header = Some(Box::new((header::RETRY_AFTER, seconds.max(1).into())));
        self
    }

    pub(crate) fn with_param(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }

    #[cfg(test)]
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    fn body(&self) -> String {
        let kind = match self.status.as_u16() {
            401 | 403 => "authentication_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        };
        json!({"error": {"type": kind, "code": self.code, "message": self.message, "param": self.param}})
            .to_string()
    }

    pub(crate) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body())));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        if let Some(own) = self.header {
            let (name, value) = *own;
            headers.insert(name, value);
        }
        response
    }

    /// The same answer as bytes, for requests that never reach hyper.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let body = self.body();
        let status = self.status.as_u16();
        let reason = self.status.canonical_reason().unwrap_or_default();
        format!(
            "HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\ncache-control: no-store\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}
