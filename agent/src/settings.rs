//! New settings of the fleet reach a running agent within a minute.

use std::time::Duration;

use shared::fleet::{Change, Fleet};

use crate::patience::Chain;

/// How often an agent looks for newer settings: one read each time, whatever the fleet's size.
const LOOK: Duration = Duration::from_secs(30);

/// Looks for newer settings, until it is dropped. What cannot be had leaves the old ones in force.
pub async fn watch(fleet: Fleet) {
    loop {
        tokio::time::sleep(LOOK).await;
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
