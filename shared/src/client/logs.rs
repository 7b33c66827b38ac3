//! Reading a job's output, also while it is being written.

use futures::{Stream, stream};

use super::{Client, ClientError};
use crate::{
    id::{Attempt, JobId},
    log::Job,
    output::{Chunks, Record},
};

/// A piece of a job's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogItem {
    /// What follows is of this attempt.
    Attempt(Attempt),
    /// A line, or a part of a long one.
    Record(Record),
    /// The attempt has ended; no more of it will come.
    End(Attempt),
}

struct Reader {
    client: Client,
    job: Job,
    attempt: Option<Attempt>,
    chunk: u64,
    follow: bool,
    only: bool,
}

impl Client {
    /// The output of an attempt, the last one without. With `follow`, goes on until the job is
    /// finished (or, where an attempt is named, until that one is).
    ///
    /// # Errors
    /// [`ClientError`], at the start or in the stream.
    pub async fn logs(
        &self,
        id: &JobId,
        attempt: Option<Attempt>,
        follow: bool,
    ) -> Result<impl Stream<Item = Result<Vec<LogItem>, ClientError>> + use<>, ClientError> {
        let job = self.job(id).await?;
        let begin = attempt.or(job.attempt);
        let reader =
            Reader { client: self.clone(), job, attempt: begin, chunk: 0, follow, only: attempt.is_some() };
        Ok(stream::try_unfold((reader, true), |(mut reader, first)| async move {
            let items = reader.next(first).await?;
            Ok(items.map(|items| (items, (reader, false))))
        }))
    }
}

impl Reader {
    /// The next items; `None` at the end.
    async fn next(&mut self, first: bool) -> Result<Option<Vec<LogItem>>, ClientError> {
        loop {
            let Some(attempt) = self.attempt else {
                // Not begun yet.
                if !self.follow || self.job.phase().is_final() {
                    return Ok(None);
                }
                self.refresh_or_pause().await?;
                self.attempt = self.job.attempt;
                continue;
            };
            // Whether it had ended is asked before the chunks are: none comes after that.
            let over = self.is_over(attempt);
            if let Some(records) = self.chunks(attempt).read(self.chunk).await? {
                let begins = (self.chunk == 0).then_some(LogItem::Attempt(attempt));
                self.chunk += 1;
                return Ok(Some(
                    begins.into_iter().chain(records.into_iter().map(LogItem::Record)).collect(),
                ));
            }
            if !over {
                if !self.follow {
                    return Ok(None);
                }
                self.refresh_or_pause().await?;
                continue;
            }
            let goes_on = self.follow && !self.only;
            if !goes_on || (self.job.phase().is_final() && self.job.attempt == Some(attempt)) {
                return Ok((first && self.chunk == 0).then(|| vec![LogItem::Attempt(attempt)]));
            }
            if self.job.attempt.is_some_and(|last| last > attempt) {
                self.attempt = Some(attempt.next());
                self.chunk = 0;
                return Ok(Some(vec![LogItem::End(attempt)]));
            }
            self.refresh_or_pause().await?;
        }
    }

    fn chunks(&self, attempt: Attempt) -> Chunks {
        Chunks::new(self.client.fleet.store.clone(), self.job.id.clone(), attempt)
    }

    fn is_over(&self, attempt: Attempt) -> bool {
        self.job.attempt.is_some_and(|last| last > attempt)
            || self.job.held().is_none_or(|claim| claim.attempt != attempt)
    }

    async fn refresh_or_pause(&mut self) -> Result<(), ClientError> {
        if self.client.log.refresh(&mut self.job).await?.is_empty() {
            tokio::time::sleep(self.client.pause()).await;
        }
        Ok(())
    }
}
