//! This node's own side of its lease (see [`shared::lease`]): whether it may act for its jobs.
//!
//! The fence is *open* while the lease holds, and *closed* from its deadline on until the lease is
//! renewed. Each opening after a closing has an [`Epoch`] of its own. Whoever acts for a job knows
//! the epoch in which the job's log last proved to be this node's; in a later one it must be proved
//! again before anything is started or thawed. While some job has yet to prove that, the next run of the
//! agent must not take the lease for unbroken: it finds the doubt on disk.
//!
//! The deadline is also on disk, for the guard ([`crate::guard`]), which freezes the containers of
//! an agent that cannot. What is in memory is never later than what is there.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shared::{
    clock::Clock,
    fleet::Settings,
    id::{Incarnation, JobId, NodeId},
    lease::{Deadline, FenceFile},
    record,
};
use tokio::sync::Notify;

use crate::node::Node;

/// How long the fence has been open without a break, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(u64);

#[derive(Debug)]
struct State {
    file: FenceFile,
    /// `None` until the first renewal, where an earlier run left no lease that still holds.
    deadline: Option<Deadline>,
    epoch: Epoch,
    /// Jobs that were this node's before the epoch, and whose logs have not proved that they are since.
    doubtful: BTreeSet<JobId>,
}

/// Whether this node may act for its jobs.
pub struct Fence {
    clock: Arc<dyn Clock>,
    earlier: Option<Incarnation>,
    path: Option<PathBuf>,
    state: Mutex<State>,
    /// Wakes in the order of waiting, which `watch` does not: the simulation repeats itself.
    changes: Notify,
}

/// Where the deadline of an agent with this state directory lies.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("fence.json")
}

/// The name of this boot of the machine (`random(4)`); empty where the system does not say.
pub fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The file has always the same size, so that writing it takes no room on a full disk.
const FILE_SIZE: usize = 2048;

