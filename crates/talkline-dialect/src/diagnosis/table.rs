//! The table: one row for each code, and the only place where a failure has words.
//!
//! `{name}` in a text is filled in with what is known of the failure, or shown as `<name>`.

use super::{
    Blame::{self, Azure, Client, Network, Operator, Upstream},
    Diagnosis,
    Permanence::{self, Permanent, Throttled, Transient},
    facts::Facts,
};

/// A failure that has a code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) section: Section,
    pub(super) code: &'static str,
    /// The code of the same failure with an upstream that is not Azure.
    pub(super) twin: Option<&'static str>,
    pub(super) blame: Blame,
    pub(super) permanence: Permanence,
    /// What happened, as a sentence.
    pub(super) summary: &'static str,
    /// How to make sure that this is it.
    pub(super) confirm: &'static str,
    /// What to do.
    pub(super) next_step: &'static str,
    /// What else to do when the upstream is Azure.
    pub(super) azure_step: &'static str,
}

/// The chapters of the reference page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Network,
    Answer,
    Credential,
    Resource,
    OtherUpstream,
    Identity,
    Relay,
    Session,
}

impl Section {
    pub(super) const ALL: [Self; 8] = [
        Self::Credential,
        Self::Resource,
        Self::Identity,
        Self::Network,
        Self::Answer,
        Self::OtherUpstream,
        Self::Session,
        Self::Relay,
    ];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Network => "Reaching the upstream",
            Self::Answer => "Answers that are no session",
            Self::Credential => "Azure and the relay's credential",
            Self::Resource => "Azure's resource, deployment and limits",
            Self::OtherUpstream => "OpenAI and custom upstreams",
            Self::Identity => "Signing in with Microsoft Entra ID",
            Self::Relay => "The relay itself",
            Self::Session => "In a session",
        }
    }
}

impl Row {
    /// The row of a code, or of its twin. The codes are literals of this crate.
    pub(super) fn named(code: &str) -> &'static Self {
        Self::find(code).unwrap_or(&ROWS[0])
    }

    pub(super) fn find(code: &str) -> Option<&'static Self> {
        ROWS.iter()
            .find(|row| row.code == code || row.twin == Some(code))
    }

    /// The failure, in Azure's words.
    pub(super) fn diagnose(&self, facts: &Facts) -> Diagnosis {
        Diagnosis {
            code: self.code,
            blame: self.blame,
            permanence: self.permanence,
            summary: facts.fill(self.summary),
            next_step: facts.fill(&self.azure_next_step()),
            answer: None,
            retry_after: None,
        }
    }

    /// The same failure of an upstream that is not Azure.
    pub(super) fn diagnose_twin(&self, facts: &Facts) -> Diagnosis {
        let Some(code) = self.twin else {
            return self.diagnose(facts);
        };
        Diagnosis {
            code,
            blame: self.twin_blame(),
            next_step: facts.fill(self.next_step),
            ..self.diagnose(facts)
        }
    }

    pub(super) fn twin_blame(&self) -> Blame {
        match self.blame {
            Azure => Upstream,
            blame => blame,
        }
    }

    pub(super) fn azure_next_step(&self) -> String {
        match self.azure_step {
            "" => self.next_step.to_owned(),
            step => format!("{} {step}", self.next_step),
        }
    }
}

const EMPTY: Row = Row {
    section: Section::Answer,
    code: "",
    twin: None,
    blame: Operator,
    permanence: Permanent,
    summary: "",
    confirm: "",
    next_step: "",
    azure_step: "",
};

/// `Row { .. }` with the fields that differ from an operator's permanent mistake.
macro_rules! rows {
    ($($section:ident { $({ $($field:ident: $value:expr),* $(,)? })* })*) => {
        &[$($(Row { section: Section::$section, $($field: $value,)* ..EMPTY },)*)*]
    };
}

