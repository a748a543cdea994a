//! `policies.*`, who is under them, and what Azure providers do for their clients.

use talkline_session::policy::{
    Choice, Events, Hide, McpServers, OnViolation, Rules, TokensMax, Tools, Tracing,
};

use crate::support::{lines, toml};

const SOUND: &str = r#"
[talk.realtime.providers.azure-openai]
azureEndpoint = "https://r.openai.azure.com"
azureDeployment = "gpt-realtime-prod"
apiKey = { env = "KEY" }
aliases = ["voice"]
"#;

const ENVIRONMENT: &str = "TALKLINE_CLIENT_KEY=client-key-of-some-length KEY=k-1";

fn case(policy: &str) -> crate::support::Case {
    toml(&format!("{SOUND}{policy}"))
        .with(ENVIRONMENT)
        .secret_file("/prompt.txt", "Be kind.\n")
        .secret_file("/empty.txt", "\n")
        .secret_file("/tools.json", r#"[{"type":"function","name":"clock"}]"#)
}

/// The rules that `[policies.p]` with these lines comes to.
#[track_caller]
fn check(policy: &str, expected: Rules) {
    let resolved = case(&format!("[policies.p]\n{policy}")).expect_sound();
    assert_eq!(lines(&resolved.warnings), "");
    let policy = resolved.config.policies.resolve(Some("p")).unwrap();
    assert_eq!(policy.rules(), Some(&expected));
}

#[track_caller]
fn check_broken(text: &str, expected: &str) {
    let report = case(text).expect_broken();
    let expected: Vec<&str> = expected.lines().map(str::trim).collect();
    assert_eq!(lines(&report), expected.join("\n"), "\n{report}");
}

fn hint(text: &str) -> String {
    let report = case(text).expect_broken();
    report.problems()[0].hint.clone().unwrap_or_default()
}

#[test]
fn rules() {
    check("", Rules::default());
    check("mode = \"pinned\"", Rules::default());
    check(
        r#"
        onViolation = "refuse"
        instructions = "Be kind."
        voice = "marin"
        tools = '[{"type":"function","name":"clock"}]'
        model = "voice"
        transcriptionModel = "whisper-1"
        maxOutputTokens = 500
        lockMaxOutputTokens = true
        tracing = "off"
        mcpServers = ["https://mcp.example.com"]
        events = ["default", "session.close"]
        outOfBandResponses = true
        "#,
        Rules {
            on_violation: OnViolation::Refuse,
            instructions: Some("Be kind.".into()),
            voice: Choice::Fixed("marin".into()),
            tools: fixed_tools(),
            model: Choice::Fixed("voice".into()),
            transcription_model: Choice::Fixed("whisper-1".into()),
            max_output_tokens: TokensMax::Fixed(500),
            tracing: Tracing::Off,
            mcp_servers: McpServers::Only(vec!["https://mcp.example.com".into()]),
            events: Events::Only(
                talkline_session::policy::DEFAULT_EVENTS
                    .iter()
                    .copied()
                    .chain(["session.close"])
                    .map(str::to_owned)
                    .collect(),
            ),
            out_of_band: true,
            hide: Hide {
                instructions: true,
                tools: true,
            },
            ..Rules::default()
        },
    );
    check(
        r#"
        instructionsFile = "/prompt.txt"
        voices = ["marin", "cedar"]
        toolsFile = "/tools.json"
        models = ["a", "b"]
        transcriptionModels = ["c"]
        maxOutputTokens = 500
        mcpServers = ["*"]
        events = ["*"]
        hideInstructions = false
        hideTools = false
        "#,
        Rules {
            instructions: Some("Be kind.".into()),
            voice: Choice::OneOf(vec!["marin".into(), "cedar".into()]),
            tools: fixed_tools(),
            model: Choice::OneOf(vec!["a".into(), "b".into()]),
            transcription_model: Choice::OneOf(vec!["c".into()]),
            max_output_tokens: TokensMax::AtMost(500),
            mcp_servers: McpServers::Any,
            events: Events::Any,
            ..Rules::default()
        },
    );
    check(
        "toolNames = [\"clock\"]\nhideTools = true",
        Rules {
            tools: Tools::Named(vec!["clock".into()]),
            hide: Hide {
                instructions: false,
                tools: true,
            },
            ..Rules::default()
        },
    );
}

fn fixed_tools() -> Tools {
    let tools = r#"[{"type":"function","name":"clock"}]"#;
    Tools::Fixed(talkline_session::policy::Json::objects(tools).unwrap())
}

#[test]
fn a_session_without_a_policy_is_transparent() {
    let policies = case("[policies.open]\nmode = \"transparent\"")
        .expect_sound()
        .config
        .policies;
    assert_eq!(policies.resolve(None).unwrap().rules(), None);
    assert_eq!(policies.resolve(Some("open")).unwrap().rules(), None);
    assert!(policies.resolve(Some("other")).is_err());
    assert_eq!(policies.iter().count(), 1);
}

#[test]
fn broken_rules() {
    check_broken(
        "[policies.p]\nmode = \"transparent\"\nvoice = \"marin\"",
        "policy.unused policies.p.voice |voice|",
    );
    check_broken(
        "[policies.p]\nvoice = \"marin\"\nvoices = [\"cedar\"]",
        "policy.conflict policies.p.voices |voices|",
    );
    check_broken(
        "[policies.p]\ntools = \"[]\"\ntoolNames = [\"x\"]",
        "policy.conflict policies.p.toolNames |toolNames|",
    );
    check_broken(
        "[policies.p]\ninstructions = \"x\"\ninstructionsFile = \"/prompt.txt\"",
        "policy.conflict policies.p.instructionsFile |instructionsFile|",
    );
    check_broken(
        "[policies.p]\nvoices = []",
        "policy.empty-list policies.p.voices |[]|",
    );
    check_broken(
        "[policies.p]\ntools = '{\"type\":\"function\"}'",
        "policy.tools policies.p.tools |'{\"type\":\"function\"}'|",
    );
    check_broken(
        "[policies.p]\ntools = '[{\"a\":1,\"a\":2}]'",
        "policy.tools policies.p.tools |'[{\"a\":1,\"a\":2}]'|",
    );
    check_broken(
        "[policies.p]\ninstructionsFile = \"/none.txt\"",
        "policy.file-unreadable policies.p.instructionsFile |\"/none.txt\"|",
    );
    check_broken(
        "[policies.p]\ntoolsFile = \"/empty.txt\"",
        "policy.file-empty policies.p.toolsFile |\"/empty.txt\"|",
    );
    check_broken(
        "[policies.p]\nlockMaxOutputTokens = true",
        "policy.tokens-missing policies.p.lockMaxOutputTokens |true|",
    );
    check_broken(
        "[policies.p]\nmaxOutputTokens = 0",
        "value.range policies.p.maxOutputTokens |0|",
    );
    check_broken(
        "[policies.p]\nmode = \"pined\"\nonViolation = \"ignore\"\ntracing = true",
        "value.choice policies.p.mode |\"pined\"|
         value.choice policies.p.onViolation |\"ignore\"|
         value.type policies.p.tracing |true|",
    );
    check_broken(
        "[policies.\"a b\"]\nvoice = \"marin\"",
        "policy.name policies |\"a b\"|",
    );
    check_broken(
        "[policies.p]\nvoise = \"x\"",
        "key.unknown policies.p.voise |voise|",
    );
    let report = toml(&format!("policies = true\n{SOUND}"))
        .with(ENVIRONMENT)
        .expect_broken();
    assert_eq!(lines(&report), "value.type policies |true|");
    let long = format!("[policies.p]\ninstructions = \"{}\"", "é ".repeat(50_000));
    let report = case(&long).expect_broken();
    assert_eq!(report.problems()[0].code, "policy.too-long");
}

#[test]
fn a_policy_that_a_client_has_exists() {
    let base = "[policies.voice]\nvoice = \"marin\"\n";
    case(&format!("{base}[clients.defaults]\npolicy = \"voice\"")).expect_sound();
    case(&format!(
        "{base}[clients.access.default]\npolicy = \"voice\""
    ))
    .expect_sound();
    let misspelt = format!("{base}[clients.access.default]\npolicy = \"voices\"");
    check_broken(
        &misspelt,
        "policy.unknown clients.access.default.policy |\"voices\"|",
    );
    assert_eq!(hint(&misspelt), "did you mean \"voice\"?");
    let other = format!("{base}[clients.defaults]\npolicy = \"strict\"");
    check_broken(
        &other,
        "policy.unknown clients.defaults.policy |\"strict\"|",
    );
    assert_eq!(hint(&other), "configured are \"voice\"");
    let none = "[clients.defaults]\npolicy = \"voice\"";
    assert_eq!(hint(none), "write its rules under policies.<name>");
}

#[test]
fn azure_helps_only_when_told_to() {
    let helpers = |text: &str| {
        let resolved = toml(&format!("{SOUND}{text}"))
            .with(ENVIRONMENT)
            .expect_sound();
        let found = resolved.config.routes.resolve(Some("voice")).unwrap();
        (**found.helpers).clone()
    };
    assert!(helpers("").is_empty());
    let told = helpers(
        "azureDropTracing = true\nazureMapSessionModel = true\n\
         azureTranscriptionDeployments.gpt-4o-mini-transcribe = \"my-transcribe\"\n\
         azureTranscriptionDeployments.\"whisper.1\" = \"my-whisper\"",
    );
    assert!(told.drop_tracing);
    let pairs = |map: &std::collections::BTreeMap<String, String>| -> String {
        let pairs: Vec<String> = map
            .iter()
            .map(|(from, to)| format!("{from} -> {to}"))
            .collect();
        pairs.join(", ")
    };
    assert_eq!(pairs(&told.model_deployments), "voice -> gpt-realtime-prod");
    assert_eq!(
        pairs(&told.transcription_deployments),
        "gpt-4o-mini-transcribe -> my-transcribe, whisper.1 -> my-whisper"
    );
}

#[test]
fn azures_helpers_are_azures() {
    let check = |text: &str, expected: &str| {
        let report = toml(&format!("{SOUND}{text}"))
            .with(ENVIRONMENT)
            .expect_broken();
        assert_eq!(
            lines(&report),
            expected.replace('@', "talk.realtime.providers.azure-openai")
        );
    };
    check(
        "azureTranscriptionDeployments.whisper-1 = \"my whisper\"",
        "azure.deployment-name @.azureTranscriptionDeployments.whisper-1 |\"my whisper\"|",
    );
    check(
        "azureTranscriptionDeployments = \"whisper\"",
        "value.type @.azureTranscriptionDeployments |\"*******\"|",
    );
    check(
        "azureDropTracing = \"yes\"",
        "value.type @.azureDropTracing |\"yes\"|",
    );
    let openai = "[talk.realtime.providers.openai]\ntype = \"openai\"\nmodel = \"m\"\nazureDropTracing = true\napiKey = { env = \"KEY\" }\n";
    let report = toml(openai).with(ENVIRONMENT).expect_broken();
    assert_eq!(
        lines(&report),
        "azure.contradiction talk.realtime.providers.openai.azureDropTracing |azureDropTracing|"
    );
}
