//! A container's output on its way to the store: in order, once, across restarts of the agent
//! and of the engine.
//!
//! The engine's log is read from where the last chunk in the store ends, gathered, and written as
//! the next chunk. What was gathered and not yet written when the agent dies is still in the
//! engine's log, so nothing is lost and nothing repeated. While the store does not answer, reading
//! stops and the engine's log keeps what comes.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::StreamExt;
use shared::{
    clock::Clock,
    log::OutputSize,
    output::{Chunks, Cursor, OutputError, Record},
};
use tokio::sync::watch;

use crate::{
    engine::{ContainerId, Engine, EngineError, Frame, is_there},
    patience::Patience,
};

/// A chunk is written when it has this many bytes, whatever its age.
const FULL: usize = 1 << 20;

/// How long output may lie before it is written: short at first, when somebody is likely to watch
/// a new job, and growing to 10 s, so that a long job costs few requests.
fn patience(running_for: Duration) -> Duration {
    (running_for / 30).clamp(Duration::from_millis(300), Duration::from_secs(10))
}

/// Ships the output of one container.
#[derive(Clone)]
pub struct Shipper {
    pub engine: Arc<dyn Engine>,
    pub clock: Arc<dyn Clock>,
    pub container: ContainerId,
    pub chunks: Chunks,
    /// Nothing of it can be in the store yet, which saves asking.
    pub fresh: bool,
    /// Becomes true when the container has exited: no output comes after that.
    pub exited: watch::Receiver<bool>,
}

/// What is gathered for the next chunk.
struct Gathered {
    text: Vec<u8>,
    cursor: Cursor,
    next: u64,
}

impl Shipper {
    /// Ships until the container has exited and all its output is in the store.
    ///
    /// # Errors
    /// [`OutputError::Taken`] where the attempt is not ours any more; other failures of the store
    /// and the engine are waited out.
    pub async fn run(mut self) -> Result<OutputSize, OutputError> {
        let (next, cursor) = if self.fresh { (0, Cursor::default()) } else { self.resume().await? };
        let mut gathered = Gathered { text: Vec::new(), cursor, next };
        let began = self.clock.elapsed();
        loop {
            // Asked before reading: what is read after the exit is all there is.
            let last = *self.exited.borrow();
            let before = gathered.cursor;
            let read = self.follow(&mut gathered, began).await;
            // An engine that goes away ends its answers too, wherever they are; and it may be back before
            // what it said is written. So the last look is one that found nothing new.
            let nothing_new = gathered.text.is_empty() && gathered.cursor == before;
            self.flush(&mut gathered).await?;
            match read {
                Ok(()) if last && nothing_new && is_there(self.engine.as_ref()).await => break,
                Ok(()) if last => tokio::time::sleep(Duration::from_millis(500)).await,
                Ok(()) => self.until_exit().await,
                Err(Broken::Output(e)) => return Err(e),
                // Removed by somebody: what is shipped is all there will ever be.
                Err(Broken::Engine(EngineError::NoSuchContainer { .. })) => break,
                Err(Broken::Engine(error)) => {
                    tracing::warn!(%error, "the output cannot be read from the engine; trying again");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
        Ok(OutputSize { chunks: gathered.next })
    }

    async fn resume(&self) -> Result<(u64, Cursor), OutputError> {
        let mut patience = Patience::default();
        loop {
            match self.chunks.resume().await {
                Err(OutputError::Store(error)) => patience.wait("where the output stands", &error).await,
                other => return other,
            }
        }
    }

    /// The engine ends its answer when the container exits, or when it restarts.
    async fn until_exit(&mut self) {
        let exited = self.exited.wait_for(|exited| *exited);
        // Not for ever: after a restart of the engine the container may still be running.
        let _ = tokio::time::timeout(Duration::from_secs(1), exited).await;
    }

    /// Reads what is new until the engine's answer ends.
    async fn follow(&self, gathered: &mut Gathered, began: Duration) -> Result<(), Broken> {
        let mut is_new = gathered.cursor.filter();
        let mut frames = self.engine.output(&self.container, gathered.cursor.since(), true).await?;
        loop {
            let due = patience(self.clock.elapsed().saturating_sub(began));
            let mut flush_at = pin!(tokio::time::sleep(due));
            loop {
                tokio::select! {
                    // The time first, or a container that never pauses would never be written.
                    biased;
                    () = &mut flush_at => break,
                    frame = frames.next() => {
                        let Some(frame) = frame else { return Ok(()) };
                        let frame: Frame = frame?;
                        if is_new(frame.stream, frame.at) {
                            gathered.add(frame);
                        }
                        if gathered.text.len() >= FULL {
                            break;
                        }
                    }
                }
            }
            self.flush(gathered).await?;
        }
    }

    /// Writes what is gathered, waiting for the store as long as it takes.
    async fn flush(&self, gathered: &mut Gathered) -> Result<(), OutputError> {
        if gathered.text.is_empty() {
            return Ok(());
        }
        let mut patience = Patience::default();
        loop {
            match self.chunks.create(gathered.next, &gathered.text, &gathered.cursor).await {
                Ok(()) => break,
                Err(OutputError::Store(error)) => patience.wait("output", &error).await,
                Err(e) => return Err(e),
            }
        }
        gathered.text.clear();
        gathered.next += 1;
        Ok(())
    }
}

impl Gathered {
    fn add(&mut self, frame: Frame) {
        let Frame { at, stream, bytes, complete } = frame;
        let record = Record { at, stream, complete, bytes: bytes.into() };
        self.cursor.pass(&record);
        record.write(&mut self.text);
    }
}

/// Why reading stopped.
enum Broken {
    Engine(EngineError),
    Output(OutputError),
}

impl From<EngineError> for Broken {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<OutputError> for Broken {
    fn from(error: OutputError) -> Self {
        Self::Output(error)
    }
}
