//! The simulator as a running server: build, start, look at, shut down.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::BearerRule;
use crate::caller::Secret;
use crate::misbehaviour::Scenario;
use crate::record::{Recorder, SeenRequest};
use crate::server::{self, Rules};

/// The API key that the simulator takes unless another is set.
pub const DEFAULT_API_KEY: &str = "talkline-sim-key";

/// Which service is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Profile {
    /// Azure, GA only: `/openai/v1/realtime?model=<deployment>`.
    Ga,
    /// Azure, preview only: `/openai/realtime?api-version=<version>&deployment=<deployment>`.
    Preview,
    /// Azure with both paths, as a real resource has them.
    #[default]
    Both,
    /// api.openai.com: `/v1/realtime?model=<model>`, the key as bearer.
    OpenAi,
}

/// How fast replies are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Pace {
    /// The reply begins after 300 ms, and its audio comes a little faster than it plays, as every service's does:
    /// 200 ms of it every 160 ms.
    #[default]
    RealTime,
    /// The reply begins at once, with this much time from one 200 ms piece of audio to the next. Zero sends all
    /// in one go, as a service does that generates faster than it speaks.
    Fast {
        /// Time between two pieces of audio.
        delta_every: Duration,
    },
}

/// What the simulator says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Reply {
    /// The bundled clips in turn: see [`crate::clips::REPLIES`].
    #[default]
    Clips,
    /// The caller's own words, played back.
    Parrot,
}

/// The entry: see [`Simulator::builder`].
#[derive(Debug)]
pub struct Simulator;

impl Simulator {
    /// Starts from the defaults: both Azure paths, on a free loopback port, with [`DEFAULT_API_KEY`].
    pub fn builder() -> Builder {
        Builder {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
            record_to: None,
            rules: Rules::default(),
        }
    }
}

/// Settings of a simulator that has not started.
#[derive(Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    listen: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    record_to: Option<PathBuf>,
    rules: Rules,
}

impl Builder {
    /// Where to listen. Only loopback is accepted at start. Defaults to `127.0.0.1:0`, a free port.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Speaks TLS with this configuration. Defaults to plain TCP.
    pub fn tls(mut self, config: Arc<rustls::ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Which service to simulate. Defaults to [`Profile::Both`].
    pub fn profile(mut self, profile: Profile) -> Self {
        self.rules.profile = profile;
        self
    }

    /// The one API key that is taken. Defaults to [`DEFAULT_API_KEY`].
    pub fn api_key(self, key: impl Into<String>) -> Self {
        self.rules.access_mut().api_keys = vec![Secret::new(key)];
        self
    }

    /// Which bearer tokens are taken. Defaults to the documented audiences, any tenant, any principal.
    pub fn bearer(self, rule: BearerRule) -> Self {
        self.rules.access_mut().bearer = rule;
        self
    }

    /// Appends one JSON line for every request to this file, complete before the request is answered.
    ///
    /// The lines have the fields of [`SeenRequest`], credentials included; the file is made readable by its owner
    /// only. Defaults to no file.
    pub fn record_to(mut self, path: impl Into<PathBuf>) -> Self {
        self.record_to = Some(path.into());
        self
    }

    /// How fast replies come. Defaults to [`Pace::RealTime`].
    pub fn pace(mut self, pace: Pace) -> Self {
        self.rules.pace = pace;
        self
    }

    /// What is said in reply. Defaults to [`Reply::Clips`].
    pub fn reply(mut self, reply: Reply) -> Self {
        self.rules.reply = reply;
        self
    }

    /// The deployments that exist; any other is [`crate::Refusal::deployment_not_found`]. Defaults to all names.
    /// The names of refusals and misbehaviours keep their meaning.
    pub fn deployments<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.rules.deployments = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// The transcription models that work; any other is accepted in `session.update` and fails at the first
    /// transcription with `DeploymentNotFound`, as on Azure. Defaults to the names of OpenAI's models.
    pub fn transcription_models<S: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = S>,
    ) -> Self {
        self.rules.transcription_models = names.into_iter().map(Into::into).collect();
        self
    }

    /// The values of `api-version` that the preview path takes. Defaults to `2024-12-17`, `2025-04-01-preview`
    /// and `2025-08-28`.
    pub fn api_versions<S: Into<String>>(mut self, versions: impl IntoIterator<Item = S>) -> Self {
        self.rules.api_versions = versions.into_iter().map(Into::into).collect();
        self
    }

    /// The value of `x-ms-region`. Defaults to `East US 2`.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.rules.region = region.into();
        self
    }

    /// Every caller meets this scenario, whatever the deployment. Refusals come after the checks of path and
    /// credential. Defaults to none.
    pub fn always(mut self, scenario: impl Into<Scenario>) -> Self {
        self.rules.always = Some(scenario.into());
        self
    }

    /// Longest life of a session, counted from the 101; then `session_expired` and close 1001. Defaults to the 60
    /// minutes that Azure documents.
    pub fn session_life(mut self, life: Duration) -> Self {
        self.rules.session_life = life;
        self
    }

    /// Binds the port and begins to serve. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// `InvalidInput` for an address beyond loopback: the simulator verifies no token signature and records
    /// credentials, so it must not be reachable from elsewhere. Else what binding or opening the record file said.
    ///
    /// # Cancel safety
    /// Dropping the future frees the port.
    pub async fn start(self) -> io::Result<Running> {
        if !self.listen.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "the simulator only listens on loopback, not on {}",
                    self.listen.ip()
                ),
            ));
        }
        let recorder = Arc::new(Recorder::open(self.record_to.as_deref())?);
        let listener = tokio::net::TcpListener::bind(self.listen).await?;
        let address = listener.local_addr()?;
        let secure = self.tls.is_some();
        let rules = Arc::new(self.rules);
        let (stop, stopped) = tokio::sync::watch::channel(());
        let server = server::serve(
            listener,
            self.tls,
            Arc::clone(&rules),
            Arc::clone(&recorder),
            stopped,
        );
        Ok(Running {
            address,
            secure,
            rules,
            recorder,
            stop,
            server: tokio::spawn(server),
        })
    }
}

/// A simulator that serves. Dropping it ends the service and all sessions at once.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    secure: bool,
    rules: Arc<Rules>,
    recorder: Arc<Recorder>,
    stop: tokio::sync::watch::Sender<()>,
    server: tokio::task::JoinHandle<()>,
}

impl Running {
    /// The address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:<port>`, or `https` with TLS; what an Azure endpoint setting would hold.
    #[must_use]
    pub fn base_url(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The requests so far, oldest first; the last 4096 of them.
    #[must_use]
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.recorder.seen()
    }

    /// Takes these API keys and no others from the next request on, as after `az cognitiveservices account keys
    /// regenerate`. Sessions that are open stay open.
    pub fn set_api_keys<S: Into<String>>(&self, keys: impl IntoIterator<Item = S>) {
        let keys = keys.into_iter().map(Secret::new).collect();
        self.rules.access_mut().api_keys = keys;
    }

    /// Takes bearer tokens by this rule from the next request on. Sessions that are open stay open.
    pub fn set_bearer(&self, rule: BearerRule) {
        self.rules.access_mut().bearer = rule;
    }

    /// Stops listening and ends all sessions, and returns when that is done.
    ///
    /// # Cancel safety
    /// Dropping the future still ends everything, without waiting for it.
    pub async fn shutdown(mut self) {
        // The server ends when it sees the message or that the sender is gone.
        let _ = self.stop.send(());
        let _ = (&mut self.server).await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}
