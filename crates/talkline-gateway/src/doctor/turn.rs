//! One spoken turn through a relay in this process.

use std::{future::Future, pin::Pin, time::Duration};

use base64::Engine as _;
use serde_json::{Map, Value};
use talkline_auth::{ClientKey, ClientKeys, Secret};
use talkline_config::Config;
use talkline_dialect::ClientDialect;
use tokio::{net::TcpListener, sync::oneshot, time::Instant};

use super::{
    Check, DoctorOptions,
    board::{Board, Probe},
    report::{Finding, Severity, millis},
};
use crate::{Gateway, Options};

/// Time for the turn: a few seconds of speech in each direction, with room for a slow answer.
const TURN_MAX: Duration = Duration::from_secs(40);

/// Where the turn is to be held.
pub struct TurnCall {
    /// `ws://127.0.0.1:…`: the relay in this process.
    pub url: String,
    /// The client key that it admits, made for this one turn.
    pub key: Secret,
    /// The vocabulary that the upstream behind it speaks.
    pub dialect: ClientDialect,
}

impl TurnCall {
    /// Whether the upstream speaks the preview's vocabulary, and GA's otherwise.
    pub fn speaks_preview(&self) -> bool {
        self.dialect == ClientDialect::Beta
    }
}

/// How a turn went.
#[derive(Clone, Debug)]
pub struct Turn {
    /// From the end of the speech to the first audio of the reply.
    pub first_audio: Duration,
    /// The reply's audio.
    pub reply_audio: Duration,
    /// From dialling to the end of the reply.
    pub total: Duration,
    /// Tokens that the turn cost, where the upstream says so.
    pub tokens: Option<u64>,
}

/// What [`TurnCaller::call`] returns: the turn, or why there was none.
pub type TurnFuture<'a> = Pin<Box<dyn Future<Output = Result<Turn, String>> + 'a>>;

/// Holds a spoken turn, with a recording of its own.
pub trait TurnCaller: Send + Sync {
    /// Calls, speaks, listens.
    fn call(&self, call: TurnCall) -> TurnFuture<'_>;
}

/// Asks for a turn if the default provider's upgrade worked.
pub(super) async fn run(
    board: &Board<'_>,
    config: &Config,
    options: &DoctorOptions,
    caller: &dyn TurnCaller,
) {
    if !board.passed(Check::Upgrade, config.routes.default_provider()) {
        return;
    }
    let deadline = Instant::now() + TURN_MAX;
    board
        .check_until(deadline, Check::Turn, None, async {
            match hold(config, options, caller).await {
                Ok(turn) if turn.reply_audio.is_zero() => Probe::failed(
                    Finding::new(
                        Check::Turn,
                        Severity::Error,
                        "turn_silent",
                        "the turn brought no audio",
                    )
                    .fix("look at the deployment's output modalities and at the log of the relay"),
                ),
                Ok(turn) => evidence(&turn),
                Err(reason) => Probe::failed(
                    Finding::new(
                        Check::Turn,
                        Severity::Error,
                        "turn_failed",
                        format!("the turn failed: {reason}"),
                    )
                    .fix("the upgrade works, so look at the session: model, quota, voice"),
                ),
            }
        })
        .await;
}

async fn hold(
    config: &Config,
    options: &DoctorOptions,
    caller: &dyn TurnCaller,
) -> Result<Turn, String> {
    let key = new_key();
    let config = for_one_caller(config, &key);
    let dialect = config
        .routes
        .resolve(None)
        .ok()
        .and_then(|route| route.upstream.dialect())
        .unwrap_or(ClientDialect::Ga);
    let gateway = Gateway::new(
        config,
        Options {
            resolve: options.resolve.clone(),
            token_sources: options.token_sources.clone(),
            ..Options::default()
        },
    )
    .map_err(|error| error.to_string())?;
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let (stop, stopped) = oneshot::channel::<()>();
    let call = TurnCall {
        url: format!("ws://{address}/v1/realtime"),
        key,
        dialect,
    };
    let serving = gateway.serve(listener, async {
        let _ = stopped.await;
    });
    let calling = async {
        let turn = caller.call(call).await;
        drop(stop);
        turn
    };
    // The relay and its one caller run in this task, so that dropping it ends both.
    let ((), turn) = tokio::join!(serving, calling);
    turn
}

/// The configuration, on loopback and open to the holder of one key.
fn for_one_caller(config: &Config, key: &Secret) -> Config {
    let mut config = config.clone();
    config.server.listen = ([127, 0, 0, 1], 0).into();
    config.server.tls = None;
    config.clients.allow_anonymous = false;
    config.clients.keys = ClientKeys::new(vec![ClientKey::unrestricted("doctor", key.clone())]);
    config.limits.drain_grace = Duration::from_millis(100);
    config
}

fn evidence(turn: &Turn) -> Probe<()> {
    let mut evidence = Map::new();
    for (name, time) in [
        ("firstAudioMs", turn.first_audio),
        ("replyAudioMs", turn.reply_audio),
        ("totalMs", turn.total),
    ] {
        evidence.insert(name.into(), millis(time).into());
    }
    evidence.insert(
        "tokens".into(),
        turn.tokens.map_or(Value::Null, Value::from),
    );
    Probe {
        evidence,
        ..Probe::passed(())
    }
}

fn new_key() -> Secret {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).expect("the operating system has randomness");
    Secret::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}
