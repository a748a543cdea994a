//! Every rule, each in both directions and at every split of the bytes.

use proptest::prelude::*;

use crate::Direction::{ClientToUpstream, UpstreamToClient};
use crate::{
    Direction, EventType, Limits, MessageKind, OpCode, Scanner, Step, Violation,
    is_close_code_legal,
};

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// Small enough that header-only cases reach them.
const LIMITS: Limits = Limits {
    frame_bytes_max: 100_000,
    message_bytes_max: 150_000,
    fragments_max: 8,
};

/// What a scanner says of a stream, less the way its payload happened to be cut.
#[derive(Debug, Default, PartialEq)]
struct Report {
    frames: Vec<(OpCode, bool, u64, Option<u16>)>,
    messages: Vec<(MessageKind, u64, u32, Name, bool)>,
    payload_bytes: u64,
    violation: Option<Violation>,
    at_boundary: bool,
}

#[derive(Debug, PartialEq)]
enum Name {
    Searching,
    Found(String),
    Unusable,
    Absent,
}

impl From<EventType<'_>> for Name {
    fn from(event_type: EventType<'_>) -> Self {
        match event_type {
            EventType::Searching => Self::Searching,
            EventType::Found(name) => Self::Found(name.to_owned()),
            EventType::Unusable => Self::Unusable,
            EventType::Absent => Self::Absent,
        }
    }
}

fn scan<'a>(
    direction: Direction,
    limits: Limits,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Report {
    let mut scanner = Scanner::new(direction, limits);
    let mut report = Report::default();
    let mut fin = false;
    for mut piece in pieces {
        loop {
            let (consumed, step) = match scanner.step(piece) {
                Ok(stepped) => stepped,
                Err(violation) => {
                    assert_eq!(scanner.step(b""), Err(violation), "a verdict is final");
                    report.violation = Some(violation);
                    return report;
                }
            };
            piece = &piece[consumed..];
            match step {
                Step::NeedMore => break,
                Step::Header(header) => fin = header.fin,
                Step::Payload => report.payload_bytes += consumed as u64,
                Step::FrameEnd(end) => {
                    report
                        .frames
                        .push((end.opcode, fin, end.payload_bytes, end.close_code));
                    report.messages.extend(end.message.map(|message| {
                        let name = scanner.event_type().into();
                        let ambiguous = scanner.is_event_type_ambiguous();
                        (
                            message.kind,
                            message.payload_bytes,
                            message.fragments,
                            name,
                            ambiguous,
                        )
                    }));
                }
            }
        }
    }
    report.at_boundary = scanner.is_at_frame_boundary();
    report
}

/// Longest input that is split everywhere, and longest that is fed byte by byte. The first is work with
/// the square of the length, and Miri is slow.
const SPLIT_BYTES_MAX: usize = if cfg!(miri) { 40 } else { 400 };
const CRUMBLE_BYTES_MAX: usize = if cfg!(miri) { 100 } else { 64 << 20 };

/// Scans whole, byte by byte and, when short, split in two everywhere; all must agree. How much payload
/// was seen before a violation depends on the split and is left out.
fn scan_all_ways(direction: Direction, bytes: &[u8]) -> Report {
    let agreed = |mut report: Report| {
        if report.violation.is_some() {
            report.payload_bytes = 0;
        }
        report
    };
    let whole = agreed(scan(direction, LIMITS, [bytes]));
    if bytes.len() <= CRUMBLE_BYTES_MAX {
        assert_eq!(
            agreed(scan(direction, LIMITS, bytes.chunks(1))),
            whole,
            "byte by byte: {bytes:x?}"
        );
    }
    if bytes.len() < SPLIT_BYTES_MAX {
        for at in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(
                agreed(scan(direction, LIMITS, [head, tail])),
                whole,
                "split at {at}: {bytes:x?}"
            );
        }
    }
    whole
}

