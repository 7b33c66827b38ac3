//! Containers on their way out. An engine may not get rid of one for as long as a process of it hangs in a driver or
//! on a mount: then neither the agent's start nor its end waits, and no other job.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{engine::ContainerId, node::Node, patience::insist, task::Tasks};

/// The removals that are under way.
#[derive(Debug, Default)]
pub struct Removals {
    tasks: Tasks,
    names: Mutex<BTreeSet<String>>,
}

impl Removals {
    /// Removes the container of this name, however often the engine fails, and then does what comes after.
    pub fn begin(node: &Arc<Node>, name: String, after: impl Future<Output = ()> + Send + 'static) {
        node.removals.names().insert(name.clone());
        let owner = node.clone();
        node.removals.tasks.spawn("removal", async move {
            let id = ContainerId::new(name.clone());
            insist("the container's removal", || owner.engine.remove(&id)).await;
            owner.removals.names().remove(&name);
            after.await;
        });
    }

    /// Whether the container of this name is being removed.
    pub fn is_under_way(&self, name: &str) -> bool {
        self.names().contains(name)
    }

    /// Waits until all are done.
    pub async fn finished(&self) {
        self.tasks.finished().await;
    }

    /// Waits so long, and drops what is not done then: the agent's next start finds it.
    pub async fn settle(&self, patience: Duration) {
        if tokio::time::timeout(patience, self.finished()).await.is_err() {
            tracing::warn!(containers = ?self.names(), "these cannot be removed yet; the next start tries again");
            self.tasks.halt().await;
        }
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
