//! What Key Vault's refusals mean.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;

use super::{VaultError, VaultReference};
use crate::{
    answer::Complaint,
    diagnosis::{Codes, Finding, SOMETHING_BETWEEN, is_busy, said},
    redact::Redactor,
    transport::{Answer, Failure},
};

const CODES: Codes = Codes {
    unreachable: "vault_unreachable",
    tls: "vault_tls",
    not_http: "vault_not_http",
    not_json: "vault_not_json",
    malformed: "vault_malformed",
    wanted: "secret",
};

pub(super) fn explain(
    reference: &VaultReference,
    failure: &Failure,
    redactor: &Redactor,
) -> VaultError {
    let finding = match (CODES.failure(&reference.host(), failure, redactor), failure) {
        (Ok(finding), Failure::Resolve(_)) => finding.hint(format!(
            "does the vault exist? az keyvault show --name {}; behind a private endpoint its private DNS zone \
             must be linked to this network",
            reference.vault()
        )),
        (Ok(finding), _) if finding.code == CODES.unreachable => finding.hint(format!(
            "is the way out to https://{} open, in the firewall and in the network policy?",
            reference.host()
        )),
        (Ok(finding), _) => finding,
        (Err(answer), _) => status(reference, answer, redactor),
    };
    VaultError {
        code: finding.code,
        detail: Arc::from(finding.what),
        hint: finding.hint.map(Arc::from),
        http_status: finding.http_status,
        retry_after: finding.retry_after,
        permanent: finding.permanent,
    }
}

fn status(reference: &VaultReference, answer: &Answer, redactor: &Redactor) -> Finding {
    let host = reference.host();
    let status = answer.status;
    let complaint = Complaint::read(&answer.body);
    let finding = if status.is_redirection() {
        Finding::permanent(
            CODES.not_json,
            format!("{host} answered {status}, and redirects are not followed"),
        )
        .hint(SOMETHING_BETWEEN)
    } else {
        let (code, hint) = meaning(reference, answer, &complaint);
        // A challenge is quoted in it.
        let hint = hint.map(|hint| redactor.quote(&hint));
        Finding {
            hint,
            permanent: !is_busy(status),
            ..Finding::transient(code, said(&host, answer, &complaint, redactor))
        }
    };
    Finding {
        http_status: Some(status.as_u16()),
        retry_after: answer.retry_after,
        ..finding
    }
}

/// Codes: <https://learn.microsoft.com/azure/key-vault/general/rest-error-codes>.
fn meaning(
    reference: &VaultReference,
    answer: &Answer,
    complaint: &Complaint,
) -> (&'static str, Option<String>) {
    let (vault, name) = (reference.vault(), reference.name());
    let inner = inner_code(&answer.body);
    let says = |code: &str| inner.as_deref() == Some(code) || complaint.text.contains(code);
    let network = || {
        format!(
            "the vault's firewall does not let this address in: az keyvault network-rule add --name {vault} \
             --ip-address <address of the way out>, or use a private endpoint"
        )
    };
    let role = || {
        format!(
            "az role assignment create --role \"Key Vault Secrets User\" --assignee-object-id <principal> \
             --assignee-principal-type ServicePrincipal --scope $(az keyvault show --name {vault} --query id \
             --output tsv); it takes up to 10 minutes to apply"
        )
    };
    let (code, hint) = match answer.status {
        StatusCode::UNAUTHORIZED => return unauthorized(reference, answer, complaint),
        StatusCode::FORBIDDEN if says("ForbiddenByRbac") => ("vault_forbidden_rbac", role()),
        StatusCode::FORBIDDEN if says("ForbiddenByConnection") || says("ForbiddenByFirewall") => {
            ("vault_forbidden_network", network())
        }
        StatusCode::FORBIDDEN
            if complaint.text.contains("Client address is not authorized")
                || complaint.text.contains("Public network access is disabled") =>
        {
            ("vault_forbidden_network", network())
        }
        StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST if says("SecretDisabled") => (
            "vault_secret_disabled",
            format!(
                "az keyvault secret set-attributes --vault-name {vault} --name {name} --enabled true"
            ),
        ),
        StatusCode::FORBIDDEN if says("ForbiddenByPolicy") || says("AccessDenied") => (
            "vault_forbidden_policy",
            format!(
                "az keyvault set-policy --name {vault} --object-id <principal> --secret-permissions get"
            ),
        ),
        StatusCode::FORBIDDEN if complaint.json => ("vault_forbidden", role()),
        StatusCode::NOT_FOUND if complaint.json => (
            "vault_secret_not_found",
            format!(
                "is {name} its name, and is the version right? az keyvault secret list --vault-name {vault} \
                 --query [].name"
            ),
        ),
        StatusCode::TOO_MANY_REQUESTS => (
            "vault_throttled",
            "too many requests to this vault; which other program reads it?".into(),
        ),
        status if is_busy(status) => return ("vault_unavailable", None),
        _ if !complaint.json => ("vault_not_json", SOMETHING_BETWEEN.into()),
        _ => return ("vault_refused", None),
    };
    (code, Some(hint))
}

