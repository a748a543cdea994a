//! The log subscriber.
//!
//! Three promises hold whatever is logged. A line is one line: control characters in a value are
//! escaped, so that nobody who chooses a value can forge another line or move a terminal's cursor.
//! Logging never waits: lines go to a thread of their own through a queue of a fixed length, and are
//! dropped and counted when standard error is not read. Other crates are heard up to INFO only, for
//! HTTP and TLS libraries write requests, and with them credentials, to their lower levels.

use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal as _},
};

use anyhow::Context as _;
use tracing::{Level, Metadata, field::Field};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    field::MakeExt as _,
    filter::filter_fn,
    fmt::{MakeWriter, format::Writer},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::cli::LogFormat;

/// Identity and TLS libraries log requests at their lower levels; they are heard from warnings up.
const QUIET: &[&str] = &[
    "azure_identity=warn",
    "typespec_client_core=warn",
    "rustls=warn",
    "hyper=info",
];

/// Lines that may wait for standard error. A line has a few hundred bytes.
const LINES_WAITING_MAX: usize = 16 * 1024;

/// Which crates are heard below INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Talkline's own.
    Own,
    /// All: `--unsafe-trace`.
    All,
}

/// Keeps the log going. Dropping it waits a moment for the lines that are under way.
pub(crate) struct Log {
    /// How many lines were dropped because nobody read them.
    pub(crate) dropped: ErrorCounter,
    _guard: WorkerGuard,
}

/// Sends log lines to standard error.
pub(crate) fn start(format: LogFormat, filter: &str, heard: Heard) -> anyhow::Result<Log> {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_WAITING_MAX)
        .thread_name("talkline-log")
        .finish(std::io::stderr());
    let dropped = NonBlocking::error_counter(&writer);
    let colours = std::io::stderr().is_terminal();
    subscriber(format, filter, heard, colours, writer)?
        .try_init()
        .map_err(|error| anyhow::anyhow!("the log could not be started: {error}"))?;
    Ok(Log {
        dropped,
        _guard: guard,
    })
}

type Subscriber = Box<dyn tracing::Subscriber + Send + Sync>;

fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    heard: Heard,
    colours: bool,
    writer: W,
) -> anyhow::Result<Subscriber>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let mut filter = EnvFilter::try_new(filter).context("--log-level is not a filter")?;
    for directive in QUIET {
        filter = filter.add_directive(
            directive
                .parse()
                .context("a built-in filter is malformed")?,
        );
    }
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colours);
    let text = |between: &'static str| {
        tracing_subscriber::fmt::format::debug_fn(write_field).delimited(between)
    };
    let layer = match format {
        LogFormat::Pretty => layer.compact().fmt_fields(text("\n      ")).boxed(),
        LogFormat::Compact => layer.compact().fmt_fields(text(" ")).boxed(),
        LogFormat::Json => {
            let layer = layer.json().flatten_event(true);
            layer.map_writer(JsonWriters).boxed()
        }
    };
    let audible = move |metadata: &Metadata<'_>| is_heard(metadata, heard);
    let layer = layer.with_filter(filter_fn(audible)).with_filter(filter);
    Ok(Box::new(tracing_subscriber::registry().with(layer)))
}

fn is_heard(metadata: &Metadata<'_>, heard: Heard) -> bool {
    let target = metadata.target();
    let own =
        target == "talkline" || target.starts_with("talkline_") || target.starts_with("talkline::");
    own || heard == Heard::All || *metadata.level() <= Level::INFO
}

/// Writes `name=value`, or the message alone.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let mut escaped = Escaped(writer);
    if field.name() == "message" {
        write!(escaped, "{value:?}")
    } else {
        write!(escaped, "{}={value:?}", field.name())
    }
}

fn is_unprintable(c: char) -> bool {
    let reorders =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || reorders
}

/// Makes the writers of JSON lines. JSON itself escapes control characters of ASCII alone; the others
/// stand in strings only, where an escape means the same.
struct JsonWriters<W>(W);

