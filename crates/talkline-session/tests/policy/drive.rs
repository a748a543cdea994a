//! A relay without sockets: shows a message to a guard in pieces, as the module documentation says.

use talkline_frame::MessageKind;
use talkline_session::Side;
use talkline_session::policy::{Decision, Guard, HEAD_BYTES_MAX, Look, Watch};

/// What came of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It went upstream as it came, decided from its first bytes.
    Streamed,
    /// The session ended while its end was outstanding.
    Breach(String),
    /// It was held and decided.
    Decided(Decision),
}

/// Sends a message of the client's in pieces that end at `cuts`, ascending.
pub(crate) fn send(
    guard: &mut Guard,
    kind: MessageKind,
    message: &[u8],
    cuts: &[usize],
) -> Verdict {
    let side = Side::Client;
    if guard.begin(side, kind) == Watch::Pass {
        return Verdict::Streamed;
    }
    let ends = cuts.iter().copied().chain([message.len()]);
    let mut shown: Option<usize> = None;
    for end in ends {
        let end = end.min(message.len());
        match shown {
            None => {
                let head = &message[..end.min(HEAD_BYTES_MAX)];
                let complete = end == message.len() && end <= HEAD_BYTES_MAX;
                match guard.look(side, head, complete) {
                    Look::More => assert!(!complete && head.len() < HEAD_BYTES_MAX, "no verdict"),
                    Look::Hold => return Verdict::Decided(guard.decide(side, kind, message)),
                    Look::Stream => {
                        if let Err(breach) = guard.stream(side, &message[head.len()..end]) {
                            return Verdict::Breach(breach.0.event);
                        }
                        shown = Some(end);
                    }
                }
            }
            Some(start) => {
                if let Err(breach) = guard.stream(side, &message[start..end.max(start)]) {
                    return Verdict::Breach(breach.0.event);
                }
                shown = Some(end.max(start));
            }
        }
    }
    match guard.stream_end(side) {
        Ok(()) => Verdict::Streamed,
        Err(breach) => Verdict::Breach(breach.0.event),
    }
}
