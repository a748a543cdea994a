//! `run`: the relay as a process.

use std::{future::Future, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use rustls::ServerConfig;
use talkline_gateway::{Gateway, Metrics};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing::{info, warn};

use crate::{
    cli::{ConfigArguments, RunArguments},
    configuration, dev_tls,
    exit::Exit,
    limit_store, logs, output,
};

mod fixed;
mod listener;
mod notify;
mod prepared;
mod reload;
mod watched;

use prepared::{Prepared, Wrong};
use reload::{Began, Reloads};

/// Runs until SIGTERM or SIGINT, then drains. SIGHUP reloads the configuration.
pub(crate) fn run(arguments: &RunArguments) -> Result<(), Exit> {
    let inherited = listener::inherited()?;
    // A mistake in the configuration is shown to a person, not logged.
    drop(configuration::load(&arguments.config)?);
    let heard = match arguments.unsafe_trace {
        true => logs::Heard::All,
        false => logs::Heard::Own,
    };
    let log = logs::start(arguments.log_format, &arguments.log_level, heard)?;
    let metrics = Metrics::new();
    let dropped = log.dropped.clone();
    metrics.watch_dropped_lines(move || dropped.dropped_lines() as u64);
    #[cfg(feature = "otlp")]
    let otlp = crate::otlp::start(&metrics)?;
    raise_descriptor_limit();
    let tls = dev_certificate(&arguments.config)?;
    let reading = prepared::read(arguments, tls.as_ref());
    let Prepared {
        config,
        mut options,
        mut vault,
    } = reading.outcome.map_err(Wrong::into_exit)?;
    let scheme = if tls.is_some() || config.server.tls.is_some() {
        "wss"
    } else {
        "ws"
    };
    if config.tokens.keys.is_empty() {
        info!(
            "no token key is configured: browser tokens are signed with a key of this process alone"
        );
    }
    let listen = config.server.listen;
    let admin = config.admin.clone();
    options.metrics = metrics.clone();
    options.limit_store = limit_store::open(&config.limit_store)?;
    let threads = match config.server.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };

    // Sessions run on threads of their own; this one keeps credentials fresh and reloads.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let served = runtime.block_on(async {
        vault.fill().await?;
        let began_with = Began::with(&config, reading.files, vault.watch());
        let mut gateway = Gateway::new(config, options)
            .map_err(|error| Exit::Configuration(format!("error: {error}")))?;
        let reloads = Reloads::new(
            arguments.clone(),
            tls,
            gateway.reloader(),
            metrics,
            began_with,
        )?;
        if arguments.require_ready {
            require_ready(&gateway).await?;
        }
        let listeners = listener::open(inherited, listen, threads)?;
        let address = match listeners.first() {
            Some(listener) => listener
                .local_addr()
                .context("the listener has no address")?,
            None => listen,
        };
        let operators = match &admin {
            Some(admin) => {
                let (listener, address) = bind(admin.listen).await?;
                gateway = gateway.with_admin(listener, admin);
                Some(address)
            }
            None => None,
        };
        let shutdown = shutdown_signal()?;
        output::line(&format!("listening on {scheme}://{address}"))?;
        info!(%address, scheme, "listening");
        if let Some(address) = operators {
            output::line(&format!("operators on http://{address}"))?;
            info!(%address, "listening for operators");
        }
        notify::ready();
        let shutdown = async {
            shutdown.await;
            notify::stopping();
        };
        tokio::select! {
            served = gateway.serve_on_threads(listeners, shutdown) => {
                served.context("a thread cannot be started")?;
            }
            never = reloads.run() => match never {},
        }
        info!("stopped");
        Ok(())
    });
    #[cfg(feature = "otlp")]
    if let Some(otlp) = otlp {
        otlp.stop();
    }
    served
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Exit> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Exit::Unavailable(format!("cannot listen on {address}: {error}")))?;
    let bound = listener
        .local_addr()
        .context("the listener has no address")?;
    Ok((listener, bound))
}

/// Lets the process have as many descriptors as it may: shells and service managers start processes with few, for the
/// sake of programs that use select(2), which this one does not.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        warn!(%error, "the limit of open files could not be raised");
    }
}

/// A runtime for a process of this binary.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    Ok(runtime)
}

/// Completes at the first SIGTERM or SIGINT. A second one ends the process at once.
///
/// The handlers are installed before this returns, so that no signal is missed after it.
pub(crate) fn shutdown_signal() -> Result<impl Future<Output = ()>, Exit> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            output::note("second signal: ending at once");
            std::process::exit(1);
        });
    })
}

/// The certificate of `--tls-dev`, with the lines that make SDKs trust it.
pub(crate) fn dev_certificate(
    arguments: &ConfigArguments,
) -> Result<Option<Arc<ServerConfig>>, Exit> {
    if !arguments.tls_dev {
        return Ok(None);
    }
    let directory = dev_tls::directory()?;
    let certificate = dev_tls::load_or_make(&directory)?;
    output::note(&certificate.trust_lines());
    Ok(Some(certificate.server))
}

async fn require_ready(gateway: &Gateway) -> Result<(), Exit> {
    let refusals = gateway.probe().await;
    let Some((provider, diagnosis)) = refusals.first() else {
        return Ok(());
    };
    let text = format!(
        "{provider}: {} [{}]\nhint: {}",
        diagnosis.summary, diagnosis.code, diagnosis.next_step
    );
    let refused = diagnosis
        .answer
        .as_ref()
        .is_some_and(|answer| matches!(answer.status, 401 | 403));
    Err(if refused {
        Exit::NoPermission(text)
    } else {
        Exit::Unavailable(text)
    })
}
