//! Makes other people's text fit for a log line.

use azure_core::http::Url;
use talkline_auth::Secret;

/// How much of an answer is shown.
const QUOTE_CHARACTERS_MAX: usize = 600;

const REDACTED: &str = "[redacted]";

/// Removes the secrets that went into one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redactor {
    secrets: Vec<Secret>,
}

impl Redactor {
    pub(crate) fn new(secrets: impl IntoIterator<Item = Secret>) -> Self {
        Self {
            secrets: secrets.into_iter().collect(),
        }
    }

    /// The beginning of `text` on one line, without secrets, without anything that looks like a
    /// JSON web token, and without characters that act on a terminal.
    pub(crate) fn quote(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            text = secret.scrub(&text);
            for encoded in [form_encoded(secret), json_escaped(secret)] {
                if encoded.len() >= 4 {
                    text = text.replace(&encoded, REDACTED);
                }
            }
        }
        let text = without_web_tokens(&text);
        // Cut before white space is folded: a body that was cut off by the size limit, in the
        // middle of a secret, cannot bring its end into view that way.
        let shown: String = text.chars().take(QUOTE_CHARACTERS_MAX).collect();
        let mut line = shown
            .split(|c: char| c.is_whitespace() || acts_on_terminals(c))
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        if shown.len() < text.len() {
            line.push('…');
        }
        line
    }
}

/// Control characters, and those that reorder text (Unicode Technical Report 36, section 2.4).
fn acts_on_terminals(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Replaces `eyJ….….…`: base64url of `{"`, with which the header of every JWT begins (RFC 7519).
fn without_web_tokens(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("eyJ") {
        let candidate = &rest[start..];
        let end = candidate
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
            .unwrap_or(candidate.len());
        out.push_str(&rest[..start]);
        if candidate[..end].contains('.') || end > 40 {
            out.push_str(REDACTED);
        } else {
            out.push_str(&candidate[..end]);
        }
        rest = &candidate[end..];
    }
    out.push_str(rest);
    out
}

/// The secret as it stands in an `application/x-www-form-urlencoded` body.
fn form_encoded(secret: &Secret) -> String {
    let Ok(mut url) = Url::parse("x:") else {
        return String::new();
    };
    url.query_pairs_mut().append_pair("", secret.expose());
    url.query()
        .and_then(|query| query.strip_prefix('='))
        .unwrap_or_default()
        .to_owned()
}

/// The secret as it stands between the quotes of a JSON string.
fn json_escaped(secret: &Secret) -> String {
    let quoted = serde_json::Value::from(secret.expose()).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_no_secret() {
        fn check(text: &str, expected: &str) {
            let redactor = Redactor::new([Secret::new("s3cr~t +\"/\u{e4}"), Secret::new("other")]);
            assert_eq!(redactor.quote(text), expected, "{text:?}");
        }
        check("got s3cr~t +\"/\u{e4}.", "got [redacted].");
        check("got s3cr%7Et+%2B%22%2F%C3%A4&a", "got [redacted]&a");
        check(r#"got "s3cr~t +\"/ä""#, r#"got "[redacted]""#);
        check("czNjcn50ICsiL8Ok", "[redacted]");
        check("another", "an[redacted]");
        check("a\r\n\tb\u{1b}[31m\u{202e}c", "a b [31m c");
        check("t eyJhbGciOi.eyJpc3Mi.c2ln-_ end", "t [redacted] end");
        check(&format!("eyJ{}", "a".repeat(40)), "[redacted]");
        check("eyJ is a prefix", "eyJ is a prefix");
        check("", "");
    }

    #[test]
    fn quotes_are_short() {
        let long = Redactor::default().quote(&"ä".repeat(601));
        assert_eq!(long, format!("{}…", "ä".repeat(600)));
        let exact = Redactor::default().quote(&"ä".repeat(600));
        assert_eq!(exact.chars().count(), 600);
    }

    #[test]
    fn the_cut_end_of_a_body_stays_out_of_view() {
        let body = format!("{}half-a-secr", " ".repeat(65_000));
        let shown = Redactor::new([Secret::new("half-a-secret")]).quote(&body);
        assert_eq!(shown, "…");
    }
}
