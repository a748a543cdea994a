//! The `type` of a JSON event, read while the bytes stream by.
//!
//! The tokenizer follows the outline of the object (strings, depth, keys of the outermost level) and
//! understands nothing else. It reads the whole message, because a second `type` behind the first one
//! would make two parsers disagree about what the event is; strings, base64 audio above all, are
//! crossed by `memchr` at the speed of memory.

/// Longest event type that is reported, in bytes. The longest one of the Realtime API,
/// `conversation.item.input_audio_transcription.completed`, has 53.
pub const EVENT_TYPE_BYTES_MAX: usize = 64;

/// Deepest nesting that is followed; `serde_json` refuses an object this deep as well.
const DEPTH_MAX: u8 = 127;

/// What is known so far of the top-level `type` of the message that is being scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType<'a> {
    /// Not reached yet: more of the message has to be seen.
    Searching,
    /// The value of the first top-level `type`: ASCII, escapes resolved, at most
    /// [`EVENT_TYPE_BYTES_MAX`] bytes.
    Found(&'a str),
    /// There is a top-level `type`, but not one that an event could have: no string, not ASCII, or too
    /// long.
    Unusable,
    /// The message has no top-level `type`, or is no JSON object, or no text.
    Absent,
}

impl<'a> EventType<'a> {
    /// The type, when it was found.
    #[must_use]
    pub const fn name(self) -> Option<&'a str> {
        match self {
            Self::Found(name) => Some(name),
            Self::Searching | Self::Unusable | Self::Absent => None,
        }
    }
}

/// Where the tokenizer stands. `Top*` states are at the outermost object's own level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the object.
    Start,
    /// Behind `{`: a key or the end.
    TopOpen,
    /// Behind a comma: a key.
    TopComma,
    /// In a top-level key.
    TopKey(Text),
    /// Behind a top-level key.
    TopColon,
    /// Behind the colon.
    TopValue,
    /// In a string that is the value of a top-level `type`.
    TypeString(Text),
    /// In a number or a literal that is a top-level value.
    TopScalar,
    /// Behind a top-level value.
    TopAfter,
    /// In a nested object or array, outside strings.
    Nested,
    /// In a string whose content does not matter.
    Skip { nested: bool, escaped: bool },
    /// Behind the object, or past the point where the bytes stopped being JSON.
    Done,
}

/// Where a string that is being read stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Plain,
    Escaped,
    Unicode { digits: u8, unit: u16 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    No,
    Yes,
    Unusable,
}

/// Matching of a key against `type`, character by character.
const TYPE: &[u8; 4] = b"type";
const MISMATCH: u8 = u8::MAX;

/// A resumable reader of one message's top-level `type`.
// In this order: the name is long, and most bytes are read without it.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct TypeFinder {
    state: State,
    found: Found,
    ambiguous: bool,
    /// Characters of the current top-level key that match [`TYPE`], or [`MISMATCH`].
    key_matched: u8,
    /// Nesting below the top level; one bit of `brackets` per level, set for an array.
    depth: u8,
    name_len: u8,
    /// As two words, lower one first: a `u128` would align everything around it to 16 bytes.
    brackets: [u64; 2],
    name: [u8; EVENT_TYPE_BYTES_MAX],
}

impl TypeFinder {
    pub(crate) const fn new() -> Self {
        Self {
            state: State::Start,
            found: Found::No,
            ambiguous: false,
            key_matched: 0,
            depth: 0,
            name_len: 0,
            name: [0; EVENT_TYPE_BYTES_MAX],
            brackets: [0; 2],
        }
    }

    /// Makes ready for the next message.
    pub(crate) fn reset(&mut self) {
        self.state = State::Start;
        self.found = Found::No;
        self.ambiguous = false;
        self.name_len = 0;
        self.depth = 0;
        self.brackets = [0; 2];
    }

    /// Gives up on a message that can have no type.
    pub(crate) fn skip_message(&mut self) {
        self.reset();
        self.state = State::Done;
    }

    /// Whether nothing that follows can change the answer.
    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Says that the message is complete.
    pub(crate) fn finish(&mut self) {
        if !self.is_done() {
            self.give_up();
        }
    }

