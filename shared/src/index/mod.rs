//! The index: where to look for jobs. Never trusted over a log.
//!
//! A marker is a small object whose key says where a job stands: parked in the store, sent to its
//! lane's queue, held by a node, or done. A job moves from shelf to shelf by creating the new
//! marker before deleting the old one, so that a crash in between leaves it on two shelves, never
//! on none. Whoever finds a marker and wants to act on it reads the log first.
//!
//! ```text
//! index/parked/<lane>/<team>/<job>.<attempt>
//! index/sent/<lane>/<team>/<job>.<attempt>
//! index/held/<node>/<job>.<attempt>
//! index/done/<yyyy-mm-dd>/<job>.<attempt>
//! ```
//!
//! The body of a marker is a [`Summary`]: what a listing shows without reading any log.

use std::time::Duration;

mod many;

use chrono::NaiveDate;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::{
    id::{Attempt, GpuUuid, JobId, LaneId, NodeId, Team, Timestamp},
    job::Priority,
    log::{Job, Outcome, OutputSize, Phase, State},
    record::{self, RecordError},
    store::{Created, Key, Listed, Store, StoreError},
};

/// Where a job stands, as far as the index says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shelf {
    /// Waits in the store.
    Parked {
        /// Its lane.
        lane: LaneId,
        /// Its team.
        team: Team,
    },
    /// Its message is in the lane's queue.
    Sent {
        /// Its lane.
        lane: LaneId,
        /// Its team.
        team: Team,
    },
    /// A node has it.
    Held {
        /// Which.
        node: NodeId,
    },
    /// Finished.
    Done {
        /// On which day, UTC.
        day: NaiveDate,
    },
}

impl Shelf {
    /// Where the index keeps a job that stands so.
    pub fn of(job: &Job) -> Self {
        match &job.state {
            State::Queued { .. } => Self::Sent { lane: job.lane.clone(), team: job.spec.team.clone() },
            State::Held(claim) => Self::Held { node: claim.node.clone() },
            State::Done { at, .. } => Self::Done { day: at.date_naive() },
        }
    }

    fn prefix(&self) -> String {
        match self {
            Self::Parked { lane, team } => format!("index/parked/{lane}/{team}"),
            Self::Sent { lane, team } => format!("index/sent/{lane}/{team}"),
            Self::Held { node } => format!("index/held/{node}"),
            Self::Done { day } => format!("index/done/{day}"),
        }
    }

    /// From a marker's key.
    fn read(key: &Key) -> Option<Marker> {
        let parts: Vec<&str> = key.as_str().split('/').collect();
        let (shelf, job) = match parts.as_slice() {
            ["index", "parked", lane, team, job] => {
                (Self::Parked { lane: lane.parse().ok()?, team: team.parse().ok()? }, job)
            }
            ["index", "sent", lane, team, job] => {
                (Self::Sent { lane: lane.parse().ok()?, team: team.parse().ok()? }, job)
            }
            ["index", "held", node, job] => (Self::Held { node: node.parse().ok()? }, job),
            ["index", "done", day, job] => (Self::Done { day: day.parse().ok()? }, job),
            _ => return None,
        };
        let (job, round) = job.rsplit_once('.')?;
        Some(Marker { shelf, job: job.parse().ok()?, round: Attempt(round.parse().ok()?) })
    }
}

/// A marker's key, read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Marker {
    /// Where it lies.
    pub shelf: Shelf,
    /// Whose it is.
    pub job: JobId,
    /// The attempt that is waited for, is held, or was the last. So each time that a job comes to a
    /// shelf its marker has another key, and the deletion of an earlier one that comes late, after
    /// whoever asked for it has given up and asked again, does not take the later one away.
    pub round: Attempt,
}

impl Marker {
    /// Where a job that stands so belongs.
    pub fn of(job: &Job) -> Self {
        let round = match &job.state {
            State::Queued { .. } | State::Done { outcome: None, .. } => job.next_attempt(),
            State::Held(claim) => claim.attempt,
            State::Done { outcome: Some(_), .. } => job.attempt.unwrap_or(Attempt::FIRST),
        };
        Self { shelf: Shelf::of(job), job: job.id.clone(), round }
    }

    /// Where a job waits, or waited, for an attempt once its message is sent.
    pub fn sent(job: &Job, attempt: Attempt) -> Self {
        let shelf = Shelf::Sent { lane: job.lane.clone(), team: job.spec.team.clone() };
        Self { shelf, job: job.id.clone(), round: attempt }
    }

