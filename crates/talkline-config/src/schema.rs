//! The configuration as documentation types, for the JSON Schema and the reference page.
//!
//! Nothing is ever read into these types: the reader works on the spanned tree, where messages
//! can point at keys. A test holds their keys equal to the reader's table.
#![expect(
    dead_code,
    reason = "the fields exist for their names, types and documentation"
)]

use std::collections::BTreeMap;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value as Json;

use crate::{
    keys::{self, Kind},
    tree::{self, Table},
};

/// Talkline configuration
///
/// The same keys in TOML and in JSON or JSON5.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    talk: Option<Talk>,
    server: Option<Server>,
    clients: Option<Clients>,
    ui: Option<Ui>,
    tokens: Option<Tokens>,
    admin: Option<Admin>,
    limit_store: Option<LimitStore>,
    limits: Option<Limits>,
    reload: Option<Reload>,
    /// What sessions may say, by name; clients have one by `clients.access.<name>.policy` or
    /// `clients.defaults.policy`.
    policies: Option<BTreeMap<String, Policy>>,
    prices: Option<Prices>,
    /// Accepts a key that stands in the file itself, with a warning. For a developer's own
    /// machine.
    allow_plaintext_secrets: Option<bool>,
}

/// Talk: which Realtime upstream speaks.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Talk {
    realtime: Option<Realtime>,
}

/// The Realtime upstream.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Realtime {
    /// The provider that answers when the client's model leads to no other: `openai`,
    /// `azure-openai`, `custom` or a name under `providers`. `azure-openai` also reads the table
    /// `providers.openai`, by Azure's rules. May be left out when there is one provider.
    provider: Option<String>,
    /// How a browser or app reaches Talk. With Azure only `gateway-relay` works.
    transport: Option<Transport>,
    /// With OpenAI and custom: the default provider's model, unless its table has one. With
    /// Azure: one more name by which clients may ask for the default deployment.
    model: Option<String>,
    /// Leads every model name that is not configured to the default provider.
    allow_any_model: Option<bool>,
    /// Client model name → provider. Once there is a route, the routes are all the names there
    /// are.
    routes: Option<BTreeMap<String, String>>,
    /// The providers, by name.
    providers: Option<BTreeMap<String, Provider>>,
}

/// What tokens cost, for the cost in metrics and log.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Prices {
    /// Currency of all prices, by its three letters (ISO 4217).
    #[schemars(regex(pattern = r"^[A-Z]{3}$"))]
    currency: Option<String>,
    /// Prices by the name that the upstream is asked for: the deployment with Azure, else the model.
    models: Option<BTreeMap<String, ModelPrices>>,
}

/// Prices of one model, each for a million tokens, as decimal numbers in quotes.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct ModelPrices {
    /// Price of a million text tokens read, such as `"4.00"`.
    #[schemars(regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"))]
    input_text: Option<String>,
    /// Price of a million text tokens read from the cache. Left out, it is that of `inputText`.
    #[schemars(regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"))]
    cached_input_text: Option<String>,
    /// Price of a million audio tokens read.
    #[schemars(regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"))]
    input_audio: Option<String>,
    /// Price of a million audio tokens read from the cache. Left out, it is that of `inputAudio`.
    #[schemars(regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"))]
    cached_input_audio: Option<String>,
    /// Price of a million image tokens read.
    #[schemars(regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"))]
    input_image: Option<String>,
    /// Price of a million image tokens read from the cache. Left out, it is that of `inputImage`.
    #[schemars(regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"))]
    cached_input_image: Option<String>,
    /// Price of a million text tokens written.
    #[schemars(regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"))]
    output_text: Option<String>,
    /// Price of a million audio tokens written.
    #[schemars(regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"))]
    output_audio: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Transport {
    GatewayRelay,
    Webrtc,
    ProviderWebsocket,
    ManagedRoom,
}

