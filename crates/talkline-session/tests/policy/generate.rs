//! Random events: real ones, nearly real ones, and evasive ones.

use talkline_session::policy::{
    Choice, Events, Helpers, Json, McpServers, OnViolation, Rules, TokensMax, Tools, Tracing,
};

use crate::differ::{Agreement, agree};

/// A message, the rules it is held against, and where it is cut.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) rules: Rules,
    pub(crate) helpers: Helpers,
    pub(crate) message: Vec<u8>,
    pub(crate) cuts: Vec<usize>,
}

/// The case of a seed.
pub(crate) fn case(seed: u64) -> Case {
    let mut random = Random(seed);
    let rules = rules(&mut random);
    let helpers = helpers(&mut random);
    let message = message(&mut random);
    Case {
        rules,
        helpers,
        cuts: cuts(&mut random, message.len()),
        message,
    }
}

impl Case {
    /// Whether guard and oracle agree.
    ///
    /// # Errors
    ///
    /// How they differ.
    pub(crate) fn agree(&self) -> Result<Agreement, String> {
        agree(&self.rules, &self.helpers, &self.message, &self.cuts).map_err(|difference| {
            let message = String::from_utf8_lossy(&self.message);
            format!(
                "{message}\n{:?}\n{:?}\n{difference}",
                self.rules, self.helpers
            )
        })
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap_or(0)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }
}

