//! Audio appends, recognised as they stream by.
//!
//! The one client event that is large and frequent is not parsed. A small automaton follows it byte by
//! byte instead and takes exactly this: one object with the keys `type`, `audio` and, if there is one,
//! `event_id`, in any order, each once and without escapes; JSON's white space between the tokens; a
//! `type` without escapes that is an append; base64 in `audio`, where `/`, `+` and `=` may be escaped as
//! Foundation, PHP and .NET do; and ASCII for `event_id`. Such a text means the same to every reader of
//! JSON, so nothing can hide in it.

/// The events that append audio: the Realtime API's, and those of its translation and live endpoints.
pub(super) const APPENDS: [&str; 3] = [
    "input_audio_buffer.append",
    "session.input_audio_buffer.append",
    "session.input_audio.append",
];

/// Longest key or type that is compared.
const WORD_BYTES_MAX: usize = 34;

/// The text is not, or no longer, of the accepted shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deviation;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    /// Behind `{` or a comma: a key.
    BeforeKey,
    Key,
    BehindKey,
    BeforeValue,
    Type,
    Audio(Escape),
    Id(Escape),
    BehindValue,
    /// Behind the object.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    Begun,
    Unicode { digits: u8, unit: u16 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Type,
    Audio,
    Id,
}

/// The automaton.
#[derive(Clone, Debug)]
pub(super) struct Append {
    state: State,
    key: Key,
    /// One bit for each [`Key`] that has been seen.
    seen: u8,
    /// One bit for each of [`APPENDS`] that is allowed.
    allowed: u8,
    word_len: u8,
    word: [u8; WORD_BYTES_MAX],
}

impl Append {
    /// One that takes those of [`APPENDS`] for which `is_allowed` holds.
    pub(super) fn new(is_allowed: impl Fn(&str) -> bool) -> Self {
        let bits = APPENDS.iter().enumerate();
        let allowed = bits.filter(|(_, name)| is_allowed(name));
        Self {
            state: State::Start,
            key: Key::Type,
            seen: 0,
            allowed: allowed.fold(0, |bits, (index, _)| bits | 1 << index),
            word_len: 0,
            word: [0; WORD_BYTES_MAX],
        }
    }

    /// Makes ready for the next message.
    pub(super) fn restart(&mut self) {
        self.state = State::Start;
        self.seen = 0;
    }

    /// Whether the text may end here.
    pub(super) const fn is_complete(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// Whether the value of `audio` has begun, so that the rest may be long.
    pub(super) const fn has_audio(&self) -> bool {
        self.has(Key::Audio)
    }

    /// Follows the next piece.
    pub(super) fn feed(&mut self, mut piece: &[u8]) -> Result<(), Deviation> {
        while let [first, rest @ ..] = piece {
            if self.state == State::Audio(Escape::None) {
                let plain = piece.iter().position(|&byte| !is_base64(byte));
                let (_, behind) = piece.split_at(plain.unwrap_or(piece.len()));
                let [first, rest @ ..] = behind else {
                    return Ok(());
                };
                self.state = match first {
                    b'"' => State::BehindValue,
                    b'\\' => State::Audio(Escape::Begun),
                    _ => return Err(Deviation),
                };
                piece = rest;
                continue;
            }
            self.step(*first)?;
            piece = rest;
        }
        Ok(())
    }

    fn step(&mut self, byte: u8) -> Result<(), Deviation> {
        let between = !matches!(
            self.state,
            State::Key | State::Type | State::Audio(_) | State::Id(_)
        );
        if between && matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return Ok(());
        }
        self.state = match (self.state, byte) {
            (State::Start, b'{') => State::BeforeKey,
            (State::BeforeKey, b'"') => {
                self.word_len = 0;
                State::Key
            }
            (State::Key, b'"') => self.key()?,
            (State::Type, b'"') => self.type_()?,
            (State::Key | State::Type, _) => return self.letter(byte),
            (State::BehindKey, b':') => State::BeforeValue,
            (State::BeforeValue, b'"') => {
                self.word_len = 0;
                match self.key {
                    Key::Type => State::Type,
                    Key::Audio => State::Audio(Escape::None),
                    Key::Id => State::Id(Escape::None),
                }
            }
            (State::Audio(escape), _) => audio(escape, byte)?,
            (State::Id(escape), _) => id(escape, byte)?,
            (State::BehindValue, b',') => State::BeforeKey,
            (State::BehindValue, b'}') if self.has(Key::Type) && self.has(Key::Audio) => State::End,
            _ => return Err(Deviation),
        };
        Ok(())
    }

