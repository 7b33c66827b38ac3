//! New settings of the fleet reach a running agent.

use std::{sync::Arc, time::Duration};

use shared::{fleet::Change, units::Span};

use crate::{node::Node, pace::Pace, patience::Chain};

/// How often newer settings are looked for, by those whose turn it is ([`crate::gossip`]).
const LOOK: Duration = Duration::from_secs(15);

/// Looks for newer settings, until it is dropped. What cannot be had leaves the old ones in force.
pub async fn watch(node: Arc<Node>) {
    let (fleet, known) = (&node.fleet, &node.gossip.settings);
    let mut turns = Pace::after(fleet.clone(), |_| Span(LOOK));
    loop {
        known.read(Some(fleet.seq()));
        known.due(&node, &mut turns).await;
        match fleet.refresh().await {
            Ok(None) => {}
            Ok(Some(change)) => tell(&change),
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
