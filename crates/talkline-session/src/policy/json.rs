//! JSON as a tree over its source text: strict to read, and written back byte for byte where nothing was
//! changed.
//!
//! `serde_json` reads the same language, but a tree of its values forgets number texts, the order and the
//! spelling of keys, and lets the last of two equal keys win. Where two parsers could disagree about a
//! document, this one refuses it: a verdict is worth something only if the upstream reads the same event.

use std::borrow::Cow;
use std::collections::HashSet;

/// Deepest nesting of arrays and objects that is read.
pub(super) const DEPTH_MAX: usize = 64;

/// Most values of one document that are read: the tree is some 100 bytes a value, while the text may be
/// two.
pub(super) const VALUES_MAX: usize = 16_384;

/// Numbers from this size on are refused: near the end of the range of a double, parsers disagree about
/// which are numbers at all.
pub(super) const NUMBER_MAX: f64 = 1e300;

/// Members from which on duplicates are looked for by hashing.
const HASHED_FROM: usize = 12;

/// Why a text is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not JSON (RFC 8259), or not UTF-8.
    Malformed,
    /// It is JSON that readers may understand differently: a key twice in one object, NUL in a key, a
    /// number out of range.
    Ambiguous,
    /// Too deep, or too many values.
    Excessive,
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Value<'a> {
    text: &'a str,
    pub(super) kind: Kind<'a>,
    patch: Option<Patch>,
}

#[derive(Debug)]
pub(super) enum Kind<'a> {
    Null,
    Bool,
    Number,
    String(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    Object(Object<'a>),
}

#[derive(Debug, Default)]
pub(super) struct Object<'a> {
    pub(super) members: Vec<Member<'a>>,
    added: Vec<(&'static str, String)>,
}

#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) key: Cow<'a, str>,
    key_text: &'a str,
    pub(super) value: Value<'a>,
}

#[derive(Debug)]
enum Patch {
    Replace(String),
    Remove,
}

impl<'a> Value<'a> {
    /// The text as it was written.
    pub(super) const fn text(&self) -> &'a str {
        self.text
    }

    pub(super) const fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::String(text) => Some(text),
            _ => None,
        }
    }

    pub(super) const fn as_object(&self) -> Option<&Object<'a>> {
        match &self.kind {
            Kind::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The string that will stand here.
    pub(super) fn written_str(&self) -> Option<Cow<'_, str>> {
        match &self.patch {
            None => self.as_str().map(Cow::Borrowed),
            Some(Patch::Replace(text)) => serde_json::from_str(text).ok().map(Cow::Owned),
            Some(Patch::Remove) => None,
        }
    }

    /// A whole number that is written with digits alone.
    pub(super) fn as_count(&self) -> Option<u64> {
        match self.kind {
            Kind::Number => self.text.parse().ok(),
            _ => None,
        }
    }

    /// Puts another text in its place.
    pub(super) fn replace(&mut self, text: impl Into<String>) {
        self.patch = Some(Patch::Replace(text.into()));
    }

    /// Takes it out of the array or object that it stands in.
    pub(super) fn remove(&mut self) {
        self.patch = Some(Patch::Remove);
    }

    /// Whether something else will stand in its place, or nothing.
    pub(super) const fn is_patched(&self) -> bool {
        self.patch.is_some()
    }

    /// Whether it or a part of it was changed.
    pub(super) fn is_touched(&self) -> bool {
        self.patch.is_some()
            || match &self.kind {
                Kind::Array(items) => items.iter().any(Self::is_touched),
                Kind::Object(object) => {
                    !object.added.is_empty()
                        || object
                            .members
                            .iter()
                            .any(|member| member.value.is_touched())
                }
                _ => false,
            }
    }

    /// Whether two values mean the same: members in any order, numbers by their text.
    pub(super) fn means(&self, other: &Value<'_>) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Null, Kind::Null) => true,
            (Kind::Bool, Kind::Bool) | (Kind::Number, Kind::Number) => self.text == other.text,
            (Kind::String(one), Kind::String(other)) => one == other,
            (Kind::Array(one), Kind::Array(other)) => {
                one.len() == other.len()
                    && one.iter().zip(other).all(|(one, other)| one.means(other))
            }
            (Kind::Object(one), Kind::Object(other)) => {
                let found = |member: &Member<'_>| {
                    let other = other.get(&member.key);
                    other.is_some_and(|other| member.value.means(other))
                };
                one.members.len() == other.members.len() && one.members.iter().all(found)
            }
            _ => false,
        }
    }

    /// The text with all changes made; what was not changed is byte for byte what it was, up to the
    /// white space between the members of a changed object.
    pub(super) fn write(&self, out: &mut String) {
        if let Some(Patch::Replace(text)) = &self.patch {
            return out.push_str(text);
        }
        if !self.is_touched() {
            return out.push_str(self.text);
        }
        let is_kept = |value: &Self| !matches!(value.patch, Some(Patch::Remove));
        match &self.kind {
            Kind::Array(items) => {
                out.push('[');
                let kept = items.iter().filter(|item| is_kept(item));
                for (index, item) in kept.enumerate() {
                    separate(out, index);
                    item.write(out);
                }
                out.push(']');
            }
            Kind::Object(object) => {
                out.push('{');
                let kept = object
                    .members
                    .iter()
                    .filter(|member| is_kept(&member.value));
                let mut count = 0;
                for member in kept {
                    separate(out, count);
                    out.push_str(member.key_text);
                    out.push(':');
                    member.value.write(out);
                    count += 1;
                }
                for (key, text) in &object.added {
                    separate(out, count);
                    out.push_str(&string(key));
                    out.push(':');
                    out.push_str(text);
                    count += 1;
                }
                out.push('}');
            }
            _ => out.push_str(self.text),
        }
    }
}

