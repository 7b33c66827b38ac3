//! Reading ahead what a job will read (`prefetch` of a mount), before it has its GPUs: behind a caching gateway the
//! first read is slow, and GPUs that wait for it are paid for.
//!
//! What has been read ahead is remembered for some hours; a gateway forgets as well. [`read`] does the reading, on
//! threads that may be left behind on a server that hangs. As long as any of them are, no more are sent to that volume: a
//! gateway that cannot reach its origin still answers as a volume must, and each job would leave as many again.

mod read;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use read::Reading;
use shared::{
    clock::Clock,
    id::{JobId, VolumeName},
    job::JobSpec,
    lane::Access,
    node::Prefetching,
};

use crate::{node::Node, volume::VolumeError};

/// For how long what was read is taken to be in the gateway's cache.
const WARM: Duration = Duration::from_secs(6 * 3600);

/// And for how long one that failed is not tried again: the server may be back.
const FAILED: Duration = Duration::from_secs(600);

/// For how many jobs is read at once. Readers of several jobs would only share one link.
const AT_ONCE: usize = 2;

/// A reading that has come no further for so long hangs.
const STALLED: Duration = Duration::from_secs(60);

/// How long threads of a reading that was stopped may take to notice it. Those that take longer hang.
const NOTICE: Duration = Duration::from_secs(5);

/// How often it is looked how far it is.
const LOOK: Duration = Duration::from_secs(1);

/// What is read ahead: below a path of a volume, the files that fit the patterns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    volume: VolumeName,
    path: Option<String>,
    patterns: Vec<String>,
}

fn wanted(spec: &JobSpec) -> Vec<Wanted> {
    let mounts = spec.mounts.iter().filter(|mount| !mount.prefetch.is_empty());
    let wanted = mounts.map(|mount| Wanted {
        volume: mount.volume.clone(),
        path: mount.path.clone(),
        patterns: mount.prefetch.clone(),
    });
    wanted.collect()
}

/// A job whose data is being read.
#[derive(Debug)]
struct Job {
    /// The image that it will need then.
    image: String,
    readings: Vec<Arc<Reading>>,
}

#[derive(Debug, Default)]
struct State {
    /// Until when it need not be read again, by the clock that never goes back.
    warm: BTreeMap<Wanted, Duration>,
    running: BTreeMap<JobId, Job>,
    /// What was begun on volumes and has threads: those that hang outlive their job.
    begun: Vec<(VolumeName, Arc<Reading>)>,
}

/// What is left on a volume of readings that were stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    threads: usize,
    /// Since when the first of them should have ended.
    since: Duration,
}

/// What is, and has been, read ahead on this host.
#[derive(Debug, Default)]
pub struct Prefetches(Mutex<State>);

/// Whether a job's data must be read ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// There is nothing to read, or it has been read.
    Nothing,
    /// It must.
    Read,
    /// It must, and this host reads for as many others as it may.
    Busy,
}

impl Prefetches {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this job's data must be read ahead, at this time. Where it must it counts among those whose data is
    /// being read, until [`run`] has ended or is dropped.
    pub fn begin(&self, job: &JobId, spec: &JobSpec, now: Duration) -> Need {
        let wanted = wanted(spec);
        if wanted.is_empty() {
            return Need::Nothing;
        }
        let mut state = self.state();
        state.warm.retain(|_, until| *until > now);
        if wanted.iter().all(|one| state.warm.contains_key(one)) {
            return Need::Nothing;
        }
        if state.running.contains_key(job) || state.running.len() >= AT_ONCE {
            return Need::Busy;
        }
        state.running.insert(job.clone(), Job { image: spec.image.clone(), readings: Vec::new() });
        Need::Read
    }

    /// The images that jobs will need whose data is being read.
    pub fn images(&self) -> Vec<String> {
        self.state().running.values().map(|job| job.image.clone()).collect()
    }

    /// Whether anything is being read.
    pub fn is_busy(&self) -> bool {
        !self.state().running.is_empty()
    }

    fn keep(&self, job: &JobId, volume: &VolumeName, reading: &Arc<Reading>) {
        let mut state = self.state();
        state.begun.push((volume.clone(), reading.clone()));
        if let Some(job) = state.running.get_mut(job) {
            job.readings.push(reading.clone());
        }
    }

    fn end(&self, job: &JobId, now: Duration) {
        let job = self.state().running.remove(job);
        job.iter().flat_map(|job| &job.readings).for_each(|reading| reading.stop(now));
    }

    fn left_on(&self, volume: &VolumeName) -> Option<Left> {
        let mut state = self.state();
        state.begun.retain(|(_, reading)| !reading.is_over());
        let here = state.begun.iter().filter(|(on, _)| on == volume);
        let left = here.filter_map(|(_, one)| Some(Left { threads: one.threads(), since: one.stopped()? }));
        left.reduce(|sum, one| Left { threads: sum.threads + one.threads, since: sum.since.min(one.since) })
    }

