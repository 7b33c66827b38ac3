//! A node's record: its heartbeat and what it has, rewritten each beat by its own agent only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    id::{Incarnation, JobId, LaneId, NodeId, Seq, Timestamp},
    job::JobSpec,
    lane::{Amount, Edition, Misfit, Offer, When},
    price::Price,
    record::{self, RecordError},
    store::{Key, Store, StoreError},
    units::{Size, Span},
};

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The version of this record's form.
    pub v: u32,
    /// The node.
    pub node: NodeId,
    /// This run of its agent.
    pub incarnation: Incarnation,
    /// Goes up with each beat; that it moves is the sign of life, whatever any clock says.
    pub counter: u64,
    /// When this was written, by the node's clock: for people.
    pub at: Timestamp,
    /// How far apart beats are.
    pub beat: Span,
    /// After so long without a beat others may take over its jobs. What the node itself goes by,
    /// also while the fleet's settings are being changed.
    #[serde(default = "default_lease")]
    pub lease: Span,
    /// Whether it takes jobs.
    pub mode: Mode,
    /// Why it takes none although it would, such as a failing check.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What it has, and what of it is free.
    pub offer: Offer,
    /// Whether its GPUs are made up.
    #[serde(default)]
    pub simulated: bool,
    /// The NVIDIA driver's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// What jobs may use of its CPU and memory, and what of it is in use.
    pub capacity: Capacity,
    /// The jobs it has.
    #[serde(default)]
    pub jobs: Vec<JobId>,
    /// Since when it has had none, as far as its agent has been there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<Timestamp>,
    /// Why it last refused each lane.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refusals: BTreeMap<LaneId, Refusal>,
    /// The job that it keeps room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Reserved>,
    /// Waiting jobs whose data it reads ahead, and how far it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prefetching: BTreeMap<JobId, Prefetching>,
    /// What is to be said of jobs that run here, such as that one is about to be ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub warnings: BTreeMap<JobId, String>,
    /// The settings that it goes by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Seq>,
    /// Which list of the fleet's lanes it has read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<Edition>,
    /// It takes only jobs that have waited in their queue for so long.
    #[serde(default, skip_serializing_if = "is_none")]
    pub claim_after: Span,
    /// Images that jobs here used lately, as they named them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// What the host costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// The container engine and its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// This program's version.
    pub haul: String,
}

fn is_none(span: &Span) -> bool {
    span.0.is_zero()
}

fn default_lease() -> Span {
    Span::secs(180)
}

/// How far a job's data has been read ahead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefetching {
    /// Files that were found so far.
    pub files: u64,
    /// Files that were read.
    pub files_done: u64,
    /// Bytes in those that were found.
    pub bytes: Size,
    /// Bytes that were read.
    pub bytes_done: Size,
}

impl Prefetching {
    /// Both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            files: self.files + other.files,
            files_done: self.files_done + other.files_done,
            bytes: Size(self.bytes.bytes() + other.bytes.bytes()),
            bytes_done: Size(self.bytes_done.bytes() + other.bytes_done.bytes()),
        }
    }
}

/// Whether a node takes jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It does.
    Ready,
    /// It takes no new ones; running ones go on.
    Draining,
    /// Its agent has stopped in order.
    Stopped,
}

impl Mode {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// CPU cores and memory of a host, as far as jobs may use them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// Cores.
    pub cpus: f64,
    /// Of those, given to jobs.
    pub cpus_used: f64,
    /// Main memory.
    pub memory: Size,
    /// Of that, given to jobs.
    pub memory_used: Size,
    /// Jobs at once.
    pub slots: u32,
    /// Of those, in use.
    pub slots_used: u32,
}

/// What a job takes of what it has not for itself: CPU, memory, and one GPU's memory where it shares it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Cores.
    pub cpus: f64,
    /// Main memory.
    pub memory: Size,
    /// Of one GPU's memory; none where its GPUs are its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Size>,
}

impl Share {
    /// What a job takes, given its memory limit. One that says nothing of CPU counts as one core,
    /// or as none if it uses GPUs: those are what limits it then.
    pub fn of(spec: &JobSpec, memory: Option<Size>) -> Self {
        let unsaid = if Amount::of(&spec.resources).is_none() { 1.0 } else { 0.0 };
        Self {
            cpus: spec.resources.cpus.unwrap_or(unsaid),
            memory: memory.unwrap_or_default(),
            gpu: spec.resources.gpu_share,
        }
    }
}

