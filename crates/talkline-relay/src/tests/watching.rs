//! Messages that a guard looks at before they go out.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use talkline_frame::MessageKind;
use talkline_session::policy::{Breach, Decision, Farewell, Look, Watch};
use talkline_session::{Close, EndKind, Inspect, Side};

use super::testkit::*;
use crate::scratch::SCRATCH_BYTES;
use crate::{Budget, Limits, UpstreamMasking};

/// A guard that is told what to do by the messages themselves: by their first letters. Binary messages
/// pass unlooked at.
///
/// `a…` is streamed and must end with `z` and have no `!`; `f…` is forwarded, `r…` rewritten, `d…`
/// dropped, `e…` answered, `c…` ends the session. Anything else is streamed without conditions.
#[derive(Debug, Default)]
struct Scripted {
    opening: Option<String>,
    /// Letters that are needed to know.
    head: usize,
    last: [Option<u8>; 2],
    strict: [bool; 2],
    seen: Arc<Mutex<Vec<String>>>,
}

fn farewell(code: &str) -> Farewell {
    Farewell {
        event: format!(r#"{{"type":"error","event_id":"e","error":{{"code":"{code}"}}}}"#),
        close: Close::new(1008, code),
    }
}

impl Scripted {
    fn note(&self, what: String) {
        self.seen.lock().unwrap().push(what);
    }
}

impl Inspect for Scripted {
    fn opening(&mut self) -> Option<String> {
        self.opening.take()
    }

    fn begin(&mut self, from: Side, kind: MessageKind) -> Watch {
        self.last[from as usize] = None;
        match kind {
            MessageKind::Text => Watch::Look,
            MessageKind::Binary => Watch::Pass,
        }
    }

    fn look(&mut self, from: Side, head: &[u8], complete: bool) -> Look {
        assert!(head.len() <= 256);
        if head.len() < self.head.max(1) && !complete {
            return Look::More;
        }
        match head.first() {
            Some(b'f' | b'r' | b'd' | b'e' | b'c') => Look::Hold,
            first => {
                self.strict[from as usize] = first == Some(&b'a');
                self.last[from as usize] = head.last().copied();
                Look::Stream
            }
        }
    }

    fn stream(&mut self, from: Side, piece: &[u8]) -> Result<(), Breach> {
        if self.strict[from as usize] && piece.contains(&b'!') {
            return Err(Breach(farewell("evasive")));
        }
        self.last[from as usize] = piece.last().copied().or(self.last[from as usize]);
        Ok(())
    }

    fn stream_end(&mut self, from: Side) -> Result<(), Breach> {
        if self.strict[from as usize] && self.last[from as usize] != Some(b'z') {
            return Err(Breach(farewell("unfinished")));
        }
        Ok(())
    }

    fn decide(&mut self, from: Side, kind: MessageKind, message: &[u8]) -> Decision {
        assert_eq!(kind, MessageKind::Text);
        let text = String::from_utf8_lossy(message).into_owned();
        self.note(format!("{from:?} {text}"));
        match message.first() {
            Some(b'f') => Decision::Forward,
            Some(b'r') => Decision::Rewrite(text.to_uppercase().into_bytes()),
            Some(b'd') => Decision::Drop,
            Some(b'e') => Decision::Answer(format!("answer to {text}")),
            _ => Decision::Close(farewell("forbidden")),
        }
    }

    fn oversize(&mut self, _: Side) -> Decision {
        Decision::Answer("too long".into())
    }
}

fn guarded(scripted: Scripted) -> Setup {
    Setup {
        guard: Some(Box::new(scripted)),
        ..Setup::default()
    }
}

fn words(frames: &[Wire]) -> Vec<String> {
    let word = |frame: &Wire| {
        let payload = String::from_utf8_lossy(&frame.payload);
        format!("{:02x} {payload}", frame.first)
    };
    frames.iter().map(word).collect()
}

/// What the upstream and the client get of these bytes of the client's.
async fn sent(setup: Setup, pieces: &[&[u8]]) -> (Vec<Wire>, Vec<Wire>) {
    let mut talk = setup.start();
    for piece in pieces {
        talk.client.send(piece).await;
        // The relay sees each piece by itself.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    talk.client
        .send(&masked(CLOSE, &close_payload(1000, "")))
        .await;
    let mut upstream = Vec::new();
    loop {
        let frame = talk.upstream.frame().await;
        let over = frame.first == CLOSE;
        upstream.push(frame);
        if over {
            break;
        }
    }
    talk.upstream
        .send(&plain(CLOSE, &close_payload(1000, "")))
        .await;
    (upstream, talk.client.rest().await)
}

#[tokio::test(start_paused = true)]
async fn each_message_gets_what_was_decided_and_order_is_kept() {
    let scripted = Scripted::default();
    let seen = Arc::clone(&scripted.seen);
    let messages = [
        masked(TEXT, b"one"),
        masked(TEXT, b"f two"),
        masked(0x01, b"r th"),
        masked(PING, b"?"),
        masked(0x00, b""),
        masked(0x80, b"ree"),
        masked(TEXT, b"d four"),
        masked(BINARY, b"five"),
        masked(0x01, b"e s"),
        masked(0x80, b"ix"),
        masked(TEXT, b"a seven z"),
        masked(TEXT, b""),
    ]
    .concat();
    let (upstream, client) = sent(guarded(scripted), &[&messages]).await;
    let want = [
        "81 one",
        "81 f two",
        "81 R THREE",
        "82 five",
        "81 a seven z",
        "81 ",
        "88 \u{3}\u{fffd}",
    ];
    assert_eq!(words(&upstream), want);
    assert_eq!(
        words(&client)[..2],
        ["8a ?", "81 answer to e six"],
        "{client:?}"
    );
    assert_eq!(
        *seen.lock().unwrap(),
        [
            "Client f two",
            "Client r three",
            "Client d four",
            "Client e six"
        ]
    );
    // What is forwarded keeps its key, what is rewritten gets one of its own.
    assert_eq!(upstream[1].key, Some(KEY));
    assert!(upstream[2].key.is_some_and(|key| key != KEY));
}

#[tokio::test(start_paused = true)]
async fn a_held_message_goes_out_as_it_came() {
    let long = format!("f{}", "x".repeat(5000));
    let frames = [
        masked(0x01, &long.as_bytes()[..2000]),
        masked(0x00, b""),
        masked(0x80, &long.as_bytes()[2000..]),
    ]
    .concat();
    let mut talk = guarded(Scripted::default()).start();
    let (head, tail) = frames.split_at(frames.len() - 1);
    talk.client.send(head).await;
    talk.client.send(&masked(PING, b"in between")[..0]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    talk.client.send(tail).await;
    let mut got = vec![0; frames.len()];
    tokio::io::AsyncReadExt::read_exact(&mut talk.upstream.io, &mut got)
        .await
        .unwrap();
    assert_eq!(got, frames);
}

#[tokio::test(start_paused = true)]
async fn the_opening_goes_before_anything_of_the_clients() {
    let scripted = Scripted {
        opening: Some("opening".into()),
        ..Scripted::default()
    };
    let setup = Setup {
        client_early: masked(TEXT, b"soon").into(),
        ..guarded(scripted)
    };
    let mut talk = setup.start();
    talk.upstream.expect(TEXT, b"opening").await;
    talk.upstream.expect(TEXT, b"soon").await;
}

#[tokio::test(start_paused = true)]
async fn the_upstreams_messages_are_looked_at_too() {
    let mut talk = guarded(Scripted::default()).start();
    talk.upstream
        .send(
            &[
                plain(TEXT, b"r hidden"),
                plain(TEXT, b"d gone"),
                plain(TEXT, b"e!"),
            ]
            .concat(),
        )
        .await;
    talk.client.expect(TEXT, b"R HIDDEN").await;
    talk.client.expect(TEXT, b"answer to e!").await;
}

/// Nothing of an evasive message may take effect: its last frame never gets there whole.
async fn check_breach(setup: Setup, pieces: &[&[u8]], code: &str) {
    let mut talk = setup.start();
    talk.client.send(&masked(TEXT, b"before")).await;
    for piece in pieces {
        talk.client.send(piece).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    talk.client.expect_error(code).await;
    talk.client.expect_close(1008).await;
    drop(talk.client);
    talk.upstream.expect(TEXT, b"before").await;
    let mut rest = talk.upstream.rest.clone();
    tokio::io::AsyncReadExt::read_to_end(&mut talk.upstream.io, &mut rest)
        .await
        .unwrap();
    let whole = decode(&mut rest);
    let is_harmless = |frame: &Wire| frame.first == CLOSE || frame.first == 0x01;
    assert!(whole.iter().all(is_harmless), "{whole:?}");
    assert_eq!(talk.relayed.await.unwrap().end.kind, EndKind::Policy);
}

#[tokio::test(start_paused = true)]
async fn a_breach_leaves_the_message_incomplete() {
    let long = format!("a{}", "b".repeat(1000));
    let evasive = masked(TEXT, format!("{long}!z").as_bytes());
    check_breach(guarded(Scripted::default()), &[&evasive], "evasive").await;
    let (head, tail) = evasive.split_at(900);
    check_breach(guarded(Scripted::default()), &[head, tail], "evasive").await;
    let unfinished = masked(TEXT, long.as_bytes());
    check_breach(guarded(Scripted::default()), &[&unfinished], "unfinished").await;
    let (head, tail) = unfinished.split_at(unfinished.len() - 1);
    check_breach(guarded(Scripted::default()), &[head, tail], "unfinished").await;
    let fragments = [masked(0x01, long.as_bytes()), masked(0x80, b"")];
    check_breach(
        guarded(Scripted::default()),
        &[&fragments[0], &fragments[1]],
        "unfinished",
    )
    .await;
    check_breach(
        guarded(Scripted::default()),
        &[&masked(TEXT, b"c")],
        "forbidden",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_to_hold_is_refused_and_thrown_away() {
    let limits = Limits {
        inspect_bytes_max: 1000,
        ping_interval: None,
        ..Limits::default()
    };
    let long = format!("f{}", "x".repeat(1000));
    let setup = || Setup {
        limits: limits.clone(),
        ..guarded(Scripted::default())
    };
    let whole = masked(TEXT, long.as_bytes());
    let fragments = [
        masked(0x01, &long.as_bytes()[..600]),
        masked(PING, b"?"),
        masked(0x00, &long.as_bytes()[600..]),
        masked(0x00, b"more"),
        masked(0x80, b"still"),
    ]
    .concat();
    for message in [&whole, &fragments] {
        let messages = [message, &masked(TEXT, b"next")[..]].concat();
        let (head, tail) = messages.split_at(300);
        for pieces in [&[&messages[..]][..], &[head, tail]] {
            let (upstream, client) = sent(setup(), pieces).await;
            assert_eq!(words(&upstream)[0], "81 next");
            let answers = words(&client);
            assert!(answers.contains(&"81 too long".to_owned()), "{answers:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_memory_a_hold_ends_the_session() {
    let setup = Setup {
        budget: Some(Budget::new(1000)),
        ..guarded(Scripted::default())
    };
    let budget = setup.budget.clone().unwrap();
    // 1000 bytes are too few to read at all: this budget is for holds.
    let roomy = Budget::new(1 << 20);
    let setup = Setup {
        budget: Some(Arc::clone(&roomy)),
        ..setup
    };
    let mut talk = setup.start();
    let long = format!("f{}", "x".repeat(200_000));
    talk.client
        .send(&masked(TEXT, long.as_bytes())[..150_000])
        .await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(roomy.used() >= 150_000, "{}", roomy.used());
    drop(talk.client);
    drop(talk.upstream);
    talk.relayed.await.unwrap();
    assert_eq!((roomy.used(), budget.used()), (0, 0));

    let small = Budget::new(64 << 10);
    let setup = Setup {
        budget: Some(Arc::clone(&small)),
        ..guarded(Scripted::default())
    };
    let mut talk = setup.start();
    talk.client
        .send(&masked(TEXT, long.as_bytes())[..150_000])
        .await;
    talk.client.expect_error("relay_overloaded").await;
    talk.client.expect_close(1013).await;
    talk.upstream.expect_close(1001).await;
    drop((talk.client, talk.upstream));
    assert_eq!(talk.relayed.await.unwrap().end.kind, EndKind::Overloaded);
    assert_eq!(small.used(), 0);
}

/// 500 clients begin a message of the greatest size and do not end it: of 256 KiB where it is held for a guard, of
/// 24 MiB to an upstream that does not read where it is not.
async fn check_unfinished(guard: impl Fn() -> Option<Box<dyn Inspect>>, message: Vec<u8>) -> usize {
    const SESSIONS: usize = 500;
    const BOUND: usize = 16 << 20;
    let budget = Budget::new(BOUND);
    let message = Arc::new(message);
    let mut relayed = Vec::new();
    let mut ends = Vec::new();
    for _ in 0..SESSIONS {
        let setup = Setup {
            budget: Some(Arc::clone(&budget)),
            guard: guard(),
            pipe_bytes: 64 << 10,
            ..Setup::default()
        };
        let talk = setup.start();
        let (mut reader, mut writer) = tokio::io::split(talk.client.io);
        let message = Arc::clone(&message);
        let writing = tokio::spawn(async move {
            // Whoever is refused is no longer read.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut writer, &message).await;
            std::future::pending::<()>().await;
        });
        let reading =
            tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
        relayed.push(talk.relayed);
        ends.push((writing, reading, talk.upstream, talk.stop));
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    // One piece that was being read may go beyond it.
    let used = budget.used();
    assert!(
        (BOUND / 2..=BOUND + SCRATCH_BYTES).contains(&used),
        "{used}"
    );
    for (writing, reading, ..) in ends {
        writing.abort();
        reading.abort();
    }
    let mut overloaded = 0;
    for relayed in relayed {
        let summary = relayed.await.unwrap();
        overloaded += usize::from(summary.end.kind == EndKind::Overloaded);
    }
    assert_eq!(budget.used(), 0);
    overloaded
}

#[tokio::test(start_paused = true)]
async fn unfinished_messages_of_many_stay_within_the_budget() {
    let mut held = masked(TEXT, format!("f{}", "x".repeat((256 << 10) - 1)).as_bytes());
    held.pop();
    let guard = || Some(Box::new(Scripted::default()) as Box<dyn Inspect>);
    let overloaded = check_unfinished(guard, held).await;
    // Sixteen MiB are room for 64 of them. Who had begun to hold was refused; the others are not read yet.
    assert!((64..=500 - 64).contains(&overloaded), "{overloaded}");

    let mut streamed = masked(TEXT, &vec![b'x'; 24 << 20]);
    streamed.truncate(1 << 20);
    let overloaded = check_unfinished(|| None, streamed).await;
    // They wait for their upstreams, which is no fault of theirs.
    assert_eq!(overloaded, 0);
}

#[tokio::test(start_paused = true)]
async fn answers_are_bounded_by_not_reading_who_causes_them() {
    let mut talk = Setup {
        pipe_bytes: 4096,
        ..guarded(Scripted::default())
    }
    .start();
    // A message of the upstream's keeps every answer waiting.
    talk.upstream.send(&plain(0x01, b"x")).await;
    talk.client.expect(0x01, b"x").await;
    let (mut reader, mut writer) = tokio::io::split(talk.client.io);
    let flood = tokio::spawn(async move {
        for _ in 0..2000 {
            let sent = masked(TEXT, b"e");
            tokio::io::AsyncWriteExt::write_all(&mut writer, &sent)
                .await
                .unwrap();
        }
        writer
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!flood.is_finished());
    talk.upstream.send(&plain(0x80, b"y")).await;
    let mut rest = talk.client.rest;
    let mut got = Vec::new();
    while got.len() < 2001 {
        let read = tokio::io::AsyncReadExt::read_buf(&mut reader, &mut rest);
        assert!(read.await.unwrap() > 0);
        got.extend(decode(&mut rest));
    }
    let got = words(&got);
    assert_eq!(got[0], "80 y");
    assert!(got[1..].iter().all(|word| word == "81 answer to e"));
    drop(flood.await.unwrap());
}

/// A message of the client's: its text, the lengths of its fragments, and pings between them.
fn any_message() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let text = ("[afrdex]", "[a-y]{0,40}", "z?")
        .prop_map(|(kind, rest, end)| format!("{kind}{rest}{end}"));
    let cuts = proptest::collection::vec(any::<proptest::sample::Index>(), 0..3);
    (text, cuts, any::<bool>(), any::<bool>()).prop_map(|(text, cuts, pings, binary)| {
        let text = text.into_bytes();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
        let last = pieces.len() - 1;
        let mut frames = Vec::new();
        for (i, piece) in pieces.into_iter().enumerate() {
            let opcode = if i == 0 { 1 + u8::from(binary) } else { 0 };
            frames.push(masked(opcode | u8::from(i == last) << 7, piece));
            if pings && i < last {
                frames.push(masked(PING, b""));
            }
        }
        frames
    })
}

fn in_time<R>(future: impl Future<Output = R>) -> R {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}

/// Everything that came out at both ends, up to where a breach cut it off.
async fn outcome(
    bytes: &[u8],
    cuts: &[usize],
    masking: UpstreamMasking,
    head: usize,
) -> [Vec<String>; 2] {
    let scripted = Scripted {
        head,
        ..Scripted::default()
    };
    let mut talk = Setup {
        masking,
        ..guarded(scripted)
    }
    .start();
    let mut from = 0;
    for &cut in cuts {
        talk.client.send(&bytes[from..cut]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        from = cut;
    }
    talk.client.send(&bytes[from..]).await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    talk.client
        .send(&masked(CLOSE, &close_payload(1000, "")))
        .await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    talk.upstream
        .send(&plain(CLOSE, &close_payload(1000, "")))
        .await;
    let mut ends = [talk.client, talk.upstream];
    let mut outcome = [Vec::new(), Vec::new()];
    for (end, outcome) in ends.iter_mut().zip(&mut outcome) {
        let mut rest = std::mem::take(&mut end.rest);
        tokio::io::AsyncReadExt::read_to_end(&mut end.io, &mut rest)
            .await
            .unwrap();
        *outcome = words(&decode(&mut rest));
        // Inside a frame that broke off there is no place for a close frame.
        outcome.retain(|word| !word.starts_with("88"));
    }
    outcome
}

/// Pongs and answers come where they can, so only their order among themselves is the same.
fn without_pongs(words: &[String]) -> Vec<&String> {
    words
        .iter()
        .filter(|word| !word.starts_with("8a"))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the bytes are cut, both sides get the same.
    #[test]
    fn any_split_is_decided_the_same(
        messages in proptest::collection::vec(any_message(), 1..5),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        fresh in any::<bool>(),
        head in 0..40usize,
    ) {
        let bytes = messages.concat().concat();
        let masking = if fresh { UpstreamMasking::Fresh } else { UpstreamMasking::Verbatim };
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let whole = in_time(outcome(&bytes, &[], masking, head));
        let cut = in_time(outcome(&bytes, &cuts, masking, head));
        prop_assert_eq!(&whole[1], &cut[1]);
        prop_assert_eq!(without_pongs(&whole[0]), without_pongs(&cut[0]));
        let pongs = |words: &[String]| words.len() - without_pongs(words).len();
        prop_assert_eq!(pongs(&whole[0]), pongs(&cut[0]));
    }
}

#[test]
fn a_split_at_every_offset_is_decided_the_same() {
    let bytes = [
        masked(TEXT, b"a one z"),
        masked(0x01, b"f t"),
        masked(PING, b"p"),
        masked(0x80, b"wo"),
        masked(TEXT, b"r three"),
        masked(0x01, b"d"),
        masked(0x80, b""),
        masked(TEXT, b"e four"),
        masked(TEXT, format!("f{}", "x".repeat(130)).as_bytes()),
        masked(TEXT, format!("a{}z", "x".repeat(300)).as_bytes()),
        masked(TEXT, format!("a{}", "x".repeat(300)).as_bytes()),
    ]
    .concat();
    for masking in [UpstreamMasking::Verbatim, UpstreamMasking::Fresh] {
        for head in [1, 4, 300] {
            let whole = in_time(outcome(&bytes, &[], masking, head));
            for cut in 0..bytes.len() {
                let got = in_time(outcome(&bytes, &[cut], masking, head));
                assert_eq!(got[1], whole[1], "cut at {cut}, head {head}");
                assert_eq!(
                    without_pongs(&got[0]),
                    without_pongs(&whole[0]),
                    "cut at {cut}, head {head}"
                );
            }
            let each: Vec<_> = (1..bytes.len()).collect();
            assert_eq!(in_time(outcome(&bytes, &each, masking, head))[1], whole[1]);
        }
    }
}
