//! The command lines, run the way `azure_identity` runs them: by a shell, from another directory.

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use talkline_sim::identity::{CliMode, FakeAz, Jwt, TENANT, TokenSpec, now_unix};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use crate::bench::DEADLINE;

const AZ: &str =
    "az account get-access-token -o json --scope https://cognitiveservices.azure.com/.default";
const AZD: &str =
    "azd auth token -o json --no-prompt --scope https://cognitiveservices.azure.com/.default";

fn spawn(fake: &FakeAz, command: &str) -> Child {
    Command::new("/bin/sh")
        .args(["-c", &format!("cd /bin && exec {command}")])
        .env_clear()
        .env("PATH", fake.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn run(fake: &FakeAz, command: &str) -> Output {
    timeout(DEADLINE, spawn(fake, command).wait_with_output())
        .await
        .unwrap()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_token_is_printed_as_by_the_real_ones() {
    let directory = tempfile::tempdir().unwrap();
    let fake = FakeAz::write(directory.path(), &CliMode::Works).unwrap();
    let before = now_unix();
    let output = run(&fake, &format!("{AZ} --tenant {TENANT}")).await;
    assert!(output.status.success(), "{output:?}");
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let claims = Jwt::decode(printed["accessToken"].as_str().unwrap())
        .unwrap()
        .claims;
    assert_eq!(claims["aud"], "https://cognitiveservices.azure.com");
    assert_eq!(printed["expires_on"], claims["exp"]);
    assert_eq!(
        (&printed["tenant"], &printed["tokenType"]),
        (&TENANT.into(), &"Bearer".into())
    );
    assert!(claims["exp"].as_u64().unwrap() <= before + 3600);
    let output = run(&fake, AZD).await;
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(Jwt::decode(printed["token"].as_str().unwrap()).is_some());
    assert!(
        printed["expiresOn"].as_str().unwrap().ends_with('Z'),
        "{printed}"
    );
    let calls = fake.calls();
    let arguments: Vec<(&str, &str)> = calls
        .iter()
        .map(|call| (call.command, call.arguments.as_str()))
        .collect();
    assert_eq!(
        arguments[0],
        (
            "az",
            format!("{AZ} --tenant {TENANT}").trim_start_matches("az ")
        )
    );
    assert_eq!(arguments[1], ("azd", AZD.trim_start_matches("azd ")));
    assert_eq!(fake.directory(), directory.path());
}

#[tokio::test]
async fn another_scope_or_command_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let spec = TokenSpec::new().claim("note", "it's quoted");
    let fake = FakeAz::write_for(
        directory.path(),
        "https://ai.azure.com/.default",
        spec,
        &CliMode::Works,
    )
    .unwrap();
    for (command, expected) in [
        (AZ, "AADSTS70011"),
        (AZD, "AADSTS70011"),
        ("az account show", "was not asked for a token"),
        (
            "az account get-access-token --scope https://ai.azure.com/.default/x",
            "AADSTS70011",
        ),
    ] {
        let output = run(&fake, command).await;
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(
            text(&output.stderr).contains(expected),
            "{command}: {output:?}"
        );
    }
    let output = run(
        &fake,
        "az account get-access-token -o json --scope https://ai.azure.com/.default",
    )
    .await;
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let claims = Jwt::decode(printed["accessToken"].as_str().unwrap())
        .unwrap()
        .claims;
    assert_eq!(claims["note"], "it's quoted");
}

#[tokio::test]
async fn each_mode_has_its_exit_and_its_text() {
    let directory = tempfile::tempdir().unwrap();
    let fake = FakeAz::write(directory.path(), &CliMode::Missing).unwrap();
    for (mode, code, az, azd) in [
        (CliMode::Missing, 127, "", ""),
        (
            CliMode::LoggedOut,
            1,
            "ERROR: Please run 'az login' to setup account.",
            "run `azd auth login` to login",
        ),
        (CliMode::LoginExpired, 1, "AADSTS700082", "AADSTS700082"),
        (CliMode::FailSilently, 1, "", ""),
        (CliMode::Garbage, 0, "", ""),
        (CliMode::Slow(Duration::from_millis(10)), 0, "", ""),
        (CliMode::Missing, 127, "", ""),
    ] {
        fake.set_mode(&mode).unwrap();
        for (command, expected) in [(AZ, az), (AZD, azd)] {
            let output = run(&fake, command).await;
            assert_eq!(output.status.code(), Some(code), "{mode:?}: {output:?}");
            assert!(
                text(&output.stderr).contains(expected),
                "{mode:?}: {output:?}"
            );
            let has_token = serde_json::from_slice::<Value>(&output.stdout).is_ok();
            assert_eq!(
                has_token,
                matches!(mode, CliMode::Slow(_)),
                "{mode:?}: {output:?}"
            );
        }
    }
    fake.set_mode(&CliMode::LoggedOut).unwrap();
    let said = run(&fake, AZD).await.stderr;
    let said: Value = serde_json::from_slice(&said).unwrap();
    assert_eq!(said["type"], "consoleMessage");
}

#[tokio::test]
async fn a_hanging_one_ends_with_the_fake() {
    let directory = tempfile::tempdir().unwrap();
    let fake = FakeAz::write(directory.path(), &CliMode::Hangs).unwrap();
    let mut child = spawn(&fake, AZ);
    let deadline = Instant::now() + DEADLINE;
    while fake.calls().is_empty() {
        assert!(Instant::now() < deadline, "it did not start");
        tokio::task::yield_now().await;
    }
    assert_eq!(fake.calls()[0].process, child.id().unwrap());
    assert!(child.try_wait().unwrap().is_none());
    drop(fake);
    let status = timeout(DEADLINE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1));
}
