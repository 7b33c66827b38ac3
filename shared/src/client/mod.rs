//! What people and programs do with a fleet: submit, list, ask, follow, cancel, retry.
//!
//! A client talks to the store and the queue alone; no agent need be reachable, or even be up.
//! Each request reads the job's log before it acts on it, so that an answer is true as of the
//! store, not of any index.

mod demand;
mod explain;
mod list;
mod logs;
mod operate;
mod resolve;
mod runs;
mod submit;
mod tell;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};

pub use explain::{LaneReport, NodeFit, NodeReport, PrefetchingOn, ReservedOn, Verdict, Waiting};
pub use list::{Filter, Page};
pub use logs::LogItem;
pub use operate::{DeadLetter, QueueReport};
pub use runs::{Bill, By, Kind, Run, Spread, bill, bills, compare};
pub use submit::Submission;

use crate::{
    clock::{Chance, Clock},
    event::Told,
    fleet::{Fleet, FleetError},
    id::{JobId, LaneId, NodeId, Team, Timestamp},
    index::{Index, Marker},
    job::OnIsolation,
    lane::{Edition, Lane, LaneError},
    log::{Author, CancelRequested, Entry, Event, Job, Log, LogError, Phase, State},
    message::Message,
    node::{NodeError, NodeRecord},
    output::OutputError,
    queue::{Outgoing, Queue, QueueError, QueueName},
    store::{Key, StoreError},
    window::{Window, WindowError},
};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The fleet cannot be opened.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The queue did not do it.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The job's log cannot be read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A node's record cannot be used.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A lane's record cannot be used.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// The job's output cannot be read.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// No job is called so.
    #[error("there is no job {0:?} in this fleet; haul ps --all lists them")]
    NotFound(String),
    /// Several jobs are meant.
    #[error("{text:?} could be any of {} jobs: {}", found.len(), shown(found))]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// Whom it fits.
        found: Vec<JobId>,
    },
    /// A parked job could not be sent; the fleet's sweep will.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The id is taken by a different job.
    #[error("the id {0} is taken by a different job; choose another, or leave it to haul")]
    IdInUse(JobId),
    /// Only a finished job can be retried.
    #[error("job {id} is {state}; only a finished job can be retried")]
    NotFinished {
        /// The job.
        id: JobId,
        /// Where it stands.
        state: &'static str,
    },
    /// No node is called so.
    #[error("there is no node {0} in this fleet; haul nodes lists them")]
    NoSuchNode(NodeId),
    /// The node's agent beats.
    #[error("the agent of node {0} is alive; stop it first")]
    Alive(NodeId),
    /// The node's jobs have not been taken over yet.
    #[error(
        "node {node} holds {jobs} jobs; they are taken over when its lease has passed, or by its next start"
    )]
    HoldsJobs {
        /// The node.
        node: NodeId,
        /// How many.
        jobs: usize,
    },
}

fn shown(ids: &[JobId]) -> String {
    let mut text = ids.iter().take(5).map(JobId::as_str).collect::<Vec<_>>().join(", ");
    if ids.len() > 5 {
        text.push_str(", …");
    }
    text
}

/// What became of a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// It waited, and is cancelled.
    Done,
    /// It runs; its node has been asked to stop it.
    Requested,
    /// It was finished before.
    WasFinished,
}

/// A job with its whole history.
#[derive(Debug, Clone)]
pub struct Status {
    /// The job as it stands.
    pub job: Job,
    /// Where it stands: what the log says, and whether it is parked, or its node is cut off so that it
    /// has frozen it, by its own clock and its node's last words.
    pub phase: Phase,
    /// All that happened.
    pub history: Vec<Entry>,
    /// Why it waits, while it does.
    pub waiting: Option<Waiting>,
    /// What the node that has it has to say of it.
    pub warning: Option<String>,
}

/// Access to a fleet.
#[derive(Clone)]
pub struct Client {
    fleet: Fleet,
    log: Log,
    index: Index,
    clock: Arc<dyn Clock>,
    chance: Chance,
    /// The windows that were full when a job was last parked behind them.
    full: Arc<Mutex<BTreeSet<(LaneId, Team)>>>,
    /// Lanes that are there. They stay, so no job after the first asks.
    lanes: Arc<Mutex<BTreeMap<LaneId, Lane>>>,
}