/// Builds frames the way the direction wants them, or not.
#[derive(Clone)]
struct Wire {
    direction: Direction,
    bytes: Vec<u8>,
}

impl Wire {
    fn new(direction: Direction) -> Self {
        Self {
            direction,
            bytes: Vec::new(),
        }
    }

    fn frame(self, first: u8, payload: &[u8]) -> Self {
        let masked = self.direction == ClientToUpstream;
        self.frame_masked(first, payload, masked)
    }

    fn frame_masked(mut self, first: u8, payload: &[u8], masked: bool) -> Self {
        let mask_bit = u8::from(masked) << 7;
        self.bytes.push(first);
        match payload.len() {
            short @ 0..=125 => self.bytes.push(mask_bit | short as u8),
            medium @ 126..=65_535 => {
                self.bytes.push(mask_bit | 126);
                self.bytes.extend((medium as u16).to_be_bytes());
            }
            long => {
                self.bytes.push(mask_bit | 127);
                self.bytes.extend((long as u64).to_be_bytes());
            }
        }
        if masked {
            self.bytes.extend(KEY);
        }
        let key = if masked { KEY } else { [0; 4] };
        self.bytes.extend(
            payload
                .iter()
                .enumerate()
                .map(|(i, byte)| byte ^ key[i & 3]),
        );
        self
    }

    /// A header with the length written in so many bytes, whatever it is, and no payload.
    fn header(mut self, first: u8, length: u64, length_bytes: usize) -> Self {
        let mask_bit = u8::from(self.direction == ClientToUpstream) << 7;
        self.bytes.push(first);
        self.bytes
            .push(mask_bit | if length_bytes == 2 { 126 } else { 127 });
        self.bytes.extend(&length.to_be_bytes()[8 - length_bytes..]);
        if self.direction == ClientToUpstream {
            self.bytes.extend(KEY);
        }
        self
    }
}

fn check(case: &str, build: impl Fn(Wire) -> Wire, want: Option<Violation>) {
    for direction in [ClientToUpstream, UpstreamToClient] {
        let bytes = build(Wire::new(direction)).bytes;
        let report = scan_all_ways(direction, &bytes);
        assert_eq!(report.violation, want, "{case} {direction:?}");
        if want.is_none() {
            assert!(
                report.at_boundary,
                "{case} {direction:?}: not at a frame boundary"
            );
        }
    }
}

#[test]
fn mask_bit_follows_the_direction() {
    for first in [0x81, 0x82, 0x88, 0x89, 0x8A] {
        for (direction, masked, want) in [
            (ClientToUpstream, true, None),
            (ClientToUpstream, false, Some(Violation::Unmasked)),
            (UpstreamToClient, false, None),
            (UpstreamToClient, true, Some(Violation::Masked)),
        ] {
            let wire = Wire::new(direction).frame_masked(first, b"", masked);
            assert_eq!(
                scan_all_ways(direction, &wire.bytes).violation,
                want,
                "{first:x} {direction:?}"
            );
        }
    }
    let zero_key = b"\x82\x85\0\0\0\0hello";
    assert_eq!(scan_all_ways(ClientToUpstream, zero_key).violation, None);
}

#[test]
fn reserved_bits_and_opcodes_are_refused() {
    for bits in 1..8u8 {
        for opcode in [0x0, 0x1, 0x2, 0x8, 0x9, 0xA] {
            check(
                "rsv",
                |wire| wire.frame(0x80 | bits << 4 | opcode, b""),
                Some(Violation::ReservedBits),
            );
        }
    }
    for opcode in (0x3..0x8).chain(0xB..0x10) {
        for payload in [&b""[..], b"a"] {
            check(
                "opcode",
                |wire| wire.frame(0x80 | opcode, payload),
                Some(Violation::ReservedOpcode),
            );
        }
    }
}

