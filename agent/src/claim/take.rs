//! From a received message to a claimed job.

use std::{sync::Arc, time::Duration};

use shared::{
    event::Told,
    id::{Attempt, JobId, LaneId},
    index::Marker,
    lane::{Misfit, Needs},
    log::{Claimed, Event, Job, LogError, Put, State},
    message::Message,
    mutant::{self, Mutant},
    node::Refusal,
    queue::{Queue, Received},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    defer,
    keep::{can_wait, keep},
    others,
    warm::warm,
};
use crate::{
    execute::{self, Stage},
    images::fetch::wanted,
    ledger::{Holding, Take},
    node::Node,
    patience::{Chain, insist},
    prefetch::Need,
};

/// How soon a message is offered again whose job cannot be read.
const UNREADABLE_DELAY: Duration = Duration::from_secs(2);

/// How soon a message is offered again that a newer agent can read.
const NEWER_DELAY: Duration = Duration::from_secs(30);

/// How long a host leaves a job to others after its last attempt failed here.
const AVOID_FOR: chrono::TimeDelta = chrono::TimeDelta::seconds(60);

/// And where it failed here within seconds, and another's opinion of it is wanted.
const AVOID_STRUCK_FOR: chrono::TimeDelta = chrono::TimeDelta::seconds(600);

/// How soon a job is offered again to a node that is still tidying up after its last attempt.
const SETTLING_DELAY: Duration = Duration::from_secs(1);

/// How soon a job is offered again while this host reads ahead for as many others as it may.
const PREFETCH_DELAY: Duration = Duration::from_secs(5);

/// What is to be done with a message.
enum Verdict {
    /// The job is ours to claim.
    Claim(Box<Job>, Holding, Told),
    /// It does not fit beside what runs here, and has waited so long that room is kept for it.
    Keep(Box<Job>, Told),
    /// It fits, and its data is to be read ahead first.
    Warm(Box<Job>, Told),
    /// Not now, or not here.
    Later(Duration),
    /// It needs more CPU or memory than is free here.
    Misfit,
    /// Others go first, and this node for so long leaves the whole lane to them.
    Leave(Duration),
    /// It says nothing that is true any more.
    Stale,
}

/// What became of a message.
pub(super) enum Taken {
    /// All is done.
    Done,
    /// It was put back; others go first, and this node for so long leaves the lane to them.
    Left(Duration),
    /// It is still hidden, and is to be put back when the lane has been looked through: the next look would
    /// meet it again, and not what stands behind it.
    Misfit(Received),
}

/// Claims the message's job and runs it, or puts the message back, or deletes it.
pub(super) async fn take(node: &Arc<Node>, lane: &LaneId, received: Received) -> Taken {
    let verdict = match judge(node, lane, &received).await {
        Ok(verdict) => verdict,
        Err(error) => {
            tracing::warn!(error = %Chain(&error), %lane, "the message's job cannot be read; it is left for later");
            Verdict::Later(if error.is_newer() { NEWER_DELAY } else { UNREADABLE_DELAY })
        }
    };
    match verdict {
        Verdict::Claim(job, holding, told) => {
            node.ledger.served(lane);
            let span = tracing::info_span!("job", job = %job.id, attempt = %holding.attempt, node = %node.id);
            let (owner, lane) = (node.clone(), lane.clone());
            let task = async move { claim(owner, lane, *job, holding, told, received).await };
            node.attempts.spawn("attempt", task.instrument(span));
        }
        Verdict::Keep(job, told) => {
            let span = tracing::info_span!("job", job = %job.id, node = %node.id);
            let task = keep(node.clone(), lane.clone(), *job, told, received);
            node.attempts.spawn("reservation", task.instrument(span));
        }
        Verdict::Warm(job, told) => {
            let span = tracing::info_span!("job", job = %job.id, node = %node.id);
            let task = warm(node.clone(), lane.clone(), *job, told, received);
            node.attempts.spawn("prefetch", task.instrument(span));
        }
        Verdict::Later(delay) => put_back(node, lane, &received, delay).await,
        Verdict::Leave(rest) => {
            put_back(node, lane, &received, Duration::ZERO).await;
            return Taken::Left(rest);
        }
        Verdict::Misfit => return Taken::Misfit(received),
        Verdict::Stale => delete(node, lane, &received).await,
    }
    Taken::Done
}

/// Offers a message again after so long.
pub(super) async fn put_back(node: &Node, lane: &LaneId, received: &Received, delay: Duration) {
    if let Err(error) = node.fleet.queue.change_visibility(&lane.into(), &received.receipt, delay).await {
        tracing::debug!(error = %Chain(&error), %lane, "the message comes back by itself, later");
    }
}

