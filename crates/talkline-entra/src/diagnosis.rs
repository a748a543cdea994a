//! What went wrong, in words, with a next step where there is one.

use std::{io, sync::Arc};

use http::StatusCode;
use talkline_auth::TokenError;

use crate::{
    Identity,
    answer::Complaint,
    redact::Redactor,
    transport::{Answer, Failure},
};

/// Who was asked, and on whose behalf.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// The [`TokenSource::name`](talkline_auth::TokenSource::name).
    pub(crate) source_name: &'static str,
    /// Host and port.
    pub(crate) place: String,
    pub(crate) asked: Asked,
}

#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// The metadata service of virtual machines and AKS nodes.
    Imds(Identity),
    /// The identity endpoint of App Service, Functions and Container Apps.
    AppService(Identity),
    Entra {
        /// What the assertion claims about its bearer, when there is one: fit to be shown.
        claims: Option<String>,
    },
}

/// One sentence, what to do about it, and whether that is the only way out.
struct Finding {
    what: String,
    hint: Option<String>,
    permanent: bool,
}

impl Finding {
    fn transient(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: None,
            permanent: false,
        }
    }

    fn permanent(what: impl Into<String>) -> Self {
        Self {
            permanent: true,
            ..Self::transient(what)
        }
    }

    fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

impl Subject {
    /// A failure of the transport.
    pub(crate) fn failure(&self, failure: Failure, redactor: &Redactor) -> TokenError {
        let place = &self.place;
        let finding = match failure {
            Failure::Egress { wanted } => Finding::permanent(format!(
                "a request to {wanted} was refused, only {place} may be asked"
            ))
            .hint("the process environment differs from the one the settings were read from"),
            Failure::NotLocal => Finding::permanent(format!(
                "the identity endpoint {place} is outside the private network"
            )),
            Failure::Resolve(error) => {
                self.unreached(format!("{place} cannot be resolved: {error}"))
            }
            Failure::Connect(error) => self.unreached(format!("no connection to {place}: {error}")),
            Failure::ConnectTimeout(limit) => {
                self.unreached(format!("no connection to {place} within {limit:?}"))
            }
            Failure::Timeout(limit) => {
                self.unreached(format!("no answer from {place} within {limit:?}"))
            }
            Failure::Tls(error) => tls(place, &error),
            Failure::Http(error) => {
                let error = redactor.quote(&error);
                Finding::transient(format!("{place} does not answer in HTTP/1.1: {error}"))
            }
            Failure::TooLarge(limit) => Finding::transient(format!(
                "the answer of {place} is longer than {limit} bytes"
            )),
            Failure::NotAToken {
                content_type,
                length,
                why,
            } => {
                let kind = kind(content_type.as_deref(), redactor);
                Finding::transient(format!(
                    "{place} answered with {length} bytes of {kind} that are no token: {why}"
                ))
            }
            Failure::Status(answer) => self.status(&answer, redactor),
        };
        self.error(finding)
    }

    /// A failure of the SDK, or of what came before the request.
    pub(crate) fn refused(&self, what: &str, permanent: bool) -> TokenError {
        self.error(Finding {
            permanent,
            ..Finding::transient(what)
        })
    }

    fn error(&self, finding: Finding) -> TokenError {
        let detail = match finding.hint {
            Some(hint) => format!("{}; hint: {hint}", finding.what),
            None => finding.what,
        };
        TokenError {
            source_name: self.source_name,
            detail: Arc::from(detail),
            permanent: finding.permanent,
        }
    }

    fn unreached(&self, what: String) -> Finding {
        let finding = Finding::transient(what);
        match &self.asked {
            Asked::Imds(_) => finding.hint(
                "not an Azure virtual machine or AKS node, or its metadata service is blocked; App Service and \
                 Container Apps set IDENTITY_ENDPOINT once an identity is enabled; elsewhere use another kind of credential",
            ),
            Asked::AppService(_) => finding,
            Asked::Entra { .. } => finding.hint("is the way out to Entra open?"),
        }
    }

