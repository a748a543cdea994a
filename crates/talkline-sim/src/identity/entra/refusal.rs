//! The ways in which Entra says no, each a named one.

use serde_json::{Value, json};

use crate::ids;

use super::super::calendar;
use super::app::TokenRequest;
use super::{ClientProof, LineBreaks};

/// Makes the enum and its table from one list, so that neither can miss an entry.
macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $status:literal $error:literal, $text:literal;)*) => {
        /// A refusal of the token endpoint: an AADSTS number, a status, an OAuth error (RFC 6749, section 5.2) and a
        /// text.
        ///
        /// Texts are those of Microsoft's list of AADSTS error codes and of what people reported, with the request's
        /// own names in them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum EntraRefusal {
            $($(#[$doc])* $name,)*
        }

        impl EntraRefusal {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The number after `AADSTS`.
            #[must_use]
            pub fn aadsts(self) -> u32 {
                match self { $(Self::$name => $number,)* }
            }

            /// The HTTP status.
            #[must_use]
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// The value of `error`.
            #[must_use]
            pub fn error(self) -> &'static str {
                match self { $(Self::$name => $error,)* }
            }

            fn template(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

refusals! {
    /// The secret is not the client's; often it is the secret's id.
    WrongSecret = 7000215, 401 "invalid_client", "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{client}'.";
    /// The secret has expired.
    SecretExpired = 7000222, 401 "invalid_client", "The provided client secret keys for app '{client}' are expired. Visit the Azure portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: https://aka.ms/certCreds.";
    /// Neither a secret nor an assertion, or both, or an assertion of another type.
    NoProof = 7000216, 401 "invalid_client", "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.";
    /// No such application in that tenant.
    UnknownApp = 700016, 400 "unauthorized_client", "Application with identifier '{client}' was not found in the directory '{tenant}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant.";
    /// No such tenant, or not in this cloud.
    UnknownTenant = 90002, 400 "invalid_request", "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant.";
    /// What stands for the tenant is neither an id nor a domain.
    MalformedTenant = 900023, 400 "invalid_request", "Specified tenant identifier '{tenant}' is neither a valid DNS name, nor a valid external domain.";
    /// The application has no federated credential.
    NoFederatedCredential = 70021, 400 "invalid_request", "No matching federated identity record found for presented assertion. Assertion Issuer: '{iss}'. Assertion Subject: '{sub}'. Assertion Audience: '{aud}'. https://learn.microsoft.com/entra/workload-id/workload-identity-federation";
    /// No federated credential of the application has that issuer.
    FederatedIssuer = 700211, 401 "invalid_client", "No matching federated identity record found for presented assertion issuer '{iss}'. Please check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation";
    /// No federated credential of the application has that audience.
    FederatedAudience = 700212, 401 "invalid_client", "No matching federated identity record found for presented assertion audience '{aud}'. Please check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation";
    /// No federated credential of the application has that subject.
    FederatedSubject = 700213, 401 "invalid_client", "No matching federated identity record found for presented assertion subject '{sub}'. Please check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation";
    /// The assertion has expired, or is not valid yet.
    AssertionExpired = 700024, 401 "invalid_client", "Client assertion is not within its valid time range. Current time: {now}, assertion valid from {nbf}, expiry time of assertion {exp}. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials .";
    /// The assertion's audience, subject or id is not what the tenant expects.
    AssertionAudience = 700023, 401 "invalid_client", "Client assertion audience claim does not match Realm issuer. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials .";
    /// The assertion is not signed by a certificate of the application.
    AssertionSignature = 700027, 401 "invalid_client", "The certificate with identifier used to sign the client assertion is not registered on application. [Reason - The key was not found.] Application '{client}'.";
    /// The assertion is no JWT.
    AssertionMalformed = 50027, 400 "invalid_request", "JWT token is invalid or malformed.";
    /// The scope is none.
    BadScope = 70011, 400 "invalid_scope", "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid.";
    /// The resource of the scope is unknown to the tenant; often one of another cloud.
    UnknownResource = 500011, 400 "invalid_resource", "The resource principal named {resource} was not found in the tenant named {tenant}. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant.";
    /// A policy forbids it.
    ConditionalAccess = 53003, 400 "invalid_grant", "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.";
    /// The application is assigned to no role of the resource.
    NotAssigned = 50105, 400 "invalid_grant", "Your administrator has configured the application '{resource}' to block users unless they are specifically granted ('assigned') access to the application. '{client}' is blocked because it is not assigned.";
    /// Nobody consented.
    ConsentRequired = 65001, 400 "invalid_grant", "The user or administrator has not consented to use the application with ID '{client}'. Send an interactive authorization request for this user and resource.";
    /// The client asks the same in a loop.
    RequestLoop = 50196, 400 "invalid_grant", "The server terminated an operation because it encountered a client request loop. Please contact your app vendor.";
    /// The tenant is throttled. [`super::EntraMode::Throttled`] adds `Retry-After`.
    Throttled = 90055, 429 "temporarily_unavailable", "There are too many incoming requests. The tenant is throttled.";
    /// Another grant than client credentials.
    GrantType = 70003, 400 "unsupported_grant_type", "The app requested an unsupported grant type '{grant}'.";
    /// No `client_id`, or not a form.
    MissingParameter = 900144, 400 "invalid_request", "The request body must contain the following parameter: 'client_id'.";
}

/// An error body, and the id that also stands in a header.
pub(super) struct Text {
    pub(super) body: Value,
    pub(super) trace_id: String,
}

impl EntraRefusal {
    pub(super) fn text(self, asked: &TokenRequest, now_unix: u64, breaks: LineBreaks) -> Text {
        let (trace_id, correlation_id) = (ids::uuid(), ids::uuid());
        let number = self.aadsts();
        let now = calendar::spaced(now_unix);
        let lines = [
            format!("AADSTS{number}: {}", self.describe(asked, now_unix)),
            format!("Trace ID: {trace_id}"),
            format!("Correlation ID: {correlation_id}"),
            format!("Timestamp: {now}"),
        ];
        let description = match breaks {
            LineBreaks::CrLf => lines.join("\r\n"),
            LineBreaks::Spaces => lines.join(" "),
        };
        let body = json!({
            "error": self.error(),
            "error_description": description,
            "error_codes": [number],
            "timestamp": now,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
            "error_uri": format!("https://login.microsoftonline.com/error?code={number}"),
        });
        Text { body, trace_id }
    }

    fn describe(self, asked: &TokenRequest, now_unix: u64) -> String {
        let claim = |name: &str| match &asked.proof {
            ClientProof::Assertion { jwt: Some(jwt), .. } => jwt.claims.get(name).cloned(),
            ClientProof::Assertion { jwt: None, .. }
            | ClientProof::None
            | ClientProof::Secret(_)
            | ClientProof::Both => None,
        };
        let text = |name: &str| match claim(name) {
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let time = |name: &str| {
            claim(name)
                .and_then(|value| value.as_u64())
                .map_or_else(String::new, calendar::rfc3339)
        };
        let resource = asked
            .scope
            .strip_suffix("/.default")
            .unwrap_or(&asked.scope);
        self.template()
            .replace("{now}", &calendar::rfc3339(now_unix))
            .replace("{nbf}", &time("nbf"))
            .replace("{exp}", &time("exp"))
            .replace("{iss}", &text("iss"))
            .replace("{sub}", &text("sub"))
            .replace("{aud}", &text("aud"))
            .replace("{client}", &asked.client_id)
            .replace("{tenant}", &asked.tenant)
            .replace("{scope}", &asked.scope)
            .replace("{resource}", resource)
            .replace("{grant}", &asked.grant_type)
    }
}
