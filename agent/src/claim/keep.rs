//! Keeping room for a job that needs more than is free: its message stays hidden meanwhile, so that one
//! host at a time does so.

use std::{sync::Arc, time::Duration};

use shared::{
    event::Told,
    id::LaneId,
    lane::Misfit,
    log::Job,
    queue::{Queue, Received},
};

use super::{others, take};
use crate::{
    ledger::Take,
    node::Node,
    pace::Pace,
    patience::{Chain, insist},
};

/// How long the message stays hidden after this host was last heard of.
const HIDDEN: Duration = Duration::from_secs(120);

/// Why no room is kept any more.
enum Over {
    /// The job does not wait any more.
    Stale,
    /// Another host has room by now, or this one takes no jobs for now, or keeps room for one that goes before this.
    Elsewhere,
    /// The host has kept room for as long as it may.
    TimeUp,
}

/// Waits for room, and claims the job then; the ledger keeps the room. Gives the message back where that
/// takes too long.
pub(super) async fn keep(node: Arc<Node>, lane: LaneId, mut job: Job, told: Told, received: Received) {
    tracing::info!(%lane, "keeping room for a job");
    let queue = (&lane).into();
    let most = node.fleet.settings().reserve_max.0;
    let mut deadline = std::pin::pin!(tokio::time::sleep(most));
    let mut beat = Pace::at_once(node.fleet.clone(), |settings| settings.beat);
    let mut changes = node.ledger.changes();
    let mut hidden_until = node.clock.elapsed();
    let over = loop {
        changes.catch_up();
        match node.ledger.take(&job.id, job.next_attempt(), &job.spec, job.memory(), node.clock.now()) {
            Take::Given(holding) => {
                node.ledger.served(&lane);
                return take::claim(node, lane, job, holding, told, received).await;
            }
            Take::Refused(_) if !node.ledger.is_kept_for(&job.id) => break Over::Elsewhere,
            Take::Refused(why) if why.iter().all(can_wait) => take::refuse(&node, &lane, &job.id, why),
            Take::Refused(_) | Take::Already | Take::Settling => break Over::Elsewhere,
        }
        tokio::select! {
            biased;
            () = changes.changed() => {}
            () = &mut deadline => break Over::TimeUp,
            () = beat.tick() => {
                match node.log.refresh(&mut job).await {
                    Ok(_) if !job.is_waiting() => break Over::Stale,
                    Ok(_) => {}
                    Err(error) => tracing::debug!(error = %Chain(&error), "the job's log cannot be read"),
                }
                if others::have_room(&node, &job, |_| true).await {
                    break Over::Elsewhere;
                }
                if hidden_until < node.clock.elapsed() + HIDDEN / 2 {
                    match node.fleet.queue.change_visibility(&queue, &received.receipt, HIDDEN).await {
                        Ok(()) => hidden_until = node.clock.elapsed() + HIDDEN,
                        Err(error) => tracing::debug!(error = %Chain(&error), "the message may be seen by others"),
                    }
                }
            }
        }
    };
    match over {
        Over::Stale => {
            node.ledger.unreserve(&job.id, None);
            take::delete(&node, &lane, &received).await;
        }
        Over::Elsewhere => {
            tracing::info!("room for the job is elsewhere by now");
            node.ledger.unreserve(&job.id, None);
            give_back(&node, &lane, &received).await;
        }
        Over::TimeUp => {
            tracing::info!("keeping no room for the job any more");
            let now = node.clock.now();
            node.ledger.unreserve(&job.id, Some(now + most));
            give_back(&node, &lane, &received).await;
        }
    }
}

async fn give_back(node: &Node, lane: &LaneId, received: &Received) {
    let queue = lane.into();
    let back = || node.fleet.queue.change_visibility(&queue, &received.receipt, Duration::ZERO);
    insist("the message's return", back).await;
}

/// Whether it passes with what runs here.
pub(super) fn can_wait(misfit: &Misfit) -> bool {
    misfit.passes_when_empty() && !matches!(misfit, Misfit::Closed { .. } | Misfit::Avoided)
}
