//! Which jobs there are.

use std::collections::BTreeMap;

use chrono::Days;
use futures::{StreamExt, TryStreamExt, stream};

use super::{Client, ClientError};
use crate::{
    id::{JobId, NodeId, Team},
    index::{Marker, Shelf, Summary},
    log::Phase,
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

    fn takes(&self, job: &Summary) -> bool {
        (self.states.is_empty() || self.states.contains(&job.state))
            && self.name.as_ref().is_none_or(|name| job.name == *name)
            && self.team.as_ref().is_none_or(|team| job.team == *team)
            && self.node.as_ref().is_none_or(|node| job.node.as_ref() == Some(node))
    }
}

/// How many logs are read at once.
const PARALLEL: usize = 16;

impl Client {
    /// Jobs by the index, newest last. A job that is on two shelves, because it is on its way,
    /// is taken from the later one; of running jobs the log is read, since their marker is
    /// written but once.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Summary>, ClientError> {
        let (waiting, held, done) =
            futures::join!(self.index.waiting(), self.index.held(), self.done(filter.done_days));
        let mut markers: BTreeMap<JobId, Marker> = BTreeMap::new();
        for marker in waiting?.into_iter().chain(held?).chain(done?) {
            let entry = markers.entry(marker.job.clone()).or_insert_with(|| marker.clone());
            if rank(&marker.shelf) > rank(&entry.shelf) {
                *entry = marker;
            }
        }
        let markers: Vec<Marker> = markers.into_values().collect();
        let summaries: Vec<Summary> = stream::iter(self.index.summaries(&markers).await?)
            .map(|(marker, summary)| self.freshen(marker, summary))
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        let mut jobs: Vec<Summary> = summaries.into_iter().filter(|job| filter.takes(job)).collect();
        jobs.sort_by(|a, b| (a.submitted_at, &a.id).cmp(&(b.submitted_at, &b.id)));
        if let Some(limit) = filter.limit {
            jobs.drain(..jobs.len().saturating_sub(limit));
        }
        Ok(jobs)
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

    async fn done(&self, days: Option<u32>) -> Result<Vec<Marker>, ClientError> {
        let from = match days {
            Some(0) => return Ok(Vec::new()),
            Some(days) => self.now().date_naive().checked_sub_days(Days::new(u64::from(days))),
            None => None,
        };
        let mut markers = Vec::new();
        for day in self.index.days().await? {
            if from.is_none_or(|from| day >= from) {
                markers.extend(self.index.done_on(day).await?);
            }
        }
        Ok(markers)
    }
}

/// Later shelves win.
fn rank(shelf: &Shelf) -> u8 {
    match shelf {
        Shelf::Parked { .. } => 0,
        Shelf::Sent { .. } => 1,
        Shelf::Held { .. } => 2,
        Shelf::Done { .. } => 3,
    }
}