#[test]
fn control_frames_are_short_and_whole() {
    for opcode in [0x8, 0x9, 0xA] {
        check(
            "fragmented",
            |wire| wire.frame(opcode, b"\x03\xe8"),
            Some(Violation::ControlFragmented),
        );
        for (length, length_bytes) in [(126, 2), (127, 2), (65_535, 2), (65_536, 8)] {
            check(
                "long",
                |wire| wire.header(0x80 | opcode, length, length_bytes),
                Some(Violation::ControlTooLong),
            );
        }
        check(
            "16-bit",
            |wire| wire.header(0x80 | opcode, 2, 2),
            Some(Violation::ControlTooLong),
        );
    }
    check("ping of 125", |wire| wire.frame(0x89, &[b'a'; 125]), None);
    check("pong of 125", |wire| wire.frame(0x8A, &[0xFF; 125]), None);
}

#[test]
fn close_frames_say_what_may_be_said() {
    let close = |code: u16, reason: &[u8]| [&code.to_be_bytes()[..], reason].concat();
    check("empty", |wire| wire.frame(0x88, b""), None);
    check(
        "one byte",
        |wire| wire.frame(0x88, b"\x03"),
        Some(Violation::CloseTruncated),
    );
    for code in [
        0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 9999, 65_535,
    ] {
        check(
            "bad code",
            |wire| wire.frame(0x88, &close(code, b"x")),
            Some(Violation::CloseCode),
        );
    }
    for code in (1000..=1003)
        .chain(1007..=1014)
        .chain([3000, 3999, 4000, 4999])
    {
        check(
            "good code",
            |wire| wire.frame(0x88, &close(code, "é".as_bytes())),
            None,
        );
        assert!(is_close_code_legal(code));
    }
    check(
        "full reason",
        |wire| wire.frame(0x88, &close(1000, &[b'a'; 123])),
        None,
    );
    for reason in [&b"\xff"[..], b"ok\xc0\x80", b"\xe2\x82"] {
        check(
            "reason",
            |wire| wire.frame(0x88, &close(1000, reason)),
            Some(Violation::CloseReasonUtf8),
        );
    }
    let report = scan_all_ways(UpstreamToClient, b"\x88\x02\x03\xe9");
    assert_eq!(report.frames, [(OpCode::Close, true, 2, Some(1001))]);
}

#[test]
fn text_is_utf8_across_fragments() {
    let invalid: [&[u8]; 13] = [
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xf0\x80\x80\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\xfe",
        b"\xff",
        b"\x80",
        b"\xc3",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
    ];
    for text in invalid {
        check(
            "whole",
            |wire| wire.frame(0x81, text),
            Some(Violation::TextUtf8),
        );
        check(
            "in a fragment",
            |wire| wire.frame(0x01, b"hi").frame(0x80, text),
            Some(Violation::TextUtf8),
        );
        let middle = [b"ok", text, b"ok"].concat();
        check(
            "in the middle",
            |wire| wire.frame(0x81, &middle),
            Some(Violation::TextUtf8),
        );
        check("binary", |wire| wire.frame(0x82, text), None);
        let long = [&[b'a'; 1_100], text].concat();
        check(
            "behind a block",
            |wire| wire.frame(0x81, &long),
            Some(Violation::TextUtf8),
        );
    }
    for at in 1..4 {
        let (head, tail) = "😀".as_bytes().split_at(at);
        check("cut", |wire| wire.frame(0x01, head).frame(0x80, tail), None);
        check(
            "cut, empty",
            |wire| wire.frame(0x01, head).frame(0x00, b"").frame(0x80, tail),
            None,
        );
        check(
            "cut, ping",
            |wire| {
                wire.frame(0x01, head)
                    .frame(0x89, b"\xff")
                    .frame(0x80, tail)
            },
            None,
        );
        check(
            "left",
            |wire| wire.frame(0x01, head).frame(0x80, b""),
            Some(Violation::TextUtf8),
        );
    }
}