/// One provider. Any `azure*` key makes it Azure.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Provider {
    /// What the provider is. `openai`, `azure-openai` and `custom` are known by their names;
    /// others need it.
    #[schemars(rename = "type")]
    kind: Option<ProviderType>,
    /// Endpoint of the Azure resource. Any form that the portal shows is taken, down to a whole
    /// Realtime URL.
    azure_endpoint: Option<String>,
    /// Name of the deployment, not of the model.
    azure_deployment: Option<String>,
    /// Api-version of the preview path. Without it the GA path is used, which has none.
    #[schemars(regex(pattern = r"^\d{4}-\d{2}-\d{2}(-preview)?$"))]
    azure_api_version: Option<String>,
    /// Model that a client asks for to transcribe its speech → name of the deployment: Azure knows
    /// transcription models by their deployments alone.
    azure_transcription_deployments: Option<BTreeMap<String, String>>,
    /// Takes `tracing` out of session settings, which SDKs send by themselves and preview upstreams
    /// refuse.
    azure_drop_tracing: Option<bool>,
    /// Puts the deployment's name in place of a client's name for the model in session settings.
    azure_map_session_model: Option<bool>,
    /// Base URL before `/realtime`. For `custom` any host but Azure's and OpenAI's, for `openai`
    /// only `api.openai.com`, its regional hosts, and loopback for tests.
    base_url: Option<String>,
    /// Model to ask the upstream for (`openai`, `custom`).
    model: Option<String>,
    /// More names by which clients may ask for this provider.
    aliases: Option<Vec<String>>,
    /// Exact host names that count as this provider's: API Management gateways, private names
    /// and addresses.
    allowed_hosts: Option<Vec<String>>,
    /// Allows plain text to a custom upstream beyond loopback.
    allow_insecure_upstream: Option<bool>,
    /// The upstream's key. `AZURE_OPENAI_API_KEY` speaks for the default provider if it is Azure,
    /// `OPENAI_API_KEY` if it is OpenAI, and for `custom` only together with `OPENAI_BASE_URL`.
    api_key: Option<SecretReference>,
    /// The other of an Azure resource's two keys. When Azure refuses the one in use, the other is
    /// tried once and stays in use, so that either can be regenerated at any time.
    api_key_secondary: Option<SecretReference>,
    auth: Option<Auth>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum ProviderType {
    AzureOpenai,
    Openai,
    Custom,
}

/// How the relay signs in upstream.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Auth {
    /// `api-key` (left out it means that); for Azure one of the kinds of Microsoft Entra ID; for
    /// custom providers `none`. `auto` chooses once, by the variables of the platform, and logs what
    /// and why. `azure-cli`, `azd`, and `auto` choosing the Azure CLI, need `--dev`.
    kind: Option<AuthKind>,
    /// The application's id, or the client id of a user-assigned managed identity. The variable
    /// counts where the key is left out, here and in the other settings of `auth`.
    #[schemars(regex(pattern = r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"))]
    client_id: Option<String>,
    /// The object (principal) id of a user-assigned managed identity, in place of `clientId`.
    #[schemars(regex(pattern = r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"))]
    object_id: Option<String>,
    /// The resource id of a user-assigned managed identity, in place of `clientId`. On virtual
    /// machines and AKS only.
    #[schemars(regex(pattern = r"^/[Ss]ubscriptions/"))]
    resource_id: Option<String>,
    /// The tenant of the application, by id or domain; with a developer's tool the tenant to ask in.
    tenant_id: Option<String>,
    /// The application's secret (`client-secret`).
    client_secret: Option<SecretReference>,
    /// Path of the application's certificate, PEM (`client-assertion`).
    certificate: Option<String>,
    /// Path of the certificate's private key, PEM. Left out, it stands in `certificate` too.
    certificate_key: Option<String>,
    /// Path of the service account's token, which is read anew for every token
    /// (`workload-identity`).
    token_file: Option<String>,
    /// What tokens are asked for. Left out, it is `https://cognitiveservices.azure.com/.default`,
    /// or its form under `azure.us` or `azure.cn` when the endpoint is there.
    #[schemars(regex(pattern = r"^[a-z]+://.+/\.default$"))]
    scope: Option<String>,
    /// Who issues tokens. Left out, it is `https://login.microsoftonline.com`, or its counterpart
    /// of the cloud that the endpoint belongs to.
    #[schemars(regex(pattern = r"^https://[^/]+/?$"))]
    authority: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum AuthKind {
    ApiKey,
    ManagedIdentity,
    WorkloadIdentity,
    ClientSecret,
    ClientAssertion,
    AzureCli,
    Azd,
    Auto,
    None,
}

