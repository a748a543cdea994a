//! The command lines of Azure: `az` and `azd`, as scripts that say what they are told.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::clock::now_unix;

use super::calendar;
use super::token::{TENANT, TokenSpec};

/// What the command lines do when asked for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CliMode {
    /// Print a token for the scope that the fake is for; another scope is refused.
    Works,
    /// Say that nobody is logged in.
    LoggedOut,
    /// Say that the login has expired (AADSTS700082).
    LoginExpired,
    /// Are not there.
    Missing,
    /// Print nothing and stay, until they are ended or the fake is dropped.
    Hangs,
    /// Print a token this much later.
    Slow(Duration),
    /// Succeed and print what is no token.
    Garbage,
    /// Fail and print nothing.
    FailSilently,
}

/// Executable scripts named `az` and `azd` in a directory of the caller's, to be put first in a child's `PATH`.
///
/// The token is minted when the mode is set, not when a script runs, and its life is counted from there. Dropping
/// the fake removes the scripts and ends those that hang within a second or so. Needs `/bin/sh`.
#[derive(Debug)]
pub struct FakeAz {
    directory: PathBuf,
    scope: String,
    token: TokenSpec,
}

/// The commands that are faked.
const NAMES: [&str; 2] = ["az", "azd"];

/// What every script does: note the call, then what its mode says.
///
/// Processes started while a script was open for writing in this process would keep it from being run ("text file
/// busy"), so the script itself never changes and is written by a child; only what it reads changes.
const SCRIPT: &str = r#"#!/bin/sh
printf '%s\n' "$$ $*" >> "$0.calls"
. "$0.mode"
"#;

impl FakeAz {
    /// Writes the scripts, for tokens for `https://cognitiveservices.azure.com/.default`.
    ///
    /// # Errors
    /// What writing said.
    pub fn write(directory: impl Into<PathBuf>, mode: &CliMode) -> io::Result<Self> {
        let scope = "https://cognitiveservices.azure.com/.default";
        Self::write_for(directory, scope, TokenSpec::new(), mode)
    }

    /// Writes the scripts, for tokens of that spec for that scope.
    ///
    /// # Errors
    /// What writing said.
    pub fn write_for(
        directory: impl Into<PathBuf>,
        scope: impl Into<String>,
        token: TokenSpec,
        mode: &CliMode,
    ) -> io::Result<Self> {
        let fake = Self {
            directory: directory.into(),
            scope: scope.into(),
            token,
        };
        fake.set_mode(mode)?;
        Ok(fake)
    }

    /// Does this from the next call on.
    ///
    /// # Errors
    /// What writing said.
    pub fn set_mode(&self, mode: &CliMode) -> io::Result<()> {
        for name in NAMES {
            let script = self.directory.join(name);
            if *mode == CliMode::Missing {
                remove(&script)?;
                continue;
            }
            let staged = self.file(name, "staged");
            std::fs::write(&staged, self.behaviour(name, mode))?;
            std::fs::rename(&staged, self.file(name, "mode"))?;
            if !script.exists() {
                write_executable(&script)?;
            }
        }
        Ok(())
    }

    /// The directory of the scripts.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A `PATH` with the directory first, then `/usr/bin` and `/bin`.
    #[must_use]
    pub fn path(&self) -> OsString {
        let mut path = self.directory.clone().into_os_string().into_vec();
        path.extend_from_slice(b":/usr/bin:/bin");
        OsString::from_vec(path)
    }

    /// The calls of `az` and of `azd` so far, each command's in order: process id and arguments.
    #[must_use]
    pub fn calls(&self) -> Vec<CliCall> {
        NAMES.iter().flat_map(|&name| self.calls_of(name)).collect()
    }

    fn calls_of(&self, name: &'static str) -> Vec<CliCall> {
        // A command that was never run has written no file.
        let text = std::fs::read_to_string(self.file(name, "calls")).unwrap_or_default();
        let read = |line: &str| {
            let (process, arguments) = line.split_once(' ')?;
            Some(CliCall {
                command: name,
                process: process.parse().ok()?,
                arguments: arguments.to_owned(),
            })
        };
        text.lines().filter_map(read).collect()
    }

    fn file(&self, name: &str, suffix: &str) -> PathBuf {
        self.directory.join(format!("{name}.{suffix}"))
    }

