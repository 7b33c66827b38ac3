//! After an attempt: the job's marker goes where its log says, and its next message is sent.
//!
//! Each step may be repeated, so a start of the agent that finds a job half-way through here
//! simply runs it again.

use std::time::Duration;

use shared::{
    id::{Attempt, JobId, Timestamp},
    index::Marker,
    log::{Job, Phase, State},
    message::Message,
    mutant::{self, Mutant},
    queue::{Outgoing, Queue, QueueName},
};

use crate::{node::Node, patience::insist};

/// The longest delay that every queue can hold a message for (SQS: 15 minutes).
const LONGEST_DELAY: Duration = Duration::from_secs(900);

/// Moves a job that this node held to where its log says that it is. It may have got there without this
/// node, in another's attempt.
pub async fn settle(node: &Node, job: &Job, attempt: Attempt) {
    if mutant::is_on(Mutant::MarkerGap) {
        leave(node, job, attempt).await;
    }
    match &job.state {
        State::Done { phase: Phase::Succeeded, .. } if job.attempt == Some(attempt) => {
            if let Err(error) = node.outputs.link_latest(&job.id, attempt).await {
                tracing::warn!(error, "the link to the latest output is missing");
            }
            insist("the job's marker", || node.index.add(job)).await;
        }
        State::Done { .. } => insist("the job's marker", || node.index.add(job)).await,
        State::Queued { .. } => {
            insist("the job's marker", || node.index.add(job)).await;
            send(node, job).await;
        }
        State::Held(_) => {}
    }
    leave(node, job, attempt).await;
}

/// Moves a job that another node held, and that this one has just ended, to where its log says that
/// it is. The message goes last: whoever claims by it makes a new marker, perhaps on the same shelf.
pub async fn settle_from(node: &Node, job: &Job, held: &Marker) {
    insist("the job's marker", || node.index.add(job)).await;
    insist("the job's marker", || node.index.remove(held)).await;
    send(node, job).await;
}

/// Leaves a job that another node has taken from this one. That node may have died, or not have learnt
/// that its entry was written, before it put the job where its log says that it is: this node's marker
/// may be the last that tells of it.
pub async fn give_up(node: &Node, id: &JobId, attempt: Attempt) {
    if let Some(job) = insist("the job's log", || node.log.read(id)).await {
        settle(node, &job, attempt).await;
    }
}

/// Takes an attempt from this node's shelf, unless it is still held here.
pub async fn leave(node: &Node, job: &Job, attempt: Attempt) {
    if job.is_held_by(&node.id, attempt) {
        return;
    }
    let held = Marker::held(&job.id, &node.id, attempt);
    insist("the job's marker", || node.index.remove(&held)).await;
}

/// Sends the message of a job that waits.
pub async fn send(node: &Node, job: &Job) {
    let Some(message) = Message::of(job) else { return };
    let delay = delay(message.not_before, node.clock.now());
    let message = message.told(node.events.told(job));
    let outgoing = Outgoing::new(job.spec.team.clone(), message.to_body());
    let queue = QueueName::from(&job.lane);
    insist("the job's message", || node.fleet.queue.deliver(&queue, &outgoing, delay)).await;
}

fn delay(not_before: Option<Timestamp>, now: Timestamp) -> Duration {
    let delay = not_before.and_then(|time| (time - now).to_std().ok()).unwrap_or_default();
    delay.min(LONGEST_DELAY)
}
