//! What a relayed audio frame costs: one read, one write, no allocation.

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use talkline_relay::{Leg, Limits, Options, Session, relay};
use talkline_session::policy::{ClientDialect, Guard, Helpers, Intent, Policy, Rules, Setup};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const ROUNDS: usize = 1000;

/// A stream that has one frame when it is told so, and takes whatever it is given.
#[derive(Default)]
struct Wire {
    frame: Vec<u8>,
    is_there: bool,
    reads: usize,
    writes: usize,
    written: Vec<u8>,
    flushes: usize,
    reader: Option<Waker>,
}

/// A task that is polled by hand, so nobody has to be told.
struct Polled;

impl Wake for Polled {
    fn wake(self: Arc<Self>) {}
    fn wake_by_ref(self: &Arc<Self>) {}
}

#[derive(Clone, Default)]
struct Shared(Rc<RefCell<Wire>>);

impl AsyncRead for Shared {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let mut wire = self.0.borrow_mut();
        if !std::mem::take(&mut wire.is_there) {
            wire.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wire.reads += 1;
        buffer.put_slice(&wire.frame);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Shared {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        wire.writes += 1;
        // Its capacity was made beforehand.
        wire.written.clear();
        wire.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.0.borrow_mut().flushes += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn wire(frame: Vec<u8>) -> Shared {
    let wire = Wire {
        frame,
        written: Vec::with_capacity(64 << 10),
        ..Wire::default()
    };
    Shared(Rc::new(RefCell::new(wire)))
}

fn frame(key: Option<[u8; 4]>, payload: &str) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut frame = vec![0x81, u8::from(key.is_some()) << 7 | 126];
    frame.extend(length.to_be_bytes());
    frame.extend(key.iter().flatten());
    let key = key.unwrap_or_default();
    let payload = payload.bytes().enumerate();
    frame.extend(payload.map(|(i, byte)| byte ^ key[i & 3]));
    frame
}

/// 40 ms of PCM16 towards the upstream, 180 ms towards the client.
fn frames() -> [Vec<u8>; 2] {
    let append = format!(
        r#"{{"type":"input_audio_buffer.append","audio":"{}"}}"#,
        "abcd".repeat(640)
    );
    let delta = format!(
        r#"{{"type":"response.output_audio.delta","event_id":"event_1","delta":"{}"}}"#,
        "abcd".repeat(2900)
    );
    [frame(Some([1, 2, 3, 4]), &append), frame(None, &delta)]
}

fn check(session: Session) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _context = runtime.enter();
    let [append, delta] = frames();
    let (client, upstream) = (wire(append.clone()), wire(delta.clone()));
    let legs = (Leg::new(client.clone()), Leg::new(upstream.clone()));
    let relayed = relay(
        legs.0,
        legs.1,
        session,
        Options::default(),
        std::future::pending(),
    );
    let mut relayed = pin!(relayed);
    let task = Waker::from(Arc::new(Polled));
    let mut context = Context::from_waker(&task);
    let mut round = |relayed: Pin<&mut _>| {
        for wire in [&client, &upstream] {
            let mut wire = wire.0.borrow_mut();
            wire.is_there = true;
            if let Some(reader) = wire.reader.take() {
                reader.wake();
            }
        }
        assert!(Future::poll(relayed, &mut context).is_pending());
    };
    // The first frames make what is used again: the timer, the thread's buffer, the guard's box.
    for _ in 0..3 {
        round(relayed.as_mut());
    }
    for wire in [&client, &upstream] {
        let mut wire = wire.0.borrow_mut();
        (wire.reads, wire.writes, wire.flushes) = (0, 0, 0);
    }
    let counted = allocation_counter::measure(|| {
        for _ in 0..ROUNDS {
            round(relayed.as_mut());
        }
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
    for (wire, want) in [(&client, &delta), (&upstream, &append)] {
        let wire = wire.0.borrow();
        assert_eq!((wire.reads, wire.writes), (ROUNDS, ROUNDS));
        assert_eq!(wire.flushes, ROUNDS);
        assert_eq!(&wire.written, want);
    }
}

fn session() -> Session {
    Session::new(Limits::default(), Instant::now())
}

#[test]
fn an_audio_frame_costs_one_read_one_write_and_no_allocation() {
    check(session());
}

#[test]
fn under_a_policy_it_costs_no_more() {
    let setup = Setup {
        dialect: ClientDialect::Ga,
        intent: Intent::Conversation,
        helpers: Arc::new(Helpers::default()),
    };
    let policy = Arc::new(Policy::pinned(Rules::default()));
    let guard = Guard::new(policy, setup).expect("there are rules");
    check(session().guarded(guard));
}
