//! From what a person typed to the job that is meant.

use std::collections::BTreeSet;

use super::{Client, ClientError, Filter};
use crate::id::{JobId, Seq};

impl Client {
    /// The job of this id, of this unique beginning of an id, or of this unique name. Among jobs
    /// of one name, the one that is not finished is meant if there is just one such.
    ///
    /// # Errors
    /// [`ClientError::NotFound`], [`ClientError::Ambiguous`]
    pub async fn resolve(&self, text: &str) -> Result<JobId, ClientError> {
        if let Ok(id) = text.parse::<JobId>()
            && self.log.entry(&id, Seq::FIRST).await?.is_some()
        {
            return Ok(id);
        }
        let ids = self.fleet.store.list_names("jobs").await?;
        let by_prefix: BTreeSet<JobId> =
            ids.iter().filter(|id| id.starts_with(text)).filter_map(|id| id.parse().ok()).collect();
        if !text.is_empty() && !by_prefix.is_empty() {
            return one(text, by_prefix.into_iter().collect());
        }
        let jobs = self.list(&Filter { name: Some(text.to_owned()), ..Filter::all() }).await?;
        let active: Vec<JobId> =
            jobs.iter().filter(|job| !job.state.is_final()).map(|job| job.id.clone()).collect();
        if active.len() == 1 {
            return one(text, active);
        }
        one(text, jobs.into_iter().map(|job| job.id).collect())
    }
}

fn one(text: &str, mut found: Vec<JobId>) -> Result<JobId, ClientError> {
    match found.len() {
        0 => Err(ClientError::NotFound(text.to_owned())),
        1 => Ok(found.remove(0)),
        _ => Err(ClientError::Ambiguous { text: text.to_owned(), found }),
    }
}