/// Where a secret is kept.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum SecretReference {
    Variable(VariableReference),
    File(FileReference),
    Credential(CredentialReference),
    KeyVault(KeyVaultReference),
    Openclaw(OpenclawReference),
    /// The secret itself; refused without `allowPlaintextSecrets`.
    Plaintext(String),
}

/// In an environment variable.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct VariableReference {
    /// Name of the variable.
    env: String,
    /// Name of the key (in `clients.keys` and `tokens.keys` only).
    name: Option<String>,
}

/// In a file. One trailing line break is not part of it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct FileReference {
    /// Path of the file.
    file: String,
    /// Name of the key (in `clients.keys` and `tokens.keys` only).
    name: Option<String>,
}

/// In a credential that systemd hands to the service (`LoadCredential=`).
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct CredentialReference {
    /// Name of the credential, a file in `$CREDENTIALS_DIRECTORY`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$"))]
    credential: String,
    /// Name of the key (in `clients.keys` and `tokens.keys` only).
    name: Option<String>,
}

/// In Azure Key Vault. For `apiKey` and `apiKeySecondary` only.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct KeyVaultReference {
    /// `https://<vault>.vault.azure.net/secrets/<name>[/<version>]`, or App Service's
    /// `@Microsoft.KeyVault(…)`. Without a version the secret is read again about every 10 minutes.
    keyvault: String,
}

/// As OpenClaw writes it.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct OpenclawReference {
    source: OpenclawSource,
    /// Name under `secrets.providers`.
    provider: Option<String>,
    /// Name of the variable, or a JSON pointer into the file.
    id: String,
    /// Name of the key (in `clients.keys` and `tokens.keys` only).
    name: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum OpenclawSource {
    Env,
    File,
}

/// Where to listen.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Server {
    /// Address and port. Beyond loopback, client keys are needed.
    listen: Option<String>,
    tls: Option<Tls>,
    /// Threads that serve clients, each with its own listener on the same port. 0 is one for each
    /// core.
    threads: Option<u64>,
    /// How a client is told that the upstream gives no session: `in-band`, by an `error` event and a
    /// close frame, which browsers and every SDK show; or `http`, by a problem document in place of
    /// the session.
    refusals: Option<Refusals>,
    /// Web origins whose pages may connect, exactly as the browser sends them.
    allowed_origins: Option<Vec<String>>,
    /// Host names under which the relay is reached, beside the loopback ones: pages of these hosts
    /// may connect to it, and a relay that listens on loopback answers under no other name. A guard
    /// against DNS rebinding.
    allowed_hosts: Option<Vec<String>>,
    /// Addresses or networks of the front ends whose `Forwarded`, `X-Forwarded-For` and
    /// `X-Forwarded-Proto` headers are believed. Nobody else's are.
    trusted_proxies: Option<Vec<String>>,
}

/// The listener for operators.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Admin {
    /// Address and port of the listener for operators. Without it there is none.
    listen: Option<String>,
    /// Key that an operator presents as `Authorization: Bearer`, on loopback too. Without it
    /// nothing can be revoked.
    key: Option<SecretReference>,
}

/// Where the live counts of clients are kept: sessions at one time, starts, the day's usage, used
/// tokens, revocations.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct LimitStore {
    /// `memory`: each process counts on its own, and nothing has to be installed. `redis`: all
    /// replicas count together in a Redis (5 or later) or Valkey server.
    kind: Option<Store>,
    /// `redis://[user[:password]@]host[:port][/database]`; `rediss://` for TLS, checked against the
    /// platform's roots.
    url: Option<SecretReference>,
    /// What every key in the server begins with, so that several relays can share one.
    prefix: Option<String>,
    /// While the server is away: `failClosed` refuses new sessions with 503, `failOpen` lets each
    /// replica go on with counts of its own. Running sessions go on either way.
    on_outage: Option<OnOutage>,
    /// Longest wait for an answer of the server.
    timeout: Option<Duration>,
    /// How long the place of a session is kept of which nothing is heard, because its replica died.
    lease_time: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
