//! `az` and `azd`, played by shell scripts.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, SystemTime},
};

use talkline_auth::TokenSource;
use talkline_entra::{AzureCli, AzureDeveloperCli, Environment, Scope, SetupError};
use tempfile::TempDir;
use tokio::{sync::oneshot, time::timeout};

use crate::child::describe;

/// A directory with one program in it.
pub(crate) struct Program(TempDir);

impl Program {
    pub(crate) fn new(name: &str, script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Written by a process of its own: while this one has the file open, a program that another
        // test starts inherits it, and the file cannot be run.
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "umask 0; cat > \"$0\" && chmod 755 \"$0\""])
            .arg(directory.path().join(name))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let script = format!("#!/bin/sh\ncd '{}'\n{script}\n", directory.path().display());
        let mut pipe = shell.stdin.take().unwrap();
        pipe.write_all(script.as_bytes()).unwrap();
        drop(pipe);
        assert!(shell.wait().unwrap().success());
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn environment(&self) -> Environment {
        environment(self.path().to_str().unwrap())
    }
}

fn environment(path: &str) -> Environment {
    Environment::read(|name| (name == "PATH").then(|| path.to_owned()))
}

fn scope() -> Scope {
    Scope::for_host("voice.openai.azure.com")
}

pub(crate) fn az(program: &Program) -> AzureCli {
    AzureCli::new(None, scope(), &program.environment()).unwrap()
}

fn in_an_hour() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 3600
}

pub(crate) fn prints_token(token: &str) -> String {
    let expires_on = in_an_hour();
    format!(
        r#"echo '{{"accessToken":"{token}","expiresOn":"2020-01-01 00:00:00.000000","expires_on":{expires_on},"tenant":"t","tokenType":"Bearer"}}'"#
    )
}

async fn assert_token(source: &dyn TokenSource) {
    let token = source.fetch().await.unwrap();
    assert_eq!(token.secret.expose(), "the-token");
    let seconds = token.time_to_live.as_secs();
    assert!((3500..=3600).contains(&seconds), "{seconds}");
    assert_eq!(token.refresh_in, None);
}

#[tokio::test]
async fn az_gives_a_token() {
    let script = "printf '%s\\n' \"$@\" > arguments\n".to_owned() + &prints_token("the-token");
    let program = Program::new("az", &script);
    let source = az(&program);
    assert_eq!(source.name(), "azure-cli");
    assert_token(&source).await;
    let arguments = || fs::read_to_string(program.path().join("arguments")).unwrap();
    let expected = "account\nget-access-token\n--output\njson\n--scope\n\
                    https://cognitiveservices.azure.com/.default\n";
    assert_eq!(arguments(), expected);

    let environment = program.environment();
    let source = AzureCli::new(Some("contoso.example"), scope(), &environment).unwrap();
    assert_token(&source).await;
    assert_eq!(
        arguments(),
        format!("{expected}--tenant\ncontoso.example\n")
    );
}

#[tokio::test]
async fn azd_gives_a_token() {
    let program = Program::new(
        "azd",
        "printf '%s\\n' \"$@\" > arguments\n\
         echo '{\"token\":\"the-token\",\"expiresOn\":\"2100-01-01T00:00:00Z\"}'",
    );
    let environment = program.environment();
    let source = AzureDeveloperCli::new(Some("contoso.example"), scope(), &environment).unwrap();
    assert_eq!(source.name(), "azd");
    let token = source.fetch().await.unwrap();
    assert_eq!(token.secret.expose(), "the-token");
    assert!(token.time_to_live > Duration::from_secs(3600));
    assert_eq!(
        fs::read_to_string(program.path().join("arguments")).unwrap(),
        "auth\ntoken\n--output\njson\n--no-prompt\n--scope\n\
         https://cognitiveservices.azure.com/.default\n--tenant-id\ncontoso.example\n"
    );
}

#[test]
fn a_tenant_is_no_option() {
    let environment = environment("/");
    let error = AzureCli::new(Some("--debug"), scope(), &environment).unwrap_err();
    assert!(matches!(error, SetupError::Id { .. }), "{error}");
    let error = AzureDeveloperCli::new(Some("a b"), scope(), &environment).unwrap_err();
    assert!(matches!(error, SetupError::Id { .. }), "{error}");
}

async fn failure(source: &dyn TokenSource) -> String {
    let error = source.fetch().await.unwrap_err();
    let how = if error.permanent {
        "permanent"
    } else {
        "transient"
    };
    format!("{how} {}", describe(&error))
}

#[tokio::test]
async fn a_tool_that_is_not_there() {
    let check = async |path: &str| {
        let environment = environment(path);
        let az = AzureCli::new(None, scope(), &environment).unwrap();
        let missing = "permanent cli_missing: az is not on PATH; hint: install the Azure CLI (https://aka.ms/azure-cli), or put az on PATH";
        assert_eq!(failure(&az).await, missing, "{path}");
        let azd = AzureDeveloperCli::new(None, scope(), &environment).unwrap();
        let missing = "permanent cli_missing: azd is not on PATH; hint: install";
        assert!(failure(&azd).await.starts_with(missing), "{path}");
    };
    check("").await;
    check("/nowhere").await;
    let program = Program::new("az", "");
    // A relative directory is where somebody else's program may lie.
    let depth = std::env::current_dir().unwrap().components().count();
    let relative = "../".repeat(depth) + &program.path().to_str().unwrap()[1..];
    assert!(Path::new(&relative).join("az").exists());
    check(&format!(".:{relative}:")).await;
    let file = program.path().join("az");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    check(program.path().to_str().unwrap()).await;
}

