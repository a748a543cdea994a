//! What is read and hidden of the upstream's events, and the glance at an event's first bytes.

use super::json::{Kind, Object, Value};
use super::rules::Hide;

/// What the first bytes of a message tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Glance<'a> {
    /// Its first `type`.
    Type(&'a str),
    /// Nothing yet.
    Unknown,
    /// It does not begin as an event does, nor as anything that a reader of JSON takes for one.
    NoEvent,
    /// It has to be parsed.
    Odd,
}

/// Reads the `type` of an event from its first bytes, as long as only short scalars stand before it.
/// Good enough for an upstream, which has no reason to hide; never used to trust a client.
pub(super) fn glance(head: &[u8]) -> Glance<'_> {
    let mut rest = space(head);
    match rest {
        [] => return Glance::Unknown,
        [b'{', behind @ ..] => rest = behind,
        [0xEF, ..] => return Glance::Odd,
        _ => return Glance::NoEvent,
    }
    loop {
        let key = match plain_string(space(rest)) {
            Ok(key) => key,
            Err(glance) => return glance,
        };
        let [b':', behind @ ..] = space(key.1) else {
            return if space(key.1).is_empty() {
                Glance::Unknown
            } else {
                Glance::Odd
            };
        };
        let value = space(behind);
        if key.0 == b"type" {
            return match plain_string(value) {
                Ok((name, _)) => std::str::from_utf8(name).map_or(Glance::Odd, Glance::Type),
                Err(glance) => glance,
            };
        }
        rest = match value {
            [] => return Glance::Unknown,
            [b'"', ..] => match plain_string(value) {
                Ok((_, rest)) => rest,
                Err(glance) => return glance,
            },
            [b'{' | b'[', ..] => return Glance::Odd,
            _ => {
                let end = value.iter().position(|byte| matches!(byte, b',' | b'}'));
                let Some(end) = end else {
                    return Glance::Unknown;
                };
                &value[end..]
            }
        };
        rest = match space(rest) {
            [] => return Glance::Unknown,
            [b',', rest @ ..] => rest,
            _ => return Glance::Odd,
        };
    }
}

fn space(bytes: &[u8]) -> &[u8] {
    let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    &bytes[bytes.iter().take_while(is_space).count()..]
}

/// A string without escapes at the front, and what follows it.
fn plain_string(bytes: &[u8]) -> Result<(&[u8], &[u8]), Glance<'_>> {
    match bytes {
        [] => Err(Glance::Unknown),
        [b'"', text @ ..] => {
            let end = text.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            match end {
                None => Err(Glance::Unknown),
                Some(end) if text[end] == b'\\' => Err(Glance::Odd),
                Some(end) => Ok((&text[..end], &text[end + 1..])),
            }
        }
        _ => Err(Glance::Odd),
    }
}

/// The events that show a session's or a response's settings.
pub(super) fn shows_settings(name: &str) -> bool {
    matches!(
        name,
        "session.created"
            | "session.updated"
            | "session.started"
            | "transcription_session.created"
            | "transcription_session.updated"
            | "response.created"
            | "response.done"
    )
}

/// Blanks what the client is not to see.
pub(super) fn conceal(event: &mut Value<'_>, hide: Hide) {
    let Kind::Object(event) = &mut event.kind else {
        return;
    };
    for key in ["session", "response"] {
        let Some(Kind::Object(settings)) = event.get_mut(key).map(|value| &mut value.kind) else {
            continue;
        };
        if hide.instructions {
            blank(settings, "instructions", "\"\"");
            blank(settings, "prompt", "null");
            blank_transcription(settings, "input_audio_transcription");
            if let Some(audio) = object_mut(settings, "audio")
                && let Some(input) = object_mut(audio, "input")
            {
                blank_transcription(input, "transcription");
            }
        }
        if hide.tools {
            blank(settings, "tools", "[]");
        }
    }
}

fn blank_transcription(settings: &mut Object<'_>, key: &str) {
    if let Some(transcription) = object_mut(settings, key) {
        blank(transcription, "prompt", "\"\"");
    }
}

fn blank(object: &mut Object<'_>, key: &str, text: &str) {
    if let Some(value) = object.get_mut(key)
        && !value.is_null()
        && value.text() != text
    {
        value.replace(text);
    }
}

fn object_mut<'o, 'a>(object: &'o mut Object<'a>, key: &str) -> Option<&'o mut Object<'a>> {
    match object.get_mut(key).map(|value| &mut value.kind) {
        Some(Kind::Object(inner)) => Some(inner),
        _ => None,
    }
}