    fn behaviour(&self, name: &str, mode: &CliMode) -> String {
        let proper = || self.proper(name);
        match mode {
            CliMode::Works | CliMode::Missing => proper(),
            CliMode::Slow(delay) => format!("/bin/sleep {}\n{}", delay.as_secs_f64(), proper()),
            // It looks for itself, so that no process outlives the fake for long.
            CliMode::Hangs => "while [ -e \"$0\" ]; do /bin/sleep 0.5; done\nexit 1\n".to_owned(),
            CliMode::Garbage => "echo 'WARNING: this is not a token'\n".to_owned(),
            CliMode::FailSilently => "exit 1\n".to_owned(),
            CliMode::LoggedOut => fail(&complaint(
                name,
                "ERROR: Please run 'az login' to setup account.",
                "ERROR: not logged in, run `azd auth login` to login",
            )),
            CliMode::LoginExpired => fail(&complaint(name, EXPIRED_AZ, EXPIRED_AZD)),
        }
    }

    /// Prints the token if the arguments are those that the real command would print it for.
    fn proper(&self, name: &str) -> String {
        let verb = if name == "az" {
            "account get-access-token"
        } else {
            "auth token"
        };
        let unknown = fail(&format!("ERROR: '{name}' was not asked for a token"));
        let scope_refused = fail(&complaint(name, BAD_SCOPE, BAD_SCOPE));
        format!(
            "case \"$*\" in {verb}*) ;; *) {unknown} ;; esac\n\
             case \"$* \" in *{option}\" \"*) ;; *) {scope_refused} ;; esac\n\
             printf '%s\\n' {token}\n",
            verb = quote(verb),
            option = quote(&format!("--scope {}", self.scope)),
            token = quote(&self.print(name)),
        )
    }

    fn print(&self, name: &str) -> String {
        let now_unix = now_unix();
        let audience = self.scope.strip_suffix("/.default").unwrap_or(&self.scope);
        let issued = self.token.issue(
            &super::token::Asked {
                audience,
                object_id: None,
                app_id: None,
                tenant: None,
            },
            now_unix,
        );
        let at_unix = u64::try_from(issued.expires_unix).unwrap_or_default();
        let at = calendar::rfc3339(at_unix);
        let printed = if name == "az" {
            json!({
                "accessToken": issued.token,
                // In the machine's own time, which this takes for UTC.
                "expiresOn": format!("{}.000000", at.trim_end_matches('Z').replace('T', " ")),
                "expires_on": issued.expires_unix,
                "subscription": "0f1e2d3c-0000-4000-8000-a1b2c3d4e5f6",
                "tenant": TENANT,
                "tokenType": "Bearer",
            })
        } else {
            json!({"token": issued.token, "expiresOn": at})
        };
        printed.to_string()
    }
}

impl Drop for FakeAz {
    fn drop(&mut self) {
        for name in NAMES {
            let _ = remove(&self.directory.join(name));
        }
    }
}

/// One call of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliCall {
    /// `az` or `azd`.
    pub command: &'static str,
    /// The process that ran it.
    pub process: u32,
    /// The arguments, joined with spaces.
    pub arguments: String,
}

const EXPIRED_AZ: &str = "ERROR: AADSTS700082: The refresh token has expired due to inactivity. The token was issued \
                          on 2026-01-02T03:04:05.0000000Z and was inactive for 90.00:00:00.\nInteractive authentication \
                          is needed. Please run:\naz login";
const EXPIRED_AZD: &str = "ERROR: AADSTS700082: The refresh token has expired due to inactivity.\nSuggestion: \
                           reauthentication required, run `azd auth login` to acquire a new token.";
const BAD_SCOPE: &str = "ERROR: AADSTS70011: The provided request must include a 'scope' input parameter. The provided \
                         value for the input parameter 'scope' is not valid.";

/// `az` complains in plain text; `azd` with `-o json` in JSON.
fn complaint(name: &str, az: &str, azd: &str) -> String {
    if name == "az" {
        return az.to_owned();
    }
    let message = json!({
        "type": "consoleMessage",
        "timestamp": "2026-11-22T10:00:00Z",
        "data": {"message": format!("\n{azd}\n")},
    });
    message.to_string()
}

fn fail(message: &str) -> String {
    format!("printf '%s\\n' {} >&2; exit 1", quote(message))
}

/// A word of the shell (POSIX, section 2.2.2).
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Writes a script by a child process: see [`SCRIPT`].
fn write_executable(path: &Path) -> io::Result<()> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", r#"/bin/cat > "$0" && /bin/chmod 755 "$0""#])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take();
    let written = stdin
        .as_mut()
        .map_or(Ok(()), |stdin| stdin.write_all(SCRIPT.as_bytes()));
    drop(stdin);
    let status = child.wait()?;
    written?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "the script was not written: {status}"
        )))
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
