//! How many requests are made of a queue, by kind: one for each call, of which the client of SQS may make one request
//! where several come together.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use super::{Depth, Outgoing, Queue, QueueError, QueueName, Receipt, Received};

/// Kinds of requests. SQS has one price for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Making a queue, or finding it there.
    Ensure,
    /// Sending a message.
    Send,
    /// Receiving, also where nothing came.
    Receive,
    /// Deleting a message.
    Delete,
    /// Hiding a message for longer, or showing it again.
    ChangeVisibility,
    /// Asking how many messages there are.
    Depth,
    /// Deleting all messages.
    Purge,
    /// Listing queues.
    List,
}

impl Kind {
    /// Each of them.
    pub const ALL: [Self; 8] = [
        Self::Ensure,
        Self::Send,
        Self::Receive,
        Self::Delete,
        Self::ChangeVisibility,
        Self::Depth,
        Self::Purge,
        Self::List,
    ];

    /// In `snake_case`, as metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ensure => "ensure",
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Delete => "delete",
            Self::ChangeVisibility => "change_visibility",
            Self::Depth => "depth",
            Self::Purge => "purge",
            Self::List => "list",
        }
    }
}

/// A queue whose requests are counted.
pub struct Counted {
    inner: Arc<dyn Queue>,
    /// In the order of [`Kind::ALL`], which is that of the kinds themselves.
    requests: [AtomicU64; Kind::ALL.len()],
}

impl Counted {
    /// Counts from zero.
    pub fn new(inner: Arc<dyn Queue>) -> Self {
        Self { inner, requests: Default::default() }
    }

    /// Requests so far, of all kinds.
    pub fn requests(&self) -> u64 {
        Kind::ALL.into_iter().map(|kind| self.requests_of(kind)).sum()
    }

    /// Requests of this kind so far.
    pub fn requests_of(&self, kind: Kind) -> u64 {
        self.requests[kind as usize].load(Ordering::Relaxed)
    }

    fn counted(&self, kind: Kind) -> &dyn Queue {
        self.requests[kind as usize].fetch_add(1, Ordering::Relaxed);
        &*self.inner
    }
}

#[async_trait]
impl Queue for Counted {
    async fn ensure(&self, queue: &QueueName) -> Result<(), QueueError> {
        self.counted(Kind::Ensure).ensure(queue).await
    }

    async fn send(&self, queue: &QueueName, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        self.counted(Kind::Send).send(queue, message, delay).await
    }

    async fn receive(
        &self,
        queue: &QueueName,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Received>, QueueError> {
        self.counted(Kind::Receive).receive(queue, max, wait, visibility).await
    }

    async fn delete(&self, queue: &QueueName, receipt: &Receipt) -> Result<(), QueueError> {
        self.counted(Kind::Delete).delete(queue, receipt).await
    }

    async fn change_visibility(
        &self,
        queue: &QueueName,
        receipt: &Receipt,
        visibility: Duration,
    ) -> Result<(), QueueError> {
        self.counted(Kind::ChangeVisibility).change_visibility(queue, receipt, visibility).await
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError> {
        self.counted(Kind::Depth).depth(queue).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<(), QueueError> {
        self.counted(Kind::Purge).purge(queue).await
    }

    async fn list(&self) -> Result<Vec<QueueName>, QueueError> {
        self.counted(Kind::List).list().await
    }
}
