//! How many machines of each pool are wanted: a function of what the nodes say and of the jobs that wait, with
//! no memory, so that any number of callers may act on it, and act again. Pure.
//!
//! Jobs are put on what is free, as the agents would do it; those that find no room, and have waited for longer
//! than it takes an agent to claim them, are put on new machines, of the first pool by name that serves them
//! and may have one more. A machine that is being started is not known here: the job waits until it is
//! there, and the number that is wanted stays the same. One without jobs is wanted for its `keep_idle` yet; one that
//! takes no jobs, as it is drained or not well, is not after that, and a new one may take its place.

use std::{cmp::Reverse, collections::BTreeMap};

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::{
    fleet::Pool,
    id::{JobId, NodeId, Timestamp},
    lane::{Amount, Fit, GpuState, Needs, Offer, choose, fit},
    node::{Capacity, Mode, NodeRecord, Share},
    units::Size,
};

/// How long a job waits before a machine is wanted for it: agents claim within seconds what fits.
const SETTLES: TimeDelta = TimeDelta::seconds(30);

/// A job that waits.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Its id.
    pub job: JobId,
    /// What it needs.
    pub needs: Needs,
    /// What it takes of CPU and memory.
    pub share: Share,
    /// Since when.
    pub since: Timestamp,
}

/// What is wanted of one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Its name.
    pub pool: String,
    /// How many machines there should be.
    pub wanted: u32,
    /// How many there are, as far as they are heard from.
    pub present: u32,
    /// Of those, the ones that may be ended: if fewer are wanted, without jobs the longest first; and those without
    /// jobs that take none.
    pub idle: Vec<NodeId>,
    /// How many of the waiting jobs want machines of it.
    pub jobs: usize,
    /// Since when another number is wanted than is there: since the first of these jobs waits, or since the first
    /// of the idle may be ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why so many.
    pub why: Vec<String>,
}

/// What is wanted of all pools, and which jobs none of them serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demands {
    /// By name.
    pub pools: Vec<Demand>,
    /// Jobs that wait and that neither a node nor a machine of any pool could ever run.
    pub unserved: Vec<JobId>,
}

/// A machine with what is free on it.
#[derive(Debug, Clone)]
struct Machine {
    offer: Offer,
    capacity: Capacity,
    taken: bool,
}

impl Machine {
    /// Puts a job there if it has room.
    fn take(&mut self, job: &Waiting) -> bool {
        if !self.capacity.has_room_for(job.share) || fit(&job.needs, &self.offer) != Fit::Now {
            return false;
        }
        let Some(gpus) = choose(&job.needs, &self.offer) else { return false };
        for gpu in self.offer.gpus.iter_mut().filter(|gpu| gpus.contains(&gpu.uuid)) {
            gpu.state = match (job.needs.gpu.as_ref().map(|gpu| gpu.amount), &gpu.state) {
                (Some(Amount::Share(part)), GpuState::Shared { free }) => {
                    GpuState::Shared { free: Size(free.bytes().saturating_sub(part.bytes())) }
                }
                (Some(Amount::Share(part)), _) => {
                    GpuState::Shared { free: Size(gpu.usable().bytes().saturating_sub(part.bytes())) }
                }
                _ => GpuState::Held,
            };
        }
        self.capacity.take(job.share);
        self.taken = true;
        true
    }

    /// Whether it could run the job if nothing else ran there.
    fn serves(&self, job: &Waiting) -> bool {
        let empty = Capacity { cpus_used: 0.0, memory_used: Size(0), slots_used: 0, ..self.capacity };
        empty.has_room_for(job.share) && !matches!(fit(&job.needs, &self.offer), Fit::Never(_))
    }
}

/// How many machines are wanted. `nodes` are those that are alive.
pub fn demand(
    pools: &BTreeMap<String, Pool>,
    nodes: &[&NodeRecord],
    mut waiting: Vec<Waiting>,
    now: Timestamp,
) -> Demands {
    waiting.sort_by_key(|job| (Reverse(job.needs.priority), Reverse(job.needs.rank()), job.since));
    let mut there: Vec<Machine> = nodes
        .iter()
        .map(|node| Machine { offer: node.offer.clone(), capacity: node.capacity, taken: false })
        .collect();
    let mut plans: Vec<Plan<'_>> =
        pools.iter().map(|(name, pool)| Plan::of(name, pool, nodes, now)).collect();
    let mut unserved = Vec::new();
    for job in waiting {
        let mut ready = there.iter_mut().zip(nodes).filter(|(_, node)| is_ready(node));
        if ready.any(|(machine, _)| machine.take(&job)) {
            continue;
        }
        let serving = || plans.iter().any(|plan| plan.kind.serves(&job));
        if !serving() && !there.iter().any(|machine| machine.serves(&job)) {
            unserved.push(job.job);
        } else if now - job.since >= SETTLES {
            let _ = plans.iter_mut().any(|plan| plan.place(&job));
        }
    }
    let taken: Vec<bool> = there.iter().map(|machine| machine.taken).collect();
    let pools = plans.into_iter().map(|plan| plan.demand(nodes, &taken, now)).collect();
    Demands { pools, unserved }
}

