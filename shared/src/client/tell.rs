//! Telling the status queue of what a client wrote.

use std::time::Duration;

use super::{Client, ClientError};
use crate::{
    event::{StatusEvent, Subject, Told},
    log::{Entry, Job},
    message::Message,
    queue::{Outgoing, Queue, QueueName},
};

impl Client {
    /// Tells the status queue of an entry that this client has written to the log of a job that
    /// nobody holds, where the fleet has one. Gives how far the job's events have been told then,
    /// if all before were: what could not be told here, the next node tells that gets the job's
    /// message.
    pub(super) async fn tell(&self, job: &Job, entry: &Entry) -> Told {
        if !self.fleet.settings().status {
            return Told::default();
        }
        let event = StatusEvent::of(&Subject::of(job), entry);
        let message = Outgoing::new(job.spec.team.clone(), event.to_body());
        match self.fleet.queue.deliver(&QueueName::Status, &message, Duration::ZERO).await {
            Ok(()) => Told { status: entry.seq.next(), ..Told::default() },
            Err(error) => {
                tracing::warn!(%error, job = %job.id, "the status queue hears of this later, from a node");
                Told::default()
            }
        }
    }

    /// Lets the webhooks hear of the end of a job that waited: clients have no secrets to sign
    /// with. The message of `waiting`, the job as it stood before that entry, cannot be claimed
    /// with, since its position is taken; the node that gets it sees that, and tells.
    pub(super) async fn leave_to_a_node(&self, waiting: &Job, told: Told) -> Result<(), ClientError> {
        let none = self.fleet.settings().webhooks.is_empty() && waiting.spec.webhooks.is_empty();
        let Some(message) = Message::of(waiting).filter(|_| !none) else { return Ok(()) };
        let message = Outgoing::new(waiting.spec.team.clone(), message.told(told).to_body());
        Ok(self.fleet.queue.deliver(&QueueName::from(&waiting.lane), &message, Duration::ZERO).await?)
    }
}
