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
mod marker;

pub use marker::{Marker, Shelf};

use chrono::NaiveDate;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::{
    clock::Chance,
    id::{Attempt, GpuUuid, JobId, LaneId, NodeId, Team, Timestamp},
    job::Priority,
    log::{Job, Outcome, OutputSize, Phase, State},
    record,
    store::{Created, Key, Listed, PAGE, Store, StoreError},
};

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

impl Waits {
    fn shelf_of(self, lane: &LaneId) -> String {
        let kind = match self {
            Self::Parked => "parked",
            Self::Sent => "sent",
        };
        format!("index/{kind}/{lane}")
    }
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

/// The markers among what was listed, oldest first.
fn by_age(listed: &[Listed]) -> Vec<Aged> {
    let mut markers = many::aged(listed);
    markers.sort_by(|a, b| (a.modified, &a.marker).cmp(&(b.modified, &b.marker)));
    markers
}

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
        let team = team.map(|team| format!("/{team}")).unwrap_or_default();
        self.aged(&format!("{}{team}", kind.shelf_of(lane))).await
    }

    /// The teams that have markers on a lane's shelf.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn teams(&self, kind: Waits, lane: &LaneId) -> Result<Vec<Team>, StoreError> {
        let names = self.store.list_names(&kind.shelf_of(lane)).await?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Some of a team's markers, oldest first: all where one page holds them, else those of a page at a
    /// random place. What it costs does not depend on how many there are.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn sample(
        &self,
        kind: Waits,
        lane: &LaneId,
        team: &Team,
        chance: &Chance,
    ) -> Result<Vec<Aged>, StoreError> {
        let prefix = format!("{}/{team}", kind.shelf_of(lane));
        let mut page = self.store.list_page(&prefix, None).await?;
        if page.len() >= PAGE {
            // Jobs' ids are random from their first character, so every job is as likely to be seen.
            let place = Key::new(format!("{prefix}/{}", chance.job_id()));
            let there = self.store.list_page(&prefix, Some(&place)).await?;
            if there.len() >= PAGE {
                page = there;
            } else {
                page.extend(there);
            }
        }
        Ok(by_age(&page))
    }

    /// The markers of a node's shelf, oldest first.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn held_shelf(&self, node: &NodeId) -> Result<Vec<Aged>, StoreError> {
        self.aged(&format!("index/held/{node}")).await
    }

    async fn aged(&self, prefix: &str) -> Result<Vec<Aged>, StoreError> {
        Ok(by_age(&self.store.list_objects(prefix).await?))
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
    /// [`StoreError`]; a [`RecordError`](record::RecordError) of one marker leaves that one out, with a warning.
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
                Err(error) => tracing::warn!(job = %marker.job, %error, "the job's marker cannot be read"),
            }
        }
        Ok(summaries)
    }
}
