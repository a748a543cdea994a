//! Findings about the credential itself: none to be had, or one that the upstream doubts.

use talkline_auth::TokenError;

use super::{
    Blame::{self, Operator},
    Diagnosis, Permanence, Row,
};

impl Diagnosis {
    /// The relay has no usable Microsoft Entra ID token for an upstream.
    ///
    /// What the identity service said may name tenants and identities: it is for the log, and is
    /// not part of what a client is told.
    pub fn identity_unavailable(error: &TokenError) -> Self {
        let (blame, permanence) = if error.permanent {
            (Operator, Permanence::Permanent)
        } else {
            (Blame::Network, Permanence::Transient)
        };
        let mut diagnosis = Row(
            "azure_identity_unavailable",
            blame,
            permanence,
            "",
            "Look for \"no token\" in the relay's log: it says what the identity service answered. The relay goes on asking and recovers by itself.",
        )
        .into_diagnosis();
        diagnosis.summary = format!(
            "The relay has no usable Microsoft Entra ID token: its {} gave none.",
            error.source_name
        );
        diagnosis
    }

    /// Whether the upstream answered 401 in a way that another token or key may cure: not for a
    /// missing role, a wrong tenant or a firewall.
    pub fn doubts_credential(&self) -> bool {
        let answered_401 = self
            .answer
            .as_ref()
            .is_some_and(|answer| answer.status == 401);
        answered_401
            && matches!(
                self.code,
                "azure_key_invalid"
                    | "azure_token_audience"
                    | "azure_unauthorized"
                    | "upstream_unauthorized"
            )
    }
}