/// Random rules.
fn rules(random: &mut Random) -> Rules {
    let choice = |random: &mut Random| match random.below(3) {
        0 => Choice::Free,
        1 => Choice::Fixed("marin".into()),
        _ => Choice::OneOf(vec!["cedar".into(), "marin".into()]),
    };
    Rules {
        on_violation: match random.below(3) {
            0 => OnViolation::Refuse,
            _ => OnViolation::Rewrite,
        },
        instructions: (!random.one_in(3)).then(|| "Be kind.".to_owned()),
        prompt: random.one_in(4).then(|| json(r#"{"id":"pmpt_1"}"#)),
        voice: choice(random),
        tools: match random.below(3) {
            0 => Tools::Free,
            1 => Tools::Named(vec!["clock".into()]),
            _ => Tools::Fixed(
                Json::objects(r#"[{"type":"function","name":"clock"}]"#).expect("it is a list"),
            ),
        },
        model: choice(random),
        transcription_model: choice(random),
        max_output_tokens: match random.below(3) {
            0 => TokensMax::Free,
            1 => TokensMax::Fixed(100),
            _ => TokensMax::AtMost(100),
        },
        tracing: match random.below(3) {
            0 => Tracing::Free,
            1 => Tracing::Off,
            _ => Tracing::Fixed(json(r#"{"workflow_name":"w","group_id":"g"}"#)),
        },
        mcp_servers: match random.below(4) {
            0 => McpServers::Any,
            1 => McpServers::Only(vec!["https://mcp.example.com".into()]),
            _ => McpServers::default(),
        },
        events: match random.below(4) {
            0 => Events::Any,
            1 => Events::Only(vec!["session.update".into(), "response.create".into()]),
            _ => Events::Default,
        },
        out_of_band: random.one_in(2),
        ..Rules::default()
    }
}

fn json(text: &str) -> Json {
    Json::new(text).expect("it is JSON")
}

/// Random helpers of a route.
fn helpers(random: &mut Random) -> Helpers {
    let mut helpers = Helpers::default();
    if random.one_in(3) {
        let names = [("marin", "deployed"), ("whisper-1", "whisper")];
        let names = names.map(|(from, to)| (from.to_owned(), to.to_owned()));
        helpers.model_deployments = names.clone().into();
        helpers.transcription_deployments = names.into();
        helpers.drop_tracing = true;
    }
    helpers
}

const EVENTS: &[&str] = &[
    "session.update",
    "session.update",
    "session.update",
    "response.create",
    "response.create",
    "conversation.item.create",
    "conversation.item.delete",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "transcription_session.update",
    "session.instructions.append",
    "session.input_audio.append",
    "unknown.event",
    "Session.Update",
    "session.update\0",
];

const STRINGS: &[&str] = &[
    "marin",
    "cedar",
    "whisper-1",
    "Be kind.",
    "",
    "auto",
    "none",
    "inf",
    "system",
    "user",
    "assistant",
    "developer",
    "message",
    "function",
    "mcp",
    "function_call_output",
    "mcp_list_tools",
    "clock",
    "other",
    "https://mcp.example.com",
    "https://evil.example",
    "AAAA",
    "\0",
    "é𝄞\"\\/\u{8}\n",
    "\u{FEFF}",
];

const RAW: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "100",
    "101",
    "99",
    "-1",
    "1e2",
    "100.0",
    "1.5",
    "-0",
    "1E-400",
    "12345678901234567890123",
    "18446744073709551616",
    "1e299",
    "0.1e1",
    "[]",
    "{}",
    "[[]]",
    "[{}]",
    "[null]",
    r#"{"id":"pmpt_1"}"#,
    r#"{"group_id":"g","workflow_name":"w"}"#,
    r#"[{"type":"function","name":"clock"}]"#,
    r#"[{"name":"clock","type":"function"}]"#,
];

/// Texts that are no JSON, or no JSON that two readers agree about.
const BROKEN: &[&str] = &[
    "01",
    "1.",
    ".5",
    "+1",
    "-",
    "1e",
    "1e999",
    "-1e301",
    "NaN",
    "nul",
    "tru",
    "'x'",
    r#""\x""#,
    r#""\ud800""#,
    r#""\ud800\u0041""#,
    r#""\udc00""#,
    r#""\u12""#,
    "\"\n\"",
    "\"\0\"",
    "[1,]",
    "[,1]",
    r#"{"a":1,}"#,
    r#"{"a" 1}"#,
    r#"{"a":1,"a":1}"#,
    r#"{"a":1,"\u0061":1}"#,
    r#"{"a\u0000b":1}"#,
    "{a:1}",
    "/**/1",
    "\"",
    "[",
    "{",
    "",
];

const SETTINGS: &[&str] = &[
    "instructions",
    "prompt",
    "voice",
    "tools",
    "model",
    "max_output_tokens",
    "max_response_output_tokens",
    "tracing",
    "audio",
    "audio",
    "input_audio_transcription",
    "conversation",
    "input",
    "type",
    "turn_detection",
    "metadata",
    "delegation",
];

/// One random event's text.
fn message(random: &mut Random) -> Vec<u8> {
    let mut out = String::new();
    if random.one_in(60) {
        out.push_str(random.pick(&["\u{FEFF}", "\0", "x", "//\n"]));
    }
    space(random, &mut out);
    if random.one_in(6) {
        append(random, &mut out);
    } else {
        event(random, &mut out);
    }
    space(random, &mut out);
    if random.one_in(60) {
        out.push_str(random.pick(&["}", "{}", "\0", "x", ",", "\u{FEFF}", "null"]));
    }
    let mut bytes = out.into_bytes();
    if random.one_in(40) && !bytes.is_empty() {
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes.truncate(at),
            1 => bytes[at] = random.next().to_le_bytes()[0],
            2 => bytes.insert(at, random.next().to_le_bytes()[0]),
            _ => {
                bytes.remove(at);
            }
        }
    }
    bytes
}

fn append(random: &mut Random, out: &mut String) {
    let mut members = vec![
        (
            "type".to_owned(),
            string(random, "input_audio_buffer.append"),
        ),
        ("audio".to_owned(), audio(random)),
    ];
    if random.one_in(2) {
        members.push(("event_id".into(), text(random)));
    }
    if random.one_in(5) {
        members.push(("type".into(), string(random, "session.update")));
    }
    if random.one_in(5) {
        let key = random.pick(&["session", "response", "x", "audio", "event_id"]);
        members.push((key.to_owned(), any(random, 2)));
    }
    object(random, out, members);
}

fn audio(random: &mut Random) -> String {
    let length = [4, 40, 200, 256, 300, 1000][random.below(6)];
    let mut audio: String = "QUJD+/09".chars().cycle().take(length).collect();
    if random.one_in(8) {
        let odd = random.pick(&[
            "\\/", "\\u002B", "\\u0041", " ", "\\n", "\\\"", "é", "-", "\\\\",
        ]);
        audio.insert_str(random.below(length), odd);
    }
    format!("\"{audio}\"")
}

fn event(random: &mut Random, out: &mut String) {
    let mut members = Vec::new();
    if !random.one_in(30) {
        let name = random.pick(EVENTS);
        let name = string(random, name);
        members.push(("type".to_owned(), name));
    }
    for key in [
        "session", "response", "item", "event_id", "audio", "tools", "extra",
    ] {
        if random.one_in(if matches!(key, "session" | "response") {
            2
        } else {
            6
        }) {
            let value = match key {
                "session" | "response" if !random.one_in(20) => settings(random),
                "item" if !random.one_in(10) => item(random),
                "tools" => tools(random),
                "audio" if random.one_in(2) => audio(random),
                "event_id" => text(random),
                _ => any(random, 3),
            };
            members.push((key.to_owned(), value));
        }
    }
    object(random, out, members);
}

fn settings(random: &mut Random) -> String {
    let mut members = Vec::new();
    for _ in 0..random.below(5) {
        let key = random.pick(SETTINGS);
        let value = match key {
            "audio" if !random.one_in(10) => nested_audio(random),
            "tools" if !random.one_in(6) => tools(random),
            "input_audio_transcription" if !random.one_in(6) => transcription(random),
            "input" if !random.one_in(4) => {
                let items: Vec<String> = (0..random.below(3)).map(|_| item(random)).collect();
                format!("[{}]", items.join(","))
            }
            "delegation" => {
                let tools = tools(random);
                object_text(random, vec![("tools".into(), tools)])
            }
            _ => any(random, 2),
        };
        members.push((key.to_owned(), value));
    }
    dedup(random, &mut members);
    object_text(random, members)
}

fn nested_audio(random: &mut Random) -> String {
    let mut members = Vec::new();
    if random.one_in(2) {
        let voice = any(random, 1);
        let output = object_text(random, vec![("voice".into(), voice)]);
        members.push(("output".to_owned(), output));
    }
    if random.one_in(2) {
        let transcription = match random.one_in(6) {
            true => any(random, 2),
            false => transcription(random),
        };
        let input = object_text(random, vec![("transcription".into(), transcription)]);
        members.push(("input".to_owned(), input));
    }
    if random.one_in(8) {
        members.push((
            random.pick(&["output", "Input", "x"]).to_owned(),
            any(random, 2),
        ));
    }
    object_text(random, members)
}

fn transcription(random: &mut Random) -> String {
    let mut members = Vec::new();
    if !random.one_in(3) {
        members.push(("model".to_owned(), any(random, 1)));
    }
    if random.one_in(3) {
        members.push(("language".to_owned(), "\"en\"".to_owned()));
    }
    object_text(random, members)
}

fn tools(random: &mut Random) -> String {
    let mut tools = Vec::new();
    for _ in 0..random.below(4) {
        let mut members = Vec::new();
        for (key, value) in [
            ("type", random.pick(&["function", "mcp", "web", "function"])),
            ("name", random.pick(&["clock", "other"])),
            ("server_label", "x"),
            (
                "server_url",
                random.pick(&["https://mcp.example.com", "https://evil.example"]),
            ),
            ("connector_id", "connector_gmail"),
        ] {
            let often = matches!(key, "type" | "name");
            if random.one_in(if often { 1 } else { 5 }) {
                members.push((key.to_owned(), string(random, value)));
            }
        }
        if random.one_in(4) {
            let parameters = r#"{"properties":{"server_url":{"type":"string"},"tools":[1]}}"#;
            members.push(("parameters".to_owned(), parameters.to_owned()));
        }
        tools.push(match random.one_in(20) {
            true => any(random, 1),
            false => object_text(random, members),
        });
    }
    format!("[{}]", tools.join(","))
}

fn item(random: &mut Random) -> String {
    let mut members = Vec::new();
    if !random.one_in(4) {
        members.push(("type".to_owned(), text(random)));
    }
    if !random.one_in(3) {
        let role = random.pick(&["user", "assistant", "system", "developer", "System"]);
        members.push(("role".to_owned(), string(random, role)));
    }
    if random.one_in(4) {
        members.push(("tools".to_owned(), tools(random)));
    }
    object_text(random, members)
}

/// Any value at all; mostly sound.
fn any(random: &mut Random, depth: usize) -> String {
    match random.below(12) {
        0..=4 => text(random),
        5..=8 => random.pick(RAW).to_owned(),
        9 if random.one_in(8) => random.pick(BROKEN).to_owned(),
        10 if random.one_in(60) => "[".repeat(70) + &"]".repeat(70),
        10 if depth > 0 => tools(random),
        _ if depth > 0 => settings(random),
        _ => random.pick(RAW).to_owned(),
    }
}

fn text(random: &mut Random) -> String {
    let text = random.pick(STRINGS);
    string(random, text)
}

/// A string as JSON, some of its characters escaped without need.
fn string(random: &mut Random, text: &str) -> String {
    let mut out = String::from("\"");
    let escapes = random.one_in(6);
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            '/' if escapes => out.push_str("\\/"),
            _ if character < ' ' || (escapes && random.one_in(4)) => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let upper = random.one_in(2);
                    let unit = *unit;
                    out.push_str(&match upper {
                        true => format!("\\u{unit:04X}"),
                        false => format!("\\u{unit:04x}"),
                    });
                }
            }
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}

fn space(random: &mut Random, out: &mut String) {
    if random.one_in(10) {
        out.push_str(random.pick(&[" ", "  ", "\n", "\t", "\r\n "]));
    }
}

/// Leaves a key in twice only now and then.
fn dedup(random: &mut Random, members: &mut Vec<(String, String)>) {
    if !random.one_in(20) {
        members.sort();
        members.dedup_by(|a, b| a.0 == b.0);
    }
}

fn object_text(random: &mut Random, members: Vec<(String, String)>) -> String {
    let mut out = String::new();
    object(random, &mut out, members);
    out
}

/// Members in a random order, white space where it may stand, and some mischief with keys.
fn object(random: &mut Random, out: &mut String, mut members: Vec<(String, String)>) {
    for at in (1..members.len()).rev() {
        members.swap(at, random.below(at + 1));
    }
    if random.one_in(30)
        && let Some(member) = members.first().cloned()
    {
        members.push(member);
    }
    out.push('{');
    for (index, (key, value)) in members.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        space(random, out);
        let key = match random.below(60) {
            0 => key.to_uppercase(),
            1 => key[..1].to_uppercase() + &key[1..],
            2 => format!("{key}\0"),
            _ => key.clone(),
        };
        out.push_str(&string(random, &key));
        space(random, out);
        out.push(':');
        space(random, out);
        out.push_str(value);
        space(random, out);
    }
    out.push('}');
}

/// Where a message of this length is cut.
fn cuts(random: &mut Random, length: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = match random.below(4) {
        0 => Vec::new(),
        1 => (0..length).collect(),
        _ => (0..random.below(8))
            .map(|_| random.below(length + 1))
            .collect(),
    };
    cuts.sort_unstable();
    cuts
}
