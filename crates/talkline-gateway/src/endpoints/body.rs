//! Reads a request's JSON body: bounded in bytes and time, and without two meanings.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use crate::refusal::HttpRefusal;

/// Bytes of a body. A session's settings with a long prompt and some tools have a few thousand.
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024;

/// Reads a body as `T`; an empty one as `T`'s default.
///
/// # Errors
///
/// 408, 413, 415 or 400, by what is wrong with it.
///
/// # Cancel safety
///
/// What was read is lost; the connection is of no use after it.
pub(super) async fn read<T, B>(
    headers: &HeaderMap,
    body: B,
    deadline: Instant,
) -> Result<T, HttpRefusal>
where
    T: DeserializeOwned + Default,
    B: Body<Data = Bytes>,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let collected = timeout_at(deadline, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let bytes = match collected {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return Err(HttpRefusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("the body is larger than {BODY_BYTES_MAX} bytes"),
            ));
        }
        Ok(Err(_)) => return Err(bad("the body ended before its length")),
        Err(_) => {
            return Err(HttpRefusal::new(
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                "the body did not come in time",
            ));
        }
    };
    if bytes.is_empty() {
        return Ok(T::default());
    }
    if !is_json(headers) {
        return Err(HttpRefusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_type",
            "the body has to be Content-Type: application/json",
        ));
    }
    // serde_json's messages name fields and positions, and quote nothing but what the caller itself
    // sent.
    let refuse = |error: serde_json::Error| bad(format!("the body does not fit: {error}"));
    let StrictObject(map) = serde_json::from_slice(&bytes).map_err(refuse)?;
    T::deserialize(Value::Object(map)).map_err(refuse)
}

fn bad(message: impl Into<std::borrow::Cow<'static, str>>) -> HttpRefusal {
    HttpRefusal::new(StatusCode::BAD_REQUEST, "invalid_body", message)
}

/// A form of another type is what a page can send elsewhere without a preflight (Fetch standard,
/// "CORS-safelisted request-header"); a body of JSON is not.
fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let value = value.to_str().unwrap_or_default();
    let mut parts = value.split(';').map(str::trim);
    let json = parts
        .next()
        .is_some_and(|media| media.eq_ignore_ascii_case("application/json"));
    json && parts
        .all(|parameter| parameter.is_empty() || parameter.eq_ignore_ascii_case("charset=utf-8"))
}

/// A JSON object in which no key stands twice, at any depth.
///
/// serde_json keeps the last of two equal keys, other parsers the first: what is checked here and
/// what is obeyed elsewhere could differ.
struct StrictObject(Map<String, Value>);

impl<'de> Deserialize<'de> for StrictObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Strict::deserialize(deserializer)?.0 {
            Value::Object(map) => Ok(Self(map)),
            _ => Err(D::Error::custom("expected an object")),
        }
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom("a key stands twice"));
            }
            let Strict(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::Full;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        model: Option<String>,
        session: Option<Map<String, Value>>,
    }

    async fn check(content_type: &str, body: impl Into<Bytes>, expected: &str) {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        }
        let body = body.into();
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let deadline = Instant::now() + Duration::from_secs(1);
        let got = match read::<Sample, _>(&headers, Full::new(body), deadline).await {
            Ok(Sample { model, session }) => format!("{model:?} {}", session.is_some()),
            Err(refusal) => refusal.code().to_owned(),
        };
        assert_eq!(got, expected, "{content_type} {shown}");
    }

    const JSON: &str = "application/json";

    #[tokio::test]
    async fn bodies() {
        check("", "", "None false").await;
        check(JSON, "{}", "None false").await;
        check("Application/JSON; charset=UTF-8", "{}", "None false").await;
        check(
            JSON,
            r#"{"model":"m","session":{"a":[1,{"b":null}]}}"#,
            "Some(\"m\") true",
        )
        .await;
        for content_type in [
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json5",
            "application/json; charset=utf-16",
        ] {
            check(content_type, "{}", "content_type").await;
        }
        for body in [
            "{",
            "[]",
            "[null,null]",
            "null",
            "{} {}",
            r#"{"mode":1}"#,
            r#"{"model":1}"#,
            r#"{"session":[]}"#,
            r#"{"model":"a","model":"b"}"#,
            r#"{"session":{"a":1,"a":2}}"#,
            r#"{"session":{"a":[{"b":1,"\u0062":2}]}}"#,
            "\u{feff}{}",
        ] {
            check(JSON, body, "invalid_body").await;
        }
        check(
            JSON,
            format!("{{\"session\":{}", "[".repeat(9000)),
            "invalid_body",
        )
        .await;
        check(JSON, vec![b' '; BODY_BYTES_MAX + 1], "body_too_large").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come() {
        let headers = HeaderMap::new();
        let deadline = Instant::now() + Duration::from_secs(1);
        let refused = read::<Sample, _>(&headers, Silent, deadline).await;
        assert_eq!(refused.unwrap_err().code(), "body_timeout");
    }

    struct Silent;

    impl Body for Silent {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }
}
