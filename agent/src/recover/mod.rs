//! An agent's start: what an earlier run of it left is taken up, finished or removed.
//!
//! Containers outlive the agent. Those whose job's log says that this node holds it are adopted,
//! in the attempt that they belong to; their output goes on where the store has it. A job that was
//! claimed and has no container is begun; one whose container was started and is gone has failed by
//! the engine's fault, or, where the machine was started anew, was lost with it. What is held by nobody is
//! removed. Steps that a crash cut in two are repeated. What to do is decided by [`plan`], which is pure.

mod plan;
pub mod strays;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt, stream};
use shared::{id::JobId, index::Marker, log::Job};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    engine::Container,
    execute::{self, Owner, Removals, labels_of, settle},
    ledger::Terms,
    node::Node,
    patience::insist,
};

/// How many logs are read at once.
const PARALLEL: usize = 16;

/// Takes up what an earlier run left. Returns when all of it is decided; adopted jobs run on in
/// [`Node::attempts`].
pub async fn recover(node: &Arc<Node>) {
    let labels = labels_of(node.fleet.store.url().as_str(), &node.id);
    let containers = insist("the list of containers", || node.engine.list(&labels)).await;
    let markers = insist("the index", || node.index.held_by(&node.id)).await;
    let shelf: BTreeSet<JobId> = markers.iter().map(|marker| marker.job.clone()).collect();
    let jobs = read_jobs(node, &containers, &shelf).await;
    let plan = plan::plan(&node.id, node.clock.booted(), containers, markers, jobs);
    // Where the earlier run's lease holds and has never lapsed under a job, nobody can have begun to replace this node.
    let proven = node.fence.take_up(plan.resume.iter().map(|(job, ..)| job.id.clone()).collect());
    for (job, holding, stage) in plan.resume {
        let span = tracing::info_span!("job", job = %job.id, attempt = %holding.attempt, node = %node.id);
        span.in_scope(|| tracing::info!(%stage, "taken up from an earlier run of the agent"));
        let attempt = holding.attempt;
        node.ledger.adopt(&job.id, holding, Terms::of(&job.spec, node.clock.now()));
        let owner = node.clone();
        let task = async move {
            // The claim may have been cut off before it took the job from where it waited.
            let waited = Marker::sent(&job, attempt);
            insist("the job's old marker", || owner.index.remove(&waited)).await;
            let moved = CancellationToken::new();
            moved.cancel();
            execute::run(owner.clone(), job, stage, proven, moved).await;
        };
        node.attempts.spawn("attempt", task.instrument(span));
    }
    for container in plan.remove {
        let name = container.name.clone();
        Removals::begin(node, container.name, async move {
            tracing::info!(container = name, "removed a container that nobody owns any more");
        });
    }
    for (job, attempt) in plan.settle {
        tracing::info!(job = %job.id, state = %job.phase(), "finished what an earlier run had begun");
        settle::settle(node, &job, attempt).await;
    }
    // Where they stand now has been marked above; of no job, nothing is left to mark.
    for marker in plan.over {
        insist("the marker of what is over", || node.index.remove(&marker)).await;
    }
}

async fn read_jobs(
    node: &Arc<Node>,
    containers: &[Container],
    shelf: &BTreeSet<JobId>,
) -> BTreeMap<JobId, Job> {
    let owned = containers.iter().filter_map(|container| Some(Owner::of(container)?.job));
    let ids: BTreeSet<JobId> = owned.chain(shelf.iter().cloned()).collect();
    stream::iter(ids)
        .map(|id| async move {
            let job = insist("a job's log", || node.log.read(&id)).await;
            job.map(|job| (id, job))
        })
        .buffer_unordered(PARALLEL)
        .filter_map(|found| async move { found })
        .collect()
        .await
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