fn separate(out: &mut String, index: usize) {
    if index > 0 {
        out.push(',');
    }
}

/// A string as JSON.
pub(super) fn string(text: &str) -> String {
    serde_json::to_string(text).expect("a string always serializes")
}

impl<'a> Object<'a> {
    pub(super) fn get(&self, key: &str) -> Option<&Value<'a>> {
        let mut members = self.members.iter();
        members
            .find(|member| member.key == key)
            .map(|member| &member.value)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Value<'a>> {
        let mut members = self.members.iter_mut();
        members
            .find(|member| member.key == key)
            .map(|member| &mut member.value)
    }

    /// Adds a member that is not there.
    pub(super) fn add(&mut self, key: &'static str, text: String) {
        self.added.push((key, text));
    }
}

/// Reads a whole document.
pub(super) fn parse(bytes: &[u8]) -> Result<Value<'_>, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|_| Fault::Malformed)?;
    let mut parser = Parser {
        text,
        at: 0,
        values: 0,
    };
    parser.space();
    let value = parser.value(0)?;
    parser.space();
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err(Fault::Malformed),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    values: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, Fault> {
        let byte = self.peek().ok_or(Fault::Malformed)?;
        self.at += 1;
        Ok(byte)
    }

    fn eat(&mut self, byte: u8) -> bool {
        let eats = self.peek() == Some(byte);
        self.at += usize::from(eats);
        eats
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, Fault> {
        self.values += 1;
        if depth > DEPTH_MAX || self.values > VALUES_MAX {
            return Err(Fault::Excessive);
        }
        let start = self.at;
        let kind = match self.next()? {
            b'{' => Kind::Object(self.object(depth)?),
            b'[' => Kind::Array(self.array(depth)?),
            b'"' => Kind::String(self.string()?),
            b'n' => self.literal("null", Kind::Null)?,
            b't' => self.literal("true", Kind::Bool)?,
            b'f' => self.literal("false", Kind::Bool)?,
            b'-' | b'0'..=b'9' => self.number(start)?,
            _ => return Err(Fault::Malformed),
        };
        Ok(Value {
            text: &self.text[start..self.at],
            kind,
            patch: None,
        })
    }

    fn literal(&mut self, word: &str, kind: Kind<'a>) -> Result<Kind<'a>, Fault> {
        let start = self.at - 1;
        self.at = start + word.len();
        match self.text.as_bytes().get(start..self.at) {
            Some(found) if found == word.as_bytes() => Ok(kind),
            _ => Err(Fault::Malformed),
        }
    }

    fn number(&mut self, start: usize) -> Result<Kind<'a>, Fault> {
        self.at = start;
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        let mut is_whole = true;
        if self.eat(b'.') {
            is_whole = false;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            is_whole = false;
            self.at += 1;
            if !self.eat(b'+') {
                self.eat(b'-');
            }
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        let is_small = is_whole && text.len() <= 300;
        if !is_small
            && !text
                .parse::<f64>()
                .is_ok_and(|value| value.abs() < NUMBER_MAX)
        {
            return Err(Fault::Ambiguous);
        }
        Ok(Kind::Number)
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            return Err(Fault::Malformed);
        }
        Ok(())
    }

    /// The rest of a string, behind its quote.
    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let start = self.at;
        let mut copied: Option<String> = None;
        let mut plain = start;
        loop {
            match self.next()? {
                b'"' => {
                    let rest = &self.text[plain..self.at - 1];
                    return Ok(match copied {
                        None => Cow::Borrowed(rest),
                        Some(mut copied) => {
                            copied.push_str(rest);
                            Cow::Owned(copied)
                        }
                    });
                }
                b'\\' => {
                    let copied = copied.get_or_insert_default();
                    copied.push_str(&self.text[plain..self.at - 1]);
                    copied.push(self.escape()?);
                    plain = self.at;
                }
                0x00..=0x1F => return Err(Fault::Malformed),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        Ok(match self.next()? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{C}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.unit()?;
                match unit {
                    0xD800..=0xDBFF => {
                        if self.next()? != b'\\' || self.next()? != b'u' {
                            return Err(Fault::Malformed);
                        }
                        let pair = [unit, self.unit()?];
                        match char::decode_utf16(pair).next() {
                            Some(Ok(character)) => character,
                            _ => return Err(Fault::Malformed),
                        }
                    }
                    _ => char::from_u32(u32::from(unit)).ok_or(Fault::Malformed)?,
                }
            }
            _ => return Err(Fault::Malformed),
        })
    }

    fn unit(&mut self) -> Result<u16, Fault> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = char::from(self.next()?).to_digit(16);
            let digit = digit.and_then(|digit| u16::try_from(digit).ok());
            unit = unit << 4 | digit.ok_or(Fault::Malformed)?;
        }
        Ok(unit)
    }

    fn array(&mut self, depth: usize) -> Result<Vec<Value<'a>>, Fault> {
        let mut items = Vec::new();
        self.space();
        if self.eat(b']') {
            return Ok(items);
        }
        loop {
            self.space();
            items.push(self.value(depth + 1)?);
            self.space();
            match self.next()? {
                b',' => {}
                b']' => return Ok(items),
                _ => return Err(Fault::Malformed),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Object<'a>, Fault> {
        let mut object = Object::default();
        self.space();
        if self.eat(b'}') {
            return Ok(object);
        }
        loop {
            self.space();
            object.members.push(self.member(depth)?);
            self.space();
            match self.next()? {
                b',' => {}
                b'}' => break,
                _ => return Err(Fault::Malformed),
            }
        }
        match is_ambiguous(&object.members) {
            true => Err(Fault::Ambiguous),
            false => Ok(object),
        }
    }

    fn member(&mut self, depth: usize) -> Result<Member<'a>, Fault> {
        let start = self.at;
        if self.next()? != b'"' {
            return Err(Fault::Malformed);
        }
        let key = self.string()?;
        let key_text = &self.text[start..self.at];
        self.space();
        if self.next()? != b':' {
            return Err(Fault::Malformed);
        }
        self.space();
        Ok(Member {
            key,
            key_text,
            value: self.value(depth + 1)?,
        })
    }
}

/// Whether a key stands twice, or ends early for a reader in C.
fn is_ambiguous(members: &[Member<'_>]) -> bool {
    let has_nul = members.iter().any(|member| member.key.contains('\0'));
    let twice = if members.len() < HASHED_FROM {
        let seen = |index: usize, key: &str| members[..index].iter().any(|other| other.key == key);
        let mut members = members.iter().enumerate();
        members.any(|(index, member)| seen(index, &member.key))
    } else {
        let mut seen = HashSet::with_capacity(members.len());
        !members.iter().all(|member| seen.insert(&*member.key))
    };
    has_nul || twice
}
