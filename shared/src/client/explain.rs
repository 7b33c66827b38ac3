//! Why a job waits, and what the nodes and lanes of a fleet are doing: data that every surface
//! renders in its own way. No scheduler knows the answer; it follows from what the nodes said of
//! themselves.

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::{Client, ClientError, lanes};
use crate::{
    id::{NodeId, Timestamp},
    index::Shelf,
    lane::{Fit, Lane, Misfit, Needs, fit},
    log::{Job, Outcome, State},
    node::{Mode, NodeRecord, Prefetching, Reserved},
    queue::{Depth, QueueName},
};

/// Why a job waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    /// Since when.
    pub since: Timestamp,
    /// It pauses until then before it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// How its last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Outcome>,
    /// What it comes down to.
    pub verdict: Verdict,
    /// Which node keeps room for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<ReservedOn>,
    /// Which node reads its data ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetching: Option<PrefetchingOn>,
    /// What each node has to say, by name.
    pub nodes: Vec<NodeFit>,
}

/// A node that reads a job's data ahead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefetchingOn {
    /// The node.
    pub node: NodeId,
    /// How far it is.
    #[serde(flatten)]
    pub progress: Prefetching,
}

/// Room that a node keeps for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedOn {
    /// The node.
    pub node: NodeId,
    /// What it says of that.
    #[serde(flatten)]
    pub reserved: Reserved,
}

/// What a job's waiting comes down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It pauses after a failed attempt.
    Paused,
    /// It waits for its team's turn: the team has as many messages in the queue as it may.
    Parked,
    /// A host has room for it and will take it.
    Soon,
    /// A host keeps room for it, until what runs there has ended.
    Reserved,
    /// A host reads its data ahead, and takes it then.
    Prefetching,
    /// Hosts that would do are busy.
    Busy,
    /// Hosts that would do take no jobs at present.
    Closed,
    /// No host of the fleet can run it, as they are.
    NoHost,
    /// The fleet has no hosts that are alive.
    NoNodes,
}

/// What a node says to a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeFit {
    /// The node.
    pub node: NodeId,
    /// It could take the job now.
    pub now: bool,
    /// It could once its running work has ended.
    pub when_empty: bool,
    /// What stands against it.
    pub why: Vec<Misfit>,
}

/// A node, as listings show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// What it says of itself.
    #[serde(flatten)]
    pub record: NodeRecord,
    /// It has not been heard from for longer than the lease, by this host's clock.
    pub silent: bool,
}

/// A lane, as listings show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneReport {
    /// The lane.
    #[serde(flatten)]
    pub lane: Lane,
    /// Messages in its queue.
    pub depth: Depth,
    /// Jobs that wait, by the index.
    pub jobs: usize,
    /// Of those, the parked ones.
    pub parked: usize,
    /// Since when the oldest of them waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<Timestamp>,
    /// Nodes that could take one now.
    pub now: Vec<NodeId>,
    /// Nodes that could once their work has ended.
    pub when_empty: Vec<NodeId>,
    /// Why none can, by node.
    pub never: Vec<NodeFit>,
}

/// How many records are fetched at once: ten thousand take some forty requests one after the other.
const PARALLEL: usize = 256;