impl Fence {
    /// The fence of a node that keeps its deadline below this directory: still open where an
    /// earlier run's lease holds, closed otherwise. Without a directory nobody but this process
    /// knows the deadline.
    pub fn new(
        node: NodeId,
        incarnation: Incarnation,
        fleet: String,
        engine: Option<String>,
        clock: Arc<dyn Clock>,
        state_dir: Option<&Path>,
    ) -> Self {
        let path = state_dir.map(path);
        let file = path.as_deref().and_then(read).filter(|file| file.node == node);
        let earlier = file.as_ref().map(|file| file.incarnation.clone());
        let doubtful = file.as_ref().is_some_and(|file| file.doubtful);
        let boot = boot();
        let deadline = file.filter(|file| !file.is_past(&boot, clock.elapsed())).map(|file| file.deadline());
        let v = FenceFile::VERSION;
        let file = FenceFile { v, boot, deadline_ms: 0, node, incarnation, doubtful, fleet, engine };
        let state = State { file, deadline, epoch: Epoch(0), doubtful: BTreeSet::new() };
        let state = Mutex::new(state);
        Self { clock, earlier, path, state, changes: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run of the agent that last held a lease in this directory.
    pub fn earlier(&self) -> Option<&Incarnation> {
        self.earlier.as_ref()
    }

    /// Takes up these jobs of an earlier run, before the lease is renewed for the first time. Gives the epoch
    /// in which their logs, as read since this run began, prove that they are this node's: none where they
    /// must prove it anew.
    pub fn take_up(&self, jobs: BTreeSet<JobId>) -> Option<Epoch> {
        let proven = self.epoch();
        let mut state = self.state();
        if state.file.doubtful {
            state.doubtful = jobs;
            return None;
        }
        proven
    }

    /// The job's log has proved in this epoch that it is this node's.
    pub fn proved(&self, job: &JobId, epoch: Epoch) {
        let mut state = self.state();
        if state.epoch == epoch {
            state.doubtful.remove(job);
        }
    }

    /// The lease was renewed, by a request that began then, on [`Clock::elapsed`], while this node has
    /// these jobs.
    pub fn renewed(&self, began: Duration, settings: &Settings, held: BTreeSet<JobId>) {
        let deadline = Deadline::after(began, settings);
        let now = self.clock.elapsed();
        let mut state = self.state();
        let lapsed = state.deadline.is_none_or(|before| before.is_past(now));
        if lapsed {
            state.epoch.0 += 1;
            state.doubtful = held;
        } else {
            state.doubtful.retain(|job| held.contains(job));
        }
        state.file.doubtful = !state.doubtful.is_empty();
        state.file.set(deadline);
        if let Some(path) = &self.path
            && let Err(error) = write(path, &state.file)
        {
            // The guard goes by the old deadline, so this process does as well.
            tracing::error!(%error, path = %path.display(), "the lease cannot be noted; jobs will be frozen");
            return;
        }
        state.deadline = Some(deadline);
        drop(state);
        self.changes.notify_waiters();
    }

    /// The present epoch, or `None` while the fence is closed.
    pub fn epoch(&self) -> Option<Epoch> {
        let state = self.state();
        let open = state.deadline.is_some_and(|deadline| !deadline.is_past(self.clock.elapsed()));
        open.then_some(state.epoch)
    }

    /// How long until it closes unless the lease is renewed.
    pub fn time_left(&self) -> Duration {
        let deadline = self.state().deadline;
        deadline.map_or(Duration::ZERO, |deadline| deadline.left(self.clock.elapsed()))
    }

    /// Waits until the fence is open. Safe to drop.
    pub async fn opened(&self) -> Epoch {
        loop {
            let mut change = pin!(self.changes.notified());
            // From now on no change is missed.
            change.as_mut().enable();
            if let Some(epoch) = self.epoch() {
                return epoch;
            }
            change.await;
        }
    }

    /// Waits until the fence has been closed for so long. Safe to drop.
    pub async fn closed_for(&self, time: Duration) {
        loop {
            if let Some(epoch) = self.epoch() {
                self.left(epoch).await;
            }
            if tokio::time::timeout(time, self.opened()).await.is_err() {
                return;
            }
        }
    }

    /// Waits until the fence is closed, or a later epoch than this has begun. Safe to drop.
    pub async fn left(&self, epoch: Epoch) {
        self.ends_within(epoch, Duration::ZERO).await;
    }

    /// Waits until the fence closes so soon unless the lease is renewed, or has closed. Safe to drop.
    pub async fn ends_within(&self, epoch: Epoch, time: Duration) {
        while self.epoch() == Some(epoch) {
            let left = self.time_left();
            if !left.is_zero() && left <= time {
                return;
            }
            let left = left.saturating_sub(time);
            // Timers stand still while the machine sleeps, and the lease does not.
            tokio::time::sleep(left.clamp(Duration::from_millis(10), Duration::from_secs(5))).await;
        }
    }
}

/// Writes in place: a whole page at once, which a reader sees whole or not at all.
fn write(path: &Path, file: &FenceFile) -> std::io::Result<()> {
    let mut body = record::write(file).to_vec();
    body.resize(body.len().max(FILE_SIZE), b' ');
    File::options().create(true).truncate(false).write(true).open(path)?.write_all(&body)
}

/// The deadline on disk, or `None` where there is none that can be read.
pub fn read(path: &Path) -> Option<FenceFile> {
    let body = std::fs::read(path).ok()?;
    match FenceFile::read(&body) {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the deadline on disk cannot be read");
            None
        }
    }
}

/// Keeps new jobs away while the fence is closed, and says so, until it is dropped.
pub async fn watch(node: Arc<Node>) {
    node.ledger.set_isolated(node.fence.epoch().is_none());
    loop {
        let epoch = node.fence.opened().await;
        node.ledger.set_isolated(false);
        node.fence.left(epoch).await;
        if node.fence.epoch().is_none() {
            tracing::warn!("cut off from the store for so long that this node may be replaced");
            node.ledger.set_isolated(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::{clock::SystemClock, units::Span};

    use super::*;

    /// A clock that is set by hand.
    #[derive(Default)]
    struct Hand(Mutex<Duration>);

    impl Hand {
        fn set(&self, seconds: u64) {
            *self.0.lock().expect("no panic") = Duration::from_secs(seconds);
        }
    }

    impl Clock for Hand {
        fn now(&self) -> shared::id::Timestamp {
            SystemClock.now()
        }

        fn elapsed(&self) -> Duration {
            *self.0.lock().expect("no panic")
        }
    }

    fn fence(clock: &Arc<Hand>, dir: &Path, incarnation: &str) -> Fence {
        let node = NodeId::new("n").expect("valid");
        let incarnation = Incarnation::new(incarnation).expect("valid");
        Fence::new(node, incarnation, "file:///f".into(), None, clock.clone(), Some(dir))
    }

    fn none() -> BTreeSet<JobId> {
        BTreeSet::new()
    }

    fn settings() -> Settings {
        let mut settings = Settings::embedded(None);
        (settings.beat, settings.lease) = (Span::secs(15), Span::secs(180));
        settings
    }

    #[test]
    fn each_opening_after_a_closing_is_a_new_epoch() {
        let (clock, dir) = (Arc::new(Hand::default()), tempfile::tempdir().expect("temporary directory"));
        let fence = fence(&clock, dir.path(), "a");
        assert_eq!(fence.epoch(), None, "no lease yet");
        fence.renewed(Duration::ZERO, &settings(), none());
        let first = fence.epoch().expect("open");
        clock.set(149);
        fence.renewed(Duration::from_secs(140), &settings(), none());
        assert_eq!(fence.epoch(), Some(first), "renewed in time");
        clock.set(290);
        assert_eq!(fence.epoch(), None, "150 s after the renewal began");
        fence.renewed(Duration::from_secs(289), &settings(), none());
        assert!(fence.epoch().is_some_and(|epoch| epoch != first));
    }

    #[test]
    fn a_renewal_that_took_too_long_opens_a_new_epoch() {
        let (clock, dir) = (Arc::new(Hand::default()), tempfile::tempdir().expect("temporary directory"));
        let fence = fence(&clock, dir.path(), "a");
        fence.renewed(Duration::ZERO, &settings(), none());
        let first = fence.epoch().expect("open");
        clock.set(151);
        fence.renewed(Duration::from_secs(10), &settings(), none());
        assert!(fence.epoch().is_some_and(|epoch| epoch != first), "it was closed for a second");
    }

    #[test]
    fn the_next_run_goes_on_with_a_lease_that_holds() {
        let (clock, dir) = (Arc::new(Hand::default()), tempfile::tempdir().expect("temporary directory"));
        fence(&clock, dir.path(), "a").renewed(Duration::ZERO, &settings(), none());
        clock.set(100);
        assert!(fence(&clock, dir.path(), "b").epoch().is_some());
        clock.set(150);
        assert_eq!(fence(&clock, dir.path(), "b").epoch(), None);
    }

    #[test]
    fn the_next_run_does_not_trust_a_lease_that_had_lapsed_under_a_job() {
        let (clock, dir) = (Arc::new(Hand::default()), tempfile::tempdir().expect("temporary directory"));
        let job = JobId::new("j").expect("valid");
        let jobs = || BTreeSet::from([job.clone()]);
        let first = fence(&clock, dir.path(), "a");
        first.renewed(Duration::ZERO, &settings(), none());
        clock.set(151);
        first.renewed(Duration::from_secs(151), &settings(), jobs());
        // It crashes, and so does the next.
        let second = fence(&clock, dir.path(), "b");
        assert!(second.epoch().is_some(), "the lease holds");
        assert_eq!(second.take_up(jobs()), None);
        second.renewed(Duration::from_secs(151), &settings(), jobs());
        let third = fence(&clock, dir.path(), "c");
        assert_eq!(third.take_up(jobs()), None);
        third.proved(&job, third.epoch().expect("open"));
        third.renewed(Duration::from_secs(151), &settings(), jobs());
        let fourth = fence(&clock, dir.path(), "d");
        assert_eq!(fourth.take_up(jobs()), fourth.epoch());
    }
}