struct JsonWriter<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for JsonWriters<W> {
    type Writer = JsonWriter<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        JsonWriter(self.0.make_writer())
    }
}

impl<W: io::Write> io::Write for JsonWriter<W> {
    /// Takes the whole line, which is what the subscriber writes at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        if !text.contains(|c| c != '\n' && is_unprintable(c)) {
            self.0.write_all(line)?;
            return Ok(line.len());
        }
        let mut escaped = String::with_capacity(line.len() + 32);
        for c in text.chars() {
            if c != '\n' && is_unprintable(c) {
                // All of them are in the basic plane: one unit each.
                let _ = write!(escaped, "\\u{:04x}", u32::from(c));
            } else {
                escaped.push(c);
            }
        }
        self.0.write_all(escaped.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Escapes control characters, and those that reorder what a terminal shows.
struct Escaped<'w, 'f>(&'w mut Writer<'f>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = 0;
        for (at, c) in text.char_indices() {
            if is_unprintable(c) {
                self.0.write_str(&text[plain..at])?;
                write!(self.0, "{}", c.escape_unicode())?;
                plain = at + c.len_utf8();
            }
        }
        self.0.write_str(&text[plain..])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{debug, info};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .expect("nobody panics")
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str, heard: Heard, log: impl FnOnce()) -> String {
        let page = Page::default();
        let copy = page.clone();
        let subscriber = subscriber(format, filter, heard, false, move || copy.clone())
            .expect("the filter is sound");
        tracing::subscriber::with_default(subscriber, log);
        let bytes = page.0.lock().expect("nobody panics").clone();
        String::from_utf8(bytes).expect("text")
    }

    /// What a client would send to write lines of its own, to clear a screen, to turn text around.
    const FORGED: &str = "x\n2026-01-01T00:00:00Z  INFO talkline: forged\r\u{1b}[2J\u{9b}1m\u{7f}\0\u{202e}\u{2028}y";

    fn log_forged() {
        let error = io::Error::other(FORGED);
        info!(quoted = FORGED, shown = %FORGED, debugged = ?FORGED, %error, "{FORGED}");
    }

    #[test]
    fn a_value_cannot_forge_a_line_or_move_a_cursor() {
        for (format, lines) in [
            (LogFormat::Compact, 1),
            (LogFormat::Json, 1),
            (LogFormat::Pretty, 5),
        ] {
            let page = logged(format, "info", Heard::Own, log_forged);
            assert_eq!(page.lines().count(), lines, "{page}");
            let text = page.replace('\n', "");
            assert!(!text.chars().any(char::is_control), "{text:?}");
            assert!(!text.contains(is_unprintable), "{text:?}");
            // A forged line would begin like a true one.
            let stamped = page
                .lines()
                .filter(|line| line.trim_start().starts_with("2026-01-01"));
            assert_eq!(stamped.count(), 0, "{page}");
        }
    }

    #[test]
    fn json_gives_back_what_was_logged() {
        let page = logged(LogFormat::Json, "info", Heard::Own, log_forged);
        let line: serde_json::Value = serde_json::from_str(page.trim_end()).expect("one object");
        assert_eq!(line["quoted"], FORGED);
        assert_eq!(line["message"], FORGED);
    }

    #[test]
    fn other_crates_are_heard_up_to_info() {
        let log = || {
            debug!(target: "reqwest::connect", "their debug");
            debug!(target: "talklinelike", "no kin");
            info!(target: "reqwest::connect", "their info");
            debug!(target: "talkline_gateway::dial", "our debug");
        };
        let page = logged(LogFormat::Compact, "trace", Heard::Own, log);
        assert!(
            !page.contains("their debug") && !page.contains("no kin"),
            "{page}"
        );
        assert!(
            page.contains("their info") && page.contains("our debug"),
            "{page}"
        );
        let page = logged(LogFormat::Compact, "trace", Heard::All, log);
        assert!(page.contains("their debug"), "{page}");
    }
}
