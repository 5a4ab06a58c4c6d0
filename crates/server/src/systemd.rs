//! Tells systemd how far the server is, for units of `Type=notify` such as Debian's for etcd.
//!
//! Without systemd (no `NOTIFY_SOCKET`) these do nothing. A message that cannot be sent is logged
//! and no more: the server serves all the same.

use sd_notify::NotifyState;

/// Says that clients are served. Call it once, after the listeners accept.
pub fn notify_ready() {
    notify(NotifyState::Ready);
}

/// Says that the server is ending.
pub fn notify_stopping() {
    notify(NotifyState::Stopping);
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "could not notify systemd");
    }
}
