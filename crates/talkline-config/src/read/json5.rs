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
            } else if rest.starts_with("/*") {
                let Some(end) = rest[2..].find("*/") else {
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
