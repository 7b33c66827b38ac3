//! Containers that come late: a call that made one may have outlived the agent's patience, and have
//! been answered for by a removal that found nothing yet. Nobody would look for such a container
//! before the agent's next start, so it is looked for now and then.
//!
//! So is a container that is paused though this node's lease holds: a pause that the guard, or this
//! agent, had asked for and given up may have come after the thaw. Its attempt is told, and thaws it
//! once it has made sure of the job.

use std::sync::Arc;

use crate::{
    engine::ContainerState,
    execute::{Owner, labels_of},
    node::Node,
    pace::Pace,
    patience::Chain,
};

/// Removes strays now and then, until it is dropped.
pub async fn run(node: Arc<Node>) {
    let mut every = Pace::after(node.fleet.clone(), |settings| settings.sweep);
    loop {
        every.tick().await;
        look(&node).await;
    }
}

async fn look(node: &Node) {
    let labels = labels_of(node.fleet.store.url().as_str(), &node.id);
    // An engine that is away is the health check's matter.
    let Ok(containers) = node.engine.list(&labels).await else { return };
    for container in containers {
        let Some(owner) = Owner::of(&container) else { continue };
        if node.ledger.holdings().get(&owner.job).is_some_and(|held| held.attempt == owner.attempt) {
            // Looked at more closely: the list has it from the engine alone, which may not know.
            if node.fence.epoch().is_some()
                && let Ok(Some(container)) = node.engine.inspect(&container.id).await
                && container.state == ContainerState::Paused
            {
                node.ledger.found_paused(&owner.job);
            }
            continue;
        }
        // Its end removes it, or the agent's start did.
        if node.ledger.is_ending(&owner.job) || node.removals.is_under_way(&container.name) {
            continue;
        }
        // An attempt that is not this node's never will be again.
        let stray = match node.log.read(&owner.job).await {
            Ok(job) => job.is_some_and(|job| !job.is_held_by(&node.id, owner.attempt)),
            Err(_) => false,
        };
        // The list may be from before its end.
        if stray && matches!(node.engine.inspect(&container.id).await, Ok(Some(_))) {
            tracing::warn!(
                container = container.name,
                "removed a container that came after its attempt had ended"
            );
            if let Err(error) = node.engine.remove(&container.id).await {
                tracing::warn!(error = %Chain(&error), "it cannot be removed yet");
            }
        }
    }
}
