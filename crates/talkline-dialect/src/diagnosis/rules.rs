//! Which answer of an upstream leads to which row: the first rule that fits.

use std::ops::RangeInclusive;

use super::said::Said;
use crate::{AzureApi, Intent, Upstream};

/// One line of the decision: every condition must hold.
struct Rule {
    status: &'static [RangeInclusive<u16>],
    says: Says,
    when: When,
    code: &'static str,
}

/// What code and message must contain, in lower case.
enum Says {
    Anything,
    /// One of these.
    Any(&'static [&'static str]),
    /// All of these.
    All(&'static [&'static str]),
    /// The body is a web page.
    Html,
}

/// What must be true of the request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    GaPathWithVersion,
    Transcription,
}

const fn rule(
    status: &'static [RangeInclusive<u16>],
    says: Says,
    when: When,
    code: &'static str,
) -> Rule {
    Rule {
        status,
        says,
        when,
        code,
    }
}

const REDIRECT: &[RangeInclusive<u16>] = &[300..=399];
const REFUSED: &[RangeInclusive<u16>] = &[401..=401, 403..=403];
const BAD: &[RangeInclusive<u16>] = &[400..=400];
const BAD_OR_REFUSED: &[RangeInclusive<u16>] = &[400..=401, 403..=403];
const NOT_FOUND: &[RangeInclusive<u16>] = &[404..=404];
const BAD_OR_NOT_FOUND: &[RangeInclusive<u16>] = &[400..=400, 404..=404];
const THROTTLED: &[RangeInclusive<u16>] = &[429..=429];
const NOT_AN_UPGRADE: &[RangeInclusive<u16>] = &[100..=299, 426..=426];
const PROXY: &[RangeInclusive<u16>] = &[407..=407, 511..=511];
const CLIENT_ERROR: &[RangeInclusive<u16>] = &[400..=407, 409..=499];

use Says::{All, Any, Anything, Html};
use When::{Always, GaPathWithVersion, Transcription};

/// Azure, and the gateways that stand in front of it.
static AZURE: &[Rule] = &[
    rule(REDIRECT, Anything, Always, "azure_upgrade_redirect"),
    rule(PROXY, Anything, Always, "azure_answered_by_proxy"),
    rule(REFUSED, Html, Always, "azure_answered_by_proxy"),
    rule(
        REFUSED,
        Any(&[
            "permissiondenied",
            "does not have access to api/operation",
            "lacks the required data action",
        ]),
        Always,
        "azure_rbac_missing",
    ),
    rule(
        REFUSED,
        Any(&["virtual network/firewall rules"]),
        Always,
        "azure_firewall",
    ),
    rule(
        REFUSED,
        Any(&["public access is disabled"]),
        Always,
        "azure_private_only",
    ),
    rule(
        BAD_OR_REFUSED,
        Any(&[
            "authenticationtypedisabled",
            "key based authentication is disabled",
        ]),
        Always,
        "azure_key_auth_disabled",
    ),
    rule(
        REFUSED,
        Any(&["temporarily blocked"]),
        Always,
        "azure_resource_suspended",
    ),
    rule(
        BAD_OR_REFUSED,
        Any(&["invalidauthenticationtokentenant"]),
        Always,
        "azure_tenant_mismatch",
    ),
    rule(
        BAD_OR_REFUSED,
        All(&["tenant", "does not match"]),
        Always,
        "azure_tenant_mismatch",
    ),
    rule(
        REFUSED,
        Any(&[
            "audience",
            "access token is missing",
            "token has expired",
            "token is expired",
        ]),
        Always,
        "azure_token_audience",
    ),
    rule(
        REFUSED,
        Any(&["missing subscription key"]),
        Always,
        "azure_gateway_key_missing",
    ),
    rule(
        REFUSED,
        Any(&["subscription key", "wrong api endpoint"]),
        Always,
        "azure_key_invalid",
    ),
    rule(
        REFUSED,
        Anything,
        GaPathWithVersion,
        "azure_api_version_on_ga",
    ),
    rule(REFUSED, Anything, Always, "azure_unauthorized"),
    rule(
        BAD_OR_NOT_FOUND,
        Any(&[
            "deploymentnotfound",
            "deployment for this resource does not exist",
        ]),
        Always,
        "azure_deployment_not_found",
    ),
    rule(
        BAD_OR_NOT_FOUND,
        Any(OPERATION),
        Transcription,
        "azure_transcription_not_supported",
    ),
    rule(
        BAD_OR_NOT_FOUND,
        Any(OPERATION),
        Always,
        "azure_model_not_realtime",
    ),
    rule(NOT_FOUND, Anything, Always, "azure_path_not_found"),
    rule(
        BAD,
        Any(&["api version", "api-version", "apiversion"]),
        Always,
        "azure_api_version",
    ),
    rule(THROTTLED, Anything, Always, "azure_rate_limited"),
    rule(NOT_AN_UPGRADE, Anything, Always, "azure_not_a_websocket"),
    rule(CLIENT_ERROR, Anything, Always, "azure_bad_request"),
];