#[test]
fn fragments_are_in_order() {
    check(
        "orphan",
        |wire| wire.frame(0x80, b"a"),
        Some(Violation::ContinuationOrphan),
    );
    check(
        "orphan, fin 0",
        |wire| wire.frame(0x00, b"a"),
        Some(Violation::ContinuationOrphan),
    );
    for (first, second) in [(0x01, 0x81), (0x01, 0x82), (0x02, 0x01), (0x02, 0x82)] {
        check(
            "interleaved",
            |wire| wire.frame(first, b"a").frame(second, b"b"),
            Some(Violation::MessageInterleaved),
        );
    }
    check(
        "after the end",
        |wire| wire.frame(0x01, b"a").frame(0x80, b"b").frame(0x80, b"c"),
        Some(Violation::ContinuationOrphan),
    );
    check(
        "ping between",
        |wire| wire.frame(0x02, b"a").frame(0x89, b"p").frame(0x80, b"b"),
        None,
    );
    check(
        "close between",
        |wire| wire.frame(0x02, b"a").frame(0x88, b""),
        None,
    );
    check(
        "empties",
        |wire| wire.frame(0x02, b"").frame(0x00, b"").frame(0x80, b""),
        None,
    );
    let fragmented = |count: usize| {
        move |wire: Wire| {
            (2..count)
                .fold(wire.frame(0x02, b"a"), |w, _| w.frame(0x00, b""))
                .frame(0x80, b"")
        }
    };
    check("as many as allowed", fragmented(8), None);
    check("one more", fragmented(9), Some(Violation::TooManyFragments));
}

#[test]
fn lengths_are_minimal_and_capped_on_the_header() {
    for length in [0, 5, 125] {
        check(
            "16 bits",
            |wire| wire.header(0x82, length, 2),
            Some(Violation::LengthNotMinimal),
        );
    }
    for length in [0, 5, 126, 65_535] {
        check(
            "64 bits",
            |wire| wire.header(0x82, length, 8),
            Some(Violation::LengthNotMinimal),
        );
    }
    for length in [1 << 63, u64::MAX] {
        check(
            "top bit",
            |wire| wire.header(0x82, length, 8),
            Some(Violation::LengthTopBit),
        );
    }
    for length in [100_001, 64 << 20, 1 << 40, i64::MAX as u64] {
        check(
            "long frame",
            |wire| wire.header(0x82, length, 8),
            Some(Violation::FrameTooLong),
        );
        check(
            "long text",
            |wire| wire.header(0x01, length, 8),
            Some(Violation::FrameTooLong),
        );
    }
    for length in [0, 1, 125, 126, 127, 1_000] {
        check("fits", |wire| wire.frame(0x81, &vec![b'a'; length]), None);
    }
}

/// Megabytes are hours when interpreted.
#[cfg(not(miri))]
#[test]
fn long_frames_and_messages_are_capped_by_their_sum() {
    let half = vec![b'a'; 75_001];
    check(
        "long message",
        |wire| wire.frame(0x02, &half).header(0x80, 75_000, 8),
        Some(Violation::MessageTooLong),
    );
    for length in [65_535, 65_536, 100_000] {
        check("fits", |wire| wire.frame(0x81, &vec![b'a'; length]), None);
    }
    let fits = Limits::default().message_bytes_max as usize;
    let message = Wire::new(UpstreamToClient).frame(0x81, &vec![b'a'; fits]);
    assert_eq!(
        scan(UpstreamToClient, Limits::default(), [&message.bytes[..]]).violation,
        None
    );
}

#[test]
fn a_bad_header_is_told_at_its_first_bad_byte() {
    assert_eq!(
        scan(UpstreamToClient, LIMITS, [&b"\x83"[..]]).violation,
        Some(Violation::ReservedOpcode)
    );
    assert_eq!(
        scan(UpstreamToClient, LIMITS, [&b"\x81"[..]]).violation,
        None
    );
    assert_eq!(
        scan(ClientToUpstream, LIMITS, [&b"\x81\x05"[..]]).violation,
        Some(Violation::Unmasked)
    );
    assert_eq!(
        scan(UpstreamToClient, LIMITS, [&b"\x89\x7e"[..]]).violation,
        Some(Violation::ControlTooLong)
    );
}