    fn letter(&mut self, byte: u8) -> Result<(), Deviation> {
        let place = self.word.get_mut(usize::from(self.word_len));
        *place.ok_or(Deviation)? = byte;
        self.word_len += 1;
        Ok(())
    }

    fn word(&self) -> &[u8] {
        &self.word[..usize::from(self.word_len)]
    }

    fn key(&mut self) -> Result<State, Deviation> {
        self.key = match self.word() {
            b"type" => Key::Type,
            b"audio" => Key::Audio,
            b"event_id" => Key::Id,
            _ => return Err(Deviation),
        };
        if self.has(self.key) {
            return Err(Deviation);
        }
        self.seen |= 1 << self.key as u8;
        Ok(State::BehindKey)
    }

    const fn has(&self, key: Key) -> bool {
        self.seen & 1 << key as u8 != 0
    }

    fn type_(&self) -> Result<State, Deviation> {
        let index = APPENDS
            .iter()
            .position(|name| name.as_bytes() == self.word());
        match index {
            Some(index) if self.allowed & 1 << index != 0 => Ok(State::BehindValue),
            _ => Err(Deviation),
        }
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'_')
}

fn audio(escape: Escape, byte: u8) -> Result<State, Deviation> {
    match (escape, byte) {
        (Escape::Begun, b'/') => Ok(State::Audio(Escape::None)),
        (Escape::Begun, b'u') => Ok(State::Audio(Escape::Unicode { digits: 0, unit: 0 })),
        (Escape::Unicode { digits, unit }, _) => {
            let unit = nibble(unit, byte)?;
            let escape = match (digits, u8::try_from(unit)) {
                (3, Ok(b'+' | b'/' | b'=')) => Escape::None,
                (3, _) => return Err(Deviation),
                _ => Escape::Unicode {
                    digits: digits + 1,
                    unit,
                },
            };
            Ok(State::Audio(escape))
        }
        _ => Err(Deviation),
    }
}

fn id(escape: Escape, byte: u8) -> Result<State, Deviation> {
    match (escape, byte) {
        (Escape::None, b'"') => Ok(State::BehindValue),
        (Escape::None, b'\\') => Ok(State::Id(Escape::Begun)),
        (Escape::None, 0x00..=0x1F | 0x80..=0xFF) => Err(Deviation),
        (Escape::None, _) => Ok(State::Id(Escape::None)),
        (Escape::Begun, b'u') => Ok(State::Id(Escape::Unicode { digits: 0, unit: 0 })),
        (Escape::Begun, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
            Ok(State::Id(Escape::None))
        }
        (Escape::Begun, _) => Err(Deviation),
        (Escape::Unicode { digits, unit }, _) => {
            let unit = nibble(unit, byte)?;
            match digits {
                3 if (0xD800..=0xDFFF).contains(&unit) => Err(Deviation),
                3 => Ok(State::Id(Escape::None)),
                _ => Ok(State::Id(Escape::Unicode {
                    digits: digits + 1,
                    unit,
                })),
            }
        }
    }
}

fn nibble(unit: u16, byte: u8) -> Result<u16, Deviation> {
    let digit = char::from(byte).to_digit(16).ok_or(Deviation)?;
    u16::try_from(digit)
        .map(|digit| unit << 4 | digit)
        .map_err(|_| Deviation)
}
