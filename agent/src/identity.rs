//! One name, one agent: whoever starts under the name of one that runs refuses, and of two that have
//! started at the same time one gives way.

use std::{sync::atomic::Ordering, time::Duration};

use anyhow::{Result, bail};
use shared::{id::Incarnation, lease, node::Mode};

use crate::{node::Node, patience::Chain};

/// How many of the other's beats are waited for one: it may be slow.
const BEATS: u32 = 3;

/// Makes sure that no agent runs under this node's name. At once where there was none, or where this
/// agent's own state directory says that it was the last; otherwise after some beats without a sign.
///
/// # Errors
/// When one does, or the store does not answer.
pub async fn check(node: &Node) -> Result<()> {
    let store = &node.fleet.store;
    let Some((record, sight)) = lease::look(store, &node.id).await? else { return Ok(()) };
    if record.mode == Mode::Stopped || node.fence.earlier() == Some(&record.incarnation) {
        return Ok(());
    }
    tracing::warn!(
        node = %node.id, incarnation = %record.incarnation,
        "another state directory's agent was the last of this name; waiting whether it still runs"
    );
    let until = node.clock.elapsed() + (record.beat.0 * BEATS).max(Duration::from_secs(1));
    while node.clock.elapsed() < until {
        tokio::time::sleep(record.beat.0 / 2).await;
        if lease::look(store, &node.id).await?.is_some_and(|(_, now)| now != sight) {
            bail!(
                "an agent named {} runs already, with another state directory (incarnation {}); \
                 give this one a name of its own with --node, or stop the other",
                node.id,
                record.incarnation
            );
        }
    }
    Ok(())
}

/// Every how many beats the record is looked at before it is written.
const EVERY: u64 = 4;

/// Another agent that writes this node's record.
#[derive(Debug, Default)]
pub struct Namesake(Option<(Incarnation, u64)>);

impl Namesake {
    /// Looks whether another agent writes this node's record, to be called before each beat. One that
    /// does so again and again is alive; then the one whose incarnation comes later gives way, which
    /// both see alike.
    pub async fn look(&mut self, node: &Node) {
        let beats = node.beats.load(Ordering::Relaxed);
        if beats == 0 || (self.0.is_none() && !beats.is_multiple_of(EVERY)) || node.give_way.is_cancelled() {
            return;
        }
        let record = match lease::look(&node.fleet.store, &node.id).await {
            Ok(found) => found.map(|(record, _)| record),
            Err(error) => return tracing::debug!(error = %Chain(&error), "cannot look at the own record"),
        };
        let other =
            record.filter(|record| record.incarnation != node.incarnation && record.mode != Mode::Stopped);
        let Some(other) = other else {
            self.0 = None;
            return;
        };
        let before = self.0.replace((other.incarnation.clone(), other.counter));
        // A single one may be a late write of this node's own earlier run.
        if before.is_none_or(|(who, counter)| who != other.incarnation || counter >= other.counter) {
            return;
        }
        if other.incarnation < node.incarnation {
            tracing::error!(node = %node.id, incarnation = %other.incarnation, "another agent has this name; this one gives way");
            node.give_way.cancel();
        } else {
            tracing::warn!(node = %node.id, incarnation = %other.incarnation, "another agent has this name; it is to give way");
        }
    }
}
