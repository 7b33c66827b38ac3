//! One name, one agent: whoever starts under the name of one that runs refuses.

use std::time::Duration;

use anyhow::{Result, bail};
use shared::{lease, node::Mode};

use crate::node::Node;

/// How many of the other's beats are waited for one: it may be slow.
const BEATS: u32 = 3;

/// Makes sure that no agent runs under this node's name. At once where there was none, or where this
/// agent's own state directory says that it was the last; otherwise after some beats without a sign.
///
/// # Errors
/// When one does, or the store does not answer.
pub async fn check(node: &Node) -> Result<()> {
    let store = &node.fleet.store;
    let Some((record, sight)) = lease::look(store, &node.id).await? else { return Ok(()) };
    if record.mode == Mode::Stopped || node.fence.earlier() == Some(&record.incarnation) {
        return Ok(());
    }
    tracing::warn!(
        node = %node.id, incarnation = %record.incarnation,
        "another state directory's agent was the last of this name; waiting whether it still runs"
    );
    let until = node.clock.elapsed() + (record.beat.0 * BEATS).max(Duration::from_secs(1));
    while node.clock.elapsed() < until {
        tokio::time::sleep(record.beat.0 / 2).await;
        if lease::look(store, &node.id).await?.is_some_and(|(_, now)| now != sight) {
            bail!(
                "an agent named {} runs already, with another state directory (incarnation {}); \
                 give this one a name of its own with --node, or stop the other",
                node.id,
                record.incarnation
            );
        }
    }
    Ok(())
}
