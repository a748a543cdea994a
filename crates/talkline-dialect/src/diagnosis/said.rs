//! What an upstream said, made fit to be shown.

use serde_json::Value;
use talkline_auth::Sealed;

/// The longest part of an upstream's message that is handed on, in characters.
const MESSAGE_CHARS_MAX: usize = 400;
/// The longest code, in characters.
const CODE_CHARS_MAX: usize = 80;
/// Shortest piece of a credential at the end of a cut-off text that is taken for one.
const TAIL_BYTES_MIN: usize = 4;
/// Shortest piece of a credential elsewhere in a text that is taken for one.
const PIECE_BYTES_MIN: usize = 8;
/// What stands in place of a credential.
const REDACTED: &str = "[redacted]";

/// Code and message of an error body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
    /// The body is a page for people: something other than the service wrote it.
    pub(super) is_html: bool,
}

impl Said {
    /// Reads a body in any of the shapes that Azure, its gateways and OpenAI use, whole or cut off.
    pub(super) fn read(body: &[u8], target: &Sealed) -> Self {
        let text = decode(body);
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}' || c == '\0');
        if text.starts_with('<') {
            return Self {
                is_html: true,
                ..Self::default()
            };
        }
        // serde_json stops at 128 levels, so a body cannot exhaust the stack; what it gives up on,
        // because of depth or because the rest is missing, is searched for the two fields.
        let (code, message) = match serde_json::from_str::<Value>(text) {
            Ok(value) => fields(&value),
            Err(_) if text.starts_with(['{', '[']) => {
                let code = scrape(text, "code").or_else(|| scrape(text, "statusCode"));
                (code, scrape(text, "message"))
            }
            Err(_) => (None, Some(text.to_owned())),
        };
        let kept = |text: String, chars_max| {
            let text = clean(&without_credentials(&text, target), chars_max);
            (!text.is_empty()).then_some(text)
        };
        Self {
            code: code.and_then(|code| kept(code, CODE_CHARS_MAX)),
            message: message.and_then(|message| kept(message, MESSAGE_CHARS_MAX)),
            is_html: false,
        }
    }
}

/// UTF-8, whatever is wrong with it, or the UTF-16 that a byte order mark announces.
fn decode(body: &[u8]) -> String {
    let unit: fn([u8; 2]) -> u16 = match body {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return String::from_utf8_lossy(body).into_owned(),
    };
    let units: Vec<u16> = body
        .chunks_exact(2)
        .map(|pair| unit([pair[0], pair[1]]))
        .collect();
    String::from_utf16_lossy(&units)
}

fn fields(value: &Value) -> (Option<String>, Option<String>) {
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    if let Value::String(text) = value {
        return (None, Some(text.clone()));
    }
    if let Some(error) = text("error") {
        // As OAuth has it, or the whole message in one.
        return match text("error_description").or_else(|| text("message")) {
            Some(message) => (Some(error), Some(message)),
            None => (None, Some(error)),
        };
    }
    let error = value
        .get("error")
        .filter(|error| error.is_object())
        .unwrap_or(value);
    let field = |names: &[&str]| {
        names.iter().find_map(|name| match error.get(name) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        })
    };
    (
        field(&["code", "statusCode"]),
        field(&["message", "Message", "detail"]),
    )
}

/// The value of the first `"name":` in a text that is no whole JSON.
fn scrape(text: &str, name: &str) -> Option<String> {
    let quoted = format!("\"{name}\"");
    let mut rest = text;
    loop {
        let (_, after) = rest.split_once(quoted.as_str())?;
        rest = after;
        let Some(value) = after.trim_start().strip_prefix(':') else {
            continue;
        };
        let value = value.trim_start();
        if let Some(string) = value.strip_prefix('"') {
            return Some(unescape(string));
        }
        let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
        if !digits.is_empty() {
            return Some(digits);
        }
    }
}

/// A JSON string up to its closing quote, or as much of it as there is.
fn unescape(string: &str) -> String {
    let mut plain = String::new();
    let mut chars = string.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some('n' | 'r' | 't' | 'b' | 'f') => plain.push(' '),
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    let c = u32::from_str_radix(&digits, 16).ok();
                    plain.push(c.and_then(char::from_u32).unwrap_or('\u{fffd}'));
                }
                Some(c) => plain.push(c),
                None => break,
            },
            c => plain.push(c),
        }
        if plain.len() > 16 * MESSAGE_CHARS_MAX {
            break;
        }
    }
    plain
}

/// `text` without the target's credential, whole or cut off, and without anything that looks like
/// another one.
pub(super) fn without_credentials(text: &str, target: &Sealed) -> String {
    let mut text = target.scrub(text);
    if let Some((_, secret)) = target.authentication() {
        let secret = secret.expose();
        let secret = secret.strip_prefix("Bearer ").unwrap_or(secret);
        text = without_beginnings(&text, secret);
    }
    without_key_shapes(&text)
}

