//! The sweep: what a crash between two steps, a purged queue or a message past its retention leaves
//! is found and mended, with no operator.
//!
//! About once in the fleet's `sweep` interval, over the whole fleet and whatever its size, one agent
//! looks at some lanes in which jobs wait ([`lane`]) and at the shelf of one node ([`node`]). Each
//! agent draws against its view of the membership; nobody coordinates them, and two that sweep at
//! once do no harm. Every repair is a `warn` that says what it mended. What is done is decided by
//! [`decide`], which is pure.

pub mod decide;
mod lane;
mod node;

use std::{collections::BTreeSet, sync::Arc};

use shared::{
    clock::Chance,
    id::{LaneId, NodeId, Timestamp},
    log::LogError,
    node::{NodeError, NodeRecord},
    queue::QueueError,
    store::StoreError,
    window::WindowError,
};

use crate::{node::Node, pace::Pace, patience::Chain};

/// How many lanes one sweep looks at.
const LANES: usize = 3;

/// How many logs one sweep reads for one shelf, drawn at random: those that lie there longest may be
/// right where they are, and there may be many.
const LOGS: usize = 32;

/// Why a sweep broke off; the next one is soon.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error(transparent)]
    Window(#[from] WindowError),
}

/// Sweeps now and then, until it is dropped.
pub async fn run(node: Arc<Node>) {
    let mut every = Pace::after(node.fleet.clone(), |settings| settings.beat);
    loop {
        every.tick().await;
        // Whoever may be replaced mends nothing.
        if node.fence.epoch().is_some()
            && is_due(&node)
            && let Err(error) = sweep(&node).await
        {
            tracing::warn!(error = %Chain(&error), "the sweep broke off");
        }
    }
}

/// Draws, so that over the whole fleet one agent sweeps in each interval.
fn is_due(node: &Node) -> bool {
    let settings = node.fleet.settings();
    #[expect(clippy::cast_precision_loss, reason = "no fleet has 2^52 nodes")]
    let members = node.members.count() as f64;
    node.chance.happens(settings.beat.0.as_secs_f64() / settings.sweep.0.as_secs_f64() / members)
}

/// One sweep.
async fn sweep(node: &Arc<Node>) -> Result<(), SweepError> {
    // This node's own record was written within the last beats: the store's clock says at least that.
    let Some(own) = node.fleet.store.head(&NodeRecord::key(&node.id)).await? else { return Ok(()) };
    let now: Timestamp = own.modified;
    for lane in lanes(node).await? {
        lane::sweep(node, &lane, now).await?;
    }
    if let Some(other) = one_node(node).await? {
        node::sweep(node, &other, now).await?;
    }
    Ok(())
}

/// So many of these, drawn at random.
fn drawn<T>(all: impl Iterator<Item = T>, most: usize, chance: &Chance) -> Vec<T> {
    let mut all: Vec<T> = all.collect();
    let mut drawn = Vec::new();
    while drawn.len() < most && !all.is_empty() {
        drawn.push(all.swap_remove(chance.below(all.len())));
    }
    drawn
}

/// Some lanes in which jobs wait, drawn at random.
async fn lanes(node: &Node) -> Result<Vec<LaneId>, StoreError> {
    let store = &node.fleet.store;
    let (sent, parked) = futures::join!(store.list_names("index/sent"), store.list_names("index/parked"));
    let names: BTreeSet<String> = sent?.into_iter().chain(parked?).collect();
    Ok(drawn(names.iter().filter_map(|name| name.parse().ok()), LANES, &node.chance))
}

/// A node that holds jobs, drawn at random, whether or not it has a record.
async fn one_node(node: &Node) -> Result<Option<NodeId>, StoreError> {
    Ok(drawn(node.index.holders().await?.into_iter(), 1, &node.chance).pop())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_a_long_shelf_is_drawn_once_at_most_and_sooner_or_later() {
        let chance = Chance::from_seed(1);
        let mut seen = BTreeSet::new();
        for _ in 0..200 {
            let drawn = drawn(0..1000, LOGS, &chance);
            assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), LOGS, "no two alike: {drawn:?}");
            seen.extend(drawn);
        }
        assert!(seen.len() > 950, "{} of 1000 in 200 draws of {LOGS}", seen.len());
        assert_eq!(drawn(0..3, LOGS, &chance).len(), 3);
    }
}
