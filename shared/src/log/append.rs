//! Reading and creating entries.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::{
    event::{Author, Entry, Event},
    fold::{FoldError, Job},
};
use crate::{
    clock::{Chance, Clock},
    id::{JobId, Seq},
    record::{self, RecordError},
    store::{Created, Key, Store, StoreError},
};

/// What keeps a log from being read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An entry that this program cannot use.
    #[error("entry {seq} of job {job} cannot be used")]
    Record {
        /// The job.
        job: JobId,
        /// Which entry.
        seq: Seq,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// A log that no run of the protocol can have written.
    #[error(transparent)]
    Fold(#[from] FoldError),
}

/// What became of an attempt to create an entry.
#[derive(Debug)]
pub enum Put {
    /// It is there, and it is ours.
    Won(Entry),
    /// Another entry stands there.
    Lost,
}

/// Access to all jobs' logs, in the name of one author.
#[derive(Clone)]
pub struct Log {
    store: Store,
    clock: Arc<dyn Clock>,
    chance: Chance,
    author: Author,
}

/// How many entries are fetched at once.
const PARALLEL: usize = 16;

impl Log {
    /// Logs in this store; entries will carry this author.
    pub fn new(store: Store, clock: Arc<dyn Clock>, chance: Chance, author: Author) -> Self {
        Self { store, clock, chance, author }
    }

    fn prefix(job: &JobId) -> String {
        format!("jobs/{job}/log")
    }

    fn key(job: &JobId, seq: Seq) -> Key {
        Key::new(format!("jobs/{job}/log/{seq}.json"))
    }

    fn decode(job: &JobId, seq: Seq, body: &[u8]) -> Result<Entry, LogError> {
        record::read::<Entry>(body, Entry::VERSION).map_err(|source| LogError::Record {
            job: job.clone(),
            seq,
            source,
        })
    }

    /// One entry, or `None` where the log is not that long.
    ///
    /// # Errors
    /// [`LogError`]
    pub async fn entry(&self, job: &JobId, seq: Seq) -> Result<Option<Entry>, LogError> {
        let body = self.store.get(&Self::key(job, seq)).await?;
        body.map(|body| Self::decode(job, seq, &body)).transpose()
    }

    /// All entries, in order; none where the job is unknown.
    ///
    /// # Errors
    /// [`LogError`]
    pub async fn entries(&self, job: &JobId) -> Result<Vec<Entry>, LogError> {
        let count = self.store.list(&Self::prefix(job)).await?.len() as u64;
        stream::iter((0..count).map(Seq))
            .map(|seq| async move {
                let body = self.store.get(&Self::key(job, seq)).await?;
                // The keys are counted, so the ones below exist; a hole shows in the fold.
                body.map(|body| Self::decode(job, seq, &body)).transpose()
            })
            .buffered(PARALLEL)
            .try_filter_map(|entry| async move { Ok(entry) })
            .try_collect()
            .await
    }

    /// The job as its whole log has it, or `None` where it is unknown.
    ///
    /// # Errors
    /// [`LogError`]
    pub async fn read(&self, job: &JobId) -> Result<Option<Job>, LogError> {
        Ok(Job::fold(job.clone(), &self.entries(job).await?)?)
    }

    /// Reads on where `job` ends, to the end of its log. Returns the new entries.
    ///
    /// # Errors
    /// [`LogError`]
    pub async fn refresh(&self, job: &mut Job) -> Result<Vec<Entry>, LogError> {
        let mut news = Vec::new();
        while let Some(entry) = self.entry(&job.id, job.next).await? {
            job.apply(&entry)?;
            news.push(entry);
        }
        Ok(news)
    }

    /// Creates the entry at `seq`, unless another stands there already.
    ///
    /// # Errors
    /// [`LogError`]; the entry may or may not be there then, and the caller reads before it
    /// decides anything else.
    pub async fn put(&self, job: &JobId, seq: Seq, event: Event) -> Result<Put, LogError> {
        let nonce = self.chance.nonce();
        let entry =
            Entry { v: Entry::VERSION, seq, at: self.clock.now(), author: self.author.clone(), nonce, event };
        let body = record::write(&entry);
        match self.store.create(&Self::key(job, seq), body.clone()).await? {
            Created::New => Ok(Put::Won(entry)),
            // The body holds the nonce, so equal bodies are the same put.
            Created::Exists(found) if found == body => Ok(Put::Won(entry)),
            Created::Exists(_) => Ok(Put::Lost),
        }
    }

    /// Decides on the job as it stands and appends what was decided; when somebody else was
    /// first, reads on and decides again. `None` where `decide` wants nothing, as soon as it does.
    ///
    /// # Errors
    /// [`LogError`]
    pub async fn append(
        &self,
        job: &mut Job,
        mut decide: impl FnMut(&Job) -> Option<Event>,
    ) -> Result<Option<Entry>, LogError> {
        loop {
            let Some(event) = decide(job) else { return Ok(None) };
            match self.put(&job.id, job.next, event).await? {
                Put::Won(entry) => {
                    job.apply(&entry)?;
                    return Ok(Some(entry));
                }
                Put::Lost => {
                    self.refresh(job).await?;
                }
            }
        }
    }

    /// Who this log writes as.
    pub fn author(&self) -> &Author {
        &self.author
    }
}

#[cfg(test)]
#[path = "append_tests.rs"]
mod tests;
