//! What went wrong, in words, with a next step where there is one.

mod entra;

use std::{fmt, io, sync::Arc, time::Duration};

use http::StatusCode;
use talkline_auth::TokenError;

pub(crate) use entra::{Client, Proof};

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
    /// Entra itself.
    Entra(Client),
}

/// One sentence, what to do about it, and whether that is the only way out.
pub(crate) struct Finding {
    pub(crate) code: &'static str,
    pub(crate) what: String,
    pub(crate) hint: Option<String>,
    pub(crate) http_status: Option<u16>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) permanent: bool,
}

impl Finding {
    pub(crate) fn transient(code: &'static str, what: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            hint: None,
            http_status: None,
            retry_after: None,
            permanent: false,
        }
    }

    pub(crate) fn permanent(code: &'static str, what: impl Into<String>) -> Self {
        Self {
            permanent: true,
            ..Self::transient(code, what)
        }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    pub(crate) fn into_token_error(self, source_name: &'static str) -> TokenError {
        TokenError {
            hint: self.hint.map(Arc::from),
            http_status: self.http_status,
            retry_after: self.retry_after,
            permanent: self.permanent,
            ..TokenError::new(source_name, self.code, self.what)
        }
    }
}

/// What the same failures are called with different services.
pub(crate) struct Codes {
    pub(crate) unreachable: &'static str,
    pub(crate) tls: &'static str,
    pub(crate) not_http: &'static str,
    pub(crate) not_json: &'static str,
    pub(crate) malformed: &'static str,
    /// What the service was asked for.
    pub(crate) wanted: &'static str,
}

/// Only sources that the SDK sends for can go astray.
const EGRESS: &str = "identity_egress_blocked";

const IDENTITY: Codes = Codes {
    unreachable: "identity_unavailable",
    tls: "identity_tls",
    not_http: "identity_not_http",
    not_json: "identity_not_json",
    malformed: "identity_malformed",
    wanted: "token",
};

const ENTRA: Codes = Codes {
    unreachable: "entra_unreachable",
    not_json: "entra_not_json",
    malformed: "entra_malformed",
    ..IDENTITY
};

impl Codes {
    /// What a failure means, unless it is an answer with an error status, which every service
    /// words in its own way.
    pub(crate) fn failure<'a>(
        &self,
        place: &str,
        failure: &'a Failure,
        redactor: &Redactor,
    ) -> Result<Finding, &'a Answer> {
        let unreached = |what: String| Finding::transient(self.unreachable, what);
        Ok(match failure {
            Failure::Egress { wanted } => Finding::permanent(
                EGRESS,
                format!("a request to {wanted} was refused, only {place} may be asked"),
            )
            .hint("the process environment differs from the one the settings were read from"),
            Failure::NotLocal => Finding::permanent(
                EGRESS,
                format!("the identity endpoint {place} is outside the private network"),
            )
            .hint("IDENTITY_ENDPOINT must name a loopback, link-local or private address"),
            Failure::Resolve(error) => unreached(format!("{place} cannot be resolved: {error}")),
            Failure::Connect(error) => unreached(format!("no connection to {place}: {error}")),
            Failure::ConnectTimeout(limit) => {
                unreached(format!("no connection to {place} within {limit:?}"))
            }
            Failure::Timeout(limit) => {
                unreached(format!("no answer from {place} within {limit:?}"))
            }
            Failure::Tls(error) => tls(self.tls, place, error),
            Failure::Http(error) => {
                let error = redactor.quote(error);
                let what = format!("{place} does not answer in HTTP/1.1: {error}");
                Finding::transient(self.not_http, what)
            }
            Failure::TooLarge(limit) => Finding::transient(
                self.malformed,
                format!("the answer of {place} is longer than {limit} bytes"),
            ),
            Failure::NotAToken {
                content_type,
                length,
                json,
                why,
            } => {
                let kind = kind(content_type.as_deref(), redactor);
                let code = if *json { self.malformed } else { self.not_json };
                let what = format!(
                    "{place} answered with {length} bytes of {kind} that are no {}: {why}",
                    self.wanted
                );
                match json {
                    true => Finding::transient(code, what),
                    false => Finding::transient(code, what).hint(SOMETHING_BETWEEN),
                }
            }
            Failure::Status(answer) => return Err(answer),
        })
    }
}

pub(crate) const SOMETHING_BETWEEN: &str = "this does not come from Azure but from something on the way, a proxy or a sign-in page perhaps";

impl Subject {
    /// A failure of the transport.
    pub(crate) fn failure(&self, failure: &Failure, redactor: &Redactor) -> TokenError {
        let finding = match self.codes().failure(&self.place, failure, redactor) {
            Ok(finding) => self.unreached(finding),
            Err(answer) => self.status(answer, redactor),
        };
        finding.into_token_error(self.source_name)
    }

    /// A failure of the SDK, or of what came before the request.
    pub(crate) fn refused(&self, code: &'static str, what: &str, permanent: bool) -> TokenError {
        Finding {
            permanent,
            ..Finding::transient(code, what)
        }
        .into_token_error(self.source_name)
    }

    /// A token without any time left.
    pub(crate) fn expired(&self) -> TokenError {
        let place = &self.place;
        Finding::transient(
            "identity_token_expired",
            format!("{place} gave a token that has already expired"),
        )
        .hint("is the clock right?")
        .into_token_error(self.source_name)
    }

