//! What the sweep does with what it finds. Pure.
//!
//! Times are the store's own; whoever writes a marker writes the log entry that belongs to it soon
//! after, so what is younger than [`GRACE`] is left alone.

use chrono::TimeDelta;
use shared::{
    id::{JobId, NodeId, Timestamp},
    index::{Aged, GRACE, Shelf},
    log::{Job, State},
    mutant::{self, Mutant},
    node::NodeRecord,
    queue::Depth,
    units::Span,
};

use crate::watch::takeover::Evidence;

/// A marker of no job is removed when it is so old: the client that made it and never wrote the log
/// has long given up.
const ORPHAN: TimeDelta = TimeDelta::hours(1);

/// Most messages that one sweep sends again, which keeps its cost constant.
const MOST_RESENT: usize = 100;

/// What becomes of a marker.
#[derive(Debug, Clone)]
pub enum Repair {
    /// It is right, or too young to tell.
    Leave,
    /// The job belongs on another shelf.
    Move,
    /// There is a better marker of the job, or no job at all.
    Remove,
    /// The claim that it stands for is nobody's any more.
    End(Evidence),
}

fn age(marker: &Aged, now: Timestamp) -> TimeDelta {
    now - marker.modified
}

/// Whether the sweep may touch it.
pub fn is_ripe(marker: &Aged, now: Timestamp) -> bool {
    age(marker, now).to_std().is_ok_and(|age| age >= GRACE) || mutant::is_on(Mutant::SweepFresh)
}

/// A marker on a shelf of those that wait; `also_sent` says that a parked job has a marker on the
/// sent shelf too.
pub fn waiting(marker: &Aged, job: Option<&Job>, also_sent: bool, now: Timestamp) -> Repair {
    if !is_ripe(marker, now) {
        return Repair::Leave;
    }
    match (job.map(|job| &job.state), &marker.marker.shelf) {
        (None, _) if age(marker, now) >= ORPHAN => Repair::Remove,
        (None, _) => Repair::Leave,
        (Some(State::Queued { .. }), _)
            if job.is_some_and(|job| job.next_attempt() != marker.marker.round) =>
        {
            Repair::Move
        }
        (Some(State::Queued { .. }), Shelf::Parked { .. }) if also_sent => Repair::Remove,
        (Some(State::Queued { .. }), _) => Repair::Leave,
        (Some(State::Held(_) | State::Done { .. }), _) => Repair::Move,
    }
}

/// A marker on a node's shelf; `record` is what the node says of itself.
pub fn held(
    marker: &Aged,
    job: Option<&Job>,
    node: &NodeId,
    record: Option<&NodeRecord>,
    now: Timestamp,
) -> Repair {
    if !is_ripe(marker, now) {
        return Repair::Leave;
    }
    let Some(job) = job else {
        return if age(marker, now) >= ORPHAN { Repair::Remove } else { Repair::Leave };
    };
    let ours = job.held().filter(|claim| claim.node == *node && claim.attempt == marker.marker.round);
    let Some(claim) = ours else { return Repair::Move };
    match record {
        None => Repair::End(Evidence::NoRecord),
        Some(record) if record.incarnation != claim.incarnation && !record.jobs.contains(&job.id) => {
            Repair::End(Evidence::Vanished(record.incarnation.clone()))
        }
        Some(_) => Repair::Leave,
    }
}

/// Which jobs' messages are sent again: where the queue has fewer messages than the sent shelf has
/// jobs, the oldest, since the queue gives out the oldest first. Twice as many as are missing, since
/// which ones is not known. A message is missed only if its marker is as old as `sweep`, the fleet's
/// interval; before, it may be on its way. Sending one too many does no harm.
pub fn lost_messages(sent: &[Aged], depth: &Depth, now: Timestamp, sweep: Span) -> Vec<JobId> {
    let messages = usize::try_from(depth.waiting + depth.in_flight + depth.delayed).unwrap_or(usize::MAX);
    let missing = sent.len().saturating_sub(messages);
    sent.iter()
        .filter(|marker| age(marker, now).to_std().is_ok_and(|age| age >= sweep.0))
        .take((missing * 2).min(MOST_RESENT))
        .map(|marker| marker.marker.job.clone())
        .collect()
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