/// Azure spells its code in two ways.
const OPERATION: &[&str] = &[
    "opperationnotsupported",
    "operationnotsupported",
    "does not work with the specified model",
];

/// OpenAI and what is compatible with it.
static OTHER: &[Rule] = &[
    rule(REDIRECT, Anything, Always, "upstream_upgrade_redirect"),
    rule(PROXY, Anything, Always, "upstream_answered_by_proxy"),
    rule(REFUSED, Html, Always, "upstream_answered_by_proxy"),
    rule(
        REFUSED,
        Any(&["unsupported_country_region_territory"]),
        Always,
        "upstream_forbidden_region",
    ),
    rule(
        &[400..=404],
        Any(&["model_not_found"]),
        Always,
        "upstream_model_not_found",
    ),
    rule(REFUSED, Anything, Always, "upstream_unauthorized"),
    rule(
        &[402..=402, 403..=403, 429..=429],
        Any(&["insufficient_quota", "credit_balance", "billing_hard_limit"]),
        Always,
        "upstream_quota_exhausted",
    ),
    rule(THROTTLED, Anything, Always, "upstream_rate_limited"),
    rule(NOT_FOUND, Anything, Always, "upstream_not_found"),
    rule(NOT_AN_UPGRADE, Anything, Always, "upstream_not_a_websocket"),
    rule(CLIENT_ERROR, Anything, Always, "upstream_bad_request"),
];

/// The code of an answer that is not 101.
pub(super) fn code_of(
    status: u16,
    said: &Said,
    upstream: &Upstream,
    intent: Intent,
    path_and_query: &str,
) -> &'static str {
    let (rules, otherwise) = match upstream {
        Upstream::Azure(_) => (AZURE, "azure_unavailable"),
        Upstream::OpenAi(_) | Upstream::Custom(_) => (OTHER, "upstream_unavailable"),
    };
    let code = said.code.as_deref().unwrap_or_default();
    let message = said.message.as_deref().unwrap_or_default();
    let text = format!("{code}\n{message}").to_ascii_lowercase();
    let on_ga = matches!(upstream, Upstream::Azure(azure) if azure.api == AzureApi::Ga);
    let holds = |rule: &&Rule| {
        let says = match rule.says {
            Says::Anything => true,
            Says::Any(pieces) => pieces.iter().any(|piece| text.contains(piece)),
            Says::All(pieces) => pieces.iter().all(|piece| text.contains(piece)),
            Says::Html => said.is_html,
        };
        let when = match rule.when {
            When::Always => true,
            When::GaPathWithVersion => on_ga && path_and_query.contains("api-version="),
            When::Transcription => intent == Intent::Transcription,
        };
        says && when && rule.status.iter().any(|range| range.contains(&status))
    };
    rules.iter().find(holds).map_or(otherwise, |rule| rule.code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::table::Row;

    #[test]
    fn every_rule_leads_to_a_row() {
        for rule in AZURE.iter().chain(OTHER) {
            assert!(Row::find(rule.code).is_some(), "{}", rule.code);
        }
    }
}