#[test]
fn every_violation_has_a_code_of_its_kind() {
    assert_eq!(Violation::TextUtf8.close_code(), 1007);
    assert_eq!(Violation::FrameTooLong.close_code(), 1009);
    assert_eq!(Violation::TooManyFragments.close_code(), 1008);
    assert_eq!(Violation::Unmasked.close_code(), 1002);
}

// === the event type ===

fn check_type(json: &str, want: Name, ambiguous: bool) {
    for direction in [ClientToUpstream, UpstreamToClient] {
        let wire = Wire::new(direction).frame(0x81, json.as_bytes());
        let report = scan_all_ways(direction, &wire.bytes);
        let (.., name, is_ambiguous) = &report.messages[0];
        assert_eq!((name, *is_ambiguous), (&want, ambiguous), "{json}");
        let (head, tail) = json.as_bytes().split_at(json.len() / 2);
        let wire = Wire::new(direction)
            .frame(0x01, head)
            .frame(0x89, b"\"}")
            .frame(0x80, tail);
        assert_eq!(
            &scan_all_ways(direction, &wire.bytes).messages[0].3,
            &want,
            "{json} in two fragments"
        );
    }
}

fn found(name: &str) -> Name {
    Name::Found(name.to_owned())
}

#[test]
fn type_is_found_wherever_it_stands() {
    for json in [
        r#"{"type":"session.update"}"#,
        " {\n\t\"type\" : \"session.update\" , \"a\":1}\r\n",
        r#"{"session":{"model":"m","type":"realtime"},"type":"session.update"}"#,
        r#"{"a":[{"type":"x"},["}",{"type":"y"}]],"b":"\"type\":\"z\"","type":"session.update"}"#,
        r#"{"n":-1.5e+3,"t":true,"z":null,"type":"session.update"}"#,
        r#"{"\u0074yp\u0065":"session.\u0075pdate"}"#,
        r#"{"typ":1,"types":2,"Type":3,"":4,"type":"session.update"}"#,
    ] {
        check_type(json, found("session.update"), false);
    }
    check_type(r#"{"audio":"AAAA\\","type":"x"}"#, found("x"), false);
    check_type(r#"{"é":"ü","type":"x"}"#, found("x"), false);
    check_type(
        &format!(r#"{{"audio":"{}","type":"x"}}"#, "A".repeat(5000)),
        found("x"),
        false,
    );
    let deep = format!(
        r#"{{"a":{}{},"type":"x"}}"#,
        "[".repeat(100),
        "]".repeat(100)
    );
    check_type(&deep, found("x"), false);
    check_type(
        &format!(r#"{{"type":"{}"}}"#, "t".repeat(64)),
        found(&"t".repeat(64)),
        false,
    );
}

#[test]
fn keys_that_only_look_like_type_are_not_it() {
    for json in [
        r#"{"typ":"a","types":"b","Type":"c","":"d","t\u0079pes":"e"}"#,
        r#"{"session":{"type":"realtime"}}"#,
        r#"{"a":"type","b":["type"]}"#,
        r#"{"tïype":"a"}"#,
        r#"{"\type":"a"}"#,
        r#"["type","x"]"#,
        r#""type""#,
        "{}",
        "",
        "no json",
        r#"{"a":1"#,
        r#"{"a" "type":"x"}"#,
        r#"{"a":}"#,
        r#"{"a":[}],"type":"x"}"#,
    ] {
        check_type(json, Name::Absent, false);
    }
    let deep = format!(
        r#"{{"a":{}{},"type":"x"}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    check_type(&deep, Name::Absent, false);
    let deep = format!(
        r#"{{"a":{}1{},"type":"x"}}"#,
        r#"{"a":"#.repeat(300),
        "}".repeat(300)
    );
    check_type(&deep, Name::Absent, false);
}

#[test]
fn types_that_no_event_has_are_unusable() {
    for json in [
        r#"{"type":5}"#.to_owned(),
        r#"{"type":null}"#.to_owned(),
        r#"{"type":{"type":"x"}}"#.to_owned(),
        r#"{"type":"é"}"#.to_owned(),
        r#"{"type":"\u00e9"}"#.to_owned(),
        format!(r#"{{"type":"{}"}}"#, "t".repeat(65)),
    ] {
        check_type(&json, Name::Unusable, false);
    }
}

#[test]
fn two_types_are_ambiguous_and_the_first_is_told() {
    check_type(r#"{"type":"a","type":"b"}"#, found("a"), true);
    check_type(
        r#"{"type":"a","x":{"type":"n"},"t\u0079pe":"b"}"#,
        found("a"),
        true,
    );
    check_type(r#"{"type":5,"type":"b"}"#, Name::Unusable, true);
    check_type(r#"{"type":"a","x":{"type":"n"}}"#, found("a"), false);
    check_type(r#"{"type":"a",}"#, found("a"), true);
    check_type(r#"{"type":"a""#, found("a"), true);
}

#[test]
fn type_is_known_before_the_message_ends() {
    let mut scanner = Scanner::new(UpstreamToClient, Limits::default());
    let bytes = b"\x81\x7e\x10\x00{\"type\":\"error\",";
    let (header, _) = scanner.step(bytes).unwrap();
    assert_eq!(scanner.event_type(), EventType::Searching);
    scanner.step(&bytes[header..]).unwrap();
    assert_eq!(scanner.event_type(), EventType::Found("error"));
}

#[test]
fn binary_messages_have_no_type() {
    let wire = Wire::new(UpstreamToClient).frame(0x82, br#"{"type":"a"}"#);
    assert_eq!(
        scan_all_ways(UpstreamToClient, &wire.bytes).messages[0].3,
        Name::Absent
    );
}

#[test]
fn state_is_small() {
    assert!(size_of::<Scanner>() <= 288, "{}", size_of::<Scanner>());
}

// === properties ===

fn any_frame() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let json = proptest::sample::select(vec![
        r#"{"type":"a.b"}"#,
        r#"{"x":{"type":"n"},"type":"c"}"#,
        r#"{"type":"a","type":"b"}"#,
        r#"{"audio":"AAAA//==","ty"#,
        r#"pe":"later"}"#,
        "é😀",
    ]);
    let payload = prop_oneof![
        json.prop_map(|text| text.as_bytes().to_vec()),
        proptest::collection::vec(any::<u8>(), 0..140),
        (0..3000usize).prop_map(|length| vec![b'a'; length]),
    ];
    let first = prop_oneof![
        8 => proptest::sample::select(vec![0x81u8, 0x82, 0x89, 0x8A]),
        4 => proptest::sample::select(vec![0x01u8, 0x02, 0x00, 0x80]),
        1 => Just(0x88u8),
        1 => any::<u8>(),
    ];
    (first, payload)
}

proptest! {
    #[test]
    fn any_split_of_any_frames_gives_the_same_report(
        frames in proptest::collection::vec(any_frame(), 1..8),
        cuts in proptest::collection::vec(0.0..1.0f64, 0..12),
        from_client in any::<bool>(),
    ) {
        let direction = if from_client { ClientToUpstream } else { UpstreamToClient };
        let wire = frames.iter().fold(Wire::new(direction), |wire, (first, payload)| {
            let length = if first & 0x08 == 0 { payload.len() } else { payload.len().min(125) };
            wire.frame(*first, &payload[..length])
        });
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| (cut * wire.bytes.len() as f64) as usize).collect();
        cuts.extend([0, wire.bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &wire.bytes[cut[0]..cut[1]]).collect();
        let mut whole = scan(direction, LIMITS, [&wire.bytes[..]]);
        let mut split = scan(direction, LIMITS, pieces);
        let mut single = scan(direction, LIMITS, wire.bytes.chunks(1));
        if whole.violation.is_some() {
            (whole.payload_bytes, split.payload_bytes, single.payload_bytes) = (0, 0, 0);
        }
        prop_assert_eq!(&split, &whole);
        prop_assert_eq!(&single, &whole);
    }

    #[test]
    fn any_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), from_client in any::<bool>()) {
        let direction = if from_client { ClientToUpstream } else { UpstreamToClient };
        scan(direction, LIMITS, [&bytes[..]]);
    }

    #[test]
    fn text_verdict_is_that_of_std(text in proptest::collection::vec(any::<u8>(), 0..40)) {
        let wire = Wire::new(ClientToUpstream).frame(0x81, &text);
        let violation = scan(ClientToUpstream, LIMITS, [&wire.bytes[..]]).violation;
        prop_assert_eq!(violation.is_none(), std::str::from_utf8(&text).is_ok());
    }
}

// === the event type against a whole parser ===

fn any_json(depth: u32) -> BoxedStrategy<String> {
    let text = prop_oneof![
        proptest::sample::select(vec![
            "type",
            "t\\u0079pe",
            "a",
            "",
            "\\\"",
            "\\\\",
            "é",
            "typ",
            "{\\\"type\\\":"
        ])
        .prop_map(|inner| format!("\"{inner}\"")),
        any::<String>().prop_map(|inner| serde_json::to_string(&inner).unwrap()),
    ]
    .boxed();
    let scalar = prop_oneof![
        3 => text.clone(),
        1 => proptest::sample::select(vec!["1", "-2.5e+3", "true", "null", "false", "0"]).prop_map(str::to_owned),
    ]
    .boxed();
    if depth == 0 {
        return scalar;
    }
    let inner = any_json(depth - 1);
    let space = || proptest::sample::select(vec!["", " ", "\n\t", "\r "]);
    let member = (text, inner.clone(), space(), space(), space())
        .prop_map(|(key, value, a, b, c)| format!("{a}{key}{b}:{c}{value}{a}"));
    let object = proptest::collection::vec(member, 0..4)
        .prop_map(|members| format!("{{{}}}", members.join(",")));
    let array =
        proptest::collection::vec(inner, 0..3).prop_map(|items| format!("[{}]", items.join(", ")));
    prop_oneof![2 => object, 1 => array, 1 => scalar].boxed()
}

/// What a parser that reads the whole event takes for its type; `None` when it refuses the event.
fn type_by_serde(text: &str) -> Option<Name> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(match value.get("type") {
        None => Name::Absent,
        Some(serde_json::Value::String(name)) if name.is_ascii() && name.len() <= 64 => found(name),
        Some(_) => Name::Unusable,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 2000 }))]

    /// An event that is not called ambiguous is the same event to a parser of whole JSON texts, also
    /// after bytes of it were changed. (That parser takes the last of several equal keys.)
    #[test]
    fn a_parser_of_whole_events_sees_the_same_type(
        json in any_json(3),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), proptest::sample::select(b"{}[]\",:\\te 1".to_vec())), 0..3),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = json.into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            if bytes[at].is_ascii() {
                bytes[at] = byte;
            }
        }
        let text = String::from_utf8(bytes).unwrap();
        let wire = Wire::new(ClientToUpstream).frame(0x81, text.as_bytes());
        let (head, tail) = wire.bytes.split_at(cut.index(wire.bytes.len()));
        let report = scan(ClientToUpstream, LIMITS, [head, tail]);
        let (.., name, ambiguous) = &report.messages[0];
        if let Some(want) = type_by_serde(&text)
            && !ambiguous
        {
            prop_assert_eq!(name, &want, "{}", text);
        }
    }
}
