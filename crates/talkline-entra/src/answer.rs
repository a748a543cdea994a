//! Reads the bodies that identity services answer with.

use std::time::Duration;

use serde_json::{Map, Value};

/// Which service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The token endpoint of Entra: `expires_in` as a number
    /// (<https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>).
    Entra,
    /// A managed identity endpoint: `expires_on` as a string of Unix seconds
    /// (<https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference>).
    ManagedIdentity,
}

/// A life time beyond this is a mistake, and far beyond it the SDK's arithmetic overflows.
const LIFE_SECONDS_MAX: i64 = 366 * 24 * 60 * 60;

/// What [`check_token`] says of a body that is no JSON at all.
pub(crate) const NOT_JSON: &str = "it is not a JSON object";

/// Whether the body of a successful answer is one that the SDK can turn into a usable token; says
/// what is wrong without quoting it, or when the service wants to be asked again.
pub(crate) fn check_token(shape: Shape, body: &[u8]) -> Result<Option<Duration>, &'static str> {
    let Ok(Value::Object(answer)) = serde_json::from_slice(body) else {
        return Err(NOT_JSON);
    };
    let Some(token) = answer.get("access_token").and_then(Value::as_str) else {
        return Err("it has no access_token");
    };
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("its access_token cannot be put in a header");
    }
    match shape {
        Shape::Entra => match answer.get("expires_in").map(Value::as_i64) {
            Some(Some(seconds)) if (1..=LIFE_SECONDS_MAX).contains(&seconds) => {}
            _ => return Err("its expires_in is not a sensible number of seconds"),
        },
        Shape::ManagedIdentity => check_managed_identity(&answer)?,
    }
    Ok(refresh_in(&answer))
}

/// A number in Entra's answers, a string in those of the metadata service. It is advice: one that
/// makes no sense is not followed.
fn refresh_in(answer: &Map<String, Value>) -> Option<Duration> {
    let value = answer.get("refresh_in")?;
    let seconds = value
        .as_i64()
        .or_else(|| value.as_str()?.parse().ok())
        .filter(|seconds| (1..=LIFE_SECONDS_MAX).contains(seconds))?;
    u64::try_from(seconds).ok().map(Duration::from_secs)
}

fn check_managed_identity(answer: &Map<String, Value>) -> Result<(), &'static str> {
    let text = |name| answer.get(name).and_then(Value::as_str);
    if text("resource").is_none() || text("token_type").is_none() {
        return Err("it has no resource or no token_type");
    }
    match text("expires_on").map(str::parse::<i64>) {
        // 9999-12-31: the last day of the SDK's calendar.
        Some(Ok(seconds)) if (0..=253_402_300_799).contains(&seconds) => Ok(()),
        _ => Err("its expires_on is not a string of Unix seconds"),
    }
}

/// What an error body says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// The service's own words, or the beginning of the body; not scrubbed.
    pub(crate) text: String,
    /// The OAuth error, `invalid_client` say.
    pub(crate) error: Option<String>,
    /// The first `AADSTS` number.
    pub(crate) aadsts: Option<u32>,
    /// What to quote to Microsoft's support.
    pub(crate) correlation_id: Option<String>,
    /// The body is JSON. A body that is not comes from something between here and the service.
    pub(crate) json: bool,
}

impl Complaint {
    pub(crate) fn read(body: &[u8]) -> Self {
        let raw = String::from_utf8_lossy(body);
        let Ok(Value::Object(answer)) = serde_json::from_slice(body) else {
            let may_hold_a_token = raw.contains("access_token");
            return Self {
                aadsts: aadsts(&raw),
                text: if may_hold_a_token {
                    String::new()
                } else {
                    raw.into_owned()
                },
                ..Self::default()
            };
        };
        let text = |name| answer.get(name).and_then(Value::as_str).map(str::to_owned);
        let nested = answer.get("error").and_then(Value::as_object);
        let words = text("error_description")
            .or_else(|| text("message"))
            .or_else(|| Some(nested?.get("message")?.as_str()?.to_owned()))
            // An object without words may hold anything, a token included.
            .or_else(|| text("error"))
            .unwrap_or_default();
        let listed = answer
            .get("error_codes")
            .and_then(|codes| codes.get(0)?.as_u64());
        Self {
            aadsts: aadsts(&words).or_else(|| u32::try_from(listed?).ok()),
            error: text("error").or_else(|| Some(nested?.get("code")?.as_str()?.to_owned())),
            correlation_id: text("correlation_id").or_else(|| text("correlationId")),
            text: words,
            json: true,
        }
    }
}

