//! Failures of an identity service, as diagnoses.

use std::time::Duration;

use talkline_auth::TokenError;

use super::{
    Blame, Diagnosis, Permanence,
    facts::Facts,
    said::{clean, without_key_shapes},
    table::{Row, Section},
};

/// Why the relay has no token for an upstream.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdentityFailure<'a> {
    /// Who was asked: `managed-identity`, `workload-identity`, …
    pub source: &'a str,
    /// What kind of failure it is, in a word that stays the same; may be empty.
    pub code: &'a str,
    /// What can be done about it, without any secret.
    pub hint: Option<&'a str>,
    /// Whether asking again is useless until somebody changes something.
    pub permanent: bool,
}

/// The longest wait of an identity service that is believed.
const DAY: Duration = Duration::from_secs(86_400);
/// The code of a failure that the table does not know.
const UNKNOWN: &str = "azure_identity_unavailable";

impl Diagnosis {
    /// The relay has no usable Microsoft Entra ID token for an upstream.
    ///
    /// The code of the diagnosis is the failure's own where the table has it, and
    /// `azure_identity_unavailable` otherwise. The failure knows best whether it is permanent, which
    /// makes it the operator's.
    pub fn identity(failure: &IdentityFailure<'_>) -> Self {
        let known = Row::find(failure.code).filter(|row| row.section == Section::Identity);
        let row = known.unwrap_or(Row::named(UNKNOWN));
        let facts = Facts::default().with("source", clean(failure.source, 40));
        let mut diagnosis = row.diagnose(&facts);
        match (failure.permanent, row.permanence) {
            (true, _) => {
                diagnosis.permanence = Permanence::Permanent;
                if row.blame != Blame::Network || known.is_none() {
                    diagnosis.blame = Blame::Operator;
                }
            }
            (false, Permanence::Permanent) => diagnosis.permanence = Permanence::Transient,
            (false, _) => {}
        }
        if let Some(hint) = failure.hint {
            diagnosis.next_step = sentence(&without_key_shapes(&clean(hint, 500)));
        }
        diagnosis
    }

    /// The same, of a token source's error. What the identity service said may name tenants and
    /// identities: it is for the log, and is not part of what a client is told.
    pub fn identity_unavailable(error: &TokenError) -> Self {
        let diagnosis = Self::identity(&IdentityFailure {
            source: error.source_name,
            code: error.code,
            hint: error.hint.as_deref(),
            permanent: error.permanent,
        });
        Self {
            retry_after: error.retry_after.map(|wait| wait.min(DAY)),
            ..diagnosis
        }
    }
}

/// A fragment as a sentence.
fn sentence(fragment: &str) -> String {
    let mut chars = fragment.chars();
    let Some(first) = chars.next() else {
        return String::new();
    };
    let rest = chars.as_str().trim_end();
    let end = if rest.ends_with(['.', '?', '!']) {
        ""
    } else {
        "."
    };
    format!("{}{rest}{end}", first.to_uppercase())
}
