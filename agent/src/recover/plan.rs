//! What a starting agent does with what it finds. Pure.

use std::collections::{BTreeMap, BTreeSet};

use shared::{
    id::{Attempt, JobId, NodeId, Timestamp},
    index::Marker,
    log::{Claim, Job},
};

use crate::{
    engine::{Container, ContainerState},
    execute::{Owner, Stage},
    ledger::Holding,
};

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// Attempts that are taken up where they stand.
    pub resume: Vec<(Job, Holding, Stage)>,
    /// Jobs whose marker still lies on this node's shelf though they are not held by it.
    pub settle: Vec<(Job, Attempt)>,
    /// Markers of attempts that this node does not hold; to be removed once those are settled.
    pub over: Vec<Marker>,
    /// Containers that nobody owns.
    pub remove: Vec<Container>,
}

/// Whether the claim that a marker was made for may still be on its way to the log, from an earlier run of
/// this agent. Then the marker is all that will tell of it; what comes of it is the sweep's to find out.
fn may_come(job: &Job, marker: &Marker) -> bool {
    job.is_waiting() && job.next_attempt() == marker.round
}

/// Decides on all containers of this node and all jobs that its shelf names; `jobs` has those of
/// both that exist, and `booted` is when the machine was started.
pub fn plan(
    node: &NodeId,
    booted: Option<Timestamp>,
    containers: Vec<Container>,
    markers: Vec<Marker>,
    mut jobs: BTreeMap<JobId, Job>,
) -> Plan {
    let mut plan = Plan::default();
    let mut owned: BTreeMap<JobId, (Container, Owner)> = BTreeMap::new();
    for container in containers {
        let owner = Owner::of(&container);
        let held = owner.as_ref().and_then(|owner| jobs.get(&owner.job));
        match (owner, held) {
            (Some(owner), Some(job)) if job.is_held_by(node, owner.attempt) => {
                owned.insert(owner.job.clone(), (container, owner));
            }
            _ => plan.remove.push(container),
        }
    }
    let shelf: BTreeSet<JobId> = markers.iter().map(|marker| marker.job.clone()).collect();
    let is_over = |marker: &Marker| {
        jobs.get(&marker.job).is_none_or(|job| !job.is_held_by(node, marker.round) && !may_come(job, marker))
    };
    plan.over = markers.into_iter().filter(is_over).collect();
    let is_before = |claim: &Claim| booted.is_some_and(|booted| claim.at < booted);
    for (id, job) in std::mem::take(&mut jobs) {
        let claim = job.held().filter(|claim| claim.node == *node).cloned();
        match (claim, owned.remove(&id)) {
            (Some(claim), Some((container, owner))) => {
                // A power cut may take the engine's record of a start along.
                let stage = match stage(container) {
                    Stage::Made(_) if is_before(&claim) => Stage::Lost,
                    stage => stage,
                };
                plan.resume.push((job, owner.holding, stage));
            }
            (Some(claim), None) => {
                let share = shared::node::Share::of(&job.spec, job.memory());
                let stage = if is_before(&claim) {
                    Stage::Lost
                } else if claim.started.is_some() {
                    Stage::Gone
                } else {
                    Stage::Claimed
                };
                let holding = Holding { attempt: claim.attempt, gpus: claim.gpus, share };
                plan.resume.push((job, holding, stage));
            }
            (None, _) if shelf.contains(&id) => match job.attempt {
                Some(attempt) => plan.settle.push((job, attempt)),
                None if job.phase().is_final() => plan.settle.push((job, Attempt::FIRST)),
                None => {}
            },
            (None, _) => {}
        }
    }
    let late: BTreeSet<JobId> = late(&plan.resume).map(|job| job.id.clone()).collect();
    plan.resume.retain(|(job, ..)| !late.contains(&job.id));
    plan
}

/// Claims that no container was made for, of another run of this agent than a job that has one of their GPUs: the
/// one run had ended when the other gave these out, and its claim came late. Nobody begins it; the sweep ends it.
fn late(resume: &[(Job, Holding, Stage)]) -> impl Iterator<Item = &Job> {
    let run = |job: &Job| job.held().map(|claim| claim.incarnation.clone());
    let unbegun = resume.iter().filter(|(.., stage)| matches!(stage, Stage::Claimed));
    let late = unbegun.filter(move |(job, holding, _)| {
        resume.iter().any(|(other, others, _)| {
            run(other) != run(job) && others.gpus.iter().any(|gpu| holding.gpus.contains(gpu))
        })
    });
    late.map(|(job, ..)| job)
}

fn stage(container: Container) -> Stage {
    match container.state {
        ContainerState::Created => Stage::Made(container),
        ContainerState::Running
        | ContainerState::Paused
        | ContainerState::Restarting
        | ContainerState::Exited
        | ContainerState::Removing
        | ContainerState::Dead => Stage::Started(container),
    }
}