/// The number after the first `AADSTS`.
fn aadsts(text: &str) -> Option<u32> {
    let (_, after) = text.split_once("AADSTS")?;
    let end = after
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(after.len());
    after[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_usable_tokens_reach_the_sdk() {
        fn check(shape: Shape, body: &str, expected: Result<(), &str>) {
            let result = check_token(shape, body.as_bytes()).map(drop);
            assert_eq!(result, expected, "{body}");
        }
        let entra = |rest: &str| format!(r#"{{"access_token":"t"{rest}}}"#);
        let life = Err("its expires_in is not a sensible number of seconds");
        check(Shape::Entra, &entra(r#","expires_in":3599"#), Ok(()));
        check(Shape::Entra, &entra(r#","expires_in":"3599""#), life);
        check(Shape::Entra, &entra(r#","expires_in":0"#), life);
        check(Shape::Entra, &entra(r#","expires_in":-1"#), life);
        check(
            Shape::Entra,
            &entra(r#","expires_in":9223372036854775807"#),
            life,
        );
        check(Shape::Entra, &entra(""), life);
        check(Shape::Entra, "<html>", Err("it is not a JSON object"));
        check(Shape::Entra, "[]", Err("it is not a JSON object"));
        check(Shape::Entra, "", Err("it is not a JSON object"));
        check(Shape::Entra, "{}", Err("it has no access_token"));
        let header = Err("its access_token cannot be put in a header");
        check(Shape::Entra, r#"{"access_token":""}"#, header);
        check(Shape::Entra, r#"{"access_token":"a\r\nb: c"}"#, header);

        let identity = |expires_on: &str| {
            format!(
                r#"{{"access_token":"t","resource":"r","token_type":"Bearer","expires_on":{expires_on}}}"#
            )
        };
        let expiry = Err("its expires_on is not a string of Unix seconds");
        let managed = Shape::ManagedIdentity;
        check(managed, &identity(r#""1763900000""#), Ok(()));
        check(managed, &identity("1763900000"), expiry);
        check(managed, &identity(r#""2026-01-01""#), expiry);
        check(managed, &identity(r#""9223372036854775807""#), expiry);
        check(managed, &identity(r#""-1""#), expiry);
        check(
            managed,
            r#"{"access_token":"t","expires_on":"1763900000"}"#,
            Err("it has no resource or no token_type"),
        );
    }

    #[test]
    fn the_time_of_renewal_is_advice() {
        fn check(refresh_in: &str, expected: Option<u64>) {
            let body =
                format!(r#"{{"access_token":"t","expires_in":3599,"refresh_in":{refresh_in}}}"#);
            let found = check_token(Shape::Entra, body.as_bytes()).unwrap();
            assert_eq!(found, expected.map(Duration::from_secs), "{refresh_in}");
        }
        check("43200", Some(43_200));
        check("\"43200\"", Some(43_200));
        check("0", None);
        check("-1", None);
        check("9223372036854775807", None);
        check("\"soon\"", None);
        check("null", None);
        check("[1]", None);
    }

    #[test]
    fn error_bodies_give_up_their_reason() {
        fn check(body: &str, text: &str, aadsts: Option<u32>, correlation_id: Option<&str>) {
            let complaint = Complaint::read(body.as_bytes());
            assert_eq!(complaint.text, text, "{body}");
            assert_eq!(complaint.aadsts, aadsts, "{body}");
            assert_eq!(
                complaint.correlation_id.as_deref(),
                correlation_id,
                "{body}"
            );
        }
        // The form of Microsoft's own sample, with escapes that the SDK cannot read.
        check(
            r#"{"error":"invalid_scope","error_description":"AADSTS70011: The scope \"x\" is bad.\r\nTrace ID: 1","error_codes":[70011],"correlation_id":"c-1"}"#,
            "AADSTS70011: The scope \"x\" is bad.\r\nTrace ID: 1",
            Some(70011),
            Some("c-1"),
        );
        check(
            r#"{"error":"invalid_client","error_codes":[7000222]}"#,
            "invalid_client",
            Some(7_000_222),
            None,
        );
        check(
            r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
            "Identity not found",
            None,
            None,
        );
        check(
            r#"{"statusCode":400,"message":"No identity","correlationId":"c-2"}"#,
            "No identity",
            None,
            Some("c-2"),
        );
        check(
            r#"{"error":{"code":"X","message":"nested"}}"#,
            "nested",
            None,
            None,
        );
        check(r#"{"access_token":"t"}"#, "", None, None);
        check(r#"{"access_token":"t","#, "", None, None);
        check(
            "<html>AADSTS90033 busy",
            "<html>AADSTS90033 busy",
            Some(90033),
            None,
        );
        check("AADSTS", "AADSTS", None, None);
        check("AADSTS99999999999", "AADSTS99999999999", None, None);
        check("", "", None, None);
    }
}