impl Client {
    /// Requests to this fleet, in this name.
    pub fn new(fleet: Fleet, author: Author, clock: Arc<dyn Clock>, chance: Chance) -> Self {
        let log = Log::new(fleet.store.clone(), clock.clone(), chance.clone(), author);
        let index = Index::new(fleet.store.clone());
        Self { fleet, log, index, clock, chance, full: Arc::default(), lanes: Arc::default() }
    }

    /// The fleet.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The jobs' logs.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// A fresh id, as [`Client::submit`] would draw one.
    pub fn new_id(&self) -> JobId {
        self.chance.job_id()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn window(&self) -> Window {
        Window::new(self.fleet.clone(), self.log.clone(), self.chance.clone())
    }

    async fn job(&self, id: &JobId) -> Result<Job, ClientError> {
        self.log.read(id).await?.ok_or_else(|| ClientError::NotFound(id.to_string()))
    }

    /// A job with its history, and why it waits.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn status(&self, id: &JobId) -> Result<Status, ClientError> {
        let history = self.log.entries(id).await?;
        let job = Job::fold(id.clone(), &history).map_err(LogError::from)?;
        let job = job.ok_or_else(|| ClientError::NotFound(id.to_string()))?;
        let holder = match &job.state {
            // One that cannot be read, as of a newer haul, has nothing to say.
            State::Held(claim) => match NodeRecord::read(&self.fleet.store, &claim.node).await {
                Err(NodeError::Record { .. }) => None,
                record => record?,
            },
            State::Queued { .. } | State::Done { .. } => None,
        };
        let phase = self.phase(&job, holder.as_ref()).await?;
        let warning = holder.and_then(|mut record| record.warnings.remove(&job.id));
        let waiting = match &job.state {
            State::Queued { .. } => Some(self.explain(&job, phase == Phase::Parked).await?),
            State::Held(_) | State::Done { .. } => None,
        };
        let is_kept_for = waiting.as_ref().is_some_and(|waiting| waiting.verdict == Verdict::Reserved);
        let phase = if is_kept_for { Phase::Reserved } else { phase };
        Ok(Status { job, phase, history, waiting, warning })
    }

    /// Where a job stands, as far as anybody can tell without asking its node.
    async fn phase(&self, job: &Job, holder: Option<&NodeRecord>) -> Result<Phase, ClientError> {
        let phase = job.phase();
        match (phase, &job.state) {
            (Phase::Queued, _) => {
                let sent = self.index.has(&Marker::of(job)).await?;
                let parked = !sent && self.index.has(&Marker::parked(job, job.next_attempt())).await?;
                Ok(if parked { Phase::Parked } else { phase })
            }
            (Phase::Running, State::Held(_)) if job.spec.on_isolation == OnIsolation::Freeze => {
                let cut_off = holder.is_some_and(|record| record.has_frozen(self.now()));
                Ok(if cut_off { Phase::Frozen } else { phase })
            }
            _ => Ok(phase),
        }
    }

    /// How often to look again at something that changes: one request each time.
    fn pause(&self) -> Duration {
        (self.fleet.settings().beat.0 / 10).clamp(Duration::from_millis(100), Duration::from_secs(2))
    }