enum Store {
    Memory,
    Redis,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase")]
enum OnOutage {
    FailClosed,
    FailOpen,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum Refusals {
    InBand,
    Http,
}

/// TLS by Talkline itself.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Tls {
    /// Path of the certificate chain (PEM, leaf first).
    cert: Option<String>,
    /// Path of the private key (PEM).
    key: Option<String>,
}

/// Who may open a session.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Clients {
    /// Keys that clients present: one reference, a list of them, or names with references. In place
    /// of a reference a key can stand as `{ sha256 = "…" }`, for keys that were generated, or as
    /// `{ argon2id = "$argon2id$v=19$…" }`. `TALKLINE_CLIENT_KEY` adds the key named `default`.
    keys: Option<ClientKeys>,
    /// Lets clients in that present no key, under the name `anonymous`. With a loopback address only.
    allow_anonymous: Option<bool>,
    /// What clients may do, each for itself, where `access` says nothing about it.
    defaults: Option<Access>,
    /// What one client may do: the name of a key, of an issuer (each of its users for itself), or
    /// `anonymous`.
    access: Option<BTreeMap<String, Access>>,
    /// Identity providers whose users may come in with a token (OpenID Connect, Microsoft Entra ID).
    oidc: Option<BTreeMap<String, Issuer>>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum ClientKeys {
    One(ClientKey),
    List(Vec<ClientKey>),
    Named(BTreeMap<String, ClientKey>),
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum ClientKey {
    Reference(SecretReference),
    Sha256(Sha256Key),
    Argon2id(Argon2idKey),
}

/// The SHA-256 of a generated key.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Sha256Key {
    /// 64 hexadecimal digits.
    #[schemars(regex(pattern = r"^[0-9A-Fa-f]{64}$"))]
    sha256: String,
    /// Name of the client key.
    name: Option<String>,
}

/// The Argon2id hash of a key.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Argon2idKey {
    /// In the PHC string form; at most 256 MiB, 10 passes and 16 lanes.
    #[schemars(regex(pattern = r"^\$argon2id\$v=19\$"))]
    argon2id: String,
    /// Name of the client key.
    name: Option<String>,
}

/// What a client may do. What is left out is not bounded, except by `limits`.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Access {
    /// The models that it may ask for, by the names that clients use. Left out: all.
    routes: Option<Vec<String>>,
    /// The session policy that its sessions are under.
    policy: Option<String>,
    /// Sessions at one time.
    max_sessions: Option<u64>,
    /// Session starts in any 60 seconds.
    starts_per_minute: Option<u64>,
    /// Longest session.
    max_session_duration: Option<Duration>,
    /// Frames that it may send each second.
    frames_per_second: Option<u64>,
    /// Payload bytes that it may send each second.
    bytes_per_second: Option<Size>,
    /// Responses of one session; the session ends with the last of them.
    responses_per_session: Option<u64>,
    /// Responses of one day, which begins at 00:00 UTC.
    responses_per_day: Option<u64>,
    /// Tokens of one session, input and output together.
    tokens_per_session: Option<u64>,
    /// Tokens of one day, which begins at 00:00 UTC, input and output together.
    tokens_per_day: Option<u64>,
}

/// An identity provider.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Issuer {
    /// The exact `iss` of its tokens. For Microsoft Entra ID
    /// `https://login.microsoftonline.com/<tenant id>/v2.0`.
    issuer: String,
    /// Of these one must be in a token's `aud`. For Entra the application id of this relay's API.
    audiences: Vec<String>,
    /// How its tokens may be signed: `RS256` (left out, that alone), `RS384`, `RS512`, `PS256`,
    /// `PS384`, `PS512`, `ES256`, `ES384`, `EdDSA`. None of the kinds with a shared secret.
    algorithms: Option<Vec<String>>,
    /// URL of its keys. Left out, the issuer's discovery document names it.
    jwks_uri: Option<String>,
    /// The claim that names the user in logs and limits. Left out, it is `sub`; with Entra `oid` is
    /// the same user in all of a tenant's applications.
    name_claim: Option<String>,
    /// All of these must be in `scp` or `scope`.
    required_scopes: Option<Vec<String>>,
    /// All of these must be in `roles`.
    required_roles: Option<Vec<String>>,
}

