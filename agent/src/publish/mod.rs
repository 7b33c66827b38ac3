//! Telling the world what becomes of jobs: the status queue and webhooks, at least once, in order
//! per job and receiver, across restarts of the agent, and never at the cost of a job.
//!
//! Before this node writes into the log of a job that it does not hold yet (a claim, the end of a
//! lost node's attempt), a [`note`] goes to disk: whose events, and how far each receiver has been
//! told. The log is the buffer; the note is all that must survive. [`desk`] decides what is told
//! next, and is pure; [`deliver`] tells it; the note is taken away when everybody knows the entry
//! after which the job is nobody's or somebody else's. Fleets and jobs without receivers pay nothing.
//!
//! A receiver that is added to the settings hears of what is claimed from then on.

mod deliver;
mod desk;
mod note;
mod spool;
mod track;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use shared::{
    clock::{Chance, Clock},
    event::{Subject, Told, Webhook},
    fleet::{Fleet, Settings},
    id::{JobId, NodeId, Seq},
    log::{Entry, Job, Log},
    queue::QueueError,
};
use tokio::{
    sync::{Mutex as AsyncMutex, Notify},
    time::{Instant, MissedTickBehavior},
};

use deliver::{Courier, Delivered};
use desk::{Action, Desk, MOST};
use note::{Note, Position, Receiver};
use spool::Spool;
pub use spool::{Directory, Disk, Memory};

use crate::{patience::Chain, secret::Secrets};

/// How often notes that have moved on are written: what a crash costs is some doubles.
const FLUSH: Duration = Duration::from_secs(5);

/// Tells what becomes of this node's jobs.
#[derive(Clone)]
pub struct Publisher(Arc<Inner>);

struct Inner {
    fleet: Fleet,
    desk: Mutex<Desk>,
    spool: Spool,
    /// Held while a job's file is written or removed, so that no note is removed by mistake that
    /// has just been renewed.
    disk: AsyncMutex<()>,
    /// There are notes on disk that are not in memory.
    more: AtomicBool,
    courier: Courier,
    chance: Chance,
    news: Notify,
    began: Instant,
}

/// What has been done.
enum Done {
    Told { to: Receiver, job: JobId, seq: Seq, how: Delivered },
    Read { job: JobId, entry: Option<Entry> },
    Unread { job: JobId },
}