    fn status(&self, answer: &Answer, redactor: &Redactor) -> Finding {
        let place = &self.place;
        let status = answer.status;
        if status.is_redirection() {
            // The body of a redirect repeats the location, which may hold a credential.
            return Finding::permanent(format!(
                "{place} answered {status}, and redirects are not followed"
            ));
        }
        let complaint = Complaint::read(&answer.body);
        let mut what = format!("{place} answered {status}");
        if !complaint.json && !answer.body.is_empty() {
            let kind = kind(answer.content_type.as_deref(), redactor);
            what.push_str(&format!(" with {kind}, not JSON"));
        }
        let said = redactor.quote(&complaint.text);
        if !said.is_empty() {
            what.push_str(&format!(": {said}"));
        }
        if let Some(code) = complaint
            .aadsts
            .filter(|code| !said.contains(&code.to_string()))
        {
            what.push_str(&format!(" (AADSTS{code})"));
        }
        if let Some(id) = complaint
            .correlation_id
            .as_ref()
            .or(answer.correlation_id.as_ref())
        {
            what.push_str(&format!(" (correlation id {})", redactor.quote(id)));
        }
        let finding = Finding {
            permanent: !self.may_pass(status, &complaint),
            ..Finding::transient(what)
        };
        match self.status_hint(status, &complaint) {
            Some(hint) => finding.hint(hint),
            None => finding,
        }
    }

    /// Whether the same request can succeed later. The AADSTS numbers may change, says Microsoft,
    /// so they only ever turn a permanent failure into a transient one.
    fn may_pass(&self, status: StatusCode, complaint: &Complaint) -> bool {
        let busy = status.is_server_error()
            || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
        match self.asked {
            // IMDS answers 404 and 410 while it is being updated
            // (https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#error-handling).
            Asked::Imds(_) | Asked::AppService(_) => {
                busy || [StatusCode::NOT_FOUND, StatusCode::GONE].contains(&status)
            }
            Asked::Entra { .. } => {
                busy || complaint.error.as_deref() == Some("temporarily_unavailable")
                    || matches!(
                        complaint.aadsts,
                        Some(50_196 | 90_006 | 90_033 | 90_055 | 700_024)
                    )
            }
        }
    }

    fn status_hint(&self, status: StatusCode, complaint: &Complaint) -> Option<String> {
        match &self.asked {
            Asked::Entra { .. } if !complaint.json => Some(
                "this does not come from Entra but from something on the way, a proxy perhaps"
                    .into(),
            ),
            Asked::Entra { claims } => {
                let code = complaint.aadsts?;
                let hint = aadsts_hint(code)?;
                Some(match claims {
                    Some(claims) if FEDERATION.contains(&code) => format!("{hint}: {claims}"),
                    _ => hint.to_owned(),
                })
            }
            Asked::Imds(identity) | Asked::AppService(identity) => match status.as_u16() {
                400 => Some(match identity {
                    Identity::System => {
                        "enable the system-assigned identity, or name a user-assigned one".into()
                    }
                    named => format!("is {named} assigned to this host?"),
                }),
                403 if complaint.text.contains("unreachable") => Some(
                    "this is not an Azure host: a proxy answered for the metadata service".into(),
                ),
                404 | 410 => Some("the identity service is being updated".into()),
                429 => Some("too many token requests from this host".into()),
                _ => None,
            },
        }
    }
}

/// The assertion fits no federated credential.
const FEDERATION: [u32; 4] = [70_021, 700_211, 700_212, 700_213];

/// Meanings: <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>.
fn aadsts_hint(code: u32) -> Option<&'static str> {
    Some(match code {
        7_000_215 => "the client secret is wrong; was the secret's id copied instead of its value?",
        7_000_222 => "the client secret has expired; create a new one",
        700_016 => "the application is not in this tenant: check client id, tenant id and cloud",
        90_002 | 900_023 => "no such tenant: check the tenant id and the cloud",
        70_021 | 700_211..=700_213 => {
            "no federated credential of the application matches this token's issuer, subject and audience"
        }
        700_024 => {
            "the token file is out of date or the clock is wrong; is the file being rotated?"
        }
        70_011 | 500_011 | 1_002_012 => {
            "the scope is not known in this tenant; does its cloud fit the authority's?"
        }
        50_105 | 53_003 | 65_001 => {
            "the tenant forbids it: conditional access, missing assignment or missing consent"
        }
        50_196 | 90_006 | 90_033 | 90_055 => "Entra is busy or throttles this application",
        _ => return None,
    })
}

fn tls(place: &str, error: &io::Error) -> Finding {
    let what = format!("no TLS connection to {place}: {error}");
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(_)) => Finding::permanent(what).hint(
            "does a proxy inspect TLS here? its authority has to be trusted, with SSL_CERT_FILE for example",
        ),
        _ => Finding::transient(what),
    }
}

/// A content type, as far as it can be shown.
fn kind(content_type: Option<&str>, redactor: &Redactor) -> String {
    match content_type {
        Some(value) => redactor.quote(value),
        None => "no content type".into(),
    }
}
