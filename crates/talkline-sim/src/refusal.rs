//! Every way Azure is known to refuse the upgrade, each a named constructor.
//!
//! Status, headers and body are as reported by people who met them, or as Microsoft documents them;
//! [`Refusal::by_name`] finds one by the name that, used as a deployment name, makes the simulator give it.

use serde_json::json;

/// An HTTP answer in place of the 101.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) name: &'static str,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Option<String>,
    /// Whether a `Location` is added that repeats the caller's key.
    pub(crate) redirects: bool,
}

impl Refusal {
    /// The stable name, which is also the deployment name that selects it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The body, if the answer has one.
    #[must_use]
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn empty(name: &'static str, status: u16) -> Self {
        Self {
            name,
            status,
            headers: Vec::new(),
            body: None,
            redirects: false,
        }
    }

    /// The shape of the inference service: `{"error":{"code","message"}}`.
    fn error(name: &'static str, status: u16, code: &str, message: &str) -> Self {
        let body = json!({"error": {"code": code, "message": message}});
        Self {
            body: Some(body.to_string()),
            ..Self::empty(name, status)
        }
    }

    /// The shape of the gateway in front of it: `{"statusCode","message"}`.
    fn gateway(name: &'static str, status: u16, message: &str) -> Self {
        let body = json!({"statusCode": status, "message": message});
        Self {
            body: Some(body.to_string()),
            ..Self::empty(name, status)
        }
    }

    /// The shape of api.openai.com.
    pub(crate) fn openai(name: &'static str, status: u16, code: &str, message: &str) -> Self {
        let body = json!({"error": {
            "message": message, "type": "invalid_request_error", "param": null, "code": code,
        }});
        Self {
            body: Some(body.to_string()),
            ..Self::empty(name, status)
        }
    }

    /// Both an `api-key` and a bearer token were sent. The text is ours: Azure's is not on record.
    pub(crate) fn two_credentials() -> Self {
        Self::gateway(
            "two_credentials",
            401,
            "Unauthorized. Send either an api-key header or an Authorization header, not both.",
        )
    }

    /// A request for the realtime path that does not ask for an upgrade. The text is ours.
    pub(crate) fn not_an_upgrade() -> Self {
        Self::error(
            "not_an_upgrade",
            400,
            "BadRequest",
            "The realtime operation expects a WebSocket upgrade request.",
        )
    }

    /// A GA request that names neither a model nor an intent nor a call. The text is ours.
    pub(crate) fn missing_model() -> Self {
        Self::error(
            "missing_model",
            400,
            "BadRequest",
            "Missing required query parameter: 'model'.",
        )
    }
}

/// Makes the constructors and the table from one list, so that neither can miss an entry.
macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident => $make:expr;)*) => {
        impl Refusal {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $name() -> Self {
                    let make: fn(&'static str) -> Refusal = $make;
                    make(stringify!($name))
                }
            )*

            /// All of them, in the order of this page.
            #[must_use]
            pub fn all() -> Vec<Self> {
                vec![$(Self::$name()),*]
            }

            /// The refusal of that name.
            #[must_use]
            pub fn by_name(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => Some(Self::$name()),)*
                    _ => None,
                }
            }
        }
    };
}

