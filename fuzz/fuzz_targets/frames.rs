//! Any bytes, cut anywhere, either direction: the scanner comes to the same verdict at the same byte, covers
//! every byte once, and never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use talkline_frame::{Direction, Limits, Scanner, Step, Violation};

const LIMITS: Limits = Limits {
    frame_bytes_max: 1 << 16,
    message_bytes_max: 1 << 17,
    fragments_max: 8,
};

/// What the scanner told of the bytes, apart from how they were cut.
fn told(direction: Direction, pieces: &[&[u8]]) -> (Vec<String>, usize, Option<Violation>) {
    let mut scanner = Scanner::new(direction, LIMITS);
    let (mut told, mut valid) = (Vec::new(), 0);
    for piece in pieces {
        let mut rest = *piece;
        loop {
            match scanner.step(rest) {
                Ok((consumed, step)) => {
                    rest = &rest[consumed..];
                    match step {
                        Step::NeedMore => {
                            assert!(rest.is_empty());
                            break;
                        }
                        Step::Payload => assert!(consumed > 0),
                        Step::Header(header) => told.push(format!("{header:?}")),
                        Step::FrameEnd(end) => {
                            assert_eq!(consumed, 0);
                            valid += 1;
                            let event = scanner.event_type();
                            told.push(format!("{end:?} {event:?} {}", scanner.is_event_type_ambiguous()));
                        }
                    }
                }
                Err(violation) => {
                    assert_eq!(scanner.step(b"\x81\x00"), Err(violation), "a violation stands");
                    return (told, valid, Some(violation));
                }
            }
        }
    }
    (told, valid, None)
}

fuzz_target!(|input: (bool, u16, &[u8])| {
    let (from_client, cut, bytes) = input;
    let direction = if from_client {
        Direction::ClientToUpstream
    } else {
        Direction::UpstreamToClient
    };
    let whole = told(direction, &[bytes]);
    let (head, tail) = bytes.split_at(usize::from(cut).min(bytes.len()));
    assert_eq!(whole, told(direction, &[head, tail]));
    let each: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(whole, told(direction, &each));
});
