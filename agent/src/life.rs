//! What a running agent does side by side, whoever runs it: the program ([`crate::main`]), which
//! adds what only a process has (signals, a control socket, a look at its hardware), or the
//! simulation, which adds its faults.

use std::{sync::Arc, time::Duration};

use shared::queue::MAX_WAIT;
use tokio_util::sync::CancellationToken;

use crate::{beat, claim, drain, fence, inbox, node::Node, recover, settings, sweep, task::Tasks, watch};

/// How long an agent that stops goes on telling, and removing containers. What is left then waits on disk.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long the store has for the last record: a machine that goes down with its network gone is not to wait for it.
const LAST_RECORD: Duration = Duration::from_secs(20);

/// The tasks of an agent that has begun.
pub struct Life {
    node: Arc<Node>,
    /// What takes messages.
    takers: Tasks,
    closing: CancellationToken,
    tasks: Tasks,
}

impl Life {
    /// Takes up what an earlier run left, then begins to claim and to beat.
    pub async fn begin(node: &Arc<Node>) -> Self {
        let (takers, tasks, closing) = (Tasks::default(), Tasks::default(), CancellationToken::new());
        tasks.spawn("events", node.events.clone().run(node.log.clone()));
        recover::recover(node).await;
        takers.spawn("claims", claim::run(node.clone(), closing.clone()));
        takers.spawn("inbox", inbox::run(node.clone(), closing.clone()));
        tasks.spawn("beat", beat::run(node.clone()));
        tasks.spawn("fence", fence::watch(node.clone()));
        tasks.spawn("watch", watch::run(node.clone()));
        tasks.spawn("strays", recover::strays::run(node.clone()));
        tasks.spawn("sweep", sweep::run(node.clone()));
        tasks.spawn("settings", settings::watch(node.clone()));
        tasks.spawn("drain", drain::watch(node.clone()));
        Self { node: node.clone(), takers, closing, tasks }
    }

    /// No message is asked for from now on. Long polls that are under way go on to their end, which
    /// [`Life::polls_over`] waits for: dropped, they may take a message with them.
    pub fn stop_claiming(&self) {
        self.closing.cancel();
    }

    /// Waits until no message is on its way here: at most as long as a poll takes.
    pub async fn polls_over(&self) {
        if tokio::time::timeout(MAX_WAIT * 2, self.takers.finished()).await.is_err() {
            tracing::warn!("the queue still owes an answer; what it brings is seen again elsewhere");
        }
    }

    /// Drops what still runs, as a crash would, and says goodbye.
    pub async fn end(self) {
        self.takers.halt().await;
        self.node.attempts.halt().await;
        futures::join!(self.node.events.settle(LAST_WORDS), self.node.removals.settle(LAST_WORDS));
        self.tasks.halt().await;
        // The record is the other's, where there is one.
        if !self.node.give_way.is_cancelled() {
            let farewell = beat::farewell(&self.node);
            if tokio::time::timeout(LAST_RECORD, farewell).await.is_err() {
                tracing::warn!("the store does not answer; the node's last record is not written");
            }
        }
    }
}
