//! Reading and creating entries.

use std::{error::Error, sync::Arc};

use futures::{StreamExt, TryStreamExt, stream};

use super::{
    event::{Author, Entry, Event},
    fold::{FoldError, Job},
};
use crate::{
    clock::{Chance, Clock},
    id::{JobId, Seq},
    mutant::{self, Mutant},
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

impl LogError {
    /// Whether a newer haul can read the log.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Record { source, .. } if source.is_newer())
    }
}

/// A log to a reader that leaves to a newer haul what only that can read.
#[derive(Debug)]
pub enum Reading {
    /// The job, or `None` where there is no log.
    Read(Option<Box<Job>>),
    /// Only a newer haul can read it.
    Newer,
}

/// What became of an attempt to create an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is there, and it is ours.
    Won,
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
    watch: Option<Watch>,
}

/// Is told of entries.
type Watch = Arc<dyn Fn(&JobId, &Entry) + Send + Sync>;

/// How many entries are fetched at once.
const PARALLEL: usize = 16;

impl Log {
    /// Logs in this store; entries will carry this author.
    pub fn new(store: Store, clock: Arc<dyn Clock>, chance: Chance, author: Author) -> Self {
        Self { store, clock, chance, author, watch: None }
    }

    /// Tells `watch` of each entry that is created through this log, as soon as it is there, and
    /// of each that [`Log::refresh`] finds.
    #[must_use]
    pub fn watched(self, watch: impl Fn(&JobId, &Entry) + Send + Sync + 'static) -> Self {
        Self { watch: Some(Arc::new(watch)), ..self }
    }

    fn seen(&self, job: &JobId, entry: &Entry) {
        if let Some(watch) = &self.watch {
            watch(job, entry);
        }
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

    /// Like [`read`](Self::read), for work on many jobs, in which one of a newer haul is passed over.
    ///
    /// # Errors
    /// [`LogError`]
    pub async fn read_or_leave(&self, job: &JobId) -> Result<Reading, LogError> {
        match self.read(job).await {
            Ok(job) => Ok(Reading::Read(job.map(Box::new))),
            Err(error) if error.is_newer() => {
                let cause = error.source().map(tracing::field::display);
                tracing::warn!(%job, %error, cause, "the job is left to a newer agent");
                Ok(Reading::Newer)
            }
            Err(error) => Err(error),
        }
    }

    /// The job as its whole log has it, read entry by entry until one is missing: no listing, for logs
    /// that are likely to be short.
    ///
    /// # Errors
    /// [`LogError`]
    pub async fn read_on(&self, id: &JobId) -> Result<Option<Job>, LogError> {
        let Some(first) = self.entry(id, Seq::FIRST).await? else { return Ok(None) };
        let mut job = Job::begin(id.clone(), &first)?;
        self.refresh(&mut job).await?;
        Ok(Some(job))
    }

    /// Reads on where `job` ends, to the end of its log. Returns the new entries.
    ///
    /// # Errors
    /// [`LogError`]
    pub async fn refresh(&self, job: &mut Job) -> Result<Vec<Entry>, LogError> {
        let mut news = Vec::new();
        while let Some(entry) = self.entry(&job.id, job.next).await? {
            job.apply(&entry)?;
            self.seen(&job.id, &entry);
            news.push(entry);
        }
        Ok(news)
    }

    /// An entry that could be created at `seq`, now and in this log's author's name.
    pub fn draft(&self, seq: Seq, event: Event) -> Entry {
        let (at, author, nonce) = (self.clock.now(), self.author.clone(), self.chance.nonce());
        Entry { v: Entry::VERSION, seq, at, author, nonce, event }
    }

    /// Creates an entry, unless another stands there already. The same draft may be tried again
    /// after an error, and is recognised if it had won.
    ///
    /// # Errors
    /// [`LogError`]; the entry may or may not be there then, and the caller tries again or reads
    /// before it decides anything else.
    pub async fn create(&self, job: &JobId, entry: &Entry) -> Result<Put, LogError> {
        let body = record::write(entry);
        let put = match self.store.create(&Self::key(job, entry.seq), body.clone()).await? {
            Created::New => Put::Won,
            // The body holds the nonce, so equal bodies are the same draft.
            Created::Exists(found) if found == body || mutant::is_on(Mutant::NoNonce) => Put::Won,
            Created::Exists(_) => Put::Lost,
        };
        if put == Put::Won {
            self.seen(job, entry);
        }
        Ok(put)
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
            let entry = self.draft(job.next, event);
            match self.create(&job.id, &entry).await? {
                Put::Won => {
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