    fn codes(&self) -> Codes {
        match self.asked {
            Asked::Imds(_) | Asked::AppService(_) => IDENTITY,
            Asked::Entra(_) => ENTRA,
        }
    }

    fn unreached(&self, finding: Finding) -> Finding {
        if finding.code != self.codes().unreachable {
            return finding;
        }
        match &self.asked {
            Asked::Imds(_) => finding.hint(
                "not an Azure virtual machine or AKS node, or its metadata service is blocked; App Service and \
                 Container Apps set IDENTITY_ENDPOINT once an identity is enabled (az containerapp identity assign \
                 --name <app> --resource-group <group> --system-assigned); on a laptop use azure-cli",
            ),
            Asked::AppService(_) => finding.hint(
                "the platform's own identity endpoint is down; if this lasts, restart the app",
            ),
            Asked::Entra(_) => finding.hint(format!(
                "is the way out to https://{} open, in the firewall and in the network policy?",
                self.place
            )),
        }
    }

    fn status(&self, answer: &Answer, redactor: &Redactor) -> Finding {
        let place = &self.place;
        let status = answer.status;
        let complaint = Complaint::read(&answer.body);
        let finding = if status.is_redirection() {
            // The body of a redirect repeats the location, which may hold a credential.
            Finding::permanent(
                self.codes().not_json,
                format!("{place} answered {status}, and redirects are not followed"),
            )
            .hint(SOMETHING_BETWEEN)
        } else {
            let (code, hint) = match &self.asked {
                Asked::Entra(client) => client.status(status, &complaint),
                Asked::Imds(identity) | Asked::AppService(identity) => {
                    identity_status(identity, status, &complaint)
                }
            };
            Finding {
                hint,
                permanent: !self.may_pass(status, &complaint),
                ..Finding::transient(code, said(place, answer, &complaint, redactor))
            }
        };
        Finding {
            http_status: Some(status.as_u16()),
            retry_after: answer.retry_after,
            ..finding
        }
    }

    /// Whether the same request can succeed later. The AADSTS numbers may change, says Microsoft,
    /// so they only ever turn a permanent failure into a transient one.
    fn may_pass(&self, status: StatusCode, complaint: &Complaint) -> bool {
        let busy = is_busy(status);
        match self.asked {
            // IMDS answers 404 and 410 while it is being updated
            // (https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#error-handling).
            Asked::Imds(_) | Asked::AppService(_) => {
                busy || [StatusCode::NOT_FOUND, StatusCode::GONE].contains(&status)
            }
            Asked::Entra(_) => {
                busy || complaint.error.as_deref() == Some("temporarily_unavailable")
                    || matches!(
                        complaint.aadsts,
                        Some(50_196 | 90_006 | 90_033 | 90_055 | 700_024)
                    )
            }
        }
    }
}

/// Whether a status says that the request itself was in order.
pub(crate) fn is_busy(status: StatusCode) -> bool {
    status.is_server_error()
        || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
}

/// An answer with an error status, on one line.
pub(crate) fn said(
    place: &str,
    answer: &Answer,
    complaint: &Complaint,
    redactor: &Redactor,
) -> String {
    let mut what = format!("{place} answered {}", answer.status);
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
    what
}

fn identity_status(
    identity: &Identity,
    status: StatusCode,
    complaint: &Complaint,
) -> (&'static str, Option<String>) {
    // The metadata service passes on what Entra says of the resource.
    if complaint.aadsts.is_some_and(entra::is_scope) {
        return ("entra_scope", Some(entra::SCOPE_HINT.into()));
    }
    let hint = |code, text: &dyn fmt::Display| (code, Some(text.to_string()));
    match status.as_u16() {
        400 => hint(
            "identity_not_found",
            &match identity {
                Identity::System => String::from(
                    "enable the system-assigned identity (az vm identity assign, az webapp identity assign or \
                 az containerapp identity assign --system-assigned), or name a user-assigned one",
                ),
                named => format!(
                    "is {named} assigned to this host? assign it (az vm identity assign, az webapp identity assign or \
                 az containerapp identity assign, --identities or --user-assigned <resource id>), or do not name it"
                ),
            },
        ),
        403 if complaint.text.contains("unreachable") => hint(
            "identity_not_azure",
            &"this is not an Azure host: a proxy answered for the metadata service; on a laptop use azure-cli",
        ),
        404 | 410 => hint(
            "identity_updating",
            &"the identity service is being updated, which takes a minute or so",
        ),
        429 => hint(
            "identity_throttled",
            &"too many token requests from this host; which other program asks for tokens?",
        ),
        408 | 500.. => ("identity_unavailable", None),
        _ if !complaint.json => hint("identity_not_json", &SOMETHING_BETWEEN),
        _ => ("identity_refused", None),
    }
}

fn tls(code: &'static str, place: &str, error: &io::Error) -> Finding {
    let what = format!("no TLS connection to {place}: {error}");
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(_)) => Finding::permanent(code, what).hint(
            "does a proxy inspect TLS here? its authority has to be trusted, with SSL_CERT_FILE for example",
        ),
        _ => Finding::transient(code, what),
    }
}

/// A content type, as far as it can be shown.
fn kind(content_type: Option<&str>, redactor: &Redactor) -> String {
    match content_type {
        Some(value) => redactor.quote(value),
        None => "no content type".into(),
    }
}
