//! Bytes from anywhere are read or refused, never worse.

use proptest::prelude::*;
use talkline_auth::{Azure, Origin, OriginRules};
use talkline_config::{
    Style,
    endpoint::{EndpointKind, EndpointRules, normalise},
};

use crate::support::Case;

/// Pieces that reach deep into the readers more often than random characters do.
const PIECES: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    "=",
    ":",
    ",",
    ".",
    "\"",
    "'",
    "\n",
    "\r\n",
    " ",
    "#",
    "//",
    "/*",
    "*/",
    "\\",
    "\\u",
    "\\ud800",
    "\\udc00",
    "\u{feff}",
    "talk",
    "realtime",
    "providers",
    "openai",
    "azure-openai",
    "custom",
    "azureEndpoint",
    "azureDeployment",
    "apiKey",
    "env",
    "file",
    "source",
    "server",
    "listen",
    "clients",
    "keys",
    "limits",
    "pingInterval",
    "routes",
    "type",
    "true",
    "null",
    "0x",
    "-",
    "1e9",
    "Infinity",
    "2025-04-01",
    "https://r.openai.azure.com",
    "ü",
    "\u{1f4de}",
    "\0",
    "\u{1b}[2J",
];

fn soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => proptest::sample::select(PIECES).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// Reads a text in both formats and renders what comes of it.
fn read(text: &str) {
    for name in ["a.toml", "a.json5"] {
        let case = Case::default().file(name, text).with("OPENAI_API_KEY=sk-1");
        match case.resolve() {
            Ok(resolved) => drop(resolved.warnings.render(Style::Colour)),
            Err(report) => {
                assert!(report.has_errors());
                assert!(!report.render(Style::Plain).contains('\u{1b}'), "{text:?}");
                for problem in report
                    .problems()
                    .iter()
                    .filter(|problem| problem.code == "file.syntax")
                {
                    assert!(
                        problem.source.is_some() && report.span_text(problem).is_some(),
                        "{text:?}"
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in soup()) {
        read(&text);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_mutated_configuration_is_read_or_refused(at in 0usize..400, piece in proptest::sample::select(PIECES)) {
        let sound = "talk.realtime.provider = \"openai\"\n[talk.realtime.providers.openai]\nazureEndpoint = \"https://r.openai.azure.com\"\napiKey = { env = \"K\" }\n[clients]\nkeys = [{ env = \"C\" }]\n[limits]\npingInterval = \"20s\"\n";
        let at = at % sound.len();
        read(&format!("{}{piece}{}", &sound[..at], &sound[at..]));
        read(&format!("{}{piece}{}", &sound[..at], &sound[(at + 1)..]));
    }

    /// Whatever is accepted for Azure is an https origin of Azure's or loopback.
    #[test]
    fn no_endpoint_leads_elsewhere(text in "(https|wss|http)://[a-z.@:/?#%\\\\]{0,12}(openai[.]azure[.]com|api[.]openai[.]com|127[.]0[.]0[.]1)[a-z.@:/?#0-9]{0,12}") {
        if let Ok(endpoint) = normalise(EndpointKind::Azure, &text, &EndpointRules::default()) {
            let host = endpoint.origin.split("://").nth(1).unwrap().split(':').next().unwrap().to_owned();
            let azure = host.strip_suffix(".openai.azure.com").is_some_and(|label| !label.contains('.'));
            prop_assert!(azure || host.starts_with("127."), "{text} -> {endpoint:?}");
            prop_assert!(!azure || endpoint.origin.starts_with("https://"));
            let typed = Origin::<Azure>::parse(&endpoint.origin, &OriginRules::default());
            prop_assert!(typed.is_ok(), "the two tables of rules disagree: {typed:?}");
        }
    }
}

#[test]
fn depth_and_size_are_bounded() {
    read(&"[".repeat(100_000));
    read(&format!("{{a: {}", "{a: ".repeat(100_000)));
    read(&"a.".repeat(100_000));
    read(&format!("a = {}", "{ a = ".repeat(50_000)));
    let report = Case::default()
        .file("big.toml", &"#".repeat(2 << 20))
        .resolve()
        .unwrap_err();
    assert_eq!(report.problems()[0].code, "file.syntax");
    assert!(report.problems()[0].message.contains("1 MiB"), "{report}");
}