    /// Where a job waits, or waited, for an attempt while it is parked.
    pub fn parked(job: &Job, attempt: Attempt) -> Self {
        let shelf = Shelf::Parked { lane: job.lane.clone(), team: job.spec.team.clone() };
        Self { shelf, job: job.id.clone(), round: attempt }
    }

    /// An attempt on a node's shelf.
    pub fn held(job: &JobId, node: &NodeId, attempt: Attempt) -> Self {
        Self { shelf: Shelf::Held { node: node.clone() }, job: job.clone(), round: attempt }
    }

    fn key(&self) -> Key {
        Key::new(format!("{}/{}.{}", self.shelf.prefix(), self.job, self.round))
    }
}

/// A marker, and when it was last written by the store's own clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aged {
    /// The marker.
    pub marker: Marker,
    /// When; to be compared with nothing but other times of the same store.
    pub modified: Timestamp,
}

/// The two ways in which a job waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// In the store.
    Parked,
    /// In its lane's queue.
    Sent,
}

/// What listings show of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The version of this record's form.
    pub v: u32,
    /// The job.
    pub id: JobId,
    /// Its name.
    pub name: String,
    /// Its team.
    pub team: Team,
    /// Its priority.
    pub priority: Priority,
    /// Its lane.
    pub lane: LaneId,
    /// Where it stands.
    pub state: Phase,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// Since when it stands so.
    pub since: Timestamp,
    /// The present or last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// Who runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// The GPUs it got.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuUuid>,
    /// How its last attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Its exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// Its output's size.
    #[serde(default)]
    pub output: OutputSize,
}

impl Summary {
    /// The form that this program writes, and the newest that it reads.
    pub const VERSION: u32 = 1;

    /// The summary of a job.
    pub fn of(job: &Job) -> Self {
        let mut summary = Self {
            v: Self::VERSION,
            id: job.id.clone(),
            name: job.spec.display_name().to_owned(),
            team: job.spec.team.clone(),
            priority: job.spec.priority,
            lane: job.lane.clone(),
            state: job.phase(),
            submitted_at: job.submitted_at,
            since: job.submitted_at,
            attempt: job.attempt,
            node: None,
            gpus: Vec::new(),
            outcome: None,
            exit_code: None,
            output: OutputSize::default(),
        };
        match &job.state {
            State::Queued { since, last, .. } => {
                summary.since = *since;
                summary.outcome = *last;
            }
            State::Held(claim) => {
                summary.since = claim.started.as_ref().map_or(claim.at, |started| started.started_at);
                summary.node = Some(claim.node.clone());
                summary.gpus.clone_from(&claim.gpus);
            }
            State::Done { at, outcome, exit_code, output, .. } => {
                summary.since = *at;
                summary.outcome = *outcome;
                summary.exit_code = *exit_code;
                summary.output = *output;
            }
        }
        summary
    }
}

/// How old a marker must be, by the store's own clock, before anybody but the writer of its next log
/// entry may take it for one that leads nowhere: whoever makes a marker writes that entry within
/// milliseconds, or, where that took longer than half of this, makes the marker again.
pub const GRACE: Duration = Duration::from_secs(300);

/// The index of a fleet.
#[derive(Debug, Clone)]
pub struct Index {
    store: Store,
}

/// How many markers are fetched at once.
const PARALLEL: usize = 32;

