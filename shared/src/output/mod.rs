//! A container's output in the store: every line once, in order, whatever happened to the agent.
//!
//! The output of an attempt is a row of chunks, `jobs/<job>/attempts/<k>/log/<n>`, each a gzip of
//! lines in the CRI logging format of Kubernetes (`<RFC 3339 time> stdout|stderr F|P <text>`; `P`
//! marks a line that goes on in the next record). `zcat` of the chunks in order is the log.
//!
//! Chunks are created by put-if-absent, one after the other, so two writers cannot interleave.
//! Each carries in its gzip header, as the comment (RFC 1952, 2.3), where the output ends with it:
//! a [`Cursor`]. A writer that takes over reads the last chunk's and goes on there.

mod cursor;
mod record;

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::{Compression, GzBuilder, read::GzDecoder};

pub use cursor::Cursor;
pub use record::{Record, RecordError, Stream};

use crate::{
    id::{Attempt, JobId},
    store::{Created, Key, Store, StoreError},
};

/// A chunk that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another writer has written this chunk: the attempt is not ours any more.
    #[error("chunk {chunk} of job {job}, attempt {attempt}, was written by somebody else")]
    Taken {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: Attempt,
        /// The chunk.
        chunk: u64,
    },
    /// The chunk is no gzip of records.
    #[error("chunk {chunk} of job {job}, attempt {attempt}, is damaged: {detail}")]
    Damaged {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: Attempt,
        /// The chunk.
        chunk: u64,
        /// What the reader found.
        detail: String,
    },
}

/// The output of one attempt.
#[derive(Debug, Clone)]
pub struct Chunks {
    store: Store,
    job: JobId,
    attempt: Attempt,
}

impl Chunks {
    /// The output of this attempt in this store.
    pub fn new(store: Store, job: JobId, attempt: Attempt) -> Self {
        Self { store, job, attempt }
    }

    fn prefix(&self) -> String {
        format!("jobs/{}/attempts/{}/log", self.job, self.attempt)
    }

    fn key(&self, chunk: u64) -> Key {
        Key::new(format!("{}/{chunk:010}", self.prefix()))
    }

    fn damaged(&self, chunk: u64, detail: &impl ToString) -> OutputError {
        OutputError::Damaged {
            job: self.job.clone(),
            attempt: self.attempt,
            chunk,
            detail: detail.to_string(),
        }
    }

    /// How many chunks there are.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn count(&self) -> Result<u64, StoreError> {
        Ok(self.store.list(&self.prefix()).await?.len() as u64)
    }

    /// Writes a chunk, and where the output ends with it. Writing the same again is a success.
    ///
    /// # Errors
    /// [`OutputError::Taken`] where other records stand there.
    pub async fn create(&self, chunk: u64, text: &[u8], end: &Cursor) -> Result<(), OutputError> {
        let body = compress(text, end);
        match self.store.create(&self.key(chunk), body.clone()).await? {
            Created::New => Ok(()),
            Created::Exists(found) if found == body => Ok(()),
            Created::Exists(_) => {
                Err(OutputError::Taken { job: self.job.clone(), attempt: self.attempt, chunk })
            }
        }
    }

    /// The records of a chunk, or `None` where there is no such chunk yet.
    ///
    /// # Errors
    /// [`OutputError`]
    pub async fn read(&self, chunk: u64) -> Result<Option<Vec<Record>>, OutputError> {
        let Some(body) = self.store.get(&self.key(chunk)).await? else { return Ok(None) };
        let mut text = Vec::new();
        GzDecoder::new(body.as_ref()).read_to_end(&mut text).map_err(|e| self.damaged(chunk, &e))?;
        let records = record::read_all(&text).map_err(|e| self.damaged(chunk, &e))?;
        Ok(Some(records))
    }

    /// Where a writer that takes over goes on: the number of the next chunk, and where the output
    /// ends.
    ///
    /// # Errors
    /// [`OutputError`]
    pub async fn resume(&self) -> Result<(u64, Cursor), OutputError> {
        let count = self.count().await?;
        let Some(last) = count.checked_sub(1) else { return Ok((0, Cursor::default())) };
        let Some(body) = self.store.get(&self.key(last)).await? else {
            return Err(self.damaged(last, &"it is listed and not there"));
        };
        let decoder = GzDecoder::new(body.as_ref());
        let comment = decoder.header().and_then(|header| header.comment());
        let comment = comment.ok_or_else(|| self.damaged(last, &"it does not say where the output ends"))?;
        let cursor = serde_json::from_slice(comment).map_err(|e| self.damaged(last, &e))?;
        Ok((count, cursor))
    }
}

/// Gzip without a time stamp, so that equal texts are equal chunks.
fn compress(text: &[u8], end: &Cursor) -> Bytes {
    let comment = serde_json::to_vec(end).expect("a cursor has only text keys");
    let buffer = Vec::with_capacity(text.len() / 4);
    let mut encoder = GzBuilder::new().comment(comment).write(buffer, Compression::fast());
    let written = encoder.write_all(text).and_then(|()| encoder.finish());
    written.expect("writing to memory does not fail").into()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
