//! Tells the service manager where the process stands (sd_notify(3)). Without one, nothing happens.

use sd_notify::NotifyState;
use tracing::debug;

/// Sessions are welcome.
pub(super) fn ready() {
    send(&[NotifyState::Ready]);
}

/// The configuration is being read again; [`ready`] follows.
pub(super) fn reloading() {
    // systemd.service(5), `Type=notify-reload`: the time tells this reload from an earlier one.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(_) => send(&[NotifyState::Reloading]),
    }
}

/// No new sessions; those that there are run on.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping]);
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "the service manager could not be told");
    }
}