#[tokio::test]
async fn a_tool_that_fails() {
    let check = async |script: &str, expected: &str| {
        let program = Program::new("az", script);
        let text = failure(&az(&program)).await;
        assert!(text.starts_with(expected), "{text} is not {expected}");
    };
    check(
        "echo \"ERROR: Please run 'az login' to setup account.\" >&2; exit 1",
        "permanent cli_logged_out: az failed (exit status: 1): ERROR: Please run 'az login' to setup account.; hint: run az login",
    )
    .await;
    check(
        "echo 'ERROR: AADSTS700082: The refresh token has expired due to inactivity.' >&2; exit 1",
        "permanent cli_logged_out: az failed (exit status: 1): ERROR: AADSTS700082",
    )
    .await;
    check(
        "echo 'ERROR: [Errno 28] No space left' >&2; exit 2",
        "transient cli_failed: az failed (exit status: 2): ERROR: [Errno 28] No space left; hint: run az account get-access-token --output json --scope https://cognitiveservices.azure.com/.default by hand",
    )
    .await;
    check(
        "exit 1",
        "transient cli_failed: az failed (exit status: 1); hint",
    )
    .await;
    check("kill -9 $$", "transient cli_failed: az failed (signal: 9").await;

    let program = Program::new(
        "azd",
        "echo 'ERROR: not logged in, run `azd auth login` to login' >&2; exit 1",
    );
    let tenant = Some("contoso.example");
    let source = AzureDeveloperCli::new(tenant, scope(), &program.environment()).unwrap();
    assert_eq!(
        failure(&source).await,
        "permanent cli_logged_out: azd failed (exit status: 1): ERROR: not logged in, run `azd auth login` to login; \
         hint: run azd auth login --tenant-id contoso.example"
    );
}

#[tokio::test]
async fn a_tool_that_talks_nonsense() {
    let check = async |script: &str, expected: &str| {
        let program = Program::new("az", script);
        let text = failure(&az(&program)).await;
        assert!(text.starts_with(expected), "{text} is not {expected}");
    };
    let json = "permanent cli_garbage: az printed 6 bytes that are no token: it is not a JSON object; hint: run az account";
    check("echo hello", json).await;
    check("echo", "permanent cli_garbage: az printed 1 bytes").await;
    let old = r#"echo '{"accessToken":"t","expiresOn":"2030-01-01 00:00:00.000000"}'"#;
    check(
        old,
        "permanent cli_garbage: az printed 61 bytes that are no token: token or expiry is missing",
    )
    .await;
    check(&prints_token("a b"), "permanent cli_garbage: az printed ").await;
    check(
        r#"echo '{"accessToken":"t","expires_on":1}'"#,
        "transient identity_token_expired: az gave a token that has already expired",
    )
    .await;
    check(
        "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done",
        "permanent cli_garbage: az printed more than 65536 bytes and was ended",
    )
    .await;
    check(
        "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx >&2; done",
        "permanent cli_garbage: az printed more than 65536 bytes and was ended",
    )
    .await;
}

/// What a program and its children hold open as long as any of them lives.
struct Leash {
    taken: oneshot::Receiver<()>,
    released: oneshot::Receiver<()>,
}

impl Leash {
    fn new(program: &Program) -> Self {
        let fifo = program.path().join("leash");
        assert!(
            Command::new("mkfifo")
                .arg(&fifo)
                .status()
                .unwrap()
                .success()
        );
        let (say_taken, taken) = oneshot::channel();
        let (say_released, released) = oneshot::channel();
        // Opening waits for a writer, reading to the end for the last one to go.
        thread::spawn(move || {
            let mut file = fs::File::open(fifo).unwrap();
            say_taken.send(()).unwrap_or_default();
            file.read_to_end(&mut Vec::new()).unwrap();
            say_released.send(()).unwrap_or_default();
        });
        Self { taken, released }
    }

    async fn released(self) {
        timeout(Duration::from_secs(30), self.released)
            .await
            .expect("the program is gone")
            .unwrap();
    }
}

/// Starts another program, as both tools do, and waits for it.
const HANGS: &str = "exec 3> leash; /bin/sleep 600 & wait";

#[tokio::test]
async fn a_tool_that_hangs_is_ended_with_all_it_started() {
    let program = Program::new("az", HANGS);
    let mut leash = Leash::new(&program);
    let source = az(&program).with_timeout(Duration::from_secs(3));
    let text = failure(&source).await;
    let expected = "transient cli_hung: az gave no answer within 3s and was ended; hint: run az";
    assert!(text.starts_with(expected), "{text}");
    leash
        .taken
        .try_recv()
        .expect("three seconds are enough to start");
    leash.released().await;
}

#[tokio::test]
async fn a_tool_that_nobody_waits_for_is_ended() {
    let program = Program::new("az", HANGS);
    let mut leash = Leash::new(&program);
    let source = az(&program).with_timeout(Duration::from_secs(600));
    tokio::select! {
        result = source.fetch() => panic!("{result:?}"),
        taken = &mut leash.taken => taken.unwrap(),
    }
    leash.released().await;
}
