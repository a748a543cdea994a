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

/// How the guard and the oracle came to agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agreement {
    /// The same goes on.
    Passed,
    /// Nothing goes on.
    Blocked,
    /// A message that began as an audio append and is too long to be looked at at once ended the session,
    /// because it turned out to be anything but the plain shape; a full parse finds it harmless.
    Breached,
}

/// Holds the guard's verdict on a message, in pieces that end at `cuts`, against the oracle's.
///
/// # Errors
///
/// How they differ.
pub(crate) fn agree(
    rules: &Rules,
    helpers: &Helpers,
    message: &[u8],
    cuts: &[usize],
) -> Result<Agreement, String> {
    let verdict = send(&mut guard(rules, helpers), MessageKind::Text, message, cuts);
    let expected = outcome(rules, helpers, message);
    let passed = |bytes: &[u8]| match (Tree::parse(bytes), &expected) {
        (Some(tree), Outcome::Pass(expected)) if tree == *expected => Ok(Agreement::Passed),
        _ => Err(format!("guard: {verdict:?}\noracle: {expected:?}")),
    };
    match &verdict {
        Verdict::Streamed | Verdict::Decided(Decision::Forward) => passed(message),
        Verdict::Decided(Decision::Rewrite(bytes)) => passed(bytes),
        Verdict::Decided(Decision::Answer(event)) | Verdict::Breach(event)
            if Tree::parse(event.as_bytes()).is_none() =>
        {
            Err(format!("no JSON is answered: {event}"))
        }
        Verdict::Decided(Decision::Answer(_)) | Verdict::Breach(_)
            if expected == Outcome::Blocked =>
        {
            Ok(Agreement::Blocked)
        }
        Verdict::Breach(_) if message.len() > HEAD_BYTES_MAX && !is_streamable(message) => {
            Ok(Agreement::Breached)
        }
        _ => Err(format!("guard: {verdict:?}\noracle: {expected:?}")),
    }
}