    pub(crate) fn event_type(&self) -> EventType<'_> {
        match self.found {
            Found::Yes => {
                let name = &self.name[..usize::from(self.name_len)];
                std::str::from_utf8(name).map_or(EventType::Unusable, EventType::Found)
            }
            Found::Unusable => EventType::Unusable,
            Found::No if self.is_done() => EventType::Absent,
            Found::No => EventType::Searching,
        }
    }

    pub(crate) const fn is_ambiguous(&self) -> bool {
        self.ambiguous
    }

    /// Reads the next piece of the message, unmasked.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        let mut at = 0;
        while at < piece.len() {
            at += match self.state {
                State::Done => return,
                State::Skip { nested, escaped } => self.skip_string(&piece[at..], nested, escaped),
                State::Nested => self.cross_nested(&piece[at..]),
                State::TypeString(Text::Plain) => self.type_run(&piece[at..]),
                _ => match self.cross_key(&piece[at..]) {
                    0 => {
                        self.top_level(piece[at]);
                        1
                    }
                    crossed => crossed,
                },
            };
        }
    }

    /// Crosses a whole `"key":` at once, as machines write it, and the quote behind it if the value is a string.
    /// Returns the bytes crossed; zero when what stands there is anything else, which [`Self::top_level`] reads.
    fn cross_key(&mut self, piece: &[u8]) -> usize {
        let (State::TopOpen | State::TopComma, [b'"', rest @ ..]) = (self.state, piece) else {
            return 0;
        };
        let (key, rest) = rest.split_at(plain_run(rest));
        let [b'"', b':', value @ ..] = rest else {
            return 0;
        };
        self.key_matched = if matches!(key, b"type") { 4 } else { MISMATCH };
        if let [b'"', ..] = value {
            self.value_begins(b'"');
            return 1 + key.len() + 3;
        }
        self.state = State::TopValue;
        1 + key.len() + 2
    }

    /// Reads on in the value of a `type`: characters that stand for themselves at once, anything else by
    /// itself. Returns the bytes read, one at least.
    fn type_run(&mut self, piece: &[u8]) -> usize {
        let read = usize::from(self.name_len);
        let run = plain_run(piece).min(EVENT_TYPE_BYTES_MAX - read);
        self.name[read..read + run].copy_from_slice(&piece[..run]);
        // Not past the end of the name.
        self.name_len += run as u8;
        match piece.get(run) {
            Some(b'"') => {
                self.found = Found::Yes;
                self.state = State::TopAfter;
                run + 1
            }
            Some(&byte) if run == 0 => {
                self.type_byte(Text::Plain, byte);
                1
            }
            _ => run,
        }
    }

    /// Crosses the rest of a string that does not matter; returns the bytes crossed.
    fn skip_string(&mut self, piece: &[u8], nested: bool, escaped: bool) -> usize {
        if escaped {
            self.state = State::Skip {
                nested,
                escaped: false,
            };
            return 1;
        }
        let Some(at) = end_or_escape(piece) else {
            return piece.len();
        };
        self.state = match (piece[at], nested) {
            (b'\\', _) => State::Skip {
                nested,
                escaped: true,
            },
            (_, true) => State::Nested,
            (_, false) => State::TopAfter,
        };
        at + 1
    }

    /// Crosses nested structure up to a string or the end of the value; returns the bytes crossed.
    fn cross_nested(&mut self, piece: &[u8]) -> usize {
        for (at, &byte) in piece.iter().enumerate() {
            match byte {
                b'"' => {
                    self.state = State::Skip {
                        nested: true,
                        escaped: false,
                    }
                }
                b'{' | b'[' => self.open(byte),
                b'}' | b']' => self.close(byte),
                _ => continue,
            }
            return at + 1;
        }
        piece.len()
    }

    fn open(&mut self, bracket: u8) {
        if self.depth == DEPTH_MAX {
            return self.give_up();
        }
        self.depth += 1;
        let [low, high] = self.brackets;
        self.brackets = [low << 1 | u64::from(bracket == b'['), high << 1 | low >> 63];
        self.state = State::Nested;
    }

    fn close(&mut self, bracket: u8) {
        let [low, high] = self.brackets;
        if low & 1 != u64::from(bracket == b']') {
            return self.give_up();
        }
        self.brackets = [low >> 1 | high << 63, high >> 1];
        self.depth -= 1;
        self.state = if self.depth == 0 {
            State::TopAfter
        } else {
            State::Nested
        };
    }

    fn top_level(&mut self, byte: u8) {
        let space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        match self.state {
            State::TopKey(text) => return self.key_byte(text, byte),
            State::TypeString(text) => return self.type_byte(text, byte),
            _ if space && self.state != State::TopScalar => return,
            _ => {}
        }
        self.state = match (self.state, byte) {
            (State::Start, b'{') => State::TopOpen,
            (State::TopOpen | State::TopComma, b'"') => {
                self.key_matched = 0;
                State::TopKey(Text::Plain)
            }
            (State::TopOpen | State::TopAfter | State::TopScalar, b'}') => State::Done,
            (State::TopColon, b':') => State::TopValue,
            (State::TopValue, _) => return self.value_begins(byte),
            (State::TopAfter | State::TopScalar, b',') => State::TopComma,
            (State::TopScalar, _) if space => State::TopAfter,
            (State::TopScalar, b'0'..=b'9' | b'a'..=b'z' | b'E' | b'+' | b'-' | b'.') => {
                State::TopScalar
            }
            _ => return self.give_up(),
        };
    }

    fn value_begins(&mut self, byte: u8) {
        let is_type = self.key_matched == 4;
        if is_type && self.found != Found::No {
            self.ambiguous = true;
        }
        let first = is_type && self.found == Found::No;
        if first && byte != b'"' {
            self.found = Found::Unusable;
        }
        match byte {
            b'"' if first => self.state = State::TypeString(Text::Plain),
            b'"' => {
                self.state = State::Skip {
                    nested: false,
                    escaped: false,
                }
            }
            b'{' | b'[' => self.open(byte),
            b'0'..=b'9' | b'-' | b't' | b'f' | b'n' => self.state = State::TopScalar,
            _ => self.give_up(),
        }
    }

    fn key_byte(&mut self, text: Text, byte: u8) {
        match read_character(text, byte) {
            Read::More(text) => self.state = State::TopKey(text),
            Read::End => self.state = State::TopColon,
            Read::Malformed => self.give_up(),
            Read::Character(character) => {
                let wanted = TYPE.get(usize::from(self.key_matched)).copied();
                let matches = wanted.is_some() && wanted == character;
                self.key_matched = if matches {
                    self.key_matched + 1
                } else {
                    MISMATCH
                };
                self.state = State::TopKey(Text::Plain);
            }
        }
    }

    fn type_byte(&mut self, text: Text, byte: u8) {
        match read_character(text, byte) {
            Read::More(text) => self.state = State::TypeString(text),
            Read::End => {
                self.found = Found::Yes;
                self.state = State::TopAfter;
            }
            Read::Malformed => self.give_up(),
            Read::Character(Some(character))
                if usize::from(self.name_len) < EVENT_TYPE_BYTES_MAX =>
            {
                self.name[usize::from(self.name_len)] = character;
                self.name_len += 1;
                self.state = State::TypeString(Text::Plain);
            }
            Read::Character(_) => {
                self.found = Found::Unusable;
                self.state = State::Skip {
                    nested: false,
                    escaped: false,
                };
            }
        }
    }

    /// The bytes are not JSON: a strict reader refuses the event, a lenient one may read on.
    fn give_up(&mut self) {
        self.ambiguous = self.found != Found::No;
        self.state = State::Done;
    }
}

