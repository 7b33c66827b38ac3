//! What the other nodes could do for a job, as far as a few drawn at random tell.

use shared::{
    lane::{Fit, Misfit, Needs, fit},
    log::Job,
    node::{Mode, NodeRecord},
};

use crate::node::Node;

/// How many are asked.
const ASKED: usize = 8;

/// Whether some other live node could run the job, now or once it has room.
pub(crate) async fn could_run(node: &Node, job: &Job) -> bool {
    any(node, |other| {
        let misfits = other.capacity.misfits(&job.spec, job.memory());
        let has_gpus = !matches!(fit(&Needs::of(&job.spec), &other.offer), Fit::Never(_));
        has_gpus && other.problems.is_empty() && misfits.iter().all(Misfit::passes_when_empty)
    })
    .await
}

/// Whether some other live node of these has room for the job now.
pub(super) async fn have_room(node: &Node, job: &Job, of: impl Fn(&NodeRecord) -> bool) -> bool {
    any(node, |other| {
        let has_gpus = fit(&Needs::of(&job.spec), &other.offer) == Fit::Now;
        let has_the_rest = other.capacity.misfits(&job.spec, job.memory()).is_empty();
        has_gpus && other.problems.is_empty() && has_the_rest && of(other)
    })
    .await
}

async fn any(node: &Node, can: impl Fn(&NodeRecord) -> bool) -> bool {
    // A node that has just started knows nobody yet.
    node.members.refresh(node, None).await;
    for name in node.members.draw(ASKED, &node.id, &node.chance) {
        let Ok(Some(record)) = NodeRecord::read(&node.fleet.store, &name).await else { continue };
        let alive =
            record.mode == Mode::Ready && !record.is_silent(node.clock.now(), node.fleet.settings().lease);
        if alive && can(&record) {
            return true;
        }
    }
    false
}
