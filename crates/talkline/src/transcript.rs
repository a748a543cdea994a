//! A turn as a person or a program reads it.

use std::{fmt::Write as _, path::Path, time::Duration};

use serde_json::{Value, json};
use talkline_sim::caller::{Dialect, TurnReport};

/// What only some commands show.
#[derive(Debug, Default)]
pub(crate) struct Extra<'a> {
    /// Shown in the place of a missing transcript of the question.
    pub(crate) unheard: &'a str,
    /// Where the reply was saved.
    pub(crate) saved: Option<&'a Path>,
    /// Whether the session is named.
    pub(crate) session: bool,
}

/// Captions of both sides, what was heard, and how long things took.
pub(crate) fn text(report: &TurnReport, extra: &Extra<'_>) -> String {
    let latencies = &report.latencies;
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<26}{}", printable(value));
    };
    let heard = match report.input_transcript.as_str() {
        "" => extra.unheard,
        heard => heard,
    };
    row("you", heard);
    row("reply", &report.reply_transcript);
    let saved = extra
        .saved
        .map(|path| format!(", saved to {}", path.display()));
    let audio = seconds(report.reply().duration());
    row(
        "reply audio",
        &format!("{audio}{}", saved.unwrap_or_default()),
    );
    row("tokens", &tokens(&report.usage));
    if extra.session {
        let session = format!(
            "{}, {}, {}",
            report.session_id,
            report.model,
            dialect(report.dialect)
        );
        row("session", &session);
    }
    row("connected after", &millis(latencies.upgraded));
    row("session created after", &millis(latencies.session_created));
    row(
        "speech end → first audio",
        &millis(latencies.speech_end_to_first_audio),
    );
    row("whole turn", &seconds(latencies.total));
    text
}

/// The same for programs.
pub(crate) fn json(report: &TurnReport) -> Value {
    let latencies = &report.latencies;
    let millis = |duration: Duration| (duration.as_secs_f64() * 10_000.0).round() / 10.0;
    json!({
        "session": report.session_id,
        "model": report.model,
        "dialect": dialect(report.dialect),
        "input_transcript": report.input_transcript,
        "reply_transcript": report.reply_transcript,
        "reply_audio_seconds": report.reply().duration().as_secs_f64(),
        "usage": report.usage,
        "latencies_ms": {
            "connected": millis(latencies.upgraded),
            "session_created": millis(latencies.session_created),
            "speech_end_to_first_audio": millis(latencies.speech_end_to_first_audio),
            "total": millis(latencies.total),
        },
    })
}

fn dialect(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Ga => "ga",
        Dialect::Preview => "preview",
    }
}

fn tokens(usage: &Value) -> String {
    let count = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64);
    let Some(total) = count("/total_tokens") else {
        return "not told".to_owned();
    };
    let kinds = [
        ("audio in", "/input_token_details/audio_tokens"),
        ("text in", "/input_token_details/text_tokens"),
        ("audio out", "/output_token_details/audio_tokens"),
        ("text out", "/output_token_details/text_tokens"),
    ];
    let each = kinds
        .into_iter()
        .filter_map(|(name, pointer)| Some(format!("{name} {}", count(pointer)?)));
    let each: Vec<String> = each.collect();
    match each.is_empty() {
        true => total.to_string(),
        false => format!("{total} ({})", each.join(", ")),
    }
}

/// What a service says must not move the cursor or break the line.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

pub(crate) fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
