//! Starting processes, with errors that name the command.

use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How often a child with a deadline is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How long an interrupted child may take to stop what it started itself.
const GRACE: Duration = Duration::from_secs(20);

/// Runs a command on this terminal.
///
/// # Errors
/// When it cannot be started, or exits with anything but success.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    check(command, status)
}

/// Runs a command and returns its standard output; standard error goes to this terminal.
///
/// # Errors
/// As [`run`], and when the output is not UTF-8.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| cannot_start(command))?;
    check(command, output.status)?;
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed bytes that are not UTF-8", words(command)))
}

/// What the first line of `<tool> <argument>` says, or `None` when there is no such tool.
///
/// # Errors
/// When the tool exists but cannot be started or fails.
pub(crate) fn first_line(tool: &str, arguments: &[&str]) -> Result<Option<String>> {
    let mut command = Command::new(tool);
    command.args(arguments).stderr(Stdio::null());
    match command.output() {
        Ok(output) => {
            check(&command, output.status)?;
            let text = String::from_utf8_lossy(&output.stdout);
            Ok(Some(
                text.lines().next().unwrap_or_default().trim().to_owned(),
            ))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| cannot_start(&command)),
    }
}

/// Runs a command on this terminal for at most `limit`.
///
/// When the time is up the child is interrupted, as by Ctrl-C, so that test
/// runners stop what they started; a child that ignores that is killed.
///
/// # Errors
/// When it cannot be started or the time is up; an unsuccessful exit is a value.
pub(crate) fn status_within(command: &mut Command, limit: Duration) -> Result<ExitStatus> {
    let mut child = command.spawn().with_context(|| cannot_start(command))?;
    if let Some(status) = wait_until(&mut child, Instant::now() + limit)? {
        return Ok(status);
    }
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    let stopped = match interrupted {
        Ok(_) => wait_until(&mut child, Instant::now() + GRACE)?.is_some(),
        Err(_) => false,
    };
    if !stopped {
        child.kill()?;
        child.wait()?;
    }
    bail!(
        "`{}` was stopped: it took more than {} s",
        words(command),
        limit.as_secs()
    )
}

fn wait_until(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed ({status})", words(command));
    }
    Ok(())
}

pub(crate) fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", words(command))
}

/// The command as one would type it, for messages.
pub(crate) fn words(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|argument| argument.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_none_and_a_failing_one_an_error() {
        assert_eq!(first_line("no-such-tool-anywhere", &[]).unwrap(), None);
        assert!(first_line("false", &[]).is_err());
        assert_eq!(
            first_line("echo", &["one"]).unwrap().as_deref(),
            Some("one")
        );
    }

    #[test]
    fn a_command_that_does_not_end_is_stopped() {
        let error = status_within(Command::new("sleep").arg("600"), Duration::from_millis(1))
            .expect_err("600 s are more than 1 ms");
        assert!(error.to_string().contains("was stopped"), "{error}");
    }

    #[test]
    fn failures_name_the_command() {
        let error = run(&mut Command::new("false")).expect_err("`false` fails");
        assert!(error.to_string().contains("`false` failed"), "{error}");
    }
}