async fn judge(node: &Node, lane: &LaneId, received: &Received) -> Result<Verdict, LogError> {
    let message = match Message::read(&received.body) {
        Ok(message) => message,
        Err(error) if error.is_newer() => {
            tracing::warn!(%error, %lane, "left a message to a newer agent");
            return Ok(Verdict::Later(NEWER_DELAY));
        }
        Err(error) => {
            tracing::warn!(%error, %lane, "deleted a message that is none of haul's");
            return Ok(Verdict::Stale);
        }
    };
    let (id, told, mark) = (message.job.clone(), message.told, message.seq);
    let awaited = message.attempt.map_or(Attempt::FIRST, Attempt::next);
    let job = match message.into_job(lane) {
        Some(job) => job,
        None => match node.log.read(&id).await? {
            Some(job) => job,
            None => return Ok(Verdict::Stale),
        },
    };
    let State::Queued { not_before, avoid, since, .. } = &job.state else {
        // It may be all that tells of a job that was cancelled while it waited.
        node.events.note(&job, mark, told).await;
        unmark(node, &job, awaited).await;
        return Ok(Verdict::Stale);
    };
    let now = node.clock.now();
    if let Some(early) = not_before.and_then(|time| (time - now).to_std().ok()).filter(|wait| !wait.is_zero())
    {
        return Ok(Verdict::Later(early));
    }
    let struck = node.ledger.has_struck(&id) && now - since < AVOID_STRUCK_FOR;
    let lately = now - received.sent_at < AVOID_FOR || struck;
    let avoided = lately && avoid.as_ref() == Some(&node.id);
    if avoided && others::could_run(node, &job).await {
        refuse(node, lane, &id, vec![Misfit::Avoided]);
        return Ok(Verdict::Later(Duration::from_secs(5)));
    }
    if let Some(name) = node.secrets.missing(&job.spec.secrets) {
        refuse(node, lane, &id, vec![Misfit::NoSecret { name: name.to_string() }]);
        return Ok(Verdict::Later(Duration::from_secs(10)));
    }
    if node.ledger.room(&Needs::of(&job.spec)) > 0
        && let Some(rest) = defer::left(node, &job, received.sent_at).await
    {
        return Ok(Verdict::Leave(rest));
    }
    if node.ledger.room(&Needs::of(&job.spec)) > 0 {
        match node.prefetches.begin(&id, &job.spec, node.clock.elapsed()) {
            Need::Nothing => {}
            Need::Read => return Ok(Verdict::Warm(Box::new(job), told)),
            Need::Busy => return Ok(Verdict::Later(PREFETCH_DELAY)),
        }
    }
    Ok(match node.ledger.take(&id, job.next_attempt(), &job.spec, job.memory(), now) {
        Take::Given(holding) => Verdict::Claim(Box::new(job), holding, told),
        Take::Already => {
            if let Some(job) = node.log.read(&id).await? {
                unmark(node, &job, awaited).await;
            }
            Verdict::Stale
        }
        Take::Settling => Verdict::Later(SETTLING_DELAY),
        Take::Refused(why) => turned_away(node, lane, job, why, told).await,
    })
}

/// What becomes of a job that does not fit now.
async fn turned_away(node: &Node, lane: &LaneId, job: Job, why: Vec<Misfit>, told: Told) -> Verdict {
    let (settings, now) = (node.fleet.settings(), node.clock.now());
    let since = if let State::Queued { since, .. } = &job.state { *since } else { now };
    let waited = (now - since).to_std().unwrap_or_default();
    let keep = if job.local || !why.iter().all(can_wait) || waited < settings.beat.0.min(settings.patience.0)
    {
        false
    } else if waited >= settings.beat.0
        && node.ledger.would_give_way(&Needs::of(&job.spec))
        // One with room for it would have taken it within a beat, but for those that have just come.
        && !others::have_room(node, &job, |_| true).await
        && node.ledger.evict(&job, now, settings.reserve_max)
    {
        tracing::info!(job = %job.id, "jobs give way to one that goes before them");
        true
    } else {
        let overdue = waited >= settings.patience.0 * 2;
        waited >= settings.patience.0 && node.ledger.reserve(&job, now, settings.reserve_max, overdue)
    };
    if keep {
        node.images.expect(&job.id, wanted(&job));
    }
    let passes = why.iter().all(Misfit::is_passing);
    refuse(node, lane, &job.id, why);
    match (keep, passes) {
        (true, _) => Verdict::Keep(Box::new(job), told),
        (false, true) => Verdict::Later(Duration::ZERO),
        (false, false) => Verdict::Misfit,
    }
}

