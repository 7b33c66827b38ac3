//! Which jobs there are.

use std::collections::{BTreeMap, btree_map::Entry};

use chrono::Days;
use futures::{StreamExt, TryStreamExt, stream};

use super::{Client, ClientError};
use crate::{
    id::{Attempt, JobId, NodeId, Team},
    index::{Aged, Marker, Shelf, Summary},
    log::Phase,
    store::StoreError,
};

/// Which jobs are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// How many days back finished jobs are listed; `None` for all, 0 for none.
    pub done_days: Option<u32>,
    /// Only in these states; any where empty.
    pub states: Vec<Phase>,
    /// Only of this name.
    pub name: Option<String>,
    /// Only of this team.
    pub team: Option<Team>,
    /// Only on this node.
    pub node: Option<NodeId>,
    /// At most so many, the newest.
    pub limit: Option<usize>,
}

impl Filter {
    /// Everything there ever was.
    pub fn all() -> Self {
        Self::default()
    }

    /// Whether jobs may be wanted that are in such a state.
    fn may_be(&self, state: fn(Phase) -> bool) -> bool {
        self.states.is_empty() || self.states.iter().any(|wanted| state(*wanted))
    }

    /// Whether a job on this shelf may be wanted, as far as its key tells.
    fn may_take(&self, shelf: &Shelf) -> bool {
        let wanted =
            |states: &[Phase]| self.states.is_empty() || states.iter().any(|s| self.states.contains(s));
        let of_team = |team: &Team| self.team.as_ref().is_none_or(|wanted| wanted == team);
        match shelf {
            Shelf::Parked { team, .. } => of_team(team) && wanted(&[Phase::Parked]),
            Shelf::Sent { team, .. } => of_team(team) && wanted(&[Phase::Queued]),
            // By its log it may have ended by now, or wait again.
            Shelf::Held { .. } => true,
            Shelf::Done { .. } => self.may_be(Phase::is_final),
        }
    }

    /// Whether the keys of the index do not tell which jobs are wanted.
    fn reads_bodies(&self) -> bool {
        !self.states.is_empty() || self.name.is_some() || self.team.is_some() || self.node.is_some()
    }

    fn takes(&self, job: &Summary) -> bool {
        (self.states.is_empty() || self.states.contains(&job.state))
            && self.name.as_ref().is_none_or(|name| job.name == *name)
            && self.team.as_ref().is_none_or(|team| job.team == *team)
            && self.node.as_ref().is_none_or(|node| job.node.as_ref() == Some(node))
    }
}

/// How many logs are read at once.
const PARALLEL: usize = 32;

/// Markers that are read at once at least, while jobs are sought by what only those tell.
const LEAST: usize = 64;

/// A part of a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The jobs, the latest submitted last.
    pub jobs: Vec<Summary>,
    /// How many more there are, which may or may not be wanted.
    pub more: usize,
}

