//! What Entra's refusals mean.

use http::StatusCode;

use super::SOMETHING_BETWEEN;
use crate::{Application, answer::Complaint};

/// The application on whose behalf Entra was asked.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) client_id: String,
    pub(crate) proof: Proof,
}

/// How the application proved who it is.
#[derive(Clone, Debug)]
pub(crate) enum Proof {
    Secret,
    /// An assertion signed with a certificate, of which this is the thumbprint.
    Certificate {
        thumbprint: Option<String>,
    },
    Federated {
        /// What the token claims about its bearer: fit to be shown.
        claims: Option<String>,
    },
}

impl Client {
    pub(crate) fn new(application: &Application, proof: Proof) -> Self {
        Self {
            client_id: application.client_id.clone(),
            proof,
        }
    }

    /// The code of a refusal, and the next step.
    pub(super) fn status(
        &self,
        status: StatusCode,
        complaint: &Complaint,
    ) -> (&'static str, Option<String>) {
        if !complaint.json && !complaint.text.is_empty() {
            return ("entra_not_json", Some(SOMETHING_BETWEEN.into()));
        }
        if let Some((code, hint)) = complaint.aadsts.and_then(|number| self.aadsts(number)) {
            return (code, Some(hint));
        }
        match status.as_u16() {
            429 => ("entra_throttled", Some(THROTTLED_HINT.into())),
            408 | 500.. => ("entra_unavailable", None),
            _ if complaint.error.as_deref() == Some("temporarily_unavailable") => {
                ("entra_unavailable", None)
            }
            _ => ("entra_refused", None),
        }
    }

    /// Meanings: <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>.
    fn aadsts(&self, number: u32) -> Option<(&'static str, String)> {
        let id = &self.client_id;
        Some(match number {
            7_000_215 => (
                "entra_secret_wrong",
                format!(
                    "the client secret is wrong; was the secret's id copied instead of its value? \
                     a new one: az ad app credential reset --id {id} --append"
                ),
            ),
            7_000_222 => (
                "entra_secret_expired",
                format!(
                    "the client secret has expired; create a new one: az ad app credential reset --id {id} --append"
                ),
            ),
            700_016 => (
                "entra_app_not_found",
                format!(
                    "the application is not in this tenant: check client id, tenant id and cloud, with \
                     az ad app show --id {id} and az account show --query tenantId"
                ),
            ),
            90_002 | 900_023 => (
                "entra_tenant_not_found",
                "no such tenant: check the tenant id and the cloud, with az account show --query tenantId \
                 and az cloud show --query name"
                    .into(),
            ),
            70_021 | 700_211..=700_213 => ("entra_federation_mismatch", self.federation_hint()),
            700_024 => ("entra_assertion_expired", self.assertion_hint()),
            700_027 => ("entra_certificate_unknown", self.certificate_hint()),
            number if is_scope(number) => ("entra_scope", SCOPE_HINT.into()),
            53_003 => (
                "entra_conditional_access",
                "the tenant forbids it: a conditional access policy for workload identities applies; its \
                 administrator finds which under the sign-in logs of service principals"
                    .into(),
            ),
            50_105 => (
                "entra_assignment",
                "the tenant forbids it: the resource demands that applications are assigned to it, and this one \
                 is not; assign it, or az ad sp update --id <resource's application id> \
                 --set appRoleAssignmentRequired=false"
                    .into(),
            ),
            65_001 => (
                "entra_consent",
                format!(
                    "the tenant forbids it: consent is missing; an administrator runs az ad app permission admin-consent --id {id}"
                ),
            ),
            50_196 | 90_006 | 90_033 | 90_055 => ("entra_throttled", THROTTLED_HINT.into()),
            _ => return None,
        })
    }

    fn federation_hint(&self) -> String {
        let id = &self.client_id;
        let hint = format!(
            "no federated credential of the application matches this token's issuer, subject and audience; \
             compare with az ad app federated-credential list --id {id}"
        );
        match &self.proof {
            Proof::Federated {
                claims: Some(claims),
            } => format!("{hint}: {claims}"),
            _ => hint,
        }
    }

    fn assertion_hint(&self) -> String {
        match self.proof {
            Proof::Certificate { .. } => {
                "is the clock right? the assertion is good for minutes only"
            }
            _ => "the token file is out of date or the clock is wrong; is the file being rotated?",
        }
        .into()
    }

    fn certificate_hint(&self) -> String {
        let id = &self.client_id;
        let register = format!(
            "the application does not know this certificate, or it has expired; register it: \
             az ad app credential reset --id {id} --cert @certificate.pem --append"
        );
        match &self.proof {
            Proof::Certificate {
                thumbprint: Some(thumbprint),
            } => format!("{register} (its SHA-256 thumbprint is {thumbprint})"),
            _ => register,
        }
    }
}

const THROTTLED_HINT: &str =
    "Entra is busy or throttles this application; which other program asks for its tokens?";

pub(super) const SCOPE_HINT: &str = "the scope is not known in this tenant; does its cloud fit the authority's? \
     https://cognitiveservices.azure.com/.default is the public cloud's, .us the government's";

/// A resource that the tenant does not know.
pub(super) fn is_scope(number: u32) -> bool {
    [70_011, 500_011, 1_002_012].contains(&number)
}
