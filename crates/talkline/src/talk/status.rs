//! The line that tells what is waited for, on a terminal.

use std::{
    io::{IsTerminal as _, Write as _},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use talkline_sim::caller::Progress;
use tokio::{sync::oneshot, task::JoinHandle, time::interval};

/// Time from one look of the line to the next.
const EVERY: Duration = Duration::from_millis(100);
/// Characters of a caption that fit beside the rest.
const CAPTION_MAX: usize = 60;

/// What is being done, and since when.
#[derive(Debug)]
pub(super) struct Status {
    doing: String,
    since: Instant,
    /// How long it is known to take.
    takes: Option<Duration>,
    caption: String,
}

impl Status {
    pub(super) fn new(url: &str) -> Self {
        Self {
            doing: format!("connecting to {url}"),
            since: Instant::now(),
            takes: None,
            caption: String::new(),
        }
    }

    pub(super) fn advance(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Upgraded => self.begin("waiting for the session"),
            Progress::SessionCreated => self.begin("setting the session up"),
            Progress::Asking(takes) => {
                self.begin("speaking");
                self.takes = Some(takes);
            }
            Progress::Asked => self.begin("waiting for the reply"),
            Progress::FirstAudio => self.begin("listening"),
            Progress::Reply(words) => self.caption.push_str(words),
            _ => {}
        }
    }

    fn begin(&mut self, doing: &str) {
        doing.clone_into(&mut self.doing);
        self.since = Instant::now();
        self.takes = None;
    }

    /// The line, after `elapsed` of what is being done.
    fn line(&self, elapsed: Duration) -> String {
        let mut line = format!("… {} {:.1} s", self.doing, elapsed.as_secs_f64());
        if let Some(takes) = self.takes {
            line.push_str(&format!(" of {:.1} s", takes.as_secs_f64()));
        }
        if !self.caption.is_empty() {
            let skipped = self.caption.chars().count().saturating_sub(CAPTION_MAX);
            let tail: String = self.caption.chars().skip(skipped).collect();
            // What a service sends must not move the cursor.
            let tail: String = tail.chars().filter(|c| !c.is_control()).collect();
            line.push_str(&format!(": {tail}"));
        }
        line
    }
}

/// A line that is being shown.
pub(super) struct Shown {
    task: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// Shows the status on standard error, if that is a terminal, until it is cleared.
pub(super) fn show(status: Arc<Mutex<Status>>) -> Shown {
    if !std::io::stderr().is_terminal() {
        return Shown { task: None };
    }
    let (stop, mut stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        let mut ticks = interval(EVERY);
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => return erase(),
                _ = ticks.tick() => {}
            }
            let Ok(line) = status.lock().map(|it| it.line(it.since.elapsed())) else {
                return erase();
            };
            write(&format!("\r\x1b[2K{line}"));
        }
    });
    Shown {
        task: Some((stop, task)),
    }
}

impl Shown {
    /// Takes the line away.
    pub(super) async fn clear(self) {
        if let Some((stop, task)) = self.task {
            let _ = stop.send(());
            let _ = task.await;
        }
    }
}

fn erase() {
    write("\r\x1b[2K");
}

fn write(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_what_is_waited_for() {
        let mut status = Status::new("ws://localhost:8080/v1/realtime");
        let check = |status: &Status, expected: &str| {
            assert_eq!(status.line(Duration::from_millis(1_230)), expected);
        };
        check(
            &status,
            "… connecting to ws://localhost:8080/v1/realtime 1.2 s",
        );
        status.advance(Progress::Asking(Duration::from_secs(2)));
        check(&status, "… speaking 1.2 s of 2.0 s");
        status.advance(Progress::Asked);
        check(&status, "… waiting for the reply 1.2 s");
        status.advance(Progress::FirstAudio);
        status.advance(Progress::Reply("one, \x1b[31mtwo, "));
        check(&status, "… listening 1.2 s: one, [31mtwo, ");
        status.advance(Progress::Reply(&"three, ".repeat(20)));
        let line = status.line(Duration::ZERO);
        assert!(
            line.chars().count() < 100 && line.ends_with("three, "),
            "{line}"
        );
    }
}
