//! Telling systemd how the agent is (`sd_notify(3)`); nothing where it is not its parent.
//!
//! With `WatchdogSec=`, systemd ends a service that no longer says that it lives, and starts it anew. The agent
//! says so as long as its heart beats, whatever the store answers: a new start would not mend an outage.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sd_notify::NotifyState;
use shared::{lane::GpuState, node::Mode};
use tokio::time::Instant;

use crate::node::Node;

/// How often the status is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Jobs are taken from now on.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The end has begun.
pub fn stopping(why: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(why)]);
}

/// The process is alive.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// What `systemctl status` shows of a process that is not ready yet.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd does not listen");
    }
}

/// Says that the agent lives while its heart beats, and what it is doing, until it is dropped.
pub async fn watch(node: Arc<Node>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let limit = sd_notify::watchdog_enabled();
    let mut every = LOOK;
    let mut watchdog = limit;
    let (mut heart, mut said) = (Heart::new(node.beats.load(Ordering::Relaxed)), String::new());
    loop {
        let lease = node.fleet.settings().lease.0;
        if let Some(limit) = limit {
            let wanted = watchdog_of(lease, limit);
            if watchdog.replace(wanted) != Some(wanted) {
                tell(&[NotifyState::WatchdogUsec(u32::try_from(wanted.as_micros()).unwrap_or(u32::MAX))]);
            }
            // Thrice in the time that systemd gives it.
            every = LOOK.min(wanted / 3);
        }
        let patience = lease.max(OUTAGE);
        let (count, did) = (node.beats.load(Ordering::Relaxed), heart.beat);
        if heart.beats(count, patience) {
            alive();
        } else if did {
            tracing::error!("the heartbeat stands still; systemd is to start the agent anew");
        }
        let now = summary(&node);
        if now != said {
            status(&now);
            said = now;
        }
        tokio::time::sleep(every).await;
    }
}

/// After how long without a word systemd is to start the agent anew: a third of the lease, so that a new one is there
/// before the guard freezes anything, and no longer than the unit says. One that is merely slow is not to be ended.
fn watchdog_of(lease: Duration, limit: Duration) -> Duration {
    limit.min((lease / 3).max(Duration::from_secs(20)))
}

/// How long one beat may wait for a store that does not answer, with all its tries.
const OUTAGE: Duration = Duration::from_secs(180);

/// Whether beats are still tried.
struct Heart {
    count: u64,
    since: Instant,
    /// Whether they were at the last look.
    beat: bool,
}

impl Heart {
    fn new(count: u64) -> Self {
        Self { count, since: Instant::now(), beat: true }
    }

    /// A beat may wait for the store, but not for longer than `patience`: then something hangs here.
    fn beats(&mut self, count: u64, patience: Duration) -> bool {
        if count != self.count {
            *self = Self::new(count);
        }
        self.beat = self.since.elapsed() <= patience;
        self.beat
    }
}

/// `3 jobs, 1 of 4 GPUs free`, and what keeps more away.
fn summary(node: &Node) -> String {
    let (offer, jobs) = (node.ledger.offer(), node.ledger.holdings().len());
    let free = offer.gpus.iter().filter(|gpu| gpu.state == GpuState::Free).count();
    let state = match node.ledger.mode() {
        Mode::Draining => "draining; ".to_owned(),
        _ => node.ledger.problems().first().map_or_else(String::new, |why| format!("takes no jobs: {why}; ")),
    };
    let gpus = match offer.gpus.len() {
        0 => String::new(),
        all => format!(", {free} of {all} GPUs free"),
    };
    format!("{state}{jobs} {}{gpus}", if jobs == 1 { "job" } else { "jobs" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_comes_before_the_lease_ends() {
        let of = |lease, limit| watchdog_of(Duration::from_secs(lease), Duration::from_secs(limit)).as_secs();
        assert_eq!([of(180, 60), of(600, 60), of(90, 60), of(30, 60), of(180, 3)], [60, 60, 30, 20, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_heart_that_stands_still_for_a_lease_is_said_to_be_dead() {
        let lease = Duration::from_secs(180);
        let mut heart = Heart::new(3);
        tokio::time::advance(lease).await;
        assert!(heart.beats(3, lease), "the store may be slow");
        assert!(heart.beats(4, lease));
        tokio::time::advance(lease + Duration::from_secs(1)).await;
        assert!(!heart.beats(4, lease));
        assert!(heart.beats(5, lease), "it goes on");
    }
}