/// Removes beginnings of a secret: an echo may have been cut off inside it. At the end of the text
/// a short one is enough. Upper and lower case are the same.
fn without_beginnings(text: &str, secret: &str) -> String {
    let secret = secret.as_bytes();
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let same = std::iter::zip(rest.bytes(), secret)
            .take_while(|(a, b)| a.eq_ignore_ascii_case(b))
            .count();
        let ends_text = same == rest.len();
        if same >= PIECE_BYTES_MIN || same >= TAIL_BYTES_MIN && ends_text {
            kept.push_str(REDACTED);
            // Credentials are ASCII; if this one is not, its last character goes whole.
            let end = (same..=rest.len()).find(|end| rest.is_char_boundary(*end));
            rest = &rest[end.unwrap_or(rest.len())..];
        } else {
            kept.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    kept
}

/// Names after which a credential stands, in a header line, a query or JSON.
const NAMES: [&str; 14] = [
    "api-key",
    "apikey",
    "api_key",
    "authorization",
    "subscription-key",
    "access_token",
    "client_secret",
    "password",
    "token",
    "secret",
    "bearer",
    "cookie",
    "sig",
    "x-functions-key",
];

/// `text` without what stands behind the name of a credential, and without what looks like one.
pub(super) fn without_key_shapes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut follows_name = false;
    let mut rest = text;
    while !rest.is_empty() {
        let gap = rest.find(in_word).unwrap_or(rest.len());
        let (between, words) = rest.split_at(gap);
        kept.push_str(between);
        let word = &words[..words.find(|c| !in_word(c)).unwrap_or(words.len())];
        let lower = word.to_ascii_lowercase();
        let is_scheme = matches!(lower.as_str(), "bearer" | "basic");
        rest = if follows_name && !is_scheme && !word.is_empty() {
            kept.push_str(REDACTED);
            follows_name = false;
            &words[words.find(ends_value).unwrap_or(words.len())..]
        } else if looks_like_key(word) {
            kept.push_str(REDACTED);
            follows_name = false;
            &words[word.len()..]
        } else {
            kept.push_str(word);
            let behind = &words[word.len()..];
            // A name in prose is followed by a space only.
            let assigns = behind
                .trim_start_matches(['"', '\'', ' '])
                .starts_with([':', '=']);
            follows_name = is_name(&lower) && assigns || follows_name && is_scheme;
            behind
        };
    }
    kept
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.~+/%".contains(c)
}

fn ends_value(c: char) -> bool {
    c.is_whitespace() || "\"'&,;}".contains(c)
}

/// Long names count wherever a word ends with them: lines that were joined have no gap.
fn is_name(lower: &str) -> bool {
    NAMES.iter().any(|name| {
        lower.strip_suffix(name).is_some_and(|before| {
            before.is_empty() || before.ends_with(['-', '_']) || name.len() >= 7
        })
    })
}

/// Keys of OpenAI, client secrets, JSON Web Tokens, and long runs without any structure. GUIDs,
/// which request ids are, have dashes; names and paths have words.
fn looks_like_key(word: &str) -> bool {
    let prefixed = ["sk-", "ek_", "eyJ"]
        .iter()
        .any(|prefix| word.starts_with(prefix) && word.len() >= 12);
    let run = word.trim_end_matches(['.', ',']);
    let dense = run.len() >= 32
        && run
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'+')
        && run.bytes().any(|byte| byte.is_ascii_digit())
        && run.bytes().any(|byte| byte.is_ascii_alphabetic());
    prefixed || dense
}

/// One line of printable text, at most `chars_max` long.
pub(super) fn clean(text: &str, chars_max: usize) -> String {
    let printable = |c: char| {
        if c.is_control() || is_bidi_control(c) {
            ' '
        } else {
            c
        }
    };
    let mut cleaned: String = text.chars().map(printable).take(chars_max).collect();
    if text.chars().nth(chars_max).is_some() {
        cleaned.push('…');
    }
    cleaned.trim().to_owned()
}

/// Characters that reorder what follows them, and could make a log line read as another.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Host and path of a `Location`: its query has been seen to hold the key.
pub(super) fn host_and_path(location: &str) -> String {
    let end = location.find(['?', '#', ';']).unwrap_or(location.len());
    let location = &location[..end];
    let location = location
        .split_once("//")
        .map_or(location, |(_, behind)| behind);
    let authority = location.split(['/', '\\']).next().unwrap_or_default();
    let start = authority.rfind('@').map_or(0, |at| at + 1);
    clean(&location[start..], 200)
}
