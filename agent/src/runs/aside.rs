//! The queues of a run: lanes that only it sees, so that nobody else takes its job, and the fleet's own
//! status queue.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use shared::queue::{Counted, Depth, Outgoing, Queue, QueueError, QueueName, Receipt, Received, SqliteQueue};

/// Queues of a run's own beside the fleet's status queue.
pub(super) struct Aside {
    own: SqliteQueue,
    fleet: Arc<Counted>,
}

impl Aside {
    /// These, beside the fleet's.
    pub(super) fn new(own: SqliteQueue, fleet: Arc<Counted>) -> Self {
        Self { own, fleet }
    }

    fn of(&self, queue: &QueueName) -> &dyn Queue {
        if *queue == QueueName::Status { &*self.fleet } else { &self.own }
    }
}

#[async_trait]
impl Queue for Aside {
    async fn ensure(&self, queue: &QueueName) -> Result<(), QueueError> {
        self.of(queue).ensure(queue).await
    }

    async fn send(&self, queue: &QueueName, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        self.of(queue).send(queue, message, delay).await
    }

    async fn receive(
        &self,
        queue: &QueueName,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Received>, QueueError> {
        self.of(queue).receive(queue, max, wait, visibility).await
    }

    async fn delete(&self, queue: &QueueName, receipt: &Receipt) -> Result<(), QueueError> {
        self.of(queue).delete(queue, receipt).await
    }

    async fn change_visibility(
        &self,
        queue: &QueueName,
        receipt: &Receipt,
        visibility: Duration,
    ) -> Result<(), QueueError> {
        self.of(queue).change_visibility(queue, receipt, visibility).await
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError> {
        self.of(queue).depth(queue).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<(), QueueError> {
        self.of(queue).purge(queue).await
    }

    async fn list(&self) -> Result<Vec<QueueName>, QueueError> {
        self.own.list().await
    }
}
