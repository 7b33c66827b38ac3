//! The queue: a hint that work waits, never the truth.
//!
//! Each lane has a queue. What every implementation promises is what SQS promises of a standard
//! queue (Amazon SQS Developer Guide), and no more:
//!
//! - *At least once.* A message is received until it is deleted; it may be received twice, even
//!   within its visibility timeout, and it may outlive its deletion. Whoever receives one checks
//!   it against the log.
//! - *Visibility.* A received message is hidden for as long as the receiver asked, then seen
//!   again. Each receive gives a new receipt; an older one has no effect any more.
//! - *Long poll.* A receive may wait for a message to come. One that is dropped while it waits may
//!   take a message with it, which is then hidden until its visibility has passed.
//! - *No order.* Oldest first, where it costs nothing.
//! - *Teams.* A message belongs to a team, for implementations that share out by it.
//! - *Loss.* All messages may vanish at any time (a purge, a retention limit). The jobs do not.

mod count;
mod sqlite;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::id::{LaneId, Team, Timestamp};

pub use count::Counted;
pub use sqlite::SqliteQueue;

/// The most that one message may hold, in bytes: 1 MiB, as SQS has it since August 2025 (Amazon
/// SQS Developer Guide, "Message quotas").
pub const MAX_MESSAGE: usize = 1 << 20;

/// The longest long poll, as SQS has it.
pub const MAX_WAIT: Duration = Duration::from_secs(20);

/// The most messages that one receive gives, as SQS has it.
pub const MAX_BATCH: usize = 10;

/// A message on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Whose it is.
    pub team: Team,
    /// What it says; at most [`MAX_MESSAGE`] bytes.
    pub body: String,
}

/// A message that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What it says.
    pub body: String,
    /// What deletes or hides it.
    pub receipt: Receipt,
    /// How often it has been received, this time included.
    pub receives: u32,
    /// When it was sent, by the queue's clock.
    pub sent_at: Timestamp,
}

/// The right to delete or hide a message, from one receive of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt(String);

/// About how many messages a queue holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Depth {
    /// Can be received now.
    pub waiting: u64,
    /// Received, and hidden.
    pub in_flight: u64,
    /// Sent with a delay that has not passed.
    pub delayed: u64,
}

/// Why the queue did not do it.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Nobody has made this lane's queue yet; [`Queue::ensure`] does.
    #[error("there is no queue for lane {lane}")]
    NoSuchQueue {
        /// The lane.
        lane: LaneId,
    },
    /// The message holds too much; sending it again is of no use.
    #[error("a message of {size} bytes is too large for the queue: at most {MAX_MESSAGE}")]
    TooLarge {
        /// Bytes of its body.
        size: usize,
    },
    /// The queue did not answer, or with a passing failure: try again.
    #[error("the queue {queue} did not answer")]
    Unavailable {
        /// Which.
        queue: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The queue cannot be used as it is: a person must act.
    #[error("the queue {queue} cannot be used: {detail}")]
    Unusable {
        /// Which.
        queue: String,
        /// What is wrong, and the fix.
        detail: String,
    },
}

/// The queues of a fleet, one for each lane.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Makes a lane's queue if there is none.
    async fn ensure(&self, lane: &LaneId) -> Result<(), QueueError>;

    /// Sends a message, to be seen after `delay` (0 to 15 minutes).
    async fn send(&self, lane: &LaneId, message: &Outgoing, delay: Duration) -> Result<(), QueueError>;

    /// Receives up to `max` messages (1 to [`MAX_BATCH`]), waiting up to `wait` (0 to
    /// [`MAX_WAIT`]) for the first, and hides them for `visibility` (up to 12 hours).
    async fn receive(
        &self,
        lane: &LaneId,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Received>, QueueError>;

    /// Deletes a message. With a receipt that is outdated, nothing happens.
    async fn delete(&self, lane: &LaneId, receipt: &Receipt) -> Result<(), QueueError>;

    /// Hides a received message for so long from now; 0 shows it again at once. With a receipt
    /// that is outdated, nothing happens.
    async fn change_visibility(
        &self,
        lane: &LaneId,
        receipt: &Receipt,
        visibility: Duration,
    ) -> Result<(), QueueError>;

    /// About how many messages there are.
    async fn depth(&self, lane: &LaneId) -> Result<Depth, QueueError>;

    /// Deletes all messages of a lane.
    async fn purge(&self, lane: &LaneId) -> Result<(), QueueError>;

    /// The lanes that have a queue, by id.
    async fn lanes(&self) -> Result<Vec<LaneId>, QueueError>;
}
