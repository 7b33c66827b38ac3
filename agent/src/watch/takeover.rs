//! Taking over what a lost node held, one job after the other. See [`shared::lease`] for why the
//! steps come in just this order.

use std::sync::Arc;

use shared::{
    id::{JobId, NodeId},
    index::Marker,
    lease::{self, Lost, Sight},
    log::{Ended, Event, Job, Outcome, OutputSize, Put, Reading, next_step},
    mutant::{self, Mutant},
    output::Chunks,
};

use crate::{execute::settle, node::Node, patience::Chain};

/// Why not everything was taken over.
#[derive(Debug)]
pub enum Stopped {
    /// The node has given a sign of life.
    Alive,
    /// The store did not answer.
    Failed(String),
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Stopped {
    Stopped::Failed(Chain(&error).to_string())
}

/// Whether the node is gone still.
#[derive(Debug, Clone)]
pub enum Evidence {
    /// Its record is as it was when it was last seen.
    Silent(Sight),
    /// It has no record.
    NoRecord,
    /// Its record says nothing of this claim, made by an earlier run of its agent.
    Vanished(shared::id::Incarnation),
}

/// Ends the attempts of all jobs on the lost node's shelf, and queues them again.
pub(super) async fn all(node: &Arc<Node>, lost: &Lost) -> Result<(), Stopped> {
    let markers = node.index.held_by(&lost.node).await.map_err(failed)?;
    for marker in markers {
        one(node, &lost.node, &marker.job, &Evidence::Silent(lost.sight.clone())).await?;
    }
    Ok(())
}

/// Ends the attempt of one job, if the node that holds it is gone still.
///
/// # Errors
/// [`Stopped`]
pub async fn one(node: &Arc<Node>, from: &NodeId, id: &JobId, evidence: &Evidence) -> Result<(), Stopped> {
    let Reading::Read(Some(mut job)) = node.log.read_or_leave(id).await.map_err(failed)? else {
        return Ok(());
    };
    let Some(claim) =
        job.held().filter(|claim| claim.node == *from || mutant::is_on(Mutant::TrustIndex)).cloned()
    else {
        return Ok(());
    };
    let chunks = Chunks::new(node.fleet.store.clone(), id.clone(), claim.attempt);
    let output = OutputSize { chunks: chunks.count().await.map_err(failed)? };
    let entry = node.log.draft(job.next, ended(node, &job, from, output));
    // Nobody knows how far the lost node was with telling.
    node.events.tell(&job, shared::id::Seq::FIRST).await;
    if !mutant::is_on(Mutant::TakeOverAppends) && !still_gone(node, from, &job, evidence).await? {
        return Err(Stopped::Alive);
    }
    match node.log.create(id, &entry).await.map_err(failed)? {
        Put::Won => {}
        Put::Lost if mutant::is_on(Mutant::TakeOverAppends) => {
            return Box::pin(one(node, from, id, evidence)).await;
        }
        Put::Lost => {
            node.events.wake(id);
            return Err(Stopped::Alive);
        }
    }
    let held = Marker::of(&job);
    if job.apply(&entry).is_err() {
        return Ok(());
    }
    tracing::warn!(job = %id, attempt = %claim.attempt, node = %from, state = %job.phase(), "took over a lost node's job");
    settle::settle_from(node, &job, &held).await;
    Ok(())
}

async fn still_gone(node: &Node, from: &NodeId, job: &Job, evidence: &Evidence) -> Result<bool, Stopped> {
    let record = lease::look(&node.fleet.store, from).await.map_err(failed)?;
    Ok(match (evidence, record) {
        (Evidence::Silent(sight), Some((_, now))) => now == *sight,
        (Evidence::NoRecord, None) => true,
        (Evidence::Vanished(incarnation), Some((record, _))) => {
            record.incarnation == *incarnation && !record.jobs.contains(&job.id)
        }
        (Evidence::Silent(_) | Evidence::Vanished(_), None) | (Evidence::NoRecord, Some(_)) => false,
    })
}

fn ended(node: &Node, job: &Job, from: &NodeId, output: OutputSize) -> Event {
    let outcome = Outcome::NodeLost;
    let next = next_step(job, outcome, None, from, node.clock.now(), &node.fleet.settings().policy);
    let claim = job.held();
    Event::Ended(Box::new(Ended {
        attempt: claim.map(|claim| claim.attempt).unwrap_or(shared::id::Attempt::FIRST),
        outcome,
        exit_code: None,
        message: Some(format!("node {from} was not heard from for a whole lease")),
        next,
        output,
        started_at: claim.and_then(|claim| claim.started.as_ref()).map(|started| started.started_at),
        finished_at: None,
        usage: None,
    }))
}
