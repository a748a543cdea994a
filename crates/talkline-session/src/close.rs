//! Close frames and error events, in the forms that clients understand.

use serde::Serialize;

/// Longest reason of a close frame, in bytes: 125 less the code (RFC 6455 section 5.5).
pub const REASON_BYTES_MAX: usize = 123;

/// What a close frame says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Close {
    /// The code; `None` is a close frame without payload. Never 1005, 1006 or 1015, which only exist
    /// off the wire (RFC 6455 section 7.4.1).
    pub code: Option<u16>,
    /// Why; at most [`REASON_BYTES_MAX`] bytes, empty without a code.
    pub reason: String,
}

impl Close {
    /// A close frame that can be sent: the reason sanitized, a code that must not be on the wire
    /// replaced by 1011.
    #[must_use]
    pub fn new(code: u16, reason: &str) -> Self {
        let code = if talkline_frame::is_close_code_legal(code) {
            code
        } else {
            1011
        };
        Self {
            code: Some(code),
            reason: sanitize_reason(reason),
        }
    }

    /// The payload of the frame.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(2 + self.reason.len());
        if let Some(code) = self.code {
            payload.extend_from_slice(&code.to_be_bytes());
            payload.extend_from_slice(self.reason.as_bytes());
        }
        payload
    }
}

/// A reason that is safe in a close frame and in a log line: control and bidirectional formatting
/// characters become spaces, and it is cut to [`REASON_BYTES_MAX`] bytes at a character boundary.
#[must_use]
pub fn sanitize_reason(reason: &str) -> String {
    sanitize(reason, REASON_BYTES_MAX)
}

pub(crate) fn sanitize(text: &str, bytes_max: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(bytes_max));
    for character in text.chars() {
        let hostile = character.is_control()
            || matches!(character, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}');
        let character = if hostile { ' ' } else { character };
        if clean.len() + character.len_utf8() > bytes_max {
            break;
        }
        clean.push(character);
    }
    clean
}

/// An `error` event in the shape that the Realtime API uses, for a fault that the upstream could not
/// report itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorEvent<'a> {
    /// Identifies the event within its session.
    pub event_id: &'a str,
    /// Class of the error, `server_error` or `invalid_request_error`.
    pub kind: &'a str,
    /// Stable code.
    pub code: &'a str,
    /// A sentence that is safe to show.
    pub message: &'a str,
    /// The parameter at fault, if there is one.
    pub param: Option<&'a str>,
}

impl ErrorEvent<'_> {
    /// The event as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        let event = WireEvent {
            kind: "error",
            event_id: self.event_id,
            error: WireError {
                kind: self.kind,
                code: self.code,
                message: self.message,
                param: self.param,
                event_id: None,
            },
        };
        serde_json::to_string(&event).expect("strings always serialize")
    }
}

#[derive(Serialize)]
struct WireEvent<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    event_id: &'a str,
    error: WireError<'a>,
}

#[derive(Serialize)]
struct WireError<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    code: &'a str,
    message: &'a str,
    param: Option<&'a str>,
    event_id: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_cut_at_a_character_and_cleaned() {
        assert_eq!(sanitize_reason("a\r\nb\u{202E}c\u{1b}[0m"), "a  b c [0m");
        let long = "é".repeat(100);
        assert_eq!(sanitize_reason(&long).len(), 122);
    }

    #[test]
    fn codes_that_only_exist_off_the_wire_are_replaced() {
        for (code, want) in [
            (1000, 1000),
            (1005, 1011),
            (1006, 1011),
            (1015, 1011),
            (4999, 4999),
            (0, 1011),
        ] {
            assert_eq!(Close::new(code, "").code, Some(want), "{code}");
        }
    }

    #[test]
    fn error_event_has_the_shape_of_the_api() {
        let event = ErrorEvent {
            event_id: "event_1",
            kind: "server_error",
            code: "upstream_closed",
            message: "say \"hi\"",
            param: None,
        };
        assert_eq!(
            event.to_json(),
            r#"{"type":"error","event_id":"event_1","error":{"type":"server_error","code":"upstream_closed","message":"say \"hi\"","param":null,"event_id":null}}"#
        );
    }
}