/// Tokens that browsers hold in place of a client key.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Tokens {
    /// Keys that sign browser tokens, of 32 characters or more: the first signs, each verifies.
    /// Replicas need the same keys. A list needs a `name` for each, which stands in the tokens. Left
    /// out, `TALKLINE_TOKEN_KEY` is the only one; without that the relay makes up a key when it
    /// starts.
    keys: Option<TokenKeys>,
    /// Relays with the same keys and the same audience accept each other's tokens.
    audience: Option<String>,
    /// How long a token can be used, and the longest that may be asked for.
    lifetime: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
enum TokenKeys {
    One(SecretReference),
    List(Vec<SecretReference>),
    Named(BTreeMap<String, SecretReference>),
}

/// The Talk page.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Ui {
    /// Serves a page at `/talk/` that talks to the relay from a browser. The page asks for a client
    /// key unless anonymous clients are let in.
    enabled: Option<bool>,
}

/// What a session may say: [policies](policy.md).
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Policy {
    /// `transparent` looks at nothing; `pinned` holds every event of the client's against the rules.
    /// Left out, it is `pinned`.
    mode: Option<PolicyMode>,
    /// What becomes of a setting that breaks a rule: `rewrite` sets it right and says nothing, `refuse`
    /// answers the event with an `error` event. Left out, it is `rewrite`.
    on_violation: Option<OnViolation>,
    /// The instructions of the model. With them no prompt template, no system message and no
    /// instructions of a single response pass either.
    instructions: Option<String>,
    /// Path of a file with the instructions.
    instructions_file: Option<String>,
    /// The voice.
    voice: Option<String>,
    /// The voices that clients may choose; the first is the one they start with.
    voices: Option<Vec<String>>,
    /// The tools of the model, as the JSON text of the list that the Realtime API takes.
    tools: Option<String>,
    /// Path of a file with that JSON text.
    tools_file: Option<String>,
    /// Names of the functions that clients may give the model.
    tool_names: Option<Vec<String>>,
    /// What `session.model` may be.
    model: Option<String>,
    /// What `session.model` may be, one of these.
    models: Option<Vec<String>>,
    /// The model that transcribes the client's speech, where it asks for that.
    transcription_model: Option<String>,
    /// The models that may transcribe the client's speech.
    transcription_models: Option<Vec<String>>,
    /// Most tokens of one response.
    max_output_tokens: Option<u64>,
    /// Holds clients to exactly `maxOutputTokens`.
    lock_max_output_tokens: Option<bool>,
    /// Whether the upstream keeps a trace of the session.
    tracing: Option<PolicyTracing>,
    /// MCP servers that tools may name: URLs, connector ids and tunnel ids, exactly as clients write
    /// them; `*` allows any. Left out, none is allowed.
    mcp_servers: Option<Vec<String>>,
    /// Types of the events that clients may send; `default` stands for those of the
    /// [default list](policy.md#events), `*` for any. Left out, it is the default list.
    events: Option<Vec<String>>,
    /// Whether `response.create` may have an `input` of its own or stand outside the conversation.
    /// Left out, it is `false`.
    out_of_band_responses: Option<bool>,
    /// Blanks the instructions in what the client is shown. Left out, it is `true` where the policy has
    /// instructions.
    hide_instructions: Option<bool>,
    /// Blanks the tools in what the client is shown. Left out, it is `true` where the policy has tools.
    hide_tools: Option<bool>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum PolicyMode {
    Pinned,
    Transparent,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum OnViolation {
    Rewrite,
    Refuse,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case")]
enum PolicyTracing {
    Off,
    Auto,
}

/// Every bound.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Limits {
    /// Sessions at one time.
    max_sessions: Option<u64>,
    /// Connections at one time that are not yet a session.
    max_handshakes: Option<u64>,
    /// Those of them that come from one source address. A trusted proxy is no source.
    max_handshakes_per_source: Option<u64>,
    /// Failures of one source address to show who it is, in one window. After that many it is
    /// refused unheard, with 429, until the window is over. An IPv6 source is a /64.
    max_failures_per_source: Option<u64>,
    /// Failures of all sources in one window. Beyond it each source has one failure; clients that
    /// never failed notice nothing.
    max_failures: Option<u64>,
    /// The window, counted from a source's first failure.
    failure_window: Option<Duration>,
    /// Request line and headers of a client.
    max_request_header_size: Option<Size>,
    /// From accepting a connection to the end of the request's headers, TLS included.
    client_handshake_timeout: Option<Duration>,
    /// Resolving the upstream's name.
    dns_timeout: Option<Duration>,
    /// Connecting to the upstream by TCP, all addresses together.
    connect_timeout: Option<Duration>,
    /// The TLS handshake with the upstream.
    tls_timeout: Option<Duration>,
    /// From the upgrade request to the upstream's 101.
    upgrade_timeout: Option<Duration>,
    /// Resolving, connecting, the TLS handshake and the upgrade together.
    dial_timeout: Option<Duration>,
    /// One message, all its frames together. Larger ones end the session with 1009.
    max_message_size: Option<Size>,
    /// One frame.
    max_frame_size: Option<Size>,
    /// Frames of one message.
    max_fragments: Option<u64>,
    /// An event that is held back to be looked at before it is forwarded.
    max_inspected_event_size: Option<Size>,
    /// From one ping to the next on each leg.
    ping_interval: Option<Duration>,
    /// Longest silence of a leg, counted from its last byte, whatever that was. A ping has had time to
    /// be answered by then: what this leaves after `pingInterval`.
    pong_timeout: Option<Duration>,
    /// Longest session, counted from the client's 101.
    max_session_duration: Option<Duration>,
    /// From the first close frame to cutting both sockets.
    close_timeout: Option<Duration>,
    /// From the stop signal to closing the sessions that are left.
    drain_grace: Option<Duration>,
    /// How long a peer may take none of the bytes that wait for it. Then its session ends with
    /// `slow_consumer`, for a client with 1013.
    stall_timeout: Option<Duration>,
    /// How long a peer may take for the next 16 KiB of a frame that it has begun, or its end. Then its
    /// session ends with `frame_timeout`, for a client with 1008.
    frame_timeout: Option<Duration>,
    /// Longest time without an event of the client's. Then the session ends with `session_idle` and
    /// 1001. `0s` is no limit.
    idle_timeout: Option<Duration>,
    /// Frames that a client may send each second, with bursts of four seconds' worth. More end the
    /// session with `frame_rate_exceeded` and 1008. 0 is no limit. `clients` can set less.
    frames_per_second: Option<u64>,
    /// Bytes that are read of a client each second, with bursts of four seconds' worth. More wait on
    /// the client's side. 0 is no limit. `clients` can set less.
    bytes_per_second: Option<Size>,
    /// Bytes of all sessions that wait for slow peers or are held to be inspected. Near the end
    /// everybody reads in small pieces; at the end reading stops, and what would have to be held ends
    /// its session with `relay_overloaded` and 1013.
    max_buffered_size: Option<Size>,
    /// Kernel buffer for bytes on their way to a client, before the kernel doubles it. 0 lets the
    /// kernel choose.
    client_send_buffer: Option<Size>,
    /// Kernel buffer for bytes of a client that were not read yet.
    client_receive_buffer: Option<Size>,
    /// Kernel buffer for bytes on their way to an upstream.
    upstream_send_buffer: Option<Size>,
    /// Kernel buffer for bytes of an upstream that were not read yet.
    upstream_receive_buffer: Option<Size>,
    /// Memory of the process. When nine tenths of it are used, new sessions are turned away with 503.
    /// `0B` takes the limit of the control group, which is the container's.
    max_memory: Option<Size>,
}

/// Reading the configuration again while the relay runs, without SIGHUP.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", deny_unknown_fields)]
struct Reload {
    /// How often the configuration file, the secret files and certificates that it names are looked
    /// at. A change that has settled is taken over like after SIGHUP. `0s` never looks.
    watch: Option<Duration>,
}

/// A number with `ms`, `s`, `m` or `h`.
#[derive(JsonSchema)]
struct Duration(#[schemars(regex(pattern = r"^\d+(ms|s|m|h)$"))] String);

/// Bytes, or a number with `KiB` or `MiB`.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Size {
    Bytes(u64),
    Text(SizeText),
}

#[derive(JsonSchema)]
struct SizeText(#[schemars(regex(pattern = r"^\d+(B|KiB|MiB)?$"))] String);

/// The JSON Schema of the configuration, as it is committed beside the reference page.
///
/// Valid for TOML as well, by editors that follow a `#:schema` line (Taplo and its kin).
pub fn schema() -> String {
    let mut text = serde_json::to_string_pretty(&document())
        .expect("a JSON value with string keys can be written");
    text.push('\n');
    text
}

/// The schema with defaults, bounds and all.
fn document() -> Json {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut document = settings
        .into_generator()
        .into_root_schema_for::<Configuration>()
        .to_value();
    without_null(&mut document);
    let defaults = keys::defaults();
    for spec in keys::KEYS {
        let Some(property) = property_mut(&mut document, spec.path) else {
            continue;
        };
        if let Some(default) = default_of(&defaults, spec.path) {
            property.insert("default".into(), default);
        }
        if let Kind::Count { min, max } = spec.kind {
            property.insert("minimum".into(), min.into());
            property.insert("maximum".into(), max.into());
        }
    }
    document
}

/// A key that is left out is left out: `null` is no value anywhere, and TOML has none.
fn without_null(schema: &mut Json) {
    match schema {
        Json::Object(map) => {
            if let Some(Json::Array(types)) = map.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".into(), only);
                }
            }
            if let Some(Json::Array(values)) = map.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            if let Some(Json::Array(choices)) = map.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
                if let [Json::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    map.remove("anyOf");
                    only.into_iter().for_each(|(key, value)| {
                        map.entry(key).or_insert(value);
                    });
                }
            }
            map.values_mut().for_each(without_null);
        }
        Json::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

fn property_mut<'a>(
    schema: &'a mut Json,
    path: &str,
) -> Option<&'a mut serde_json::Map<String, Json>> {
    let mut at = schema;
    for segment in path.split('.') {
        at = match segment {
            "*" => at.get_mut("additionalProperties")?,
            name => at.get_mut("properties")?.get_mut(name)?,
        };
    }
    at.as_object_mut()
}