/// Of a core: sums of fractions are not exact.
const A_LITTLE: f64 = 0.001;

impl Capacity {
    /// What keeps a job with this memory limit from running beside those that run.
    pub fn misfits(&self, spec: &JobSpec, memory: Option<Size>) -> Vec<Misfit> {
        let share = Share::of(spec, memory);
        let mut misfits = Vec::new();
        let free = (self.cpus - self.cpus_used).max(0.0);
        if share.cpus > free + A_LITTLE {
            misfits.push(Misfit::Cpus { needs: share.cpus, free, has: self.cpus });
        }
        let free = Size(self.memory.bytes().saturating_sub(self.memory_used.bytes()));
        if share.memory > free {
            misfits.push(Misfit::Memory { needs: share.memory, free, has: self.memory });
        }
        if self.slots_used >= self.slots {
            misfits.push(Misfit::Slots { limit: self.slots });
        }
        misfits
    }

    /// Whether there is room for a job that takes so much.
    pub fn has_room_for(&self, share: Share) -> bool {
        share.cpus <= self.cpus - self.cpus_used + A_LITTLE
            && share.memory.bytes() <= self.memory.bytes().saturating_sub(self.memory_used.bytes())
            && self.slots_used < self.slots
    }

    /// Notes that a job has taken its share.
    pub fn take(&mut self, share: Share) {
        self.cpus_used += share.cpus;
        self.memory_used.0 += share.memory.bytes();
        self.slots_used += 1;
    }

    /// Notes that a job has given its share back.
    pub fn give_back(&mut self, share: Share) {
        self.cpus_used = (self.cpus_used - share.cpus).max(0.0);
        self.memory_used.0 = self.memory_used.bytes().saturating_sub(share.memory.bytes());
        self.slots_used = self.slots_used.saturating_sub(1);
    }
}

/// A job that a node keeps room for, until what runs there has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// The job.
    pub job: JobId,
    /// Since when.
    pub since: Timestamp,
    /// Until when at most.
    pub until: Timestamp,
    /// When it is expected to start, by the time limits of what runs now.
    pub start: When,
}

/// Why a node did not take a job of a lane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// When it last looked.
    pub at: Timestamp,
    /// The job, where it was one job's matter rather than the lane's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// Why.
    pub why: Vec<Misfit>,
}

impl NodeRecord {
    /// The form that this program writes, and the newest that it reads.
    pub const VERSION: u32 = 1;

    /// Where a node's record lies.
    pub fn key(node: &NodeId) -> Key {
        Key::new(format!("nodes/{node}.json"))
    }

    /// The node whose record lies there.
    pub fn name_of(key: &Key) -> Option<NodeId> {
        key.name().strip_suffix(".json")?.parse().ok()
    }

    /// Writes the record.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn write(&self, store: &Store) -> Result<(), StoreError> {
        store.put(&Self::key(&self.node), record::write(self)).await
    }

    /// Removes a node's record; that there is none is no error.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn remove(store: &Store, node: &NodeId) -> Result<(), StoreError> {
        store.delete(&Self::key(node)).await
    }

    /// A node's record, or `None` where there is none.
    ///
    /// # Errors
    /// [`NodeError`]
    pub async fn read(store: &Store, node: &NodeId) -> Result<Option<Self>, NodeError> {
        let body = store.get(&Self::key(node)).await?;
        body.map(|body| record::read(&body, Self::VERSION))
            .transpose()
            .map_err(|source| NodeError::Record { node: node.clone(), source })
    }

    /// The names of all nodes that ever wrote a record.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn names(store: &Store) -> Result<Vec<NodeId>, StoreError> {
        let names = store.list_names("nodes").await?;
        Ok(names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
    }

    /// Whether its last beat is so long ago, as of `now`, that it will have frozen its jobs. For
    /// people: the node itself goes by another clock.
    pub fn has_frozen(&self, now: Timestamp) -> bool {
        let deadline = self.lease.0.saturating_sub(self.beat.0 * 2);
        (now - self.at).to_std().is_ok_and(|age| age > deadline)
    }

    /// Whether its last beat is so long ago, as of `now`, that people should be told. Not the
    /// lease: that compares no clocks.
    pub fn is_silent(&self, now: Timestamp, lease: Span) -> bool {
        self.mode != Mode::Stopped && (now - self.at).to_std().is_ok_and(|age| age > lease.0)
    }
}

/// A node record that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The store did not give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is none.
    #[error("the record of node {node} cannot be used")]
    Record {
        /// The node.
        node: NodeId,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
}