#[expect(clippy::needless_update, reason = "some rows have every field")]
pub(super) static ROWS: &[Row] = rows! {
Answer {
    {
        code: "azure_unavailable", twin: Some("upstream_unavailable"), blame: Azure, permanence: Transient,
        summary: "The upstream is not available at the moment.",
        confirm: "The answer's status is 500 or above, or 408. The same request works a little later.",
        next_step: "Try again after a pause.",
        azure_step: "If it stays so, look at the status of the region in the Azure portal's Service Health, and open a support request with the request id.",
    }
    {
        code: "azure_upgrade_redirect", twin: Some("upstream_upgrade_redirect"),
        summary: "The upstream answered with a redirect to {location}, which is never followed because the request carries a credential.",
        confirm: "The answer's status is between 300 and 399. The preview path of a *.cognitiveservices.azure.com host does this for GA models, with the key in the query of the Location header; that is why only host and path of it are shown.",
        next_step: "Configure the endpoint that answers by itself.",
        azure_step: "Use the GA path, /openai/v1/realtime: remove azureApiVersion, and set azureEndpoint to the resource's own https://{resource}.openai.azure.com.",
    }
    {
        code: "azure_not_a_websocket", twin: Some("upstream_not_a_websocket"),
        summary: "The upstream answered the upgrade with an ordinary HTTP answer instead of a WebSocket.",
        confirm: "The answer's status is 200 to 299, or 426. A web front end, a captive portal, or a gateway that drops the Upgrade header answers like this.",
        next_step: "Check that the endpoint is the service itself, and that every gateway on the way passes WebSocket upgrades on.",
        azure_step: "In API Management the API must be of the type WebSocket, in another tier than Consumption.",
    }
    {
        code: "azure_bad_handshake", twin: Some("upstream_bad_handshake"), blame: Network,
        summary: "{host} answered 101, but {fault}.",
        confirm: "The answer breaks RFC 6455, section 4.1: a wrong Sec-WebSocket-Accept, no Upgrade or Connection header, an extension or a subprotocol that was not asked for.",
        next_step: "Something between relay and upstream answers WebSocket upgrades wrongly, from a cache perhaps: check gateways and proxies on the way.",
    }
    {
        code: "azure_answered_by_proxy", twin: Some("upstream_answered_by_proxy"), blame: Network,
        summary: "Something on the way refused the request with a web page of its own.",
        confirm: "The body is HTML, or the status is 407 or 511; neither comes from a Realtime service.",
        next_step: "Let the relay's requests to {host} pass the proxy, firewall or web application firewall on the way. The relay reads no proxy variables.",
    }
    {
        code: "azure_bad_request", twin: Some("upstream_bad_request"),
        summary: "The upstream did not accept the handshake.",
        confirm: "The status is 400 to 499 and neither code nor message is one that has a diagnosis of its own.",
        next_step: "The upstream's own words say why.",
        azure_step: "Check azureDeployment and azureApiVersion.",
    }
}
Network {
    {
        code: "azure_dns", twin: Some("upstream_dns"), blame: Network, permanence: Transient,
        summary: "The host name {host} could not be resolved.",
        confirm: "`nslookup {host}`, on the relay's host or in its container.",
        next_step: "Check the spelling of the endpoint and the relay's DNS servers.",
        azure_step: "A deleted resource has no name any more: `az cognitiveservices account show --name {resource} --resource-group <group> --query properties.endpoints`. With a private endpoint, link the privatelink zone to the relay's network: `az network private-dns link vnet list --zone-name privatelink.openai.azure.com --resource-group <group>`.",
    }
    {
        code: "azure_dns_timeout", twin: Some("upstream_dns_timeout"), blame: Network, permanence: Transient,
        summary: "Resolving the host name {host} took too long.",
        confirm: "`nslookup {host}`, on the relay's host or in its container, takes seconds as well.",
        next_step: "Check that the relay reaches its DNS servers (UDP and TCP port 53), or allow more with limits.dnsTimeout.",
    }
    {
        code: "azure_tcp", twin: Some("upstream_tcp"), blame: Network, permanence: Transient,
        summary: "No TCP connection to {host}:{port} could be opened.",
        confirm: "`curl --verbose telnet://{host}:{port}`, on the relay's host or in its container.",
        next_step: "Check that the relay's network may reach the host on this port: firewall, network policy, network security group.",
    }
    {
        code: "azure_tcp_refused", twin: Some("upstream_tcp_refused"), blame: Network, permanence: Transient,
        summary: "{host}:{port} refused the TCP connection.",
        confirm: "`curl --verbose telnet://{host}:{port}` says that the connection is refused: the host is there, and nothing listens on the port.",
        next_step: "Check host and port of the endpoint, and whether the service or the gateway in front of it runs.",
        azure_step: "Azure listens on 443 only.",
    }
    {
        code: "azure_tcp_unreachable", twin: Some("upstream_tcp_unreachable"), blame: Network, permanence: Transient,
        summary: "The relay's network has no route to {host}:{port}.",
        confirm: "The operating system says that host or network is unreachable.",
        next_step: "Check the relay's default route, its NAT gateway, and whether it has IPv6 at all when the name resolves to an IPv6 address.",
        azure_step: "With a private endpoint, check that the name resolves to an address of a network that is peered with the relay's.",
    }
    {
        code: "azure_tcp_timeout", twin: Some("upstream_tcp_timeout"), blame: Network, permanence: Transient,
        summary: "Opening the TCP connection to {host}:{port} took too long.",
        confirm: "`curl --verbose telnet://{host}:{port}` hangs. A firewall that drops packets looks like this.",
        next_step: "Let the relay's network reach the host on this port: firewall, network policy, network security group.",
        azure_step: "With a private endpoint, check that its connection is approved: `az cognitiveservices account show --name {resource} --resource-group <group> --query properties.privateEndpointConnections`.",
    }
    {
        code: "azure_tls", twin: Some("upstream_tls"), blame: Network,
        summary: "The TLS handshake with {host}:{port} failed; no credential was sent.",
        confirm: "`openssl s_client -connect {host}:{port} -servername {host}`, on the relay's host or in its container.",
        next_step: "Check that the host speaks TLS 1.2 or 1.3 on this port, and look for a proxy on the way that inspects TLS.",
    }
    {
        code: "azure_tls_expired", twin: Some("upstream_tls_expired"), blame: Network,
        summary: "The certificate of {host} has expired, or the relay's clock is ahead; no credential was sent.",
        confirm: "`openssl s_client -connect {host}:{port} -servername {host} </dev/null | openssl x509 -noout -dates`, compared with date.",
        next_step: "Check the relay's clock; then renew the certificate, which is a gateway's or a proxy's rather than the service's own.",
    }
    {
        code: "azure_tls_not_yet_valid", twin: Some("upstream_tls_not_yet_valid"), blame: Network,
        summary: "The certificate of {host} is not valid yet, or the relay's clock is behind; no credential was sent.",
        confirm: "`openssl s_client -connect {host}:{port} -servername {host} </dev/null | openssl x509 -noout -dates`, compared with date.",
        next_step: "Set the relay's clock: a virtual machine that was paused, or a container host without NTP, is behind.",
    }
    {
        code: "azure_tls_wrong_name", twin: Some("upstream_tls_wrong_name"), blame: Operator,
        summary: "The certificate that answered for {host} is for another name; no credential was sent.",
        confirm: "`openssl s_client -connect {host}:{port} -servername {host} </dev/null | openssl x509 -noout -ext subjectAltName`.",
        next_step: "Set the endpoint to a name that the certificate has. If the name is right, DNS leads to another host, or a proxy answers for it.",
        azure_step: "A private endpoint is asked by its public name, never by its address or its privatelink name: https://{resource}.openai.azure.com.",
    }
    {
        code: "azure_tls_unknown_ca", twin: Some("upstream_tls_unknown_ca"), blame: Network,
        summary: "The certificate of {host} was issued by an authority that the relay does not trust; no credential was sent.",
        confirm: "`openssl s_client -connect {host}:{port} -servername {host} </dev/null | openssl x509 -noout -issuer` names the authority. One of your own organization or of a security product means that a proxy inspects TLS.",
        next_step: "If a proxy of yours inspects TLS, exempt {host} from it, or let the relay trust the proxy's authority with `SSL_CERT_FILE=<bundle.pem>`. `talkline doctor` names the authority. If it is nobody's that you know, somebody stands between relay and upstream.",
        azure_step: "Azure's certificates are issued by Microsoft or DigiCert.",
    }
    {
        code: "azure_tls_certificate", twin: Some("upstream_tls_certificate"), blame: Network,
        summary: "The certificate of {host} is not acceptable; no credential was sent.",
        confirm: "`openssl s_client -connect {host}:{port} -servername {host} </dev/null | openssl x509 -noout -text`.",
        next_step: "The certificate is revoked, malformed or not meant for servers. Look for a proxy on the way that inspects TLS; otherwise the host needs another certificate.",
    }
    {
        code: "azure_tls_not_tls", twin: Some("upstream_tls_not_tls"), blame: Network,
        summary: "{host}:{port} does not speak TLS; no credential was sent.",
        confirm: "`curl --verbose http://{host}:{port}/` gets an answer in plain text.",
        next_step: "Check the port of the endpoint. If it is right, a captive portal or a proxy answers in plain text for it.",
    }
    {
        code: "azure_tls_timeout", twin: Some("upstream_tls_timeout"), blame: Network, permanence: Transient,
        summary: "The TLS handshake with {host}:{port} took too long.",
        confirm: "`openssl s_client -connect {host}:{port} -servername {host}` hangs after CONNECTED.",
        next_step: "Look for a firewall or proxy that inspects TLS, and for a path whose MTU is smaller than the interface says.",
    }
    {
        code: "azure_connection_lost", twin: Some("upstream_connection_lost"), blame: Network, permanence: Transient,
        summary: "The upstream closed the connection before it answered the upgrade.",
        confirm: "The connection ends after the request was sent, with or without a reset, or the answer is not HTTP/1.1.",
        next_step: "Try again; if it stays so, look for a proxy between relay and upstream that does not speak WebSocket.",
    }
    {
        code: "azure_upgrade_timeout", twin: Some("upstream_upgrade_timeout"), blame: Azure, permanence: Transient,
        summary: "{host} did not answer the upgrade in time.",
        confirm: "DNS, TCP and TLS succeed; no answer comes within limits.upgradeTimeout.",
        next_step: "Try again; if it stays so, check the service's status, and look for a gateway on the way that buffers upgrades.",
    }
}
Credential {
    {
        code: "azure_key_invalid",
        summary: "The API key is not one of this Azure resource's keys.",
        confirm: "`az cognitiveservices account keys list --name {resource} --resource-group <group>`, compared with the key that the relay was given. A key of another resource, a regenerated key, and one with a space or line break at its end are all refused like this.",
        next_step: "Key and endpoint must belong to the same resource, and a regenerated key is refused at once. List the keys: `az cognitiveservices account keys list --name {resource} --resource-group <group>`.",
    }
    {
        code: "azure_gateway_key_missing",
        summary: "The API Management gateway in front of Azure found no subscription key.",
        confirm: "The message speaks of a missing subscription key.",
        next_step: "The relay sends the key in the header api-key: name the subscription key's header so in the API's settings, or turn the subscription requirement off and let the gateway sign in.",
    }
    {
        code: "azure_rbac_missing",
        summary: "The identity was accepted but has no permission to use this resource.",
        confirm: "`az role assignment list --assignee {principal} --include-inherited --scope \"$(az cognitiveservices account show --name {resource} --resource-group <group> --query id --output tsv)\" --output table`. Owner and Contributor do not include the data action.",
        next_step: "Assign the role: `az role assignment create --role \"Cognitive Services OpenAI User\" --assignee-object-id {principal} --assignee-principal-type {principal-type} --scope \"$(az cognitiveservices account show --name {resource} --resource-group <group> --query id --output tsv)\"`. It takes effect within five minutes.",
    }
    {
        code: "azure_token_audience",
        summary: "Azure did not accept the access token: wrong audience, or expired.",
        confirm: "The token's audience is {audience}, its tenant {tenant}. A regional endpoint (*.api.cognitive.microsoft.com) accepts no tokens at all.",
        next_step: "Use the scope https://cognitiveservices.azure.com/.default, or https://ai.azure.com/.default for a *.services.ai.azure.com host; use the endpoint with the resource's own subdomain (`az cognitiveservices account update --name <resource> --resource-group <group> --custom-domain <name>` gives it one); and check the relay's clock.",
    }
    {
        code: "azure_tenant_mismatch",
        summary: "The token was issued by another tenant than the resource's.",
        confirm: "The token's tenant is {tenant}; the resource's is `az account show --subscription <subscription> --query tenantId`.",
        next_step: "Set the credential's tenant id to the resource's: `az account show --subscription <subscription> --query tenantId --output tsv`.",
    }
    {
        code: "azure_key_auth_disabled",
        summary: "The Azure resource does not accept API keys.",
        confirm: "`az cognitiveservices account show --name {resource} --resource-group <group> --query properties.disableLocalAuth` prints true.",
        next_step: "Sign in with Microsoft Entra ID instead of a key. A policy usually forbids the other way: `az resource update --name {resource} --resource-group <group> --resource-type Microsoft.CognitiveServices/accounts --set properties.disableLocalAuth=false`.",
    }
    {
        code: "azure_unauthorized",
        summary: "Azure refused the credential without saying why.",
        confirm: "The status is 401 or 403 and the body is empty or says nothing that has a diagnosis of its own. A request that arrives without any credential is answered like this.",
        next_step: "Check that key and endpoint belong to the same resource (`az cognitiveservices account show --name {resource} --resource-group <group> --query properties.endpoint`), and that no gateway on the way removes the api-key or Authorization header or adds an api-version.",
    }
    {
        code: "azure_api_version_on_ga",
        summary: "The GA path was asked with an api-version, which Azure answers with 401.",
        confirm: "The request's path is /openai/v1/realtime and its query has api-version. Microsoft's migration guide lists this answer.",
        next_step: "Remove the api-version: from azureEndpoint, or from the gateway's policy that adds it.",
    }
}
Resource {
    {
        code: "azure_firewall",
        summary: "The Azure resource's network rules do not admit the relay's address.",
        confirm: "`az cognitiveservices account network-rule list --name {resource} --resource-group <group>`, compared with the relay's outbound address. With public network access switched off the words are the same.",
        next_step: "Admit the relay's outbound address: `az cognitiveservices account network-rule add --name {resource} --resource-group <group> --ip-address <outbound address>`; or its subnet with `--subnet <subnet id>`; or reach the resource by a private endpoint. Changes take up to 30 minutes.",
    }
    {
        code: "azure_private_only",
        summary: "The Azure resource answers only through its private endpoint, and the relay came from outside.",
        confirm: "`nslookup {host}` on the relay's host gives a public address instead of the private endpoint's; `az cognitiveservices account show --name {resource} --resource-group <group> --query properties.publicNetworkAccess` prints Disabled.",
        next_step: "Run the relay inside the virtual network and link the private DNS zone to it, so that {host} resolves to the private address: `az network private-dns link vnet create --resource-group <group> --zone-name privatelink.openai.azure.com --name talkline --virtual-network <network> --registration-enabled false`.",
    }
    {
        code: "azure_resource_suspended",
        summary: "Azure has blocked this resource for the time being.",
        confirm: "The message says that the resource has been temporarily blocked.",
        next_step: "Open a support request in the Azure portal with the request id; no setting of the relay can help.",
    }
    {
        code: "azure_deployment_not_found",
        summary: "The Azure resource has no deployment named `{deployment}`.",
        confirm: "`az cognitiveservices account deployment list --name {resource} --resource-group <group> --output table`.",
        next_step: "azureDeployment is the name of the deployment, not of the model, and belongs to this resource alone. List them: `az cognitiveservices account deployment list --name {resource} --resource-group <group> --output table`. A new deployment takes up to five minutes to appear.",
    }
    {
        code: "azure_path_not_found",
        summary: "{host} has no Realtime endpoint at this path.",
        confirm: "The status is 404 and the answer names no deployment.",
        next_step: "Set azureEndpoint to the resource's root, https://{resource}.openai.azure.com: not a project's, a WebRTC or another service's URL. With azureApiVersion set, this version must exist; remove it for the GA path.",
    }
    {
        code: "azure_model_not_realtime",
        summary: "The model behind `{deployment}` does not do Realtime on this path.",
        confirm: "`az cognitiveservices account deployment show --name {resource} --resource-group <group> --deployment-name <deployment> --query properties.model`. Azure spells its code OpperationNotSupported.",
        next_step: "Deploy a gpt-realtime model and set azureDeployment to it. Transcription models want ?intent=transcription, translation models another path, GA models the GA path (no azureApiVersion). Regions can lag behind each other: {region} answered.",
    }
    {
        code: "azure_transcription_not_supported",
        summary: "The deployment's model does not do Realtime transcription on this path.",
        confirm: "The client asked with intent=transcription. Azure spells its code OpperationNotSupported.",
        next_step: "Deploy a transcription model, and let the client name its deployment in session.audio.input.transcription.model.",
    }
    {
        code: "azure_api_version",
        summary: "Azure does not know this api-version.",
        confirm: "The message says that the API version is not supported.",
        next_step: "Remove azureApiVersion to use the GA path, or set a preview version that is still served, 2025-04-01-preview.",
    }
    {
        code: "azure_rate_limited", permanence: Throttled,
        summary: "The deployment's rate limit or the number of its sessions is used up.",
        confirm: "`az cognitiveservices usage list --location {location-name} --output table`; the answer's Retry-After says when there is room again.",
        next_step: "Wait as long as Azure asks. If it happens often, raise the deployment's capacity: `az cognitiveservices account deployment show --name {resource} --resource-group <group> --deployment-name <deployment> --query sku` shows it, the portal's quota page changes it. Newer models share one quota in the whole subscription.",
    }
}
OtherUpstream {
    {
        code: "upstream_unauthorized",
        summary: "The upstream refused the relay's credential.",
        confirm: "The status is 401 or 403.",
        next_step: "Check that the configured key belongs to this endpoint, is complete and has not been revoked.",
    }
    {
        code: "upstream_forbidden_region",
        summary: "The upstream does not serve the country or region that the relay's address belongs to.",
        confirm: "The code is unsupported_country_region_territory.",
        next_step: "Run the relay where the service is offered.",
    }
    {
        code: "upstream_quota_exhausted",
        summary: "The account's credit or monthly limit with the upstream is used up.",
        confirm: "The status is 429 and the code is insufficient_quota or credit_balance_exhausted.",
        next_step: "Add credit or raise the limit in the upstream's billing settings; waiting does not help.",
    }
    {
        code: "upstream_model_not_found",
        summary: "The upstream has no model named `{deployment}`, or the key may not use it.",
        confirm: "The code is model_not_found.",
        next_step: "Check the configured model's name, and that the key's project has access to it.",
    }
    {
        code: "upstream_not_found",
        summary: "{host} has no Realtime endpoint at this path.",
        confirm: "The status is 404.",
        next_step: "Check the configured base URL: /realtime is added to it.",
    }
    {
        code: "upstream_rate_limited", permanence: Throttled,
        summary: "The upstream's rate limit is used up.",
        confirm: "The status is 429; the answer's Retry-After says when there is room again.",
        next_step: "Wait as long as the upstream asks, or ask it for a higher limit.",
    }
}
Identity {
    {
        code: "azure_identity_unavailable", blame: Network, permanence: Transient,
        summary: "The relay has no usable Microsoft Entra ID token from its {source}.",
        confirm: "Look for \"no token\" in the relay's log: it says what the identity service answered, and whether asking again can help. If it cannot, the operator is at fault, and the close code is 1008.",
        next_step: "Look for \"no token\" in the relay's log. The relay goes on asking and recovers by itself.",
    }
    {
        code: "identity_unavailable", blame: Network, permanence: Transient,
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: no managed identity endpoint answers.",
        confirm: "`curl --header Metadata:true \"http://169.254.169.254/metadata/instance?api-version=2021-02-01\"` on the relay's host, or whether IDENTITY_ENDPOINT is set in its container.",
        next_step: "Enable an identity for the host, as with `az containerapp identity assign --name <app> --resource-group <group> --system-assigned`; elsewhere use another kind of credential.",
    }
    {
        code: "identity_not_found",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the managed identity is not assigned to this host.",
        confirm: "`az containerapp identity show --name <app> --resource-group <group>`, or the same for the kind of host that it is.",
        next_step: "Assign the identity to the host, or name the one that is assigned. Without a client id the system-assigned one is asked for.",
    }
    {
        code: "identity_not_azure",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: something other than Azure answers for its metadata service.",
        confirm: "The relay does not run on Azure; a container tool's proxy answers 403 for 169.254.169.254.",
        next_step: "Use another kind of credential outside of Azure: a client secret, a certificate, workload identity, or the Azure CLI on a laptop.",
    }
    {
        code: "identity_updating", blame: Azure, permanence: Transient,
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the managed identity service is being updated.",
        confirm: "It answers 404 or 410, which passes in a minute or so.",
        next_step: "Wait; the relay goes on asking.",
    }
    {
        code: "identity_throttled", permanence: Throttled,
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the managed identity service is asked too often from this host.",
        confirm: "It answers 429. The relay asks once for all sessions.",
        next_step: "Find the other program on this host that asks for tokens.",
    }
    {
        code: "identity_refused",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the managed identity service refused.",
        confirm: "The relay's log has what it said.",
        next_step: "Follow the words of the identity service in the relay's log.",
    }
    {
        code: "identity_tls", blame: Network,
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the certificate of the identity service is not trusted.",
        confirm: "The relay's log names the host and the reason.",
        next_step: "If a proxy inspects TLS, let the relay trust its authority with `SSL_CERT_FILE=<bundle.pem>`.",
    }
    {
        code: "identity_egress_blocked",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the request for a token would have gone to another host than the configured one.",
        confirm: "The relay's environment differs from the one that its settings were read from, or IDENTITY_ENDPOINT names an address outside the private network.",
        next_step: "Unset what redirects identity requests, and restart the relay.",
    }
    {
        code: "identity_not_json", blame: Network, permanence: Transient,
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: something on the way answered for the identity service.",
        confirm: "The answer is a page of a proxy or a sign-in portal.",
        next_step: "Let the relay's requests to the identity service pass.",
    }
    {
        code: "identity_token_expired", permanence: Transient,
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the token that came had already expired.",
        confirm: "`date` on the relay's host.",
        next_step: "Set the relay's clock.",
    }
    {
        code: "entra_unreachable", blame: Network, permanence: Transient,
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: Microsoft Entra ID cannot be reached.",
        confirm: "`curl --head https://login.microsoftonline.com/`, on the relay's host or in its container.",
        next_step: "Open the way to login.microsoftonline.com on port 443 in firewall and network policy.",
    }
    {
        code: "entra_unavailable", blame: Azure, permanence: Transient,
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: Microsoft Entra ID is not available.",
        confirm: "It answers 500 or above, or 408.",
        next_step: "Wait; the relay goes on asking.",
    }
    {
        code: "entra_throttled", permanence: Throttled,
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: Microsoft Entra ID is busy or throttles the application.",
        confirm: "It answers 429, or AADSTS90055, 50196 and the like.",
        next_step: "Find the other program that asks for this application's tokens.",
    }
    {
        code: "entra_not_json", blame: Network, permanence: Transient,
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: something on the way answered for Microsoft Entra ID.",
        confirm: "The answer is a page of a proxy or a sign-in portal.",
        next_step: "Let the relay's requests to login.microsoftonline.com pass.",
    }
    {
        code: "entra_secret_wrong",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the client secret is wrong.",
        confirm: "AADSTS7000215. Often the secret's id was copied instead of its value.",
        next_step: "Make a new one: `az ad app credential reset --id <client id> --append`.",
    }
    {
        code: "entra_secret_expired",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the client secret has expired.",
        confirm: "AADSTS7000222; `az ad app credential list --id <client id> --query \"[].endDateTime\"`.",
        next_step: "Make a new one: `az ad app credential reset --id <client id> --append`.",
    }
    {
        code: "entra_certificate_unknown",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the application does not know the certificate, or it has expired.",
        confirm: "AADSTS700027; `az ad app credential list --id <client id> --cert`.",
        next_step: "Register it: `az ad app credential reset --id <client id> --cert @certificate.pem --append`.",
    }
    {
        code: "entra_signature",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the client assertion could not be signed.",
        confirm: "The relay's log has the reason.",
        next_step: "Check the private key: RSA, in PEM, belonging to the certificate.",
    }
    {
        code: "entra_proof_file",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the file with the certificate or the federated token is missing or unfit.",
        confirm: "The relay's log names the reason.",
        next_step: "Check that the file is mounted and readable: AZURE_FEDERATED_TOKEN_FILE with workload identity.",
    }
    {
        code: "entra_app_not_found",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the application is not in this tenant.",
        confirm: "AADSTS700016; `az ad app show --id <client id>`.",
        next_step: "Check client id, tenant id and cloud: `az account show --query tenantId`.",
    }
    {
        code: "entra_tenant_not_found",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: there is no such tenant.",
        confirm: "AADSTS90002 or 900023; `az account show --query tenantId`.",
        next_step: "Check the tenant id, and whether it belongs to another cloud: `az cloud show --query name`.",
    }
    {
        code: "entra_federation_mismatch",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: no federated credential of the application matches the workload's token.",
        confirm: "AADSTS70021 or 700211 to 700213; `az ad app federated-credential list --id <client id>`.",
        next_step: "Make issuer, subject and audience of the federated credential those of the workload's service account.",
    }
    {
        code: "entra_assertion_expired", permanence: Transient,
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the assertion that proves the application has expired.",
        confirm: "AADSTS700024: the federated token's file is not renewed, or a clock is wrong.",
        next_step: "Check that the platform renews the file, and the relay's clock.",
    }
    {
        code: "entra_scope",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the tenant does not know the scope.",
        confirm: "AADSTS70011, 500011 or 1002012.",
        next_step: "Use the scope of the resource's cloud: https://cognitiveservices.azure.com/.default, or .us for the government's.",
    }
    {
        code: "entra_conditional_access",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: a conditional access policy forbids it.",
        confirm: "AADSTS53003; the sign-in logs of service principals name the policy.",
        next_step: "Ask the tenant's administrator to exempt the application, or to admit the relay's addresses.",
    }
    {
        code: "entra_assignment",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the resource demands that the application is assigned to it.",
        confirm: "AADSTS50105.",
        next_step: "Assign the application, as the tenant's administrator.",
    }
    {
        code: "entra_consent",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: consent is missing.",
        confirm: "AADSTS65001.",
        next_step: "As the tenant's administrator: `az ad app permission admin-consent --id <client id>`.",
    }
    {
        code: "entra_refused",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: Microsoft Entra ID refused.",
        confirm: "The relay's log has what it said, with the AADSTS number.",
        next_step: "Look the AADSTS number up: https://login.microsoftonline.com/error.",
    }
    {
        code: "cli_missing",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the command line tool that it is taken from is not installed.",
        confirm: "`az version` or `azd version`, as the relay's user.",
        next_step: "Install the tool, or configure another kind of credential.",
    }
    {
        code: "cli_logged_out",
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: nobody is signed in to the command line tool that it is taken from.",
        confirm: "`az account show`, as the relay's user.",
        next_step: "Sign in: `az login`.",
    }
    {
        code: "cli_failed", permanence: Transient,
        summary: "The relay has no usable Microsoft Entra ID token from its {source}: the command line tool that it is taken from failed.",
        confirm: "`az account get-access-token --scope https://cognitiveservices.azure.com/.default --query expiresOn`, as the relay's user.",
        next_step: "Follow the tool's own words in the relay's log.",
    }
}
Relay {
    {
        code: "unknown_model", blame: Client,
        summary: "The relay has no model named `{asked}`.",
        confirm: "The model or deployment that the client asked for is not among the relay's names.",
        next_step: "Ask for one that exists: {available}. The operator adds names under talk.realtime.routes or with talk.realtime.allowAnyModel.",
    }
    {
        code: "upstream_path_invalid",
        summary: "The configured upstream has no usable path.",
        confirm: "`talkline check`.",
        next_step: "Check the endpoint's path in the relay's configuration.",
    }
    {
        code: "relay_full", permanence: Transient,
        summary: "The relay has as many sessions as it may have.",
        confirm: "The number of open sessions is limits.maxSessions.",
        next_step: "Try again after a pause. The operator raises limits.maxSessions or runs another instance.",
    }
    {
        code: "relay_shutting_down", permanence: Transient,
        summary: "The relay is shutting down.",
        confirm: "/readyz answers 503.",
        next_step: "Reconnect; another instance answers.",
    }
}
Session {
    {
        code: "upstream_disconnected", blame: Upstream, permanence: Transient,
        summary: "The upstream ended the connection without a close frame.",
        confirm: "The log's canonical line says ended_by=upstream and end=disconnected. Restarts of the service, and front ends that cut long or idle connections, look like this.",
        next_step: "Open a new session and hand the conversation's items over to it. If it happens after a constant time, look for a timeout of a gateway between relay and upstream.",
    }
    {
        code: "upstream_protocol_violation", blame: Upstream, permanence: Transient,
        summary: "The upstream broke the WebSocket protocol.",
        confirm: "The log's canonical line says ended_by=upstream and end=violation; its close_reason names the rule of RFC 6455 or the limit.",
        next_step: "Open a new session. If it happens again, check proxies between relay and upstream, and for a limit under limits in the configuration.",
    }
    {
        code: "upstream_ping_timeout", blame: Network, permanence: Transient,
        summary: "The upstream stopped answering.",
        confirm: "The log's canonical line says ended_by=upstream and end=ping_timeout: nothing came for limits.pongTimeout, and a ping went unanswered.",
        next_step: "Open a new session. If it happens often, look for packet loss or a firewall that forgets connections between relay and upstream.",
    }
    {
        code: "upstream_stalled", blame: Network, permanence: Transient,
        summary: "The upstream stopped taking what was sent to it, or stopped in the middle of a frame.",
        confirm: "The log's canonical line says ended_by=upstream and end=slow_consumer (it took nothing for limits.stallTimeout) or end=frame_timeout (a frame did not go on for limits.frameTimeout).",
        next_step: "Open a new session. If it happens often, look for packet loss or a proxy between relay and upstream that holds data back.",
    }
    {
        code: "session_expired", blame: Azure, permanence: Transient,
        summary: "The session reached the longest time that the upstream allows.",
        confirm: "An error event with the code session_expired, then close 1001. Azure and OpenAI end sessions after 60 minutes.",
        next_step: "Open a new session before session.expires_at, and hand the conversation's items over to it.",
    }
    {
        code: "session_rate_limited", blame: Operator, permanence: Throttled,
        summary: "A response failed because the model's rate limit is used up.",
        confirm: "response.done with the status failed and the code inference_rate_limit_exceeded or rate_limit_exceeded; rate_limits.updated shows what is left.",
        next_step: "Ask for the response again after a pause. If it happens often, raise the deployment's capacity or the account's limit.",
    }
    {
        code: "session_quota_exhausted",
        summary: "The account's credit or limit with the upstream is used up.",
        confirm: "The code is insufficient_quota, credit_balance_exhausted or billing_hard_limit_reached.",
        next_step: "Add credit or raise the limit in the upstream's billing settings; waiting does not help.",
    }
    {
        code: "transcription_deployment_not_found",
        summary: "The upstream resource has no deployment for the transcription model that the session names.",
        confirm: "conversation.item.input_audio_transcription.failed with the code DeploymentNotFound; session.update itself was accepted. List the deployments: `az cognitiveservices account deployment list --name {resource} --resource-group <group> --output table`.",
        next_step: "Deploy the model, and let the client name the deployment (not the model) in session.audio.input.transcription.model.",
    }
    {
        code: "transcription_failed", blame: Azure, permanence: Transient,
        summary: "A piece of the client's speech could not be transcribed.",
        confirm: "conversation.item.input_audio_transcription.failed; the event names the reason.",
        next_step: "The conversation itself goes on. If it happens often, check the transcription model's deployment and its limits.",
    }
    {
        code: "session_wrong_dialect", blame: Client,
        summary: "The client speaks another version of the Realtime events than the upstream.",
        confirm: "unknown_parameter, missing_required_parameter or invalid_value about session.type, session.modalities, session.voice, session.audio and the like, or about the type of an event that was renamed.",
        next_step: "GA upstreams take the GA shape (session.type, session.audio.*), preview upstreams the flat beta shape. Use an SDK of the same kind, or choose the upstream's by setting or removing azureApiVersion.",
    }
    {
        code: "session_content_filtered", blame: Client,
        summary: "A response was cut short by the content filter.",
        confirm: "response.done with the status incomplete and the reason content_filter.",
        next_step: "Change the prompt or the instructions; the operator can change the deployment's content filter in the portal.",
    }
    {
        code: "session_output_limit", blame: Client,
        summary: "A response was cut short by its limit of tokens.",
        confirm: "response.done with the status incomplete and the reason max_output_tokens.",
        next_step: "Raise max_output_tokens in the session or the response, or ask for shorter answers.",
    }
    {
        code: "session_unauthorized",
        summary: "The upstream withdrew the permission in the middle of a session.",
        confirm: "An error event whose code speaks of a key, a token or a permission.",
        next_step: "Check that the key was not regenerated and the role not removed. New sessions use the credential that is current then.",
    }
    {
        code: "session_out_of_turn", blame: Client,
        summary: "The client asked for something that the conversation had already left behind.",
        confirm: "response_cancel_not_active, conversation_already_has_active_response, input_audio_buffer_commit_empty and the like: harmless races between client and model.",
        next_step: "Nothing, unless it happens all the time: then let the client wait for the event that it races with.",
    }
    {
        code: "session_request_invalid", blame: Client,
        summary: "The upstream did not accept an event of the client.",
        confirm: "An error event of the type invalid_request_error; its message and param name the mistake.",
        next_step: "Mend the client's event; the session goes on.",
    }
    {
        code: "session_upstream_error", blame: Azure, permanence: Transient,
        summary: "The upstream failed in the middle of a session.",
        confirm: "An error event or a failed response of the type server_error, or of no known type.",
        next_step: "Try again. If it happens often, open a support request with the session id and the request id.",
    }
}
};
