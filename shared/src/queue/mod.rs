//! The queue: a hint that work waits, never the truth.
//!
//! Each lane has a queue, and so have the fleet's inbox, dead letters and status events. What every implementation promises is what SQS promises of a standard
//! queue (Amazon SQS Developer Guide), and no more:
//!
//! - *At least once.* A message is received until it is deleted; it may be received twice, even
//!   within its visibility timeout, and it may outlive its deletion. Whoever receives one checks
//!   it against the log.
//! - *Visibility.* A received message is hidden for as long as the receiver asked, then seen
//!   again. Each receive gives a new receipt; an older one may or may not have an effect still.
//! - *Long poll.* A receive may wait for a message to come. One that is dropped while it waits may
//!   take a message with it, which is then hidden until its visibility has passed.
//! - *No order.* Oldest first, where it costs nothing.
//! - *Teams.* A message belongs to a team, for implementations that share out by it.
//! - *Loss.* All messages may vanish at any time (a purge, a retention limit). The jobs do not.

mod address;
mod count;
mod name;
mod sqlite;
mod sqs;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::id::{Team, Timestamp};

pub use address::AddressError;
pub use count::{Counted, Kind};
pub use name::QueueName;
pub use sqlite::SqliteQueue;
pub use sqs::{Prefix, PrefixError, SqsQueue};

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
    /// What it says; at most [`MAX_MESSAGE`] bytes, attributes included.
    pub body: String,
    /// What is said beside it, by name; at most ten.
    pub attributes: BTreeMap<String, String>,
}

impl Outgoing {
    /// A message without attributes.
    pub fn new(team: Team, body: impl Into<String>) -> Self {
        Self { team, body: body.into(), attributes: BTreeMap::new() }
    }

    /// Bytes that count towards [`MAX_MESSAGE`].
    pub fn size(&self) -> usize {
        let beside = self.attributes.iter().map(|(name, value)| name.len() + "String".len() + value.len());
        self.body.len() + beside.sum::<usize>()
    }
}

/// A message that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The queue's own name for the message, the same at each receive.
    pub id: String,
    /// What it says.
    pub body: String,
    /// What was said beside it.
    pub attributes: BTreeMap<String, String>,
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

impl Receipt {
    /// As the queue writes it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As the queue reads it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

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
    /// Nobody has made this queue yet; [`Queue::ensure`] does.
    #[error("there is no queue {queue}")]
    NoSuchQueue {
        /// Which.
        queue: QueueName,
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

/// The queues of a fleet.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Makes a queue if there is none.
    async fn ensure(&self, queue: &QueueName) -> Result<(), QueueError>;

    /// Sends a message, to be seen after `delay` (0 to 15 minutes).
    async fn send(&self, queue: &QueueName, message: &Outgoing, delay: Duration) -> Result<(), QueueError>;

    /// Sends a message, to a queue that is made if nobody has made it yet.
    async fn deliver(
        &self,
        queue: &QueueName,
        message: &Outgoing,
        delay: Duration,
    ) -> Result<(), QueueError> {
        match self.send(queue, message, delay).await {
            Err(QueueError::NoSuchQueue { .. }) => {}
            sent => return sent,
        }
        self.ensure(queue).await?;
        self.send(queue, message, delay).await
    }

    /// Receives up to `max` messages (1 to [`MAX_BATCH`]), waiting up to `wait` (0 to
    /// [`MAX_WAIT`]) for the first, and hides them for `visibility` (up to 12 hours).
    async fn receive(
        &self,
        queue: &QueueName,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Received>, QueueError>;

    /// Deletes a message. A receipt that is outdated is no error, whether or not it still deletes.
    async fn delete(&self, queue: &QueueName, receipt: &Receipt) -> Result<(), QueueError>;

    /// Hides a received message for so long from now; 0 shows it again at once. A receipt that is
    /// outdated is no error, whether or not it still hides.
    async fn change_visibility(
        &self,
        queue: &QueueName,
        receipt: &Receipt,
        visibility: Duration,
    ) -> Result<(), QueueError>;

    /// About how many messages there are.
    async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError>;

    /// Deletes all messages of a queue.
    async fn purge(&self, queue: &QueueName) -> Result<(), QueueError>;

    /// The queues that have been made, by name.
    async fn list(&self) -> Result<Vec<QueueName>, QueueError>;
}