refusals! {
    /// 401: the key belongs to another resource, or was regenerated.
    key_invalid => |name| Refusal::error(name, 401, "401",
        "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key \
         for an active subscription and use a correct regional API endpoint for your resource.");
    /// 401: the same, in the words and shape of the gateway.
    key_invalid_apim_shape => |name| Refusal::gateway(name, 401,
        "Access denied due to invalid subscription key. Make sure to provide a valid key for an active subscription.");
    /// 401 without a body: no credential was found.
    no_auth => |name| Refusal::empty(name, 401);
    /// 401: the token is for another audience, or too old.
    token_bad_audience_or_expired => |name| Refusal::gateway(name, 401,
        "Unauthorized. Access token is missing, invalid, audience is incorrect, or have expired.");
    /// 401: the principal has no role on the resource, as older gateways say it.
    rbac_old => |name| Refusal::error(name, 401, "PermissionDenied",
        "Principal does not have access to API/Operation.");
    /// 401: the principal's roles lack the data action.
    rbac_data_action => |name| Refusal::error(name, 401, "PermissionDenied",
        "The principal `00000000-0000-0000-0000-000000000000` lacks the required data action \
         `Microsoft.CognitiveServices/accounts/OpenAI/...` to perform `GET /openai/v1/realtime` operation.");
    /// 400: the token was issued by another tenant than the resource's.
    tenant_mismatch_400 => |name| Refusal::error(name, 400,
        "Tenant provided in token does not match resource token",
        "Token tenant does not match resource tenant");
    /// 403: the resource only takes Entra tokens.
    key_auth_disabled => |name| Refusal::error(name, 403, "AuthenticationTypeDisabled",
        "Key based authentication is disabled for this resource.");
    /// 403: the caller's address is not in the resource's network rules.
    firewall => |name| Refusal::error(name, 403, "403",
        "Access denied due to Virtual Network/Firewall rules.");
    /// 403: the resource is only reachable by its private endpoint.
    public_access_disabled => |name| Refusal::error(name, 403, "403",
        "Public access is disabled. Please configure private endpoint.");
    /// 403: the resource is suspended. Only the middle of the sentence is documented.
    resource_blocked => |name| Refusal::error(name, 403, "403",
        "...resource has been temporarily blocked...");
    /// 404: no deployment of that name, or one younger than five minutes.
    deployment_not_found => |name| Refusal::error(name, 404, "DeploymentNotFound",
        "The API deployment for this resource does not exist. If you created the deployment within the last \
         5 minutes, please wait a moment and try again.");
    /// 404: a path that does not exist, or a preview path without `api-version`.
    resource_not_found => |name| Refusal::error(name, 404, "404", "Resource not found");
    /// 400: the deployment's model is not a realtime one. The code is misspelled by the service.
    model_not_realtime => |name| Refusal::error(name, 400, "OpperationNotSupported",
        "The realtime operation does not work with the specified model. Please choose different model and try again.")
        .header("x-ms-region", "France Central");
    /// 400: the api-version is unknown or retired.
    api_version_bad => |name| Refusal::error(name, 400, "BadRequest", "API version not supported");
    /// 401 without a body: an api-version on the GA path, as Microsoft's migration guide lists it.
    api_version_on_ga => |name| Refusal::empty(name, 401);
    /// 429: too many calls; `retry-after` says how many seconds to wait.
    rate_limit_calls => |name| Refusal::error(name, 429, "429",
        "Requests to the Realtime Operation under Azure OpenAI API version v1 have exceeded call rate limit of \
         your current OpenAI S0 pricing tier. Please retry after 38 seconds. Please go here: \
         https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit.")
        .header("retry-after", "38").header("x-ratelimit-remaining-requests", "0");
    /// 302 to the same host, with the caller's own key in the query of `Location`.
    redirect_302 => |name| Refusal { redirects: true, ..Refusal::empty(name, 302) };
    /// 400: a translation model on the plain realtime path.
    translate_on_realtime_path => |name| Refusal {
        name,
        ..Refusal::model_not_realtime()
    };
    /// 401 without a body: the key was offered as a subprotocol, as browsers do with OpenAI.
    subprotocol_auth => |name| Refusal::empty(name, 401);
    /// 500: the service failed.
    internal_error => |name| Refusal::error(name, 500, "InternalServerError",
        "The server had an error while processing your request. Sorry about that!");
    /// 502: no instance behind the front end answers.
    no_healthy_upstream => |name| Refusal {
        headers: vec![("content-type", "text/plain".to_owned())],
        body: Some("no healthy upstream".to_owned()),
        ..Refusal::empty(name, 502)
    };
    /// 503 without a body.
    unavailable => |name| Refusal::empty(name, 503);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_name_and_refuses() {
        for refusal in Refusal::all() {
            assert_eq!(Refusal::by_name(refusal.name()).as_ref(), Some(&refusal));
            assert!(refusal.status() >= 300, "{}", refusal.name());
        }
        assert_eq!(Refusal::by_name("voice"), None);
    }
}
