//! What of a written value may be shown: nothing that can be a secret, nothing that moves a
//! terminal's cursor.

/// A value in backticks, or words in its place when it looks like a key.
pub(crate) fn shown(value: &str) -> String {
    if looks_secret(value) {
        return "a value that looks like a key".to_owned();
    }
    format!("`{}`", cleaned(value))
}

/// At most 80 characters, control characters escaped, key-like runs blotted out.
pub(crate) fn cleaned(value: &str) -> String {
    let mut blotted = value.to_owned();
    blot_runs(&mut blotted);
    let escaped = |c: char| -> String {
        if c.is_control() || is_invisible(c) {
            c.escape_unicode().to_string()
        } else {
            c.to_string()
        }
    };
    let mut out: String = blotted.chars().take(80).map(escaped).collect();
    if blotted.chars().count() > 80 {
        out.push('…');
    }
    out
}

/// Whether any part of a value may be a key or token.
pub(crate) fn looks_secret(value: &str) -> bool {
    let mut blotted = value.to_owned();
    blot_runs(&mut blotted);
    blotted != value
}

/// Zero-width and direction-changing characters, with which a name can pass for another.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Replaces what may be a key by `*`, byte for byte, so that places stay where they were.
///
/// A key is a run of 20 or more letters and digits with at least one of each (Azure keys have 32
/// or 84, OpenAI keys more), or a word that starts like a key of OpenAI's.
pub(crate) fn blot_runs(text: &mut String) {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'=');
    let prefixes = ["sk-", "ek_", "sk_"];
    let bytes = text.as_bytes();
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let starts_word =
            word(bytes[at]) && (at == 0 || !(word(bytes[at - 1]) || bytes[at - 1] == b'-'));
        let prefixed = starts_word
            && prefixes
                .iter()
                .any(|p| bytes[at..].starts_with(p.as_bytes()));
        let in_run = |byte: u8| word(byte) || (prefixed && matches!(byte, b'-' | b'.'));
        let end = at + bytes[at..].iter().take_while(|byte| in_run(**byte)).count();
        let run = &bytes[at..end];
        let mixed = run.iter().any(u8::is_ascii_digit) && run.iter().any(u8::is_ascii_alphabetic);
        if (run.len() >= 20 && mixed) || (prefixed && run.len() > 6) {
            ranges.push(at..end);
        }
        at = end.max(at + 1);
    }
    for range in ranges {
        blot(text, range);
    }
}

/// Replaces a range by `*`, byte for byte; quotes at its ends and line endings within stay.
pub(crate) fn blot(text: &mut String, range: std::ops::Range<usize>) {
    let Some(part) = text.get(range.clone()) else {
        return;
    };
    let kept = |c: char| matches!(c, '"' | '\'' | '\n' | '\r');
    let stars: String = part
        .chars()
        .map(|c| {
            if kept(c) {
                c.to_string()
            } else {
                "*".repeat(c.len_utf8())
            }
        })
        .collect();
    text.replace_range(range, &stars);
}