impl Client {
    /// All nodes, by name, those that have stopped included.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn nodes(&self) -> Result<Vec<NodeReport>, ClientError> {
        let names = NodeRecord::names(&self.fleet.store).await?;
        let records: Vec<_> = stream::iter(names)
            .map(|name| async move { NodeRecord::read(&self.fleet.store, &name).await })
            .buffered(PARALLEL)
            .collect()
            .await;
        let (now, lease) = (self.now(), self.fleet.settings().lease);
        let mut nodes = Vec::new();
        for record in records {
            if let Some(record) = record? {
                nodes.push(NodeReport { silent: record.is_silent(now, lease), record });
            }
        }
        Ok(nodes)
    }

    /// Why this job waits.
    pub(super) async fn explain(&self, job: &Job, parked: bool) -> Result<Waiting, ClientError> {
        let State::Queued { since, not_before, avoid, last } = &job.state else {
            return Err(ClientError::NotFound(job.id.to_string()));
        };
        let needs = Needs::of(&job.spec);
        let nodes = self.nodes().await?;
        let mut fits: Vec<NodeFit> = alive(&nodes).map(|node| node_fit(node, &needs, Some(job))).collect();
        let others = fits.iter().any(|fit| Some(&fit.node) != avoid.as_ref() && (fit.now || fit.when_empty));
        for fit in fits.iter_mut().filter(|fit| others && Some(&fit.node) == avoid.as_ref()) {
            fit.why.push(Misfit::Avoided);
            (fit.when_empty, fit.now) = (fit.now || fit.when_empty, false);
        }
        let not_before = not_before.filter(|time| *time > self.now());
        let would_do = |fit: &NodeFit| fit.why.iter().all(Misfit::passes_when_empty);
        let reserved = alive(&nodes).find_map(|node| {
            let reserved = node.reserved.clone().filter(|reserved| reserved.job == job.id)?;
            Some(ReservedOn { node: node.node.clone(), reserved })
        });
        let prefetching = alive(&nodes).find_map(|node| {
            let progress = *node.prefetching.get(&job.id)?;
            Some(PrefetchingOn { node: node.node.clone(), progress })
        });
        let verdict = if fits.is_empty() {
            Verdict::NoNodes
        } else if fits.iter().all(|fit| !fit.now && !fit.when_empty) {
            if fits.iter().any(would_do) { Verdict::Closed } else { Verdict::NoHost }
        } else if not_before.is_some() {
            Verdict::Paused
        } else if parked {
            Verdict::Parked
        } else if reserved.is_some() {
            Verdict::Reserved
        } else if prefetching.is_some() {
            Verdict::Prefetching
        } else if fits.iter().any(|fit| fit.now) {
            Verdict::Soon
        } else {
            Verdict::Busy
        };
        Ok(Waiting { since: *since, not_before, last: *last, verdict, reserved, prefetching, nodes: fits })
    }

    /// What each node would say to a job that is not submitted yet.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn fits(&self, spec: &crate::job::JobSpec) -> Result<Vec<NodeFit>, ClientError> {
        let needs = Needs::of(spec);
        let nodes = self.nodes().await?;
        Ok(alive(&nodes).map(|node| capacity_too(node_fit(node, &needs, None), node, spec)).collect())
    }

    /// All lanes, by id.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn lanes(&self) -> Result<Vec<LaneReport>, ClientError> {
        let nodes = self.nodes().await?;
        let lanes = lanes(&self.fleet.store, &[]).await?.new;
        let reports: Vec<_> =
            stream::iter(lanes).map(|lane| self.lane_report(lane, &nodes)).buffered(PARALLEL).collect().await;
        reports.into_iter().collect()
    }

    async fn lane_report(&self, lane: Lane, nodes: &[NodeReport]) -> Result<LaneReport, ClientError> {
        let queue = QueueName::from(&lane.id);
        let (depth, jobs) = futures::join!(self.depth_of(&queue), self.index.waiting_in(&lane.id));
        let fits: Vec<NodeFit> = alive(nodes).map(|node| node_fit(node, &lane.needs, None)).collect();
        let names = |which: fn(&NodeFit) -> bool| {
            fits.iter().filter(|fit| which(fit)).map(|fit| fit.node.clone()).collect::<Vec<_>>()
        };
        let (now, when_empty) = (names(|fit| fit.now), names(|fit| fit.when_empty && !fit.now));
        let never = fits.into_iter().filter(|fit| !fit.now && !fit.when_empty).collect();
        let jobs = jobs?;
        let parked = jobs.iter().filter(|job| matches!(job.marker.shelf, Shelf::Parked { .. })).count();
        // The first marker to be written is the oldest job's, or nearly so.
        let first = jobs.iter().min_by_key(|job| (job.modified, &job.marker)).map(|job| job.marker.clone());
        let first = self.index.summaries(first.as_slice()).await?;
        let oldest = first.into_iter().map(|(_, summary)| summary.since).next();
        Ok(LaneReport { depth: depth?, jobs: jobs.len(), parked, oldest, now, when_empty, never, lane })
    }
}

/// Nodes that may be reckoned with.
pub(super) fn alive(nodes: &[NodeReport]) -> impl Iterator<Item = &NodeRecord> {
    nodes.iter().filter(|node| !node.silent && node.record.mode != Mode::Stopped).map(|node| &node.record)
}

fn node_fit(record: &NodeRecord, needs: &Needs, job: Option<&Job>) -> NodeFit {
    let (now, when_empty, mut why) = match fit(needs, &record.offer) {
        Fit::Now => (true, true, Vec::new()),
        Fit::WhenEmpty(why) => (false, true, why),
        Fit::Never(why) => (false, false, why),
    };
    let closed = match record.mode {
        Mode::Draining => Some("it is draining".to_owned()),
        Mode::Stopped => Some("its agent has stopped".to_owned()),
        Mode::Ready => (!record.problems.is_empty()).then(|| record.problems.join("; ")),
    };
    let open = closed.is_none();
    why.extend(closed.map(|why| Misfit::Closed { why }));
    if now && open && !record.claim_after.0.is_zero() {
        why.push(Misfit::ClaimAfter { claim_after: record.claim_after });
    }
    let fit = NodeFit { node: record.node.clone(), now: now && open, when_empty: when_empty && open, why };
    let Some(job) = job else { return fit };
    let fit = capacity_too(fit, record, &job.spec);
    let refusal = record.refusals.get(&job.lane).filter(|refusal| refusal.job.as_ref() == Some(&job.id));
    refusal.map_or(fit.clone(), |refusal| with_misfits(fit, refusal.why.iter().cloned()))
}

fn capacity_too(fit: NodeFit, record: &NodeRecord, spec: &crate::job::JobSpec) -> NodeFit {
    with_misfits(fit, record.capacity.misfits(spec, spec.resources.memory))
}

fn with_misfits(mut fit: NodeFit, misfits: impl IntoIterator<Item = Misfit>) -> NodeFit {
    for misfit in misfits {
        fit.now = false;
        fit.when_empty &= misfit.passes_when_empty();
        if !fit.why.contains(&misfit) {
            fit.why.push(misfit);
        }
    }
    fit
}
