//! The one connection to the server: made when it is needed, dropped when it fails.

use std::{
    future::Future,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, FromRedisValue, RedisError, RedisResult, ScriptInvocation,
    aio::MultiplexedConnection,
};
use rustls_pki_types::ServerName;
use talkline_auth::{StoreError, StoreHealth};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;
use tracing::{info, warn};

use crate::Server;

/// Pause after a failed connect, so that a server that is away costs those who ask next nothing.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// See the [module documentation](self).
pub(crate) struct Link {
    server: Server,
    timeout: Duration,
    slot: Mutex<Slot>,
    /// For the log: each outage is said once.
    is_away: AtomicBool,
    failures: AtomicU64,
}

#[derive(Default)]
struct Slot {
    connection: Option<MultiplexedConnection>,
    /// Counts connections, so that a failure drops the one that it happened on and no later one.
    generation: u64,
    failed_at: Option<(Instant, String)>,
}

impl Link {
    pub(crate) fn new(server: Server, timeout: Duration) -> Self {
        Self {
            server,
            timeout,
            slot: Mutex::default(),
            is_away: AtomicBool::new(false),
            failures: AtomicU64::new(0),
        }
    }

    pub(crate) fn health(&self) -> StoreHealth {
        StoreHealth {
            is_up: !self.is_away.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// Runs a script, connecting first where need be, all within the timeout.
    ///
    /// # Cancel safety
    ///
    /// The script may or may not have run.
    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, StoreError> {
        let mut used = None;
        let answer = timeout(self.timeout, async {
            let (mut connection, generation) = self.connection().await?;
            used = Some(generation);
            script
                .invoke_async(&mut connection)
                .await
                .map_err(Failure::of)
        })
        .await
        .unwrap_or_else(|_| {
            Err(Failure {
                text: format!("no answer within {:?}", self.timeout),
                is_connection: true,
            })
        });
        match answer {
            Ok(value) => {
                if self.is_away.swap(false, Ordering::Relaxed) {
                    info!(server = %self.server, "the limit store answers again");
                }
                Ok(value)
            }
            Err(failure) => {
                if failure.is_connection
                    && let Some(generation) = used
                {
                    self.forget(generation).await;
                }
                self.failures.fetch_add(1, Ordering::Relaxed);
                if !self.is_away.swap(true, Ordering::Relaxed) {
                    warn!(server = %self.server, error = failure.text, "the limit store is not available");
                }
                Err(StoreError::Unavailable(failure.text))
            }
        }
    }

    async fn connection(&self) -> Result<(MultiplexedConnection, u64), Failure> {
        let mut slot = self.slot.lock().await;
        if let Some(connection) = &slot.connection {
            return Ok((connection.clone(), slot.generation));
        }
        if let Some((at, error)) = &slot.failed_at
            && at.elapsed() < RECONNECT_PAUSE
        {
            return Err(Failure {
                text: error.clone(),
                is_connection: false,
            });
        }
        // Should this future be dropped meanwhile, by the timeout above, that was a failure as well.
        slot.failed_at = Some((Instant::now(), "connecting took too long".into()));
        match self.connect().await {
            Ok(connection) => {
                slot.connection = Some(connection.clone());
                slot.generation += 1;
                slot.failed_at = None;
                Ok((connection, slot.generation))
            }
            Err(failure) => {
                slot.failed_at = Some((Instant::now(), failure.text.clone()));
                Err(failure)
            }
        }
    }

    async fn forget(&self, generation: u64) {
        let mut slot = self.slot.lock().await;
        if slot.generation == generation {
            slot.connection = None;
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Failure> {
        let server = &self.server;
        let stream = TcpStream::connect((server.host(), server.port()))
            .await
            .map_err(Failure::io)?;
        stream.set_nodelay(true).map_err(Failure::io)?;
        match server.tls() {
            None => self.greet(stream).await,
            Some(config) => {
                let name = ServerName::try_from(server.host().to_owned()).map_err(Failure::io)?;
                let connector = TlsConnector::from(config.clone());
                let stream = connector.connect(name, stream).await.map_err(Failure::io)?;
                self.greet(stream).await
            }
        }
    }

    /// Signs in and chooses the database.
    async fn greet<S>(&self, stream: S) -> Result<MultiplexedConnection, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(self.timeout));
        let opening: RedisResult<(_, _)> =
            MultiplexedConnection::new_with_config(self.server.settings(), stream, config).await;
        let (connection, driver) = opening.map_err(Failure::of)?;
        tokio::spawn(boxed(driver));
        Ok(connection)
    }
}

/// The driver ends when the last handle of the connection is dropped.
fn boxed(
    driver: impl Future<Output = ()> + Send + 'static,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(driver)
}

struct Failure {
    text: String,
    /// Whether another connection may do better.
    is_connection: bool,
}

impl Failure {
    fn io(error: impl std::fmt::Display) -> Self {
        Self {
            text: error.to_string(),
            is_connection: true,
        }
    }

    /// Only the kind of an error is told: its detail may repeat a command.
    fn of(error: RedisError) -> Self {
        let code = error.code().unwrap_or_default();
        Self {
            text: format!("{} {code}", error.category()).trim_end().to_owned(),
            is_connection: error.is_unrecoverable_error()
                || error.is_io_error()
                || error.is_timeout()
                || error.is_connection_dropped(),
        }
    }
}
