//! Telling systemd how the agent is (`sd_notify(3)`); nothing where it is not its parent.

use sd_notify::NotifyState;

/// Jobs are taken from now on.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The end has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd does not listen");
    }
}