/// Bytes of a string that are looked at before a search begins that pays off for long ones only.
const SHORT_BYTES: usize = 32;

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);

/// A word's bytes that are zero have their top bit set. Of a byte above such a one nothing is known.
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & TOPS
}

/// The same for bytes that are `byte`.
const fn equals(word: u64, byte: u8) -> u64 {
    zeros(word ^ (ONES * byte as u64))
}

/// Index of the first byte that `marks` marks in a word's top bits, eight at a time, and `is_one` one by one.
fn first(bytes: &[u8], marks: impl Fn(u64) -> u64, is_one: impl Fn(u8) -> bool) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let marked = marks(u64::from_le_bytes(*word));
        if marked != 0 {
            return Some(8 * at + marked.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|&byte| is_one(byte))?;
    Some(8 * words.len() + at)
}

/// How many bytes of a string stand for themselves: ASCII, no quote, no escape, no control character.
fn plain_run(piece: &[u8]) -> usize {
    let special = |word: u64| {
        // Below 0x20, or not ASCII.
        let control = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
        equals(word, b'"') | equals(word, b'\\') | control | (word & TOPS)
    };
    first(piece, special, |byte| {
        !matches!(byte, 0x20..=0x7F) || matches!(byte, b'"' | b'\\')
    })
    .unwrap_or(piece.len())
}

/// Where a string ends, or has an escape.
fn end_or_escape(piece: &[u8]) -> Option<usize> {
    let (short, long) = piece.split_at(piece.len().min(SHORT_BYTES));
    first(
        short,
        |word| equals(word, b'"') | equals(word, b'\\'),
        |byte| matches!(byte, b'"' | b'\\'),
    )
    .or_else(|| Some(short.len() + memchr::memchr2(b'"', b'\\', long)?))
}

enum Read {
    /// An ASCII character, or `None` for (a part of) any other.
    Character(Option<u8>),
    More(Text),
    End,
    Malformed,
}

/// Reads one byte of a JSON string (RFC 8259 section 7).
fn read_character(text: Text, byte: u8) -> Read {
    match text {
        Text::Plain => match byte {
            b'"' => Read::End,
            b'\\' => Read::More(Text::Escaped),
            0x00..=0x1F => Read::Malformed,
            0x20..=0x7F => Read::Character(Some(byte)),
            0x80..=0xFF => Read::Character(None),
        },
        Text::Escaped => match byte {
            b'"' | b'\\' | b'/' => Read::Character(Some(byte)),
            b'b' => Read::Character(Some(0x08)),
            b'f' => Read::Character(Some(0x0C)),
            b'n' => Read::Character(Some(b'\n')),
            b'r' => Read::Character(Some(b'\r')),
            b't' => Read::Character(Some(b'\t')),
            b'u' => Read::More(Text::Unicode { digits: 0, unit: 0 }),
            _ => Read::Malformed,
        },
        Text::Unicode { digits, unit } => {
            let Some(digit) = char::from(byte).to_digit(16) else {
                return Read::Malformed;
            };
            let unit = unit << 4 | u16::try_from(digit).unwrap_or(0);
            match digits {
                3 => Read::Character(u8::try_from(unit).ok().filter(u8::is_ascii)),
                _ => Read::More(Text::Unicode {
                    digits: digits + 1,
                    unit,
                }),
            }
        }
    }
}