/// The token is not taken. What the challenge asks for says why.
fn unauthorized(
    reference: &VaultReference,
    answer: &Answer,
    complaint: &Complaint,
) -> (&'static str, Option<String>) {
    if complaint.text.contains("AKV10000") {
        let hint = "the vault did not see the token that was sent; does a proxy remove the Authorization header?";
        return ("vault_unauthorized", Some(hint.into()));
    }
    let challenge = answer.challenge.as_deref().unwrap_or_default();
    let domain = reference.domain();
    let resource = parameter(challenge, "resource").or_else(|| parameter(challenge, "scope"));
    if resource.is_some_and(|resource| !belongs(resource, domain)) {
        return (
            "vault_challenge_foreign",
            Some(format!(
                "what answers for {} asks for a token of another service and gets none; a vault asks for {domain}",
                reference.host()
            )),
        );
    }
    let tenant = parameter(challenge, "authorization")
        .or_else(|| parameter(challenge, "authorization_uri"))
        .and_then(|authority| authority.trim_end_matches('/').rsplit('/').next())
        .filter(|tenant| crate::authority::check_id("tenant id", tenant).is_ok());
    let hint = match tenant {
        Some(tenant) => format!(
            "the vault belongs to tenant {tenant}; is the token of that tenant, and for {}?",
            reference.scope()
        ),
        None => format!("is the token for {}?", reference.scope()),
    };
    ("vault_unauthorized", Some(hint))
}

/// Whether a challenge's resource is the vault's own: `https://vault.azure.net`, say, for
/// `contoso.vault.azure.net`.
fn belongs(resource: &str, domain: &str) -> bool {
    let host = resource
        .strip_prefix("https://")
        .map(|rest| rest.strip_suffix("/.default").unwrap_or(rest))
        .map(|rest| rest.trim_end_matches('/'));
    host.is_some_and(|host| host.eq_ignore_ascii_case(domain))
}

/// A parameter of a challenge (RFC 9110, section 11.6.1).
fn parameter<'a>(challenge: &'a str, name: &str) -> Option<&'a str> {
    let parameters = challenge.trim().strip_prefix("Bearer ")?;
    parameters
        .split([',', ' '])
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(key, _)| key.trim().eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().trim_matches('"'))
}

/// `error.innererror.code`, which says more than `error.code`.
fn inner_code(body: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let code = answer.get("error")?.get("innererror")?.get("code")?;
    Some(code.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        fn check(challenge: &str, name: &str, expected: Option<&str>) {
            assert_eq!(parameter(challenge, name), expected, "{challenge}");
        }
        let real = r#"Bearer authorization="https://login.microsoftonline.com/t-1", resource="https://vault.azure.net""#;
        check(real, "resource", Some("https://vault.azure.net"));
        check(
            real,
            "authorization",
            Some("https://login.microsoftonline.com/t-1"),
        );
        check(real, "scope", None);
        check("Bearer resource=a,scope=b", "scope", Some("b"));
        check("Basic realm=\"x\"", "realm", None);
        check("", "resource", None);
    }

    #[test]
    fn a_resource_belongs_to_its_domain_alone() {
        fn check(resource: &str, belonging: bool) {
            assert_eq!(
                belongs(resource, "vault.azure.net"),
                belonging,
                "{resource}"
            );
        }
        check("https://vault.azure.net", true);
        check("https://vault.azure.net/", true);
        check("https://vault.azure.net/.default", true);
        check("https://VAULT.azure.net", true);
        check("http://vault.azure.net", false);
        check("https://vault.azure.cn", false);
        check("https://evilvault.azure.net", false);
        check("https://vault.azure.net.evil.example", false);
        check("https://management.azure.com", false);
        check("", false);
    }
}