impl Client {
    /// Jobs by the index, newest last. A job that is on two shelves, because it is on its way,
    /// is taken from the later one; of running jobs the log is read, since their marker is
    /// written but once.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Summary>, ClientError> {
        Ok(self.page(filter).await?.jobs)
    }

    /// The jobs whose ids alone are wanted: no more requests than listing the index takes, where
    /// the filter asks for nothing that is only in the markers themselves.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn ids(&self, filter: &Filter) -> Result<Vec<JobId>, ClientError> {
        if filter.reads_bodies() {
            return Ok(self.list(filter).await?.into_iter().map(|job| job.id).collect());
        }
        let markers = self.markers(filter).await?.into_iter();
        let ids = markers.take(filter.limit.unwrap_or(usize::MAX)).map(|aged| aged.marker.job);
        let mut ids: Vec<JobId> = ids.collect();
        ids.reverse();
        Ok(ids)
    }

    /// As many jobs as the filter's limit says: those whose markers were moved last.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn page(&self, filter: &Filter) -> Result<Page, ClientError> {
        let limit = filter.limit.unwrap_or(usize::MAX);
        let mut rest = self.markers(filter).await?.into_iter();
        let mut jobs: Vec<Summary> = Vec::new();
        while jobs.len() < limit && rest.len() > 0 {
            let wanted = (limit - jobs.len()).max(LEAST);
            let batch: Vec<Marker> = rest.by_ref().take(wanted).map(|aged| aged.marker).collect();
            let summaries: Vec<Summary> = stream::iter(self.index.summaries(&batch).await?)
                .map(|(marker, summary)| self.freshen(marker, summary))
                .buffered(PARALLEL)
                .try_collect()
                .await?;
            jobs.extend(summaries.into_iter().filter(|job| filter.takes(job)));
        }
        let more = rest.len() + jobs.len().saturating_sub(limit);
        jobs.truncate(limit);
        jobs.sort_by(|a, b| (a.submitted_at, &a.id).cmp(&(b.submitted_at, &b.id)));
        Ok(Page { jobs, more })
    }

    /// The markers of jobs that may be wanted, as far as their keys tell: each job's latest, and
    /// of these what was moved last first.
    async fn markers(&self, filter: &Filter) -> Result<Vec<Aged>, ClientError> {
        let waiting = async {
            // Nobody has a job that waits.
            if filter.node.is_some() || !filter.may_be(|phase| !phase.is_final()) {
                return Ok(Vec::new());
            }
            self.index.waiting().await
        };
        let held = async {
            match &filter.node {
                _ if !filter.may_be(|phase| !phase.is_final()) => Ok(Vec::new()),
                Some(node) => self.index.held_shelf(node).await,
                None => self.index.held().await,
            }
        };
        let done = async {
            if filter.may_be(Phase::is_final) { self.done(filter.done_days).await } else { Ok(Vec::new()) }
        };
        let (waiting, held, done) = futures::join!(waiting, held, done);
        let mut latest: BTreeMap<JobId, Aged> = BTreeMap::new();
        for aged in waiting?.into_iter().chain(held?).chain(done?) {
            match latest.entry(aged.marker.job.clone()) {
                Entry::Vacant(entry) => drop(entry.insert(aged)),
                Entry::Occupied(mut entry) => {
                    if rank(&aged.marker) > rank(&entry.get().marker) {
                        entry.insert(aged);
                    }
                }
            }
        }
        let mut markers: Vec<Aged> =
            latest.into_values().filter(|aged| filter.may_take(&aged.marker.shelf)).collect();
        markers.sort_by(|a, b| (b.modified, &b.marker.job).cmp(&(a.modified, &a.marker.job)));
        Ok(markers)
    }

    async fn freshen(&self, marker: Marker, summary: Summary) -> Result<Summary, ClientError> {
        match marker.shelf {
            Shelf::Held { .. } => {
                // An unreadable log does not hide the other jobs; `haul status` tells what is wrong.
                let job = self.log.read(&marker.job).await.ok().flatten();
                Ok(job.map_or(summary, |job| Summary::of(&job)))
            }
            Shelf::Parked { .. } => Ok(Summary { state: Phase::Parked, ..summary }),
            Shelf::Sent { .. } | Shelf::Done { .. } => Ok(summary),
        }
    }

    async fn done(&self, days: Option<u32>) -> Result<Vec<Aged>, StoreError> {
        let from = match days {
            Some(0) => return Ok(Vec::new()),
            Some(days) => self.now().date_naive().checked_sub_days(Days::new(u64::from(days))),
            None => None,
        };
        let days = self.index.days().await?.into_iter().filter(|day| from.is_none_or(|from| *day >= from));
        let found: Vec<Vec<Aged>> =
            stream::iter(days).map(|day| self.index.done_on(day)).buffered(PARALLEL).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// Later attempts win, and of one attempt later shelves.
fn rank(marker: &Marker) -> (Attempt, u8) {
    let shelf = match &marker.shelf {
        Shelf::Parked { .. } => 0,
        Shelf::Sent { .. } => 1,
        Shelf::Held { .. } => 2,
        Shelf::Done { .. } => 3,
    };
    (marker.round, shelf)
}