impl Publisher {
    /// For a node of this fleet; notes are kept on this disk.
    pub fn new(
        node: NodeId,
        fleet: Fleet,
        secrets: Secrets,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        chance: Chance,
    ) -> Self {
        Self(Arc::new(Inner {
            courier: Courier::new(fleet.queue.clone(), secrets, clock),
            fleet,
            desk: Mutex::new(Desk::new(node)),
            spool: Spool(disk),
            disk: AsyncMutex::default(),
            more: AtomicBool::new(true),
            chance,
            news: Notify::new(),
            began: Instant::now(),
        }))
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.0.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// Hears of an entry that stands in a job's log.
    pub fn seen(&self, job: &JobId, entry: &Entry) {
        let mut desk = self.desk();
        if desk.has(job) {
            desk.seen(job, entry, self.now());
            self.0.news.notify_one();
        }
    }

    /// Notes that this node is about to write at `mark` into the log of this job, which it does not
    /// hold yet, and whose events have been told so far. To be awaited before the entry is written.
    /// Where a disk fails, the job goes on all the same.
    pub async fn note(&self, job: &Job, mark: Seq, told: Told) {
        let receivers = receivers(&self.0.fleet.settings(), &job.spec.webhooks);
        if receivers.is_empty() {
            return;
        }
        let told = receivers
            .into_iter()
            .map(|to| Position { next: if to == Receiver::Status { told.status } else { told.webhooks }, to })
            .collect();
        let note = Note { v: Note::VERSION, subject: Subject::of(job), mark, over: None, told };
        let _disk = self.0.disk.lock().await;
        let fits = {
            let mut desk = self.desk();
            let fits = desk.len() < MOST || desk.has(&job.id);
            if fits {
                desk.take(note.clone(), self.now());
            }
            fits
        };
        if !fits {
            self.0.more.store(true, Ordering::Relaxed);
        }
        let note = self.desk().note(&job.id).unwrap_or(note);
        if let Err(error) = self.0.spool.write(&note).await {
            tracing::warn!(job = %job.id, %error, "the note of what is to be told cannot be written; if the agent dies now, receivers may miss events");
        }
        self.0.news.notify_one();
    }

    /// Notes that this node is about to write the next entry of this job's log, which ends a lost
    /// node's attempt, and that all from `from` on is to be told with it: [`Seq::FIRST`] where
    /// nobody knows how far the lost node was.
    pub async fn tell(&self, job: &Job, from: Seq) {
        self.note(job, job.next, Told::all_before(from)).await;
    }

    /// Looks at a job's log for news, such as after a race for an entry was lost.
    pub fn wake(&self, job: &JobId) {
        self.desk().wake(job, self.now());
        self.0.news.notify_one();
    }

    /// How far the events of a job whose message this node sends have been told, as far as it knows.
    pub fn told(&self, job: &Job) -> Told {
        self.desk().told_of(&job.id, job.next)
    }

    /// Tells the status queue of something in the inbox that is no job.
    ///
    /// # Errors
    /// [`QueueError`]; it may have been told then.
    pub async fn refused(&self, message: &str, reason: &str) -> Result<(), QueueError> {
        self.0.courier.refused(message, reason).await
    }

    /// Waits until all that can be told has been, or for so long. Gives how many jobs are left of
    /// which somebody is still to hear.
    pub async fn settle(&self, limit: Duration) -> usize {
        let quiet = async {
            while !self.desk().is_quiet() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // What is late stays noted.
        let _ = tokio::time::timeout(limit, quiet).await;
        self.flush().await;
        self.desk().len()
    }

    /// Goes on where an earlier run was, and tells, until it is dropped.
    pub async fn run(self, log: Log) {
        let mut flights: FuturesUnordered<BoxFuture<'_, Done>> = FuturesUnordered::new();
        let mut flush = tokio::time::interval(FLUSH);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut settings = self.0.fleet.settings();
        loop {
            settings = self.follow(settings);
            self.load().await;
            let actions = self.desk().next(self.now());
            for action in actions {
                match action {
                    Action::Read { job, seq } => flights.push(read(&log, job, seq).boxed()),
                    Action::Tell { to, job, event } => {
                        let seq = desk::seq_of(&event);
                        flights.push(self.deliver(to, job, seq, event).boxed());
                    }
                    Action::Remove { job } => self.remove(&job).await,
                }
            }
            let (now, wake_at) = (self.now(), self.desk().wake_at());
            let wait = wake_at.map_or(FLUSH, |at| at.saturating_sub(now));
            let idle = wake_at.is_none() && !self.0.more.load(Ordering::Relaxed);
            // First what came back, since it decides on what is next; an agent with nothing to tell
            // has no timers. All may be dropped: what is done is noted when it has been done.
            tokio::select! {
                biased;
                Some(done) = flights.next(), if !flights.is_empty() => self.done(done),
                () = self.0.news.notified() => {}
                _ = flush.tick(), if !idle => self.flush().await,
                () = tokio::time::sleep(wait), if !idle => {}
            }
        }
    }

    async fn deliver(
        &self,
        to: Receiver,
        job: JobId,
        seq: Seq,
        event: Box<shared::event::StatusEvent>,
    ) -> Done {
        let team = match &event.data {
            shared::event::Data::Job(data) => data.subject.team.clone(),
            shared::event::Data::Refused { .. } => shared::id::Team::default(),
        };
        let how = self.0.courier.deliver(&to, team, &event).await;
        Done::Told { to, job, seq, how }
    }

    fn done(&self, done: Done) {
        let (mut desk, now) = (self.desk(), self.now());
        match done {
            Done::Read { job, entry: Some(entry) } => desk.seen(&job, &entry, now),
            Done::Read { job, entry: None } | Done::Unread { job } => desk.absent(&job),
            Done::Told { to, job, seq, how } => match how {
                Delivered::Told => desk.told(&to, &job, seq, now),
                Delivered::Failed(why) => {
                    tracing::warn!(%to, %job, seq = seq.0, why, "could not be told; trying again");
                    if desk.failed(&to, &job, now, self.0.chance.bits()) {
                        tracing::error!(%to, %job, seq = seq.0, "gave up telling of this job after days");
                    }
                }
                Delivered::Gone => {
                    tracing::warn!(%to, "wants to be told nothing any more (410 Gone); it is left alone until the settings change or the agent starts again");
                    desk.gone(&to);
                }
            },
        }
    }

    /// Does what new settings ask for.
    fn follow(&self, before: Arc<Settings>) -> Arc<Settings> {
        let after = self.0.fleet.settings();
        if Arc::ptr_eq(&before, &after) {
            return before;
        }
        let mut desk = self.desk();
        desk.back();
        let wanted = receivers(&after, &[]);
        for to in receivers(&before, &[]).iter().filter(|to| !wanted.contains(to)) {
            desk.forget(to);
        }
        after
    }

    /// Takes notes into memory that are only on disk, while there is room for many.
    async fn load(&self) {
        if !self.0.more.load(Ordering::Relaxed) || self.desk().len() > MOST / 2 {
            return;
        }
        let _disk = self.0.disk.lock().await;
        let load = async {
            for job in self.0.spool.jobs().await? {
                if self.desk().has(&job) {
                    continue;
                }
                if self.desk().len() >= MOST {
                    return Ok(());
                }
                if let Some(note) = self.0.spool.read(&job).await? {
                    self.desk().take(note, self.now());
                }
            }
            self.0.more.store(false, Ordering::Relaxed);
            Ok::<_, std::io::Error>(())
        };
        if let Err(error) = load.await {
            tracing::warn!(%error, "the notes of what is to be told cannot be read; trying again");
        }
    }

    async fn remove(&self, job: &JobId) {
        let _disk = self.0.disk.lock().await;
        if self.desk().has(job) {
            return;
        }
        if let Err(error) = self.0.spool.remove(job).await {
            tracing::warn!(%job, %error, "a note of what has been told cannot be removed");
        }
    }

    /// Writes the notes that have moved on.
    async fn flush(&self) {
        let changed = self.desk().changed();
        for note in changed {
            let _disk = self.0.disk.lock().await;
            let note = self.desk().note(&note.subject.job);
            let Some(note) = note else { continue };
            if let Err(error) = self.0.spool.write(&note).await {
                tracing::warn!(job = %note.subject.job, %error, "the note of what has been told cannot be written");
            }
        }
    }
}

async fn read(log: &Log, job: JobId, seq: Seq) -> Done {
    match log.entry(&job, seq).await {
        Ok(entry) => Done::Read { job, entry },
        Err(error) => {
            tracing::warn!(%job, error = %Chain(&error), "what is to be told cannot be read; looking again later");
            Done::Unread { job }
        }
    }
}

/// Whom the fleet and a job tell.
fn receivers(settings: &Settings, own: &[Webhook]) -> BTreeSet<Receiver> {
    let status = settings.status.then_some(Receiver::Status);
    let webhooks = settings.webhooks.iter().chain(own).cloned().map(Receiver::Webhook);
    status.into_iter().chain(webhooks).collect()
}

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;
