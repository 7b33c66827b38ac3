//! The heartbeat: the node's record, rewritten each beat with a counter that moves.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use shared::{
    id::JobId,
    lane::When,
    node::{Mode, NodeRecord, Reserved},
};

use crate::{identity::Namesake, node::Node, pace::Pace, patience::Chain};

/// Writes the record once, which renews the lease.
///
/// # Errors
/// The store's; the lease is then as it was.
pub async fn write(node: &Node) -> Result<(), shared::store::StoreError> {
    let (began, settings) = (node.clock.elapsed(), node.fleet.settings());
    let inventory = node.ledger.inventory();
    let record = NodeRecord {
        v: NodeRecord::VERSION,
        node: node.id.clone(),
        incarnation: node.incarnation.clone(),
        counter: node.beats.fetch_add(1, Ordering::Relaxed) + 1,
        at: node.clock.now(),
        beat: settings.beat,
        lease: settings.lease,
        mode: if node.is_private() { Mode::Draining } else { node.ledger.mode() },
        problems: node.ledger.problems(),
        offer: node.ledger.offer(),
        simulated: inventory.simulated,
        driver: inventory.driver.map(|driver| driver.version),
        capacity: node.ledger.capacity(),
        jobs: node.ledger.holdings().into_keys().collect(),
        idle_since: node.idle_since(),
        refusals: node.ledger.refusals(),
        reserved: node.ledger.reservation().map(|(kept, plan)| Reserved {
            job: kept.job,
            since: kept.since,
            until: kept.until,
            start: plan.map_or(When::Unknown, |plan| plan.start),
        }),
        prefetching: node.prefetches.progress(),
        warnings: warnings(node),
        settings: node.gossip.settings.known(),
        lanes: node.gossip.lanes.known(),
        claim_after: node.config.claim_after,
        images: node.images.names(),
        price: node.price(),
        engine: node.engine_name(),
        haul: env!("CARGO_PKG_VERSION").to_owned(),
    };
    record.write(&node.fleet.store).await?;
    node.fence.renewed(began, &settings, node.ledger.holdings().into_keys().collect());
    Ok(())
}

/// What is to be said of the jobs that run here.
fn warnings(node: &Node) -> BTreeMap<JobId, String> {
    node.ledger.exceeding().into_iter().map(|(job, excess)| (job, excess.to_string())).collect()
}

/// Writes the record at every beat, until it is dropped. Not at every change: that would cost each
/// job two more writes.
pub async fn run(node: Arc<Node>) {
    let mut every = Pace::at_once(node.fleet.clone(), |settings| settings.beat);
    let mut namesake = Namesake::default();
    loop {
        every.tick().await;
        // What is there now was written after this node's last beat if it is another's. A store that is
        // slow to say so does not hold up the beat.
        let patience = node.fleet.settings().beat.0 / 4;
        if tokio::time::timeout(patience, namesake.look(&node)).await.is_err() {
            tracing::debug!("the store was too slow to tell whose the node's record is");
        }
        let written = write(&node).await;
        node.metrics.beat(written.is_ok());
        if let Err(error) = written {
            tracing::warn!(error = %Chain(&error), "the node's record cannot be written");
        }
    }
}

/// Removes the record of a node that will never be again.
pub async fn forget(node: &Node) {
    if let Err(error) = node.fleet.store.delete(&NodeRecord::key(&node.id)).await {
        tracing::warn!(error = %Chain(&error), "the node's record stays");
    }
}

/// The last record of a run that stops in order.
pub async fn farewell(node: &Node) {
    node.ledger.set_mode(Mode::Stopped);
    if let Err(error) = write(node).await {
        tracing::warn!(error = %Chain(&error), "the node's last record cannot be written");
    }
}
