//! Why an agent ends, and what becomes of its jobs.

use std::{path::Path, time::Duration};

use shared::units::Span;
use tokio::{process::Command, time::Instant};

use crate::{cloud::Notice, config::OnStop, node::Node};

/// How long systemd may take to say whether the machine goes down: it stops everything else at that moment, and on a
/// small machine under load it took 2 s. Without an answer, jobs that should be handed back would be left to die.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why an agent ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It was told to stop.
    Signal,
    /// The machine goes down.
    Shutdown,
    /// The machine's cloud is about to take it.
    Notice(Notice),
    /// It had no job for so long.
    Idle(Span),
    /// Another agent has its name.
    Namesake,
}

impl Why {
    /// What becomes of the running jobs, where an operator wants `on_stop` of them at a stop.
    pub fn on_stop(&self, on_stop: OnStop) -> OnStop {
        match self {
            Self::Signal => on_stop,
            // Their containers would be ended with the machine, as if by themselves.
            Self::Shutdown | Self::Notice(_) | Self::Namesake => OnStop::Requeue,
            // One may have come at the last moment.
            Self::Idle(_) => OnStop::Wait,
        }
    }

    /// What people are told.
    pub fn say(&self) -> String {
        match self {
            Self::Signal => "told to stop".into(),
            Self::Shutdown => "the machine goes down".into(),
            Self::Notice(notice) => format!("the machine is about to go: {notice}"),
            Self::Idle(span) => format!("without a job for {span}"),
            Self::Namesake => "another agent has this name".into(),
        }
    }
}

/// Waits until the node has had no job for so long; for ever where it may be idle for ever. Safe to drop.
pub async fn idle(node: &Node, limit: Option<Span>) -> Span {
    let Some(limit) = limit else { return std::future::pending().await };
    let mut changes = node.ledger.changes();
    let (mut before, mut since) = (node.ledger.taken(), Instant::now());
    loop {
        tokio::select! {
            biased;
            () = changes.changed() => {
                let now = node.ledger.taken();
                let (_, is_busy) = now;
                if is_busy || now != before {
                    (before, since) = (now, Instant::now());
                }
            }
            () = tokio::time::sleep_until(since + limit.0), if !before.1 => {
                if !node.prefetches.is_busy() {
                    return limit;
                }
                since = Instant::now();
            }
        }
    }
}

/// Whether a stop of the agent is part of a stop of the machine, as systemd says.
pub async fn is_shutdown() -> bool {
    if !Path::new("/run/systemd/system").exists() {
        return false;
    }
    let asked = Command::new("systemctl").arg("is-system-running").kill_on_drop(true).output();
    let said = tokio::time::timeout(PATIENCE, asked).await;
    matches!(said, Ok(Ok(said)) if said.stdout.trim_ascii() == b"stopping")
}