pub(super) fn refuse(node: &Node, lane: &LaneId, job: &JobId, why: Vec<Misfit>) {
    node.ledger.refuse(lane, Refusal { at: node.clock.now(), job: Some(job.clone()), why });
}

pub(super) async fn delete(node: &Node, lane: &LaneId, received: &Received) {
    let queue = lane.into();
    insist("the message's deletion", || node.fleet.queue.delete(&queue, &received.receipt)).await;
}

/// Writes the claim and runs the job. The marker is created before the claim and the old one
/// deleted after it, so that the job is on some shelf at every moment.
pub(super) async fn claim(
    node: Arc<Node>,
    lane: LaneId,
    mut job: Job,
    holding: Holding,
    told: Told,
    received: Received,
) {
    let gpus = holding.gpus.len();
    let entry = node.log.draft(
        job.next,
        Event::Claimed(Claimed {
            attempt: holding.attempt,
            node: node.id.clone(),
            incarnation: node.incarnation.clone(),
            gpus: holding.gpus,
        }),
    );
    let (before, attempt) = (Marker::of(&job), holding.attempt);
    let waited = match &job.state {
        State::Queued { since, .. } => (node.clock.now() - since).to_std().unwrap_or_default(),
        State::Held(_) | State::Done { .. } => Duration::ZERO,
    };
    if let Err(error) = job.apply(&entry) {
        tracing::warn!(%error, "deleted a message that contradicts itself");
        node.ledger.give_back(&job.id);
        node.ledger.settled(&job.id);
        return delete(&node, &lane, &received).await;
    }
    node.events.note(&job, entry.seq, told).await;
    if mutant::is_on(Mutant::DeleteBeforeClaim) {
        delete(&node, &lane, &received).await;
    }
    let (proven, began) = (node.fence.epoch(), node.clock.elapsed());
    insist("the job's marker", || node.index.add(&job)).await;
    match insist("the claim", || node.log.create(&job.id, &entry)).await {
        Put::Won => {
            tracing::info!(%lane, gpus, "claimed");
            node.metrics.claimed(waited);
            node.ledger.settled(&job.id);
            let moved = CancellationToken::new();
            let tidy = async {
                if node.clock.elapsed().saturating_sub(began) > shared::index::GRACE / 2 {
                    // A sweep may have taken it for one that leads nowhere.
                    insist("the job's marker", || node.index.add(&job)).await;
                }
                insist("the job's old marker", || node.index.remove(&before)).await;
                moved.cancel();
                let next = async {
                    if !job.local {
                        release(&node, &job).await;
                    }
                };
                futures::join!(delete(&node, &lane, &received), next);
            };
            let run = execute::run(node.clone(), job.clone(), Stage::Claimed, proven, moved.clone());
            futures::join!(tidy, run);
        }
        Put::Lost => {
            tracing::debug!(%lane, "the message was stale");
            node.events.wake(&job.id);
            stale(&node, &job.id, attempt).await;
            delete(&node, &lane, &received).await;
            node.ledger.give_back(&job.id);
            node.ledger.settled(&job.id);
        }
    }
}

/// The team's next parked job takes the place that this one has left in the lane's queue.
async fn release(node: &Node, job: &Job) {
    if let Err(error) = node.window().follow(&job.lane, &job.spec.team).await {
        tracing::debug!(error = %Chain(&error), "the team's next job is left to the sweep");
    }
}

/// Takes back the marker that a stale message has led to.
async fn stale(node: &Node, job: &JobId, attempt: Attempt) {
    let Some(job) = insist("the job's log", || node.log.read(job)).await else { return };
    execute::settle::leave(node, &job, attempt).await;
    unmark(node, &job, attempt).await;
}

/// Takes away the sent marker of an attempt that the job does not wait for any more. Whoever claimed or
/// cancelled it did so too; but whoever released it may have read its log before that and made the
/// marker after it, and each such marker takes a place of the window. Where it is the last that tells of
/// the job, it is left to the sweep.
async fn unmark(node: &Node, job: &Job, attempt: Attempt) {
    let waits = job.is_waiting() && job.next_attempt() == attempt;
    let now = Marker::of(job);
    if !waits && insist("the job's marker", || node.index.has(&now)).await {
        let sent = Marker::sent(job, attempt);
        insist("the job's old marker", || node.index.remove(&sent)).await;
    }
}
