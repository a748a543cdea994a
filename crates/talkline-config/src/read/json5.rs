//! JSON and JSON5 to tree, with the place of every key and value.
//!
//! The grammar is that of the JSON5 specification 1.0.0 (spec.json5.org). A parser of its own,
//! since messages point at keys and values and no JSON5 library for Rust reports their places.

use super::SyntaxError;
use crate::tree::{Entry, Node, Place, Table, Value};

/// Deeper nesting is no configuration, and each level costs stack.
const DEPTH_MAX: usize = 64;

pub(super) fn read(text: &str, file: usize) -> Result<Table, SyntaxError> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        file,
    };
    parser.skip_blank()?;
    if parser.peek() != Some('{') {
        return Err(parser.error("expected `{`: the file holds one object"));
    }
    let node = parser.value()?;
    parser.skip_blank()?;
    if parser.peek().is_some() {
        return Err(parser.error("expected the end of the file after the object"));
    }
    match node.value {
        Value::Table(table) => Ok(table),
        _ => Err(parser.error("expected `{`: the file holds one object")),
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Byte offset of what is read next. Invariant: on a character boundary.
    at: usize,
    depth: usize,
    file: usize,
}

impl Parser<'_> {
    fn value(&mut self) -> Result<Node, SyntaxError> {
        let start = self.at;
        let value = match self.peek() {
            Some('{') => self.nested(Self::object)?,
            Some('[') => self.nested(Self::array)?,
            Some('"' | '\'') => Value::Text(self.string()?),
            Some(first) if first.is_ascii_digit() || matches!(first, '+' | '-' | '.') => {
                self.number()?
            }
            Some(first) if is_name_start(first) => self.word()?,
            Some(_) => return Err(self.error("expected a value")),
            None => return Err(self.error("expected a value, found the end of the file")),
        };
        Ok(Node {
            place: self.place(start),
            value,
        })
    }

    fn nested(
        &mut self,
        read: fn(&mut Self) -> Result<Value, SyntaxError>,
    ) -> Result<Value, SyntaxError> {
        if self.depth == DEPTH_MAX {
            return Err(self.error("nested too deeply"));
        }
        self.depth += 1;
        self.bump();
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn object(&mut self) -> Result<Value, SyntaxError> {
        let mut entries = Vec::new();
        loop {
            self.skip_blank()?;
            if self.eat('}') {
                return Ok(Value::Table(Table { entries }));
            }
            let start = self.at;
            let key = match self.peek() {
                Some('"' | '\'') => self.string()?,
                Some(first) if is_name_start(first) || first == '\\' => self.name()?,
                _ => return Err(self.error("expected a key or `}`")),
            };
            let key_place = self.place(start);
            self.skip_blank()?;
            if !self.eat(':') {
                return Err(self.error("expected `:` after the key"));
            }
            self.skip_blank()?;
            let node = self.value()?;
            entries.push(Entry {
                key,
                key_place,
                node,
            });
            self.skip_blank()?;
            if !self.eat(',') && self.peek() != Some('}') {
                return Err(self.error("expected `,` or `}`"));
            }
        }
    }

    fn array(&mut self) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        loop {
            self.skip_blank()?;
            if self.eat(']') {
                return Ok(Value::Array(items));
            }
            items.push(self.value()?);
            self.skip_blank()?;
            if !self.eat(',') && self.peek() != Some(']') {
                return Err(self.error("expected `,` or `]`"));
            }
        }
    }

    fn string(&mut self) -> Result<String, SyntaxError> {
        let start = self.at;
        let quote = self.bump();
        let mut out = String::new();
        loop {
            match self.bump() {
                None | Some('\n' | '\r') => {
                    let span = start..start + 1;
                    return Err(SyntaxError {
                        message: "the string does not end".into(),
                        span,
                    });
                }
                Some('\\') => self.escape(&mut out)?,
                end if end == quote => return Ok(out),
                Some(other) => out.push(other),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), SyntaxError> {
        let Some(escaped) = self.bump() else {
            return Err(self.error("expected an escaped character"));
        };
        match escaped {
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\u{b}'),
            '0' if !self.peek().is_some_and(|next| next.is_ascii_digit()) => out.push('\0'),
            '0'..='9' => return Err(self.error_before("a digit cannot be escaped")),
            'x' => out.push(self.code_point(2)?),
            'u' => out.push(self.unicode_escape()?),
            // A line continuation, with CR LF as one line ending.
            '\r' => {
                self.eat('\n');
            }
            '\n' | '\u{2028}' | '\u{2029}' => {}
            other => out.push(other),
        }
        Ok(())
    }

    /// What follows `\u`, with surrogate pairs joined.
    fn unicode_escape(&mut self) -> Result<char, SyntaxError> {
        let high = self.hex(4)?;
        if let Some(character) = char::from_u32(high) {
            return Ok(character);
        }
        let low = if (0xd800..0xdc00).contains(&high) && self.eat('\\') && self.eat('u') {
            self.hex(4)?
        } else {
            0
        };
        if !(0xdc00..0xe000).contains(&low) {
            return Err(self.error_before("half a surrogate pair is no character"));
        }
        char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
            .ok_or_else(|| self.error_before("this is no character"))
    }

    fn code_point(&mut self, digits: usize) -> Result<char, SyntaxError> {
        let code = self.hex(digits)?;
        char::from_u32(code).ok_or_else(|| self.error_before("this is no character"))
    }

    fn hex(&mut self, digits: usize) -> Result<u32, SyntaxError> {
        let mut code = 0;
        for _ in 0..digits {
            match self.peek().and_then(|digit| digit.to_digit(16)) {
                Some(digit) => code = code * 16 + digit,
                None => return Err(self.error("expected a hexadecimal digit")),
            }
            self.bump();
        }
        Ok(code)
    }

    fn number(&mut self) -> Result<Value, SyntaxError> {
        let start = self.at;
        let in_number = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-');
        while self.peek().is_some_and(in_number) {
            self.bump();
        }
        parse_number(&self.text[start..self.at]).ok_or_else(|| SyntaxError {
            message: "this is no number; a text needs quotes".into(),
            span: start..self.at,
        })
    }

    fn word(&mut self) -> Result<Value, SyntaxError> {
        let start = self.at;
        match self.name()?.as_str() {
            "null" => Ok(Value::Null),
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            "Infinity" | "NaN" => Ok(Value::Float),
            _ => Err(SyntaxError {
                message: "a text needs quotes".into(),
                span: start..self.at,
            }),
        }
    }

    fn name(&mut self) -> Result<String, SyntaxError> {
        let mut out = String::new();
        loop {
            match self.peek() {
                Some('\\') => {
                    self.bump();
                    if !self.eat('u') {
                        return Err(self.error("expected `u` after `\\` in a key"));
                    }
                    out.push(self.unicode_escape()?);
                }
                Some(part) if is_name_part(part) => {
                    out.push(part);
                    self.bump();
                }
                _ => return Ok(out),
            }
        }
    }

    /// White space and comments.
    fn skip_blank(&mut self) -> Result<(), SyntaxError> {
        loop {
            let rest = &self.text[self.at..];
            if rest.starts_with("//") {
                let end = rest.find(['\n', '\r', '\u{2028}', '\u{2029}']);
                self.at += end.unwrap_or(rest.len());
            } else if let Some(comment) = rest.strip_prefix("/*") {
                let Some(end) = comment.find("*/") else {
                    return Err(self.error("the comment does not end"));
                };
                self.at += end + 4;
            } else if self
                .peek()
                .is_some_and(|c| c.is_whitespace() || c == '\u{feff}')
            {
                self.bump();
            } else {
                return Ok(());
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn eat(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        if found {
            self.bump();
        }
        found
    }

    fn place(&self, start: usize) -> Place {
        Place::File {
            file: self.file,
            span: start..self.at,
        }
    }

    fn error(&self, message: &str) -> SyntaxError {
        let end = self.at + self.peek().map_or(0, char::len_utf8);
        SyntaxError {
            message: message.into(),
            span: self.at..end,
        }
    }

    fn error_before(&self, message: &str) -> SyntaxError {
        let previous = self.text[..self.at]
            .chars()
            .next_back()
            .map_or(0, char::len_utf8);
        SyntaxError {
            message: message.into(),
            span: self.at - previous..self.at,
        }
    }
}

fn is_name_start(c: char) -> bool {
    c.is_alphabetic() || c == '$' || c == '_'
}

fn is_name_part(c: char) -> bool {
    is_name_start(c) || c.is_alphanumeric() || c == '\u{200c}' || c == '\u{200d}'
}

fn parse_number(text: &str) -> Option<Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if matches!(digits, "Infinity" | "NaN") {
        return Some(Value::Float);
    }
    let plain = |text: &str, radix| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    if let Some(hex) = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        return plain(hex, 16).then(|| integer(negative, u64::from_str_radix(hex, 16).ok()));
    }
    let leading_zero =
        digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit());
    if leading_zero {
        return None;
    }
    if plain(digits, 10) {
        return Some(integer(negative, digits.parse().ok()));
    }
    // Rust's own grammar for what is left, without its words for infinity and signs of its own.
    let decimal = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
    let unsigned = !digits.starts_with(['+', '-']);
    (unsigned && digits.bytes().all(decimal) && digits.parse::<f64>().is_ok())
        .then_some(Value::Float)
}

fn integer(negative: bool, magnitude: Option<u64>) -> Value {
    match magnitude.and_then(|magnitude| i64::try_from(magnitude).ok()) {
        Some(number) if negative => Value::Integer(-number),
        Some(number) => Value::Integer(number),
        None => Value::Float,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;

    fn json(value: &Value) -> Json {
        match value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::from(*value),
            Value::Integer(number) => Json::from(*number),
            // What a number is beyond an integer is not kept.
            Value::Float | Value::Date(_) => Json::from("a float"),
            Value::Text(text) => Json::from(text.as_str()),
            Value::Array(items) => items.iter().map(|item| json(&item.value)).collect(),
            Value::Table(table) => Json::Object(
                table
                    .entries
                    .iter()
                    .map(|e| (e.key.clone(), json(&e.node.value)))
                    .collect(),
            ),
        }
    }

    fn without_floats(value: Json) -> Json {
        match value {
            Json::Number(number) if number.as_i64().is_none() => Json::from("a float"),
            Json::Array(items) => items.into_iter().map(without_floats).collect(),
            Json::Object(map) => Json::Object(
                map.into_iter()
                    .map(|(key, value)| (key, without_floats(value)))
                    .collect(),
            ),
            other => other,
        }
    }

    fn ours(text: &str) -> Option<Json> {
        read(text, 0).ok().map(|table| json(&Value::Table(table)))
    }

    #[test]
    fn the_whole_grammar() {
        let check = |text: &str, expected: &str| {
            let expected = serde_json::from_str(expected).ok();
            assert_eq!(ours(text), expected, "{text}");
        };
        check("{}", "{}");
        check("\u{feff} {} // end", "{}");
        check("{a: 1, 'b': 2, \"c\": 3,}", r#"{"a":1,"b":2,"c":3}"#);
        check(
            "{$a_1: null, \\u0062: true, ü: false}",
            r#"{"$a_1":null,"b":true,"ü":false}"#,
        );
        check("{a: [1, 2,], b: []}", r#"{"a":[1,2],"b":[]}"#);
        check(
            "{a: 0x1F, b: -0x1, c: +7, d: -7, e: 0}",
            r#"{"a":31,"b":-1,"c":7,"d":-7,"e":0}"#,
        );
        check(
            "{a: .5, b: 5., c: 1e3, d: -Infinity, e: +NaN}",
            &r#"{"a":F,"b":F,"c":F,"d":F,"e":F}"#.replace('F', "\"a float\""),
        );
        check(
            r"{a: 'x\'\n\x41\u0041\
y\0'}",
            r#"{"a":"x'\nAAy\u0000"}"#,
        );
        check(r"{a: '\ud83d\ude00'}", r#"{"a":"😀"}"#);
        check("/* a */ {a: /* b */ 1 // c\n}", r#"{"a":1}"#);
        for refused in [
            "",
            "1",
            "[]",
            "{",
            "{a}",
            "{a:}",
            "{a: 1 b: 2}",
            "{,}",
            "{a: 01}",
            "{a: 1.2.3}",
            "{a: 0x}",
            "{a: +-1}",
            "{a: .}",
            "{a: '\n'}",
            "{a: '}",
            "{a: '\\1'}",
            "{a: '\\ud83d'}",
            "{a: '\\xzz'}",
            "{a: x}",
            "{1a: 1}",
            "{a: [,]}",
            "{} {}",
            "/* ",
            "{a: 1e}",
            "{a: 0x1p}",
            "{a: '\\u{41}'}",
        ] {
            assert_eq!(ours(refused), None, "{refused}");
        }
    }

    #[test]
    fn keys_and_values_know_their_places() {
        let text = "{ 'a': { b: \"c\" } }";
        let table = read(text, 0).unwrap();
        let entry = table.at(&["a", "b"]).unwrap();
        let at = |place: &Place| match place {
            Place::File { span, .. } => text[span.clone()].to_owned(),
            _ => String::new(),
        };
        assert_eq!(at(&entry.key_place), "b");
        assert_eq!(at(&entry.node.place), "\"c\"");
        assert_eq!(at(&table.get("a").unwrap().key_place), "'a'");
        assert_eq!(at(&table.get("a").unwrap().node.place), "{ b: \"c\" }");
    }

    proptest! {
        /// What this reader takes, the `json5` crate takes as the same value, and JSON is read.
        #[test]
        fn agrees_with_others(pieces in proptest::collection::vec(proptest::sample::select(&[
            "{", "}", "[", "]", ":", ",", "a", "'b'", "\"c\"", "1", "0x2", "-3", "null", "true", " ", "\n", "//x\n", "/*y*/", "\\n", "''",
        ][..]), 0..12)) {
            let text = format!("{{a: {}}}", pieces.concat());
            if let Some(found) = ours(&text) {
                let theirs: Json = json5::from_str(&text).unwrap();
                prop_assert_eq!(found, without_floats(theirs));
            } else {
                prop_assert!(serde_json::from_str::<Json>(&text).is_err());
            }
        }
    }
}
