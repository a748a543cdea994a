//! The claims of a token that the relay itself presents.

use base64::Engine as _;
use serde_json::Value;
use talkline_auth::Sealed;

use super::said::clean;

/// The longest token that is looked into, in bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// What kind of principal a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrincipalKind {
    /// A managed identity or an application.
    ServicePrincipal,
    /// A person, as with the Azure CLI.
    User,
}

impl PrincipalKind {
    /// The kind as `az role assignment create --assignee-principal-type` spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            PrincipalKind::ServicePrincipal => "ServicePrincipal",
            PrincipalKind::User => "User",
        }
    }
}

/// What a Microsoft Entra ID access token says of itself (Microsoft Learn, "Access token claims
/// reference"). The signature is not checked: this is for explaining, never for deciding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenClaims {
    /// `oid`: the principal that roles are assigned to. Always a GUID.
    pub object_id: Option<String>,
    /// `appid` or `azp`: the application. Always a GUID.
    pub application_id: Option<String>,
    /// `tid`: the tenant. Always a GUID.
    pub tenant_id: Option<String>,
    /// `aud`: for whom the token was issued.
    pub audience: Option<String>,
    /// `exp`, in seconds since the Unix epoch.
    pub expires_at: Option<u64>,
    /// `idtyp`: what kind of principal it is.
    pub principal: Option<PrincipalKind>,
}

impl TokenClaims {
    /// Reads the claims of a JSON Web Token; `None` when it is none.
    pub fn read(token: &str) -> Option<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let mut parts = token.split('.');
        let (_, payload, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next())
        else {
            return None;
        };
        let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(payload.trim_end_matches('='))
            .ok()?;
        let claims: Value = serde_json::from_slice(&payload).ok()?;
        let guid = |name: &str| {
            let value = claims.get(name)?.as_str()?;
            is_guid(value).then(|| value.to_ascii_lowercase())
        };
        Some(Self {
            object_id: guid("oid"),
            application_id: guid("appid").or_else(|| guid("azp")),
            tenant_id: guid("tid"),
            audience: claims
                .get("aud")
                .and_then(Value::as_str)
                .map(|audience| clean(audience, 120)),
            expires_at: claims.get("exp").and_then(Value::as_u64),
            principal: match claims.get("idtyp").and_then(Value::as_str) {
                Some("app") => Some(PrincipalKind::ServicePrincipal),
                Some("user") => Some(PrincipalKind::User),
                _ => None,
            },
        })
    }

    /// The claims of the token that a target's credential holds, if it holds one.
    pub fn of(target: &Sealed) -> Option<Self> {
        let (name, value) = target.authentication()?;
        let token = value.expose().strip_prefix("Bearer ")?;
        (name == "authorization").then(|| Self::read(token))?
    }
}

/// The 8-4-4-4-12 form: what passes here may stand in a command line.
fn is_guid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let mut groups = text.split('-');
    lengths.into_iter().all(|length| {
        groups.next().is_some_and(|group| {
            group.len() == length && group.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    }) && groups.next().is_none()
}
