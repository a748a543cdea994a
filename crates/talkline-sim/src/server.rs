//! Accepts connections and binds each to the rules.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::auth::BearerRule;
use crate::misbehaviour::Scenario;
use crate::record::Recorder;
use crate::simulator::{DEFAULT_API_KEY, Pace, Profile, Reply};

/// The simulator's settings.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) profile: Profile,
    pub(crate) api_key: String,
    pub(crate) bearer: BearerRule,
    pub(crate) pace: Pace,
    pub(crate) reply: Reply,
    pub(crate) deployments: Option<Vec<String>>,
    pub(crate) transcription_models: Vec<String>,
    pub(crate) api_versions: Vec<String>,
    pub(crate) region: String,
    pub(crate) always: Option<Scenario>,
    pub(crate) session_life: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            profile: Profile::default(),
            api_key: DEFAULT_API_KEY.to_owned(),
            bearer: BearerRule::default(),
            pace: Pace::default(),
            reply: Reply::default(),
            deployments: None,
            transcription_models: owned(&[
                "whisper-1",
                "gpt-4o-transcribe",
                "gpt-4o-mini-transcribe",
                "gpt-4o-transcribe-diarize",
                "gpt-realtime-whisper",
                "gpt-live-transcribe",
            ]),
            api_versions: owned(&["2024-12-17", "2025-04-01-preview", "2025-08-28"]),
            region: "East US 2".to_owned(),
            always: None,
            session_life: Duration::from_secs(60 * 60),
        }
    }
}

/// Serves until told to stop.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    rules: Arc<Rules>,
    recorder: Arc<Recorder>,
    mut stopped: watch::Receiver<()>,
) {
    let _ = (listener, tls, rules, recorder);
    let _ = stopped.changed().await;
}