fn is_ready(node: &NodeRecord) -> bool {
    node.mode == Mode::Ready && node.problems.is_empty()
}

/// Since when a machine of the pool may be ended, if it may.
fn ends(pool: &Pool, node: &NodeRecord, now: Timestamp) -> Option<Timestamp> {
    let until = node.idle_since? + pool.keep_idle.0;
    (pool.has(node) && until <= now).then_some(until)
}

/// One pool while jobs are put on its machines.
struct Plan<'p> {
    name: &'p str,
    pool: &'p Pool,
    kind: Machine,
    present: u32,
    /// Of those, the ones that are to be ended whatever waits.
    useless: u32,
    new: Vec<Machine>,
    jobs: Vec<Timestamp>,
    /// Jobs that it serves, and may have no machine for.
    beyond: usize,
}

impl<'p> Plan<'p> {
    fn of(name: &'p str, pool: &'p Pool, nodes: &[&NodeRecord], now: Timestamp) -> Self {
        let kind = Machine { offer: pool.offer(), capacity: pool.capacity(), taken: false };
        let count = |which: &dyn Fn(&NodeRecord) -> bool| {
            let count = nodes.iter().filter(|node| pool.has(node) && which(node)).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        let present = count(&|_| true);
        let useless = count(&|node| !is_ready(node) && ends(pool, node, now).is_some());
        Self { name, pool, kind, present, useless, new: Vec::new(), jobs: Vec::new(), beyond: 0 }
    }

    /// Puts a job on a new machine.
    fn place(&mut self, job: &Waiting) -> bool {
        if !self.new.iter_mut().any(|machine| machine.take(job)) {
            let mut machine = self.kind.clone();
            if !machine.take(job) {
                return false;
            }
            let new = u32::try_from(self.new.len()).unwrap_or(u32::MAX);
            if (self.present - self.useless).saturating_add(new) >= self.pool.max {
                self.beyond += 1;
                return false;
            }
            self.new.push(machine);
        }
        self.jobs.push(job.since);
        true
    }

    fn demand(self, nodes: &[&NodeRecord], taken: &[bool], now: Timestamp) -> Demand {
        let pool = self.pool;
        // Those that take no jobs first.
        let mut idle: Vec<(bool, Timestamp, NodeId)> = nodes
            .iter()
            .zip(taken)
            .filter(|(_, taken)| !**taken)
            .filter_map(|(node, _)| Some((is_ready(node), ends(pool, node, now)?, node.node.clone())))
            .collect();
        idle.sort();
        let (new, idle_count) = (self.new.len(), idle.len());
        let busy = u64::from(self.present).saturating_sub(idle_count as u64);
        let asked = u32::try_from(busy + new as u64).unwrap_or(u32::MAX);
        let wanted = asked.clamp(pool.min, pool.max);
        let mut why = Vec::new();
        let mut say = |is: bool, what: String| why.extend(is.then_some(what));
        say(busy > 0, format!("{busy} have jobs, or had some within {}", pool.keep_idle));
        say(new > 0, format!("{new} more for waiting jobs ({})", self.jobs.len()));
        say(asked < pool.min, format!("at least {} are to be there", pool.min));
        say(asked > pool.max, format!("at most {} are allowed", pool.max));
        say(self.beyond > 0, format!("{} more jobs wait, and at most {} are allowed", self.beyond, pool.max));
        say(self.useless > 0, format!("{} that take no jobs may be ended, and are no room", self.useless));
        let since = if wanted > self.present {
            self.jobs.iter().min().copied()
        } else if wanted < self.present || self.useless > 0 {
            idle.first().map(|(_, until, _)| *until)
        } else {
            None
        };
        idle.truncate(self.present.saturating_sub(wanted).max(self.useless) as usize);
        let idle = idle.into_iter().map(|(.., node)| node).collect();
        Demand {
            pool: self.name.to_owned(),
            wanted,
            present: self.present,
            idle,
            jobs: self.jobs.len(),
            since,
            why,
        }
    }
}

#[cfg(test)]
mod tests;
