//! What operators do with a fleet's queues and nodes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::{Client, ClientError};
use crate::{
    event::Told,
    fleet::{self, Drain, FleetError, Settings},
    id::{LaneId, NodeId, Timestamp},
    lease,
    node::{Mode, NodeRecord},
    queue::{Depth, MAX_BATCH, Queue, QueueError, QueueName},
};

/// A queue, as listings show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueReport {
    /// Its name.
    pub queue: QueueName,
    /// What it holds.
    pub depth: Depth,
}

/// Something that came to the inbox and is no job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The queue's own name for the message.
    pub id: String,
    /// When it was put aside.
    pub at: Timestamp,
    /// Why, and what else is said beside it.
    pub attributes: BTreeMap<String, String>,
    /// What came.
    pub body: String,
}

/// How many requests are made at once.
const PARALLEL: usize = 32;

/// For how long dead letters are hidden while they are read; they are shown again right after.
const READING: Duration = Duration::from_secs(30);

/// The most dead letters that are shown.
const MOST_LETTERS: usize = 1000;

impl Client {
    /// All queues with what they hold, by name; those of the fleet first, then the lanes'.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn queues(&self) -> Result<Vec<QueueReport>, ClientError> {
        let mut names: BTreeSet<QueueName> = self.fleet.queue.list().await?.into_iter().collect();
        let settings = self.fleet.settings();
        names.extend(settings.inbox.then_some([QueueName::Inbox, QueueName::Dead]).into_iter().flatten());
        names.extend(settings.status.then_some(QueueName::Status));
        let mut names: Vec<QueueName> = names.into_iter().collect();
        names.sort_by_key(|name| name.lane().is_some());
        stream::iter(names)
            .map(|queue| async move { Ok(QueueReport { depth: self.depth_of(&queue).await?, queue }) })
            .buffered(PARALLEL)
            .try_collect()
            .await
    }

    /// What a queue holds; nothing where nobody has made it yet.
    pub(super) async fn depth_of(&self, queue: &QueueName) -> Result<Depth, ClientError> {
        match self.fleet.queue.depth(queue).await {
            Ok(depth) => Ok(depth),
            Err(QueueError::NoSuchQueue { .. }) => Ok(Depth::default()),
            Err(e) => Err(e.into()),
        }
    }

    /// Deletes all messages of a queue. The jobs stay: their messages are sent again by the next
    /// sweep, or by [`Client::resend`].
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn purge(&self, queue: &QueueName) -> Result<(), ClientError> {
        Ok(self.fleet.queue.purge(queue).await?)
    }

    /// Sends again the messages of all jobs of a lane, or of all, that were sent and still wait by
    /// their log. Doubles do no harm: each message can be claimed with once. Returns how many.
    ///
    /// # Errors
    /// [`ClientError`]; those before it are sent then.
    pub async fn resend(&self, lane: Option<&LaneId>) -> Result<usize, ClientError> {
        let markers = self.index.sent(lane).await?;
        let sent: Vec<bool> = stream::iter(markers)
            .map(|marker| async move {
                let Some(job) = self.log.read(&marker.job).await? else { return Ok(false) };
                let waits = job.is_for_anybody();
                if waits {
                    self.send(&job, Told::default()).await?;
                }
                Ok::<_, ClientError>(waits)
            })
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        Ok(sent.into_iter().filter(|sent| *sent).count())
    }

    /// The dead letters, oldest first, which stay where they are. Two who look at the same moment
    /// may each see a part.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>, ClientError> {
        let (queue, mut letters, mut receipts) = (QueueName::Dead, BTreeMap::new(), Vec::new());
        while letters.len() < MOST_LETTERS {
            let received = match self.fleet.queue.receive(&queue, MAX_BATCH, Duration::ZERO, READING).await {
                Err(QueueError::NoSuchQueue { .. }) => break,
                received => received?,
            };
            let before = letters.len();
            for message in received {
                receipts.push(message.receipt);
                letters.entry((message.sent_at, message.id.clone())).or_insert(DeadLetter {
                    id: message.id,
                    at: message.sent_at,
                    attributes: message.attributes,
                    body: message.body,
                });
            }
            if letters.len() == before {
                break;
            }
        }
        stream::iter(&receipts)
            .map(|receipt| self.fleet.queue.change_visibility(&queue, receipt, Duration::ZERO))
            .buffered(PARALLEL)
            .try_for_each(|()| async { Ok(()) })
            .await?;
        Ok(letters.into_values().collect())
    }

    /// Drains a node, or lets it take jobs again where there is no `drain`. It hears of it as of any change of the
    /// settings, within a minute.
    ///
    /// # Errors
    /// [`ClientError::NoSuchNode`]
    pub async fn drain(&self, node: &NodeId, drain: Option<Drain>) -> Result<(), ClientError> {
        let is_known = self.fleet.settings().drained.contains_key(node);
        if !is_known && lease::look(&self.fleet.store, node).await?.is_none() {
            return Err(ClientError::NoSuchNode(node.clone()));
        }
        let decide = |before: &Settings| -> Result<Settings, FleetError> {
            let mut after = before.clone();
            match &drain {
                Some(drain) => after.drained.insert(node.clone(), drain.clone()),
                None => after.drained.remove(node),
            };
            Ok(after)
        };
        fleet::change(&self.fleet.store, self.log.author(), self.now(), decide).await?;
        Ok(())
    }

    /// The record of a node.
    ///
    /// # Errors
    /// [`ClientError::NoSuchNode`]
    pub async fn node(&self, node: &NodeId) -> Result<NodeRecord, ClientError> {
        let record = NodeRecord::read(&self.fleet.store, node).await?;
        record.ok_or_else(|| ClientError::NoSuchNode(node.clone()))
    }

    /// Forgets a node that is gone for good: removes its record, and that it was drained.
    ///
    /// # Errors
    /// [`ClientError::NoSuchNode`]; [`ClientError::Alive`] for one that beats: its counter moves,
    /// whatever the clocks say; [`ClientError::HoldsJobs`] until its jobs have been taken over.
    pub async fn forget(&self, node: &NodeId) -> Result<(), ClientError> {
        let store = &self.fleet.store;
        let gone = || ClientError::NoSuchNode(node.clone());
        let (record, sight) = lease::look(store, node).await?.ok_or_else(gone)?;
        if record.mode != Mode::Stopped {
            if !record.is_silent(self.now(), self.fleet.settings().lease) {
                return Err(ClientError::Alive(node.clone()));
            }
            // It looks dead by this host's clock, which may be wrong: a counter cannot be.
            tokio::time::sleep(record.beat.0 * 2 + Duration::from_secs(1)).await;
            let (_, again) = lease::look(store, node).await?.ok_or_else(gone)?;
            if again != sight {
                return Err(ClientError::Alive(node.clone()));
            }
        }
        let jobs = self.index.held_by(node).await?.len();
        if jobs > 0 {
            return Err(ClientError::HoldsJobs { node: node.clone(), jobs });
        }
        NodeRecord::remove(store, node).await?;
        if self.fleet.settings().drained.contains_key(node) {
            self.drain(node, None).await?;
        }
        Ok(())
    }
}