    /// Waits until the job is finished; tells `seen` of it now and after each change.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn wait(&self, id: &JobId, mut seen: impl FnMut(&Job)) -> Result<Job, ClientError> {
        let mut job = self.job(id).await?;
        loop {
            seen(&job);
            if job.phase().is_final() {
                return Ok(job);
            }
            while self.log.refresh(&mut job).await?.is_empty() {
                tokio::time::sleep(self.pause()).await;
            }
        }
    }

    /// Cancels a job: at once if it waits, through its node if it runs.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn cancel(&self, id: &JobId, reason: Option<String>) -> Result<Cancel, ClientError> {
        let mut job = self.job(id).await?;
        let request = CancelRequested { reason };
        let mut waiting = None;
        let entry = self
            .log
            .append(&mut job, |job| match &job.state {
                State::Queued { .. } => {
                    waiting = Some(job.clone());
                    Some(Event::Cancelled)
                }
                State::Held(_) if job.cancel_requested.is_none() => {
                    Some(Event::CancelRequested(request.clone()))
                }
                State::Held(_) | State::Done { .. } => None,
            })
            .await?;
        match &job.state {
            State::Held(_) => Ok(Cancel::Requested),
            State::Done { phase: crate::log::Phase::Cancelled, outcome: None, .. } => {
                self.index.add(&job).await?;
                if let (Some(entry), Some(waiting)) = (entry, waiting) {
                    let told = self.tell(&job, &entry).await;
                    self.leave_to_a_node(&waiting, told).await?;
                }
                let attempt = job.next_attempt();
                for waited in [Marker::sent(&job, attempt), Marker::parked(&job, attempt)] {
                    self.index.remove(&waited).await?;
                }
                Ok(Cancel::Done)
            }
            State::Queued { .. } | State::Done { .. } => Ok(Cancel::WasFinished),
        }
    }

    /// Runs a finished job again, under the same id.
    ///
    /// # Errors
    /// [`ClientError::NotFinished`] for one that is not; [`ClientError`]
    pub async fn retry(&self, id: &JobId) -> Result<Job, ClientError> {
        loop {
            let mut job = self.job(id).await?;
            if !job.phase().is_final() {
                return Err(ClientError::NotFinished { id: id.clone(), state: job.phase().as_str() });
            }
            let (before, seen) = (Marker::of(&job), job.next);
            let mut queued = job.clone();
            queued.retry(self.now());
            self.index.add(&queued).await?;
            // The marker is that of the end that was seen, not of one that came since.
            let ours = self.log.append(&mut job, |job| (job.next == seen).then_some(Event::Retried)).await?;
            if let Some(entry) = ours {
                let told = self.tell(&job, &entry).await;
                self.send(&job, told).await?;
                self.index.remove(&before).await?;
            } else if job.phase().is_final() {
                continue;
            }
            return Ok(job);
        }
    }

    /// Sends the message of a job that waits, whose events have been told so far.
    async fn send(&self, job: &Job, told: Told) -> Result<(), ClientError> {
        let Some(message) = Message::of(job) else { return Ok(()) };
        let outgoing = Outgoing::new(job.spec.team.clone(), message.told(told).to_body());
        Ok(self.fleet.queue.deliver(&QueueName::from(&job.lane), &outgoing, Duration::ZERO).await?)
    }

    /// A lane's record, or `None` where no job ever had those needs.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn lane(&self, id: &LaneId) -> Result<Option<Lane>, ClientError> {
        let body = self.fleet.store.get(&lane_key(id)).await?;
        Ok(body.map(|body| Lane::read(id.as_str(), &body)).transpose()?)
    }
}

/// How many lanes are read at once.
const PARALLEL: usize = 32;

fn lane_key(id: &LaneId) -> Key {
    Key::new(format!("lanes/{id}.json"))
}

/// Lanes, and which list of them it is from.
#[derive(Debug, Clone, Default)]
pub struct Lanes {
    /// Those that were not known, by id.
    pub new: Vec<Lane>,
    /// `None` where there is no lane yet.
    pub edition: Option<Edition>,
}

/// All lanes of a fleet that are not known yet and whose record this program can read; the others
/// are left out with a warning, since a newer haul may have made them.
///
/// # Errors
/// [`StoreError`]
pub async fn lanes(store: &crate::store::Store, known: &[LaneId]) -> Result<Lanes, StoreError> {
    let listed = store.list_objects("lanes").await?;
    let newest = listed.iter().map(|lane| lane.modified).max();
    let edition = newest.map(|newest| Edition { newest, lanes: listed.len().try_into().unwrap_or(u32::MAX) });
    let ids = listed.iter().filter_map(|lane| lane.key.name().strip_suffix(".json")?.parse::<LaneId>().ok());
    let ids: Vec<LaneId> = ids.filter(|id| !known.contains(id)).collect();
    let read: Vec<_> = stream::iter(ids)
        .map(|id| async move { store.get(&lane_key(&id)).await.map(|body| (id, body)) })
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    let mut new = Vec::new();
    for (id, body) in read {
        let Some(body) = body else { continue };
        match Lane::read(id.as_str(), &body) {
            Ok(lane) => new.push(lane),
            Err(error) => tracing::warn!(%error, "the lane is passed over"),
        }
    }
    Ok(Lanes { new, edition })
}
