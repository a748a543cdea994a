//! Protobuf's wire format (<https://protobuf.dev/programming-guides/encoding/>), as far as OTLP needs it.

/// A value on the wire. Varints and numbers of fixed width are all numbers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

/// The fields of one message, in their order.
pub(super) struct Fields<'b>(Vec<(u32, Value<'b>)>);

impl<'b> Fields<'b> {
    /// `None` for bytes that are no message.
    pub(super) fn read(mut bytes: &'b [u8]) -> Option<Self> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            let value = match tag & 7 {
                0 => Value::Number(varint(&mut bytes)?),
                1 => Value::Number(u64::from_le_bytes(take(&mut bytes, 8)?.try_into().ok()?)),
                2 => {
                    let length = usize::try_from(varint(&mut bytes)?).ok()?;
                    Value::Bytes(take(&mut bytes, length)?)
                }
                5 => {
                    let four: [u8; 4] = take(&mut bytes, 4)?.try_into().ok()?;
                    Value::Number(u32::from_le_bytes(four).into())
                }
                _ => return None,
            };
            fields.push((u32::try_from(tag >> 3).ok()?, value));
        }
        Some(Self(fields))
    }

    pub(super) fn first(&self) -> Option<(u32, Value<'b>)> {
        self.0.first().copied()
    }

    pub(super) fn messages(&self, number: u32) -> impl Iterator<Item = &'b [u8]> {
        let of_number = self.0.iter().filter(move |(found, _)| *found == number);
        of_number.filter_map(|(_, value)| match value {
            Value::Bytes(bytes) => Some(*bytes),
            Value::Number(_) => None,
        })
    }

    pub(super) fn text(&self, number: u32) -> Option<String> {
        String::from_utf8(self.messages(number).next()?.to_vec()).ok()
    }

    pub(super) fn number(&self, number: u32) -> Option<u64> {
        self.0.iter().find_map(|(found, value)| match value {
            Value::Number(value) if *found == number => Some(*value),
            Value::Number(_) | Value::Bytes(_) => None,
        })
    }
}

fn take<'b>(bytes: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_encoding_guide() {
        let fields = Fields::read(&[0x08, 0x96, 0x01]).unwrap();
        assert_eq!(fields.number(1), Some(150));
        let fields = Fields::read(b"\x12\x07testing").unwrap();
        assert_eq!(fields.text(2).as_deref(), Some("testing"));
        let fields = Fields::read(&[0x39, 1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(fields.number(7), Some(1));
        for broken in [&[0x08][..], b"\x12\x07test", &[0x0b], &[0xff; 11]] {
            assert!(Fields::read(broken).is_none(), "{broken:?}");
        }
    }
}
