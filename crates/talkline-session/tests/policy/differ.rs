//! Holds the guard's verdict against the oracle's.

use std::sync::Arc;

use talkline_dialect::{ClientDialect, Intent};
use talkline_frame::MessageKind;
use talkline_session::policy::{Decision, Guard, HEAD_BYTES_MAX, Helpers, Policy, Rules, Setup};

use crate::drive::{Verdict, send};
use crate::oracle::{Outcome, Tree, is_streamable, outcome};

/// A guard of a session under these rules.
pub(crate) fn guard(rules: &Rules, helpers: &Helpers) -> Guard {
    let setup = Setup {
        dialect: ClientDialect::Ga,
        intent: Intent::Conversation,
        helpers: Arc::new(helpers.clone()),
    };
    Guard::new(Arc::new(Policy::pinned(rules.clone())), setup).expect("there are rules")
}

/// Says how the guard and the oracle differ about a message, if they do.
///
/// One difference is meant: a message that began as an audio append and is too long to be looked at at
/// once ends the session when it turns out to be anything but the plain shape, although a full parse
/// might find it harmless.
pub(crate) fn difference(
    rules: &Rules,
    helpers: &Helpers,
    message: &[u8],
    cuts: &[usize],
) -> Option<String> {
    let verdict = send(&mut guard(rules, helpers), MessageKind::Text, message, cuts);
    let parsed = |bytes: &[u8]| match Tree::parse(bytes) {
        Some(tree) => Outcome::Pass(tree),
        None => Outcome::Blocked,
    };
    let actual = match &verdict {
        Verdict::Streamed | Verdict::Decided(Decision::Forward) => parsed(message),
        Verdict::Decided(Decision::Rewrite(bytes)) => match parsed(bytes) {
            Outcome::Blocked => return Some(format!("no JSON was written: {verdict:?}")),
            outcome => outcome,
        },
        Verdict::Decided(Decision::Answer(event)) | Verdict::Breach(event) => {
            if Tree::parse(event.as_bytes()).is_none() {
                return Some(format!("no JSON is answered: {event}"));
            }
            Outcome::Blocked
        }
        Verdict::Decided(other) => return Some(format!("{other:?} is no verdict on a client")),
    };
    let expected = outcome(rules, helpers, message);
    if actual == expected {
        // What goes on as it came must be JSON to the oracle too.
        let passed = matches!(
            verdict,
            Verdict::Streamed | Verdict::Decided(Decision::Forward)
        );
        return (passed && expected == Outcome::Blocked)
            .then(|| format!("passed on, but blocked by the oracle: {verdict:?}"));
    }
    let is_meant = matches!(verdict, Verdict::Breach(_))
        && message.len() > HEAD_BYTES_MAX
        && !is_streamable(message);
    (!is_meant).then(|| format!("guard: {verdict:?}\noracle: {expected:?}"))
}
