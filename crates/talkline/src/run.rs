//! `run`: the relay as a process.

use std::{future::Future, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use rustls::ServerConfig;
use sd_notify::NotifyState;
use talkline_gateway::{Gateway, Metrics, Options};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing::{info, warn};

use crate::{
    cli::{ConfigArguments, RunArguments},
    configuration,
    credentials::Credentials,
    dev_tls,
    exit::Exit,
    logs, output,
};

/// Runs until SIGTERM or SIGINT, then drains.
pub(crate) fn run(arguments: &RunArguments) -> Result<(), Exit> {
    let resolved = configuration::load(&arguments.config)?;
    let heard = match arguments.unsafe_trace {
        true => logs::Heard::All,
        false => logs::Heard::Own,
    };
    let log = logs::start(arguments.log_format, &arguments.log_level, heard)?;
    let metrics = Metrics::new();
    let dropped = log.dropped.clone();
    metrics.watch_dropped_lines(move || dropped.dropped_lines() as u64);
    for problem in resolved.warnings.problems() {
        warn!(
            code = problem.code,
            key = problem.key,
            hint = problem.hint,
            "{}",
            problem.message
        );
    }
    let tls = dev_certificate(&arguments.config)?;
    let scheme = if tls.is_some() || resolved.config.server.tls.is_some() {
        "wss"
    } else {
        "ws"
    };
    let listen = resolved.config.server.listen;
    let admin = resolved.config.admin.clone();
    let mut credentials = Credentials::new(&resolved.config, &arguments.resolve)?;
    let options = Options {
        tls,
        resolve: arguments.resolve.clone(),
        token_sources: credentials.token_sources,
        watched_keys: credentials.watched_keys,
        key_readers: credentials.vault.readers(),
        metrics,
        ..Options::default()
    };

    runtime()?.block_on(async {
        credentials.vault.fill().await?;
        let _watching = credentials.vault.watch();
        let mut gateway = Gateway::new(resolved.config, options)
            .map_err(|error| Exit::Configuration(format!("error: {error}")))?;
        if arguments.require_ready {
            require_ready(&gateway).await?;
        }
        let (listener, address) = bind(listen).await?;
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
        tell_service_manager(NotifyState::Ready);
        let shutdown = async {
            shutdown.await;
            tell_service_manager(NotifyState::Stopping);
        };
        gateway.serve(listener, shutdown).await;
        info!("stopped");
        Ok(())
    })
}

/// Says to systemd where the service stands (`Type=notify`); without one nobody is told.
fn tell_service_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "the service manager could not be told");
    }
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
