//! What a running agent does side by side, whoever runs it: the program ([`crate::main`]), which
//! adds what only a process has (signals, a control socket, a look at its hardware), or the
//! simulation, which adds its faults.

use std::{sync::Arc, time::Duration};

use crate::{beat, claim, fence, inbox, node::Node, recover, settings, sweep, task::Tasks, watch};

/// How long an agent that stops goes on telling. What is left then waits on disk.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The tasks of an agent that has begun.
pub struct Life {
    node: Arc<Node>,
    claims: Tasks,
    tasks: Tasks,
}

impl Life {
    /// Takes up what an earlier run left, then begins to claim and to beat.
    pub async fn begin(node: &Arc<Node>) -> Self {
        let (claims, tasks) = (Tasks::default(), Tasks::default());
        tasks.spawn("events", node.events.clone().run(node.log.clone()));
        recover::recover(node).await;
        claims.spawn("claims", claim::run(node.clone()));
        tasks.spawn("beat", beat::run(node.clone()));
        tasks.spawn("fence", fence::watch(node.clone()));
        tasks.spawn("watch", watch::run(node.clone()));
        tasks.spawn("inbox", inbox::run(node.clone()));
        tasks.spawn("strays", recover::strays::run(node.clone()));
        tasks.spawn("sweep", sweep::run(node.clone()));
        tasks.spawn("settings", settings::watch(node.clone()));
        Self { node: node.clone(), claims, tasks }
    }

    /// No message is taken from now on; a long poll's answer comes back by itself.
    pub async fn stop_claiming(&self) {
        self.claims.halt().await;
    }

    /// Drops what still runs, as a crash would, and says goodbye.
    pub async fn end(self) {
        self.claims.halt().await;
        self.node.attempts.halt().await;
        self.node.events.settle(LAST_WORDS).await;
        self.tasks.halt().await;
        beat::farewell(&self.node).await;
    }
}
