//! Reading a job's data ahead while its message stays hidden, so that one host does so and no GPU waits for it; then
//! the job is claimed as any other.

use std::{pin::pin, sync::Arc, time::Duration};

use shared::{
    event::Told,
    id::LaneId,
    lane::Needs,
    log::Job,
    queue::{Queue, Received},
};

use super::{others, take};
use crate::{ledger::Take, node::Node, pace::Pace, patience::Chain, prefetch};

/// How long the message stays hidden after this host was last heard of.
const HIDDEN: Duration = Duration::from_secs(120);

/// A queue hides a message for twelve hours at most; a job's data that takes half of that is read by the job.
const MOST: Duration = Duration::from_secs(6 * 3600);

/// What became of the reading.
enum Over {
    /// It has been read, or cannot be.
    Read,
    /// The job does not wait any more.
    Stale,
    /// This host takes no jobs any more, or has no room where another has.
    Elsewhere,
}

/// Reads ahead, and claims the job if the host has room for it then; puts the message back otherwise, and the next
/// host that has room finds the data in the gateway's cache.
pub(super) async fn warm(node: Arc<Node>, lane: LaneId, mut job: Job, told: Told, received: Received) {
    tracing::info!(%lane, "reading ahead what the job will read");
    match read_ahead(&node, &lane, &mut job, &received).await {
        Over::Stale => return take::delete(&node, &lane, &received).await,
        Over::Elsewhere => return take::put_back(&node, &lane, &received, Duration::ZERO).await,
        Over::Read => {}
    }
    match node.ledger.take(&job.id, job.next_attempt(), &job.spec, job.memory(), node.clock.now()) {
        Take::Given(holding) => take::claim(node, lane, job, holding, told, received).await,
        Take::Refused(_) | Take::Already | Take::Settling => {
            take::put_back(&node, &lane, &received, Duration::ZERO).await;
        }
    }
}

async fn read_ahead(node: &Node, lane: &LaneId, job: &mut Job, received: &Received) -> Over {
    let (queue, id, spec) = (lane.into(), job.id.clone(), job.spec.clone());
    let mut reading = pin!(tokio::time::timeout(MOST, prefetch::run(node, &id, &spec)));
    let mut beat = Pace::at_once(node.fleet.clone(), |settings| settings.beat);
    let mut changes = node.ledger.changes();
    let mut hidden_until = node.clock.elapsed();
    loop {
        tokio::select! {
            biased;
            _ = &mut reading => return Over::Read,
            () = changes.changed() => {
                if node.ledger.is_closed() {
                    return Over::Elsewhere;
                }
            }
            () = beat.tick() => {
                let has_room = !node.ledger.is_closed() && node.ledger.room(&Needs::of(&spec)) > 0;
                if !has_room && (node.ledger.is_closed() || others::have_room(node, job, |_| true).await) {
                    return Over::Elsewhere;
                }
                match node.log.refresh(job).await {
                    Ok(_) if !job.is_waiting() => return Over::Stale,
                    Ok(_) => {}
                    Err(error) => tracing::debug!(error = %Chain(&error), "the job's log cannot be read"),
                }
                if hidden_until < node.clock.elapsed() + HIDDEN / 2 {
                    match node.fleet.queue.change_visibility(&queue, &received.receipt, HIDDEN).await {
                        Ok(()) => hidden_until = node.clock.elapsed() + HIDDEN,
                        Err(error) => tracing::debug!(error = %Chain(&error), "the message may be seen by others"),
                    }
                }
            }
        }
    }
}
