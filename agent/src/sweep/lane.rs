//! One lane: jobs on the wrong shelf, messages that are missing, teams whose window has room.
//!
//! Of the jobs that are parked, a sample of one team's is looked at: a backlog of any size costs the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use shared::{
    id::{JobId, LaneId, Team, Timestamp},
    index::{Aged, Marker, Shelf, Waits},
    log::{Job, Reading},
    queue::{Depth, Queue, QueueError, QueueName},
};

use super::{
    LOGS, SweepError,
    decide::{self, Repair},
    drawn,
};
use crate::{execute::settle, node::Node};

/// Looks at a lane, and mends what is wrong.
pub(super) async fn sweep(node: &Arc<Node>, lane: &LaneId, now: Timestamp) -> Result<(), SweepError> {
    let (sent, teams) =
        futures::join!(node.index.shelf(Waits::Sent, lane, None), node.index.teams(Waits::Parked, lane));
    let (sent, teams) = (sent?, teams?);
    let parked = match teams.len() {
        0 => Vec::new(),
        count => {
            let team = &teams[node.chance.below(count)];
            node.index.sample(Waits::Parked, lane, team, &node.chance).await?
        }
    };
    let depth = depth(node, lane).await?;
    let gone = shelves(node, &sent, &parked, now).await?;
    let sent: Vec<Aged> = sent.into_iter().filter(|marker| !gone.contains(&marker.marker.job)).collect();
    messages(node, lane, &sent, &depth, now).await?;
    windows(node, lane, &sent, &teams).await
}

async fn depth(node: &Node, lane: &LaneId) -> Result<Depth, QueueError> {
    match node.fleet.queue.depth(&QueueName::from(lane)).await {
        Err(QueueError::NoSuchQueue { .. }) => Ok(Depth::default()),
        depth => depth,
    }
}

/// Moves those whose log says that they do not wait. Returns the jobs that are gone from here.
async fn shelves(
    node: &Arc<Node>,
    sent: &[Aged],
    parked: &[Aged],
    now: Timestamp,
) -> Result<BTreeSet<JobId>, SweepError> {
    let is_sent: BTreeSet<&JobId> = sent.iter().map(|marker| &marker.marker.job).collect();
    let ripe = sent.iter().chain(parked).filter(|marker| decide::is_ripe(marker, now));
    let mut gone = BTreeSet::new();
    for marker in drawn(ripe, LOGS, &node.chance) {
        let (id, shelf) = (&marker.marker.job, &marker.marker.shelf);
        let Reading::Read(job) = node.log.read_or_leave(id).await? else { continue };
        match decide::waiting(marker, job.as_deref(), is_sent.contains(id), now) {
            Repair::Leave | Repair::End(_) => continue,
            Repair::Move => move_marker(node, job.as_deref(), &marker.marker).await?,
            Repair::Remove => {
                tracing::warn!(job = %id, ?shelf, "removed a marker that leads nowhere");
                node.index.remove(&marker.marker).await?;
            }
        }
        if matches!(shelf, Shelf::Sent { .. }) {
            gone.insert(id.clone());
        }
    }
    Ok(gone)
}

/// Puts a job where its log says that it is, and then takes it from where it was found.
pub(super) async fn move_marker(
    node: &Arc<Node>,
    job: Option<&Job>,
    from: &Marker,
) -> Result<(), SweepError> {
    let Some(job) = job else { return Ok(()) };
    let to = Marker::of(job);
    tracing::warn!(job = %job.id, from = ?from.shelf, to = ?to.shelf, "moved a marker to where the job's log says that it is");
    node.index.add(job).await?;
    if to != *from {
        node.index.remove(from).await?;
    }
    Ok(())
}

/// Sends again what the queue has lost.
async fn messages(
    node: &Arc<Node>,
    lane: &LaneId,
    sent: &[Aged],
    depth: &Depth,
    now: Timestamp,
) -> Result<(), SweepError> {
    let mut resent = 0;
    let sweep = node.fleet.settings().sweep;
    for id in decide::lost_messages(sent, depth, now, sweep) {
        let Reading::Read(Some(job)) = node.log.read_or_leave(&id).await? else { continue };
        if job.is_for_anybody() {
            settle::send(node, &job).await;
            resent += 1;
        }
    }
    if resent > 0 {
        tracing::warn!(%lane, jobs = sent.len(), ?depth, resent, "sent messages again that the queue had lost");
    }
    Ok(())
}

/// Sends the next jobs of teams that have room in their window.
async fn windows(node: &Arc<Node>, lane: &LaneId, sent: &[Aged], parked: &[Team]) -> Result<(), SweepError> {
    let mut teams: BTreeMap<&Team, usize> = parked.iter().map(|team| (team, 0)).collect();
    for marker in sent {
        if let Shelf::Sent { team, .. } = &marker.marker.shelf
            && let Some(count) = teams.get_mut(team)
        {
            *count += 1;
        }
    }
    let window = node.fleet.settings().window as usize;
    for (team, count) in teams.into_iter().filter(|(_, count)| *count < window) {
        let released = node.window().release(lane, team, window - count).await?;
        if released > 0 {
            tracing::warn!(%lane, %team, released, "sent parked jobs for which there was room");
        }
    }
    Ok(())
}
