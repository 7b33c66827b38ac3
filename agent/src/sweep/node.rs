//! One node's shelf: jobs that it does not hold, and claims that are nobody's any more.

use std::sync::Arc;

use shared::{
    id::{NodeId, Timestamp},
    log::Reading,
    node::NodeRecord,
};

use super::{
    LOGS, SweepError,
    decide::{self, Repair},
    drawn,
    lane::move_marker,
};
use crate::{
    node::Node,
    watch::takeover::{self, Stopped},
};

/// Looks at a node's shelf, and mends what is wrong.
pub(super) async fn sweep(node: &Arc<Node>, other: &NodeId, now: Timestamp) -> Result<(), SweepError> {
    let shelf = node.index.held_shelf(other).await?;
    let record = NodeRecord::read(&node.fleet.store, other).await?;
    let ripe = shelf.iter().filter(|marker| decide::is_ripe(marker, now));
    for marker in drawn(ripe, LOGS, &node.chance) {
        let (id, from) = (&marker.marker.job, &marker.marker);
        let Reading::Read(job) = node.log.read_or_leave(id).await? else { continue };
        match decide::held(marker, job.as_deref(), other, record.as_ref(), now) {
            Repair::Leave => {}
            Repair::Move => move_marker(node, job.as_deref(), from).await?,
            Repair::Remove => {
                tracing::warn!(job = %id, ?from, "removed a marker that leads nowhere");
                node.index.remove(from).await?;
            }
            Repair::End(evidence) => {
                tracing::warn!(job = %id, node = %other, ?evidence, "a claim is nobody's any more");
                match takeover::one(node, other, id, &evidence).await {
                    Ok(()) => {}
                    Err(Stopped::Alive) => tracing::info!(node = %other, "it is somebody's after all"),
                    Err(Stopped::Failed(error)) => tracing::warn!(error, "the claim cannot be ended yet"),
                }
            }
        }
    }
    Ok(())
}
