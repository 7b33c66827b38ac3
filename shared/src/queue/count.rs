//! How many requests are made of a queue, as clouds price them: one for each call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use super::{Depth, Outgoing, Queue, QueueError, QueueName, Receipt, Received};

/// A queue whose requests are counted.
pub struct Counted {
    inner: Arc<dyn Queue>,
    requests: AtomicU64,
}

impl Counted {
    /// Counts from zero.
    pub fn new(inner: Arc<dyn Queue>) -> Self {
        Self { inner, requests: AtomicU64::new(0) }
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn counted(&self) -> &dyn Queue {
        self.requests.fetch_add(1, Ordering::Relaxed);
        &*self.inner
    }
}

#[async_trait]
impl Queue for Counted {
    async fn ensure(&self, queue: &QueueName) -> Result<(), QueueError> {
        self.counted().ensure(queue).await
    }

    async fn send(&self, queue: &QueueName, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        self.counted().send(queue, message, delay).await
    }

    async fn receive(
        &self,
        queue: &QueueName,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Received>, QueueError> {
        self.counted().receive(queue, max, wait, visibility).await
    }

    async fn delete(&self, queue: &QueueName, receipt: &Receipt) -> Result<(), QueueError> {
        self.counted().delete(queue, receipt).await
    }

    async fn change_visibility(
        &self,
        queue: &QueueName,
        receipt: &Receipt,
        visibility: Duration,
    ) -> Result<(), QueueError> {
        self.counted().change_visibility(queue, receipt, visibility).await
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError> {
        self.counted().depth(queue).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<(), QueueError> {
        self.counted().purge(queue).await
    }

    async fn list(&self) -> Result<Vec<QueueName>, QueueError> {
        self.counted().list().await
    }
}