fn default_of(defaults: &Table, path: &str) -> Option<Json> {
    let path: Vec<&str> = path.split('.').collect();
    let json = |value: &tree::Value| match value {
        tree::Value::Bool(value) => Some(Json::from(*value)),
        tree::Value::Integer(number) => Some(Json::from(*number)),
        tree::Value::Text(text) => Some(Json::from(text.as_str())),
        tree::Value::Array(items) if items.is_empty() => Some(Json::Array(Vec::new())),
        _ => None,
    };
    json(&defaults.at(&path)?.node.value)
}

/// The reference page: every key with its meaning, default, variable and flag.
pub fn reference() -> String {
    let mut document = document();
    let defaults = keys::defaults();
    let mut out = String::from(HEADER);
    let mut section = "";
    for spec in keys::KEYS {
        let (parent, name) = spec.path.rsplit_once('.').unwrap_or(("", spec.path));
        let title = if spec.path.ends_with(".*")
            || spec.path.contains(".auth.")
            || spec.path.contains(".tls.")
        {
            section
        } else {
            parent
        };
        if title != section || parent.is_empty() {
            section = title;
            let title = if parent.is_empty() {
                "Top level".into()
            } else {
                format!("`{}`", placeholder(parent))
            };
            out.push_str(&format!("\n## {title}\n"));
        }
        let shown = match spec.path.strip_prefix(section) {
            Some(rest) if !section.is_empty() => rest.trim_start_matches('.'),
            _ => name,
        };
        out.push_str(&format!("\n### `{}`\n\n", placeholder(shown)));
        let property = property_mut(&mut document, spec.path);
        let meaning =
            property.and_then(|property| Some(property.get("description")?.as_str()?.to_owned()));
        let meaning = meaning
            .or_else(|| described_by_parent(&mut document, spec.path))
            .unwrap_or_default();
        out.push_str(&meaning);
        out.push_str(&format!("\n\n- Takes: {}\n", spec.kind.words()));
        let default = default_of(&defaults, spec.path).map(|default| format!("`{default}`"));
        out.push_str(&format!(
            "- Default: {}\n",
            default.unwrap_or_else(|| "none".into())
        ));
        let listed = |names: &[&str]| {
            names
                .iter()
                .map(|name| format!("`{name}`"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        if !spec.variables.is_empty() {
            out.push_str(&format!("- Variable: {}\n", listed(spec.variables)));
        }
        if let Some(flag) = spec.flag {
            out.push_str(&format!("- Flag: `{flag}`\n"));
        }
    }
    out.push_str(FOOTER);
    out
}

/// A map's values are described where the map is.
fn described_by_parent(document: &mut Json, path: &str) -> Option<String> {
    let map = property_mut(document, path.strip_suffix(".*")?)?;
    Some(map.get("description")?.as_str()?.to_owned())
}

fn placeholder(path: &str) -> String {
    path.replace('*', "<name>")
}

const HEADER: &str = "\
# Configuration

<!-- Generated by talkline-config from its own table of keys; a test fails when this page is stale. -->

Talkline reads one TOML file (`talkline.toml`, or what `--config` names) or the same object as JSON
or JSON5. A value is looked for in this order: flag, variable, file, default. `talkline config show
--origin` prints every value with the place it came from, `talkline check` every problem at once, and
`talkline config schema` the JSON Schema that an editor needs for the first line below.

```toml
#:schema ./talkline.schema.json
talk.realtime.provider = \"openai\"
talk.realtime.transport = \"gateway-relay\"
talk.realtime.providers.openai.azureEndpoint = \"https://<resource>.openai.azure.com\"
talk.realtime.providers.openai.azureDeployment = \"<gpt-realtime-deployment>\"
talk.realtime.providers.openai.apiKey = { env = \"AZURE_OPENAI_API_KEY\" }
clients.keys = { env = \"TALKLINE_CLIENT_KEY\" }
```

No file is needed at all when the environment has `AZURE_OPENAI_ENDPOINT`,
`AZURE_OPENAI_DEPLOYMENT_NAME`, `AZURE_OPENAI_API_KEY` and `TALKLINE_CLIENT_KEY`.

An OpenClaw `openclaw.json` can be named as it is: of its own sections only `talk.realtime` is read,
and of those keys only the ones below.
";

const FOOTER: &str = "
## Azure or an error

Every key that begins with `azure`, known or misspelt, and every variable `AZURE_OPENAI_ENDPOINT` or
`AZURE_OPENAI_DEPLOYMENT*` makes the provider `openai` an Azure one. What is then missing is reported;
nothing is ever sent to `api.openai.com` in its place. `OPENAI_API_KEY` is never used for Azure, an
Azure key never for anything else. A provider with `type = \"openai\"` is OpenAI whatever the variables
say.

## Names of models

Without `routes`, a client may ask for the deployment or model of any provider, for its `aliases` and
for `talk.realtime.model`. Another name is refused with the list of those that exist, unless
`talk.realtime.allowAnyModel` leads it to the default provider. A client that names no model gets the
default provider; where two providers have one name, the default provider's counts.

## Secrets

A file holds references: `{ env = \"NAME\" }`, `{ file = \"PATH\" }`, `{ credential = \"NAME\" }` for what
systemd hands over in `$CREDENTIALS_DIRECTORY`, and for `apiKey` and `apiKeySecondary`
`{ keyvault = \"https://<vault>.vault.azure.net/secrets/<name>\" }`. In JSON5, OpenClaw's
`{ source: \"env\" | \"file\", provider, id }` and `\"${NAME}\"` are understood as well. One trailing line
break of a file is not part of the secret; empty values, inner white space, quotes, byte order marks
and `@Microsoft.KeyVault(…)` references that App Service left unresolved are refused. No message shows
a value. Upstream keys in files and in Key Vault are read again while the relay runs:
[keys](../guide/keys.md).

## Keys or identities

A provider has an `apiKey` or an Entra `auth.kind`, never both. `AZURE_OPENAI_API_KEY` is not used, with
a warning, while the file says an Entra kind. With one of them the endpoint must be the resource's own
host name: [Microsoft Entra ID](../guide/entra.md).

## Endpoints

`azureEndpoint` takes `https://<resource>.openai.azure.com`, `.cognitiveservices.azure.com` and
`.services.ai.azure.com`, their sovereign forms under `azure.us` and `azure.cn`, with or without `/`,
`/openai`, `/openai/v1`, a whole Realtime URL, `wss://`, upper case, a trailing dot, a port, and the
project endpoint of AI Foundry. API Management needs its host in `allowedHosts`; the path before
`/openai` is kept. Plain text is for loopback only.
";