    /// Waits until the volume is clear of readings that were stopped, as it soon is where its server answers.
    async fn clear(&self, volume: &VolumeName, clock: &dyn Clock) -> Result<(), String> {
        while let Some(Left { threads, since }) = self.left_on(volume) {
            if clock.elapsed().saturating_sub(since) >= NOTICE {
                return Err(format!(
                    "{threads} threads of an earlier reading hang on it, and no more are sent there until they are back"
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// How far it is, by job.
    pub fn progress(&self) -> BTreeMap<JobId, Prefetching> {
        let sum = |job: &Job| {
            job.readings.iter().fold(Prefetching::default(), |sum, reading| sum.and(&reading.progress()))
        };
        self.state().running.iter().map(|(id, job)| (id.clone(), sum(job))).collect()
    }
}

/// A job whose data is read ahead, for as long as this lives.
struct Running<'n> {
    node: &'n Node,
    job: &'n JobId,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.node.prefetches.end(self.job, self.node.clock.elapsed());
    }
}

/// Reads ahead what the job wants, which has begun, until all of it is read, or it cannot be: that keeps no job from
/// running. Safe to drop, which ends the reading.
pub async fn run(node: &Node, job: &JobId, spec: &JobSpec) {
    let running = Running { node, job };
    for one in wanted(spec) {
        let holds = match read(node, job, &one).await {
            Ok(Prefetching { files_done, bytes_done, .. }) => {
                tracing::info!(volume = %one.volume, files = files_done, bytes = %bytes_done.human(), "read ahead");
                WARM
            }
            Err(why) => {
                tracing::warn!(volume = %one.volume, why, "not all could be read ahead; the job goes on");
                FAILED
            }
        };
        node.prefetches.state().warm.insert(one, node.clock.elapsed() + holds);
    }
    drop(running);
}

async fn read(node: &Node, job: &JobId, wanted: &Wanted) -> Result<Prefetching, String> {
    let root: Result<PathBuf, VolumeError> =
        node.volumes.resolve(&wanted.volume, wanted.path.as_deref(), Access::Read).await;
    let root = root.map_err(|error| error.to_string())?;
    node.prefetches.clear(&wanted.volume, &*node.clock).await?;
    let reading = Reading::start(root, &wanted.patterns)?;
    node.prefetches.keep(job, &wanted.volume, &reading);
    let (mut before, mut still) = (reading.steps(), Duration::ZERO);
    while !reading.is_over() {
        tokio::time::sleep(LOOK).await;
        let now = reading.steps();
        still = if now == before { still + LOOK } else { Duration::ZERO };
        if still >= STALLED {
            reading.stop(node.clock.elapsed().saturating_sub(still));
            return Err(format!("it came no further for {} s", STALLED.as_secs()));
        }
        before = now;
    }
    match reading.failed() {
        None => Ok(reading.progress()),
        Some(why) => Err(why),
    }
}

#[cfg(test)]
mod tests {
    use shared::{
        clock::SystemClock,
        job::{Format, parse},
    };

    use super::*;

    #[test]
    fn what_was_read_is_not_read_again_for_some_hours() {
        let spec = |prefetch: &str| {
            let text = format!(
                "image = \"i\"\n[[mounts]]\nvolume = \"data\"\ntarget = \"/data\"\nprefetch = [{prefetch}]"
            );
            parse(&text, Format::Toml).expect("valid")
        };
        let (id, at) = (|name| JobId::new(name).expect("valid"), Duration::from_secs);
        let prefetches = Prefetches::default();
        assert_eq!(prefetches.begin(&id("a"), &spec(""), at(0)), Need::Nothing);
        let images = spec("\"train/**\"");
        prefetches.state().warm.insert(wanted(&images)[0].clone(), at(10));
        assert_eq!(prefetches.begin(&id("a"), &images, at(9)), Need::Nothing);
        assert_eq!(prefetches.begin(&id("a"), &images, at(10)), Need::Read);
        assert!(prefetches.state().warm.is_empty(), "what holds no more is forgotten");
        assert_eq!(prefetches.begin(&id("a"), &images, at(10)), Need::Busy, "for this very job");
        assert_eq!(prefetches.begin(&id("b"), &spec("\"test/**\""), at(0)), Need::Read);
        assert_eq!(prefetches.begin(&id("c"), &images, at(10)), Need::Busy, "as many as may be");
        assert_eq!(prefetches.images(), ["i", "i"]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_threads_are_sent_to_a_volume_that_holds_those_of_an_earlier_reading() {
        let (id, volume) = (JobId::new("a").expect("valid"), |name| VolumeName::new(name).expect("valid"));
        let (data, other, at) = (volume("data"), volume("other"), Duration::from_secs);
        let prefetches = Prefetches::default();
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let begin = |job: &JobId| {
            let reading = Arc::new(Reading::default());
            for _ in 0..2 {
                let held = held.clone();
                reading.spawn(move |_| drop(held.lock().map(|held| held.recv())));
            }
            let running = Job { image: "i".into(), readings: Vec::new() };
            prefetches.state().running.insert(job.clone(), running);
            prefetches.keep(job, &data, &reading);
            reading
        };
        let first = begin(&id);
        assert_eq!(prefetches.left_on(&data), None, "it is still wanted");
        first.stop(at(3));
        prefetches.end(&id, at(60));
        assert_eq!(
            prefetches.left_on(&data),
            Some(Left { threads: 2, since: at(3) }),
            "the first time counts"
        );
        let second = begin(&id);
        prefetches.end(&id, at(1));
        assert_eq!(prefetches.left_on(&data), Some(Left { threads: 4, since: at(1) }));
        let error = prefetches.clear(&data, &SystemClock).await.expect_err("refused");
        assert!(error.starts_with("4 threads of an earlier reading hang on it"), "{error}");
        assert_eq!(prefetches.clear(&other, &SystemClock).await, Ok(()));

        // One that was stopped just now is waited for.
        let third = begin(&id);
        drop(let_go);
        for reading in [first, second] {
            while !reading.is_over() {
                std::thread::yield_now();
            }
        }
        prefetches.end(&id, SystemClock.elapsed());
        assert_eq!(prefetches.clear(&data, &SystemClock).await, Ok(()));
        assert!(third.is_over() && prefetches.state().begun.is_empty(), "what is back is forgotten");
    }
}
