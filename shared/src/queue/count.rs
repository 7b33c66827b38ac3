//! How many requests are made of a queue, as clouds price them: one for each call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use super::{Depth, Outgoing, Queue, QueueError, Receipt, Received};
use crate::id::LaneId;

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
    async fn ensure(&self, lane: &LaneId) -> Result<(), QueueError> {
        self.counted().ensure(lane).await
    }

    async fn send(&self, lane: &LaneId, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        self.counted().send(lane, message, delay).await
    }

    async fn receive(
        &self,
        lane: &LaneId,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Received>, QueueError> {
        self.counted().receive(lane, max, wait, visibility).await
    }

    async fn delete(&self, lane: &LaneId, receipt: &Receipt) -> Result<(), QueueError> {
        self.counted().delete(lane, receipt).await
    }

    async fn change_visibility(
        &self,
        lane: &LaneId,
        receipt: &Receipt,
        visibility: Duration,
    ) -> Result<(), QueueError> {
        self.counted().change_visibility(lane, receipt, visibility).await
    }

    async fn depth(&self, lane: &LaneId) -> Result<Depth, QueueError> {
        self.counted().depth(lane).await
    }

    async fn purge(&self, lane: &LaneId) -> Result<(), QueueError> {
        self.counted().purge(lane).await
    }

    async fn lanes(&self) -> Result<Vec<LaneId>, QueueError> {
        self.counted().lanes().await
    }
}