impl Index {
    /// The index in this store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Puts the job on the shelf where its state belongs.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn add(&self, job: &Job) -> Result<(), StoreError> {
        self.put(&Marker::of(job), &Summary::of(job)).await
    }

    /// Puts a job on a shelf.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn put(&self, marker: &Marker, summary: &Summary) -> Result<(), StoreError> {
        self.store.put(&marker.key(), record::write(summary)).await
    }

    /// Puts a job on a shelf if it is not there yet. True if it was not; of many callers one is told so.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn create(&self, marker: &Marker, summary: &Summary) -> Result<bool, StoreError> {
        let body = record::write(summary);
        Ok(match self.store.create(&marker.key(), body).await? {
            Created::New => true,
            Created::Exists(_) => false,
        })
    }

    /// Takes a job from a shelf; that it is not there is no error. Only after it was put on its
    /// next one.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn remove(&self, marker: &Marker) -> Result<(), StoreError> {
        self.store.delete(&marker.key()).await
    }

    /// The markers of one lane's shelf of those that wait, of one team or of all, oldest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn shelf(
        &self,
        kind: Waits,
        lane: &LaneId,
        team: Option<&Team>,
    ) -> Result<Vec<Aged>, StoreError> {
        let kind = match kind {
            Waits::Parked => "parked",
            Waits::Sent => "sent",
        };
        let team = team.map(|team| format!("/{team}")).unwrap_or_default();
        self.aged(&format!("index/{kind}/{lane}{team}")).await
    }

    /// The markers of a node's shelf, oldest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn held_shelf(&self, node: &NodeId) -> Result<Vec<Aged>, StoreError> {
        self.aged(&format!("index/held/{node}")).await
    }

    async fn aged(&self, prefix: &str) -> Result<Vec<Aged>, StoreError> {
        let listed = self.store.list_objects(prefix).await?;
        let aged =
            |object: &Listed| Some(Aged { marker: Shelf::read(&object.key)?, modified: object.modified });
        let mut markers: Vec<Aged> = listed.iter().filter_map(aged).collect();
        markers.sort_by(|a, b| (a.modified, &a.marker).cmp(&(b.modified, &b.marker)));
        Ok(markers)
    }

    /// The nodes that have a shelf.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn holders(&self) -> Result<Vec<NodeId>, StoreError> {
        Ok(self.store.list_names("index/held").await?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    async fn markers(&self, prefix: &str) -> Result<Vec<Marker>, StoreError> {
        // A key that is no marker is somebody else's; it is passed over.
        Ok(self.store.list(prefix).await?.iter().filter_map(Shelf::read).collect())
    }

    /// Whether a marker is there.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn has(&self, marker: &Marker) -> Result<bool, StoreError> {
        Ok(self.store.head(&marker.key()).await?.is_some())
    }

    /// All jobs whose messages were sent, of one lane or of all.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn sent(&self, lane: Option<&LaneId>) -> Result<Vec<Marker>, StoreError> {
        match lane {
            Some(lane) => self.markers(&format!("index/sent/{lane}")).await,
            None => self.markers("index/sent").await,
        }
    }

    /// All jobs that a node has.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn held_by(&self, node: &NodeId) -> Result<Vec<Marker>, StoreError> {
        self.markers(&format!("index/held/{node}")).await
    }

    /// All jobs that any node has.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn held(&self) -> Result<Vec<Aged>, StoreError> {
        self.aged("index/held").await
    }

    /// The days on which jobs finished, latest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn days(&self) -> Result<Vec<NaiveDate>, StoreError> {
        let names = self.store.list_names("index/done").await?;
        Ok(names.iter().rev().filter_map(|name| name.parse().ok()).collect())
    }

    /// All jobs that finished on a day.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn done_on(&self, day: NaiveDate) -> Result<Vec<Aged>, StoreError> {
        self.wide(&format!("index/done/{day}")).await
    }

    /// The summaries of markers; those whose marker has gone meanwhile are left out.
    ///
    /// # Errors
    /// [`StoreError`]; [`RecordError`] of one marker leaves that one out, with a warning.
    pub async fn summaries(&self, markers: &[Marker]) -> Result<Vec<(Marker, Summary)>, StoreError> {
        let bodies: Vec<_> = stream::iter(markers.iter().cloned())
            .map(|marker| async move {
                let body = self.store.get(&marker.key()).await;
                (marker, body)
            })
            .buffered(PARALLEL)
            .collect()
            .await;
        let mut summaries = Vec::with_capacity(bodies.len());
        for (marker, body) in bodies {
            let Some(body) = body? else { continue };
            match record::read::<Summary>(&body, Summary::VERSION) {
                Ok(summary) => summaries.push((marker, summary)),
                Err(error @ (RecordError::Newer { .. } | RecordError::Damaged(_))) => {
                    tracing::warn!(job = %marker.job, %error, "the job's marker cannot be read");
                }
            }
        }
        Ok(summaries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_back_from_its_key() {
        let job: JobId = "j".parse().expect("valid");
        let shelves = [
            Shelf::Parked { lane: "l".parse().expect("valid"), team: Team::default() },
            Shelf::Sent { lane: "l".parse().expect("valid"), team: Team::default() },
            Shelf::Held { node: "n".parse().expect("valid") },
            Shelf::Done { day: "2026-11-24".parse().expect("valid") },
        ];
        for shelf in shelves {
            let marker = Marker { shelf, job: job.clone(), round: Attempt(12) };
            assert_eq!(Shelf::read(&marker.key()), Some(marker));
        }
        assert_eq!(Shelf::read(&Key::new("index/held/n/../j.1")), None);
    }
}
