//! New settings of the fleet reach a running agent.

use std::sync::Arc;

use shared::fleet::Change;

use crate::{node::Node, pace::Pace, patience::Chain};

/// Looks for newer settings as often as the node beats, when it is its turn ([`crate::gossip`]), until it is
/// dropped. What cannot be had leaves the old ones in force.
pub async fn watch(node: Arc<Node>) {
    let (fleet, known) = (&node.fleet, &node.gossip.settings);
    let mut turns = Pace::after(fleet.clone(), |settings| settings.beat);
    loop {
        known.read(Some(fleet.seq()));
        known.due(&node, &mut turns).await;
        match fleet.refresh().await {
            Ok(None) => {}
            Ok(Some(change)) => {
                tell(&change);
                node.drains.settings_changed();
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "newer settings of the fleet cannot be read; the old ones go on to hold");
            }
        }
    }
}

fn tell(change: &Change) {
    tracing::info!(seq = %change.seq, "the fleet's settings have changed");
    if change.before.queue != change.after.queue {
        tracing::warn!(
            "the fleet's queue is another one now, which a running agent cannot change; restart this agent"
        );
    }
}
