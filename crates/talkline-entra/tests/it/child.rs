//! Managed identity in a process of its own: azure_identity reads the process environment, which a
//! test must neither depend on nor change.
//!
//! [`run`] starts this test binary again with an empty environment, the given variables, and the
//! one test [`inside`], which fetches a token and prints what came of it.

use std::{process::Stdio, time::Duration};

use talkline_auth::{TokenError, TokenSource as _};
use talkline_entra::{Environment, Identity, Limits, ManagedIdentity, Network, Scope};
use tokio::process::Command;

use crate::fake;

const IDENTITY: &str = "TALKLINE_TEST_IDENTITY";
const IMDS: &str = "TALKLINE_TEST_IMDS";
const EXCHANGE: &str = "TALKLINE_TEST_EXCHANGE_MILLISECONDS";
const HIDDEN: &str = "TALKLINE_TEST_HIDDEN";

/// `CODE STATUS: DETAIL; hint: HINT`, as far as they are there.
pub(crate) fn describe(error: &TokenError) -> String {
    let mut text = error.code.to_owned();
    if let Some(status) = error.http_status {
        text.push_str(&format!(" {status}"));
    }
    text.push_str(&format!(": {}", error.detail));
    if let Some(hint) = &error.hint {
        text.push_str(&format!("; hint: {hint}"));
    }
    if let Some(retry_after) = error.retry_after {
        text.push_str(&format!("; retry after {retry_after:?}"));
    }
    text
}

/// What a child is started with.
#[derive(Clone, Default)]
pub(crate) struct Child<'a> {
    /// Variables of its process.
    pub(crate) variables: Vec<(&'a str, String)>,
    /// `system`, `client ID`, `object ID` or `resource ID`; the system's when empty.
    pub(crate) identity: &'a str,
    /// Who stands in for the metadata service.
    pub(crate) imds: Option<std::net::SocketAddr>,
    /// A variable that the process has and the `Environment` given to the source has not.
    pub(crate) hidden: &'a str,
    /// The limit of an exchange, when it is not the usual one.
    pub(crate) exchange: Option<Duration>,
}

/// What a child had to say.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// `token FINGERPRINT SECONDS`, or `error permanent|transient` and what [`describe`] makes of
    /// it, or `setup CODE: DETAIL`.
    pub(crate) verdict: String,
    /// All that it printed: the verdict, `Debug` output, and the log at the finest level.
    pub(crate) everything: String,
}

pub(crate) async fn run(child: Child<'_>) -> Outcome {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child::inside", "--nocapture"])
        .env_clear()
        .env("RUST_BACKTRACE", "1")
        .env(
            IDENTITY,
            Some(child.identity)
                .filter(|id| !id.is_empty())
                .unwrap_or("system"),
        )
        .env(HIDDEN, child.hidden)
        .env(
            "LLVM_PROFILE_FILE",
            std::env::var_os("LLVM_PROFILE_FILE").unwrap_or_default(),
        )
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for (name, value) in &child.variables {
        command.env(name, value);
    }
    if let Some(address) = child.imds {
        command.env(IMDS, address.to_string());
    }
    if let Some(limit) = child.exchange {
        command.env(EXCHANGE, limit.as_millis().to_string());
    }
    let output = command.output().await.unwrap();
    let mut everything = String::from_utf8(output.stdout).unwrap();
    everything.push_str(&String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{everything}");
    let verdict = everything
        .lines()
        .find_map(|line| line.split_once("verdict: "))
        .unwrap_or_else(|| panic!("no verdict in {everything}"))
        .1
        .to_owned();
    Outcome {
        verdict,
        everything,
    }
}

/// The child's part. In the parent's own run of all tests there is nothing to do.
#[tokio::test]
async fn inside() {
    let Ok(identity) = std::env::var(IDENTITY) else {
        return;
    };
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .init();
    let identity = match identity.split_once(' ') {
        Some(("client", id)) => Identity::ClientId(id.into()),
        Some(("object", id)) => Identity::ObjectId(id.into()),
        Some(("resource", id)) => Identity::ResourceId(id.into()),
        _ => Identity::System,
    };
    let mut limits = Limits::default();
    if let Ok(limit) = std::env::var(EXCHANGE) {
        limits.exchange = Duration::from_millis(limit.parse().unwrap());
    }
    let mut network =
        Network::new(&fake::client(rustls::RootCertStore::empty())).with_limits(limits);
    if let Ok(address) = std::env::var(IMDS) {
        network = network
            .with_override("169.254.169.254", 80, address.parse().unwrap())
            .unwrap();
    }
    let hidden = std::env::var(HIDDEN).unwrap();
    let environment = Environment::read(|name| {
        let value = std::env::var(name).ok();
        value.filter(|_| name != hidden)
    });
    let scope = Scope::for_host("voice.openai.azure.com");
    let source = match ManagedIdentity::new(identity, scope, &environment, network) {
        Ok(source) => source,
        Err(error) => {
            println!(
                "\nverdict: setup {}: {error}; hint: {:?}",
                error.code(),
                error.hint()
            );
            return;
        }
    };
    println!("\n{environment:?} {source:?}");
    match source.fetch().await {
        Ok(token) => {
            let seconds = token.time_to_live.as_secs();
            println!("{token:?}");
            println!("refresh in {:?}", token.refresh_in);
            println!("\nverdict: token {} {seconds}", token.secret.fingerprint());
        }
        Err(error) => {
            println!("{error:?} {error}");
            let how = if error.permanent {
                "permanent"
            } else {
                "transient"
            };
            println!("\nverdict: error {how} {}", describe(&error));
        }
    }
}
