//! Failures of an identity service, as diagnoses.

use talkline_auth::TokenError;

use super::{
    Diagnosis,
    facts::Facts,
    said::{clean, without_key_shapes},
    table::Row,
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

impl Diagnosis {
    /// The relay has no usable Microsoft Entra ID token for an upstream.
    ///
    /// The code of the diagnosis is `azure_identity_misconfigured` or `azure_identity_unavailable`;
    /// the identity's own code stands in the summary, its hint before the next step.
    pub fn identity(failure: &IdentityFailure<'_>) -> Self {
        let code = match failure.permanent {
            true => "azure_identity_misconfigured",
            false => "azure_identity_unavailable",
        };
        let hint = failure.hint.map(|hint| sentence(&clean(hint, 500)));
        let facts = Facts::default()
            .with("source", clean(failure.source, 40))
            .with("hint", hint.unwrap_or_default());
        let mut diagnosis = Row::named(code).diagnose(&facts);
        diagnosis.next_step = without_key_shapes(&diagnosis.next_step);
        if !failure.code.is_empty() {
            let code = clean(failure.code, 60);
            diagnosis.summary = format!("{} ({code})", diagnosis.summary);
        }
        diagnosis
    }

    /// The same, of a token source's error. What the identity service said may name tenants and
    /// identities: it is for the log, and is not part of what a client is told.
    pub fn identity_unavailable(error: &TokenError) -> Self {
        Self::identity(&IdentityFailure {
            source: error.source_name,
            permanent: error.permanent,
            ..IdentityFailure::default()
        })
    }
}

/// A fragment as a sentence with a space behind it.
fn sentence(fragment: &str) -> String {
    let mut chars = fragment.chars();
    let Some(first) = chars.next() else {
        return String::new();
    };
    let rest = chars.as_str().trim_end();
    let end = if rest.ends_with(['.', '?', '!']) {
        " "
    } else {
        ". "
    };
    format!("{}{rest}{end}", first.to_uppercase())
}
