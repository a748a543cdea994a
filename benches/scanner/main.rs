//! How many instructions the scanner takes for the frames of a voice call, counted by valgrind.
//!
//! A count has no noise, so a change of a few per cent is seen that no clock would show. It says nothing
//! about caches, the kernel or waiting. `cargo xtask bench --instructions` runs this and compares the
//! counts with those kept in `counts.json`.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::ops::Range;

use gungraun::{
    Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use talkline_benches::traffic::Template;
use talkline_benches::wire::text_header;
use talkline_frame::{Direction, Limits, Scanner, Step};

/// What the client's frames are masked with.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// What one segment carries on a network with an MTU of 1,500 bytes, or a little less.
const SEGMENT_BYTES: usize = 1_400;

/// Kept in one place, so that what is counted moves a pointer and nothing else.
///
/// Copies take another number of instructions from another alignment. The stack and the heap begin where
/// the length of the environment and of this program's path put them; the alignment here does not change.
#[repr(align(64))]
struct Case {
    scanner: Scanner,
    buffer: Vec<u8>,
    wire: Range<usize>,
    piece_bytes: usize,
    expected_type: Option<&'static str>,
    frames: u64,
}

/// As a local variable, aligns the stack of what is called.
#[repr(align(64))]
#[expect(dead_code, reason = "what counts is where it stands")]
struct Line(u8);

impl Case {
    /// A frame in the middle of a connection. An equal one went before it: what is found out once in a
    /// process, such as the instructions that this processor has, is not part of a frame's cost.
    fn new(
        direction: Direction,
        wire: Vec<u8>,
        expected_type: Option<&'static str>,
        piece_bytes: usize,
    ) -> Box<Case> {
        let mut buffer = vec![0; wire.len() + align_of::<Case>()];
        let start = buffer.as_ptr().align_offset(align_of::<Case>());
        let range = start..start + wire.len();
        buffer[range.clone()].copy_from_slice(&wire);
        let mut case = Case {
            scanner: Scanner::new(direction, Limits::default()),
            buffer,
            wire: range,
            piece_bytes,
            expected_type,
            frames: 0,
        };
        case.scan();
        Box::new(case)
    }

    fn whole(
        direction: Direction,
        wire: Vec<u8>,
        expected_type: Option<&'static str>,
    ) -> Box<Case> {
        let all = wire.len();
        Case::new(direction, wire, expected_type, all)
    }

    fn scan(&mut self) {
        black_box(&mut Line(0));
        for piece in self.buffer[self.wire.clone()].chunks(self.piece_bytes) {
            let mut rest = black_box(piece);
            loop {
                let (consumed, step) = self.scanner.step(rest).expect("the frame is valid");
                rest = &rest[consumed..];
                match step {
                    Step::NeedMore => break,
                    Step::FrameEnd(_) => self.frames += 1,
                    Step::Header(_) | Step::Payload => {}
                }
            }
        }
    }
}

/// 40 ms of PCM16, from the client.
fn append() -> Box<Case> {
    Case::whole(
        Direction::ClientToUpstream,
        numbered(&Template::append()),
        Some("input_audio_buffer.append"),
    )
}

/// The same, as two segments bring it.
fn append_in_segments() -> Box<Case> {
    Case::new(
        Direction::ClientToUpstream,
        numbered(&Template::append()),
        Some("input_audio_buffer.append"),
        SEGMENT_BYTES,
    )
}

/// 12,000 bytes of audio, from the upstream.
fn delta() -> Box<Case> {
    Case::whole(
        Direction::UpstreamToClient,
        numbered(&Template::delta()),
        Some("response.output_audio.delta"),
    )
}

/// A change of the session, from the client.
fn control_event() -> Box<Case> {
    let event = r#"{"type":"session.update","event_id":"event_C4d1yWr0kN2pQx","session":{"type":"realtime","output_modalities":["audio"],"instructions":"You take orders for a small bakery. Speak slowly, repeat each order, and ask for a name and a time before you end the call. Never promise what the shop does not sell.","audio":{"input":{"format":{"type":"audio/pcm","rate":24000},"transcription":{"model":"whisper-1"},"turn_detection":{"type":"server_vad","threshold":0.5,"prefix_padding_ms":300,"silence_duration_ms":500}},"output":{"format":{"type":"audio/pcm","rate":24000},"voice":"marin","speed":1.0}}}}"#;
    Case::whole(
        Direction::ClientToUpstream,
        masked(event),
        Some("session.update"),
    )
}

/// A text frame of no payload, from the client: the header's cost.
fn header_only() -> Box<Case> {
    Case::whole(Direction::ClientToUpstream, masked(""), None)
}

/// Text of two, three and four bytes a letter, from the client.
fn non_ascii() -> Box<Case> {
    let said = "Grüße aus Köln – два хлеба, пожалуйста – パンを二つお願いします – 两个面包 🥖🥐 ";
    let event = format!(
        r#"{{"type":"conversation.item.create","item":{{"type":"message","role":"user","content":[{{"type":"input_text","text":"{}"}}]}}}}"#,
        said.repeat(8)
    );
    Case::whole(
        Direction::ClientToUpstream,
        masked(&event),
        Some("conversation.item.create"),
    )
}

fn numbered(template: &Template) -> Vec<u8> {
    let mut wire = Vec::new();
    template.write(7, &mut wire);
    wire
}

fn masked(payload: &str) -> Vec<u8> {
    let mut wire = text_header(payload.len(), Some(KEY));
    let key = KEY.iter().cycle();
    wire.extend(payload.bytes().zip(key).map(|(byte, key)| byte ^ key));
    wire
}

/// After the count: the frame was one, and the scanner knows what it was.
fn check(case: Box<Case>) {
    assert_eq!(
        case.frames, 2,
        "the one before, and the one that was counted"
    );
    assert_eq!(case.scanner.event_type().name(), case.expected_type);
}

#[library_benchmark(teardown = check)]
#[bench::append(append())]
#[bench::append_in_segments(append_in_segments())]
#[bench::delta(delta())]
#[bench::control_event(control_event())]
#[bench::header_only(header_only())]
#[bench::non_ascii(non_ascii())]
fn scan(mut case: Box<Case>) -> Box<Case> {
    case.scan();
    case
}

library_benchmark_group!(name = scanner, benchmarks = scan);

main!(
    config = LibraryBenchmarkConfig::default()
        .tool(Callgrind::with_args(["--cache-sim=no"]));
    library_benchmark_groups = scanner
);
