//! What tells the metadata service and the App Service endpoint apart.

use serde_json::{Value, json};

use crate::caller::Secret;
use crate::record::SeenRequest;

use super::super::form::value;
use super::rules::Granted;

/// Which endpoint it is.
#[derive(Debug)]
pub(super) enum Endpoint {
    /// The metadata service of a virtual machine.
    Imds,
    /// That of App Service and Container Apps.
    AppService {
        /// The value of `X-IDENTITY-HEADER`.
        secret: Secret,
    },
}

/// By what an identity is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Id {
    Client,
    Object,
    Resource,
}

/// A status and a text that refuse a request.
#[derive(Debug)]
pub(super) struct Objection {
    pub(super) status: u16,
    pub(super) error: &'static str,
    pub(super) description: &'static str,
}

impl Objection {
    fn bad(description: &'static str) -> Self {
        Self {
            status: 400,
            error: "invalid_request",
            description,
        }
    }

    fn not_found() -> Self {
        Self {
            status: 404,
            error: "not_found",
            description: "Not found",
        }
    }
}

impl Endpoint {
    /// The secret of App Service; the metadata service has none.
    pub(super) fn secret(&self) -> &str {
        match self {
            Self::Imds => "",
            Self::AppService { secret } => secret.expose(),
        }
    }

    /// The parameters that name a user-assigned identity.
    pub(super) fn names(&self) -> &'static [(&'static str, Id)] {
        match self {
            Self::Imds => &[
                ("client_id", Id::Client),
                ("object_id", Id::Object),
                ("msi_res_id", Id::Resource),
            ],
            Self::AppService { .. } => &[
                ("client_id", Id::Client),
                ("principal_id", Id::Object),
                ("object_id", Id::Object),
                ("mi_res_id", Id::Resource),
            ],
        }
    }

    /// What is said of an identity that is not there.
    pub(super) fn no_identity(&self) -> &'static str {
        match self {
            Self::Imds => "Identity not found",
            Self::AppService { .. } => {
                "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId."
            }
        }
    }

    /// Why the request is none of the endpoint's, if so.
    pub(super) fn check(
        &self,
        request: &SeenRequest,
        query: &[(String, String)],
    ) -> Result<(), Objection> {
        match self {
            Self::Imds => check_imds(request, query),
            Self::AppService { secret } => check_app_service(request, query, secret.expose()),
        }
    }

    /// The body for a token.
    pub(super) fn grant(&self, token: &Granted<'_>) -> Value {
        let mut body = json!({
            "access_token": token.issued.token,
            "client_id": token.identity.client_id,
            "resource": token.resource,
            "token_type": "Bearer",
        });
        if let Self::Imds = self {
            let ttl_secs = token.issued.ttl_secs.to_string();
            body["expires_in"] = ttl_secs.clone().into();
            body["ext_expires_in"] = ttl_secs.into();
            body["not_before"] = token.issued.not_before_unix.to_string().into();
        }
        token.date(&mut body);
        body
    }

    /// The body of an error.
    pub(super) fn error(&self, status: u16, error: &str, description: &str) -> Value {
        match self {
            Self::Imds => json!({"error": error, "error_description": description}),
            Self::AppService { .. } => json!({"statusCode": status, "message": description}),
        }
    }
}

fn check_imds(request: &SeenRequest, query: &[(String, String)]) -> Result<(), Objection> {
    const VERSIONS: [&str; 6] = [
        "2018-02-01",
        "2019-08-01",
        "2020-06-01",
        "2021-02-01",
        "2023-07-01",
        "2025-04-07",
    ];
    if request.method != "GET" || request.path != "/metadata/identity/oauth2/token" {
        return Err(Objection::not_found());
    }
    // The service refuses what a proxy passed on, so that no server can be lured into asking for somebody else.
    if request.header("x-forwarded-for").is_some() {
        return Err(Objection::bad(
            "Requests with the header X-Forwarded-For are not allowed",
        ));
    }
    if request
        .header("metadata")
        .is_none_or(|value| !value.eq_ignore_ascii_case("true"))
    {
        return Err(Objection::bad("Required metadata header not specified"));
    }
    match value(query, "api-version") {
        Some(version) if VERSIONS.contains(&version) => Ok(()),
        Some(_) => Err(Objection::bad("The api-version is not supported")),
        None => Err(Objection::bad(
            "Required query variable 'api-version' is missing",
        )),
    }
}

fn check_app_service(
    request: &SeenRequest,
    query: &[(String, String)],
    secret: &str,
) -> Result<(), Objection> {
    if request.method != "GET" || request.path != "/msi/token" {
        return Err(Objection::not_found());
    }
    if request.header("x-identity-header") != Some(secret) {
        let description = "The identity header is missing or wrong.";
        return Err(Objection {
            status: 401,
            error: "unauthorized",
            description,
        });
    }
    if value(query, "msi_res_id").is_some() {
        return Err(Objection::bad(
            "The parameter 'msi_res_id' is not one of this endpoint.",
        ));
    }
    match value(query, "api-version") {
        Some("2019-08-01") => Ok(()),
        Some(_) | None => Err(Objection::bad(
            "The api-version is missing or not supported.",
        )),
    }
}
