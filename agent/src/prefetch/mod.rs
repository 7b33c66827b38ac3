//! Reading ahead what a job will read (`prefetch` of a mount), before it has its GPUs: behind a caching gateway the
//! first read is slow, and GPUs that wait for it are paid for.
//!
//! What has been read ahead is remembered for some hours; a gateway forgets as well. [`read`] does the reading, on
//! threads that may be left behind on a server that hangs.

mod read;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use read::Reading;
use shared::{
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
        let job = self.node.prefetches.state().running.remove(self.job);
        job.iter().flat_map(|job| &job.readings).for_each(|reading| reading.stop());
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
    let reading = Reading::start(root.map_err(|error| error.to_string())?, &wanted.patterns)?;
    if let Some(job) = node.prefetches.state().running.get_mut(job) {
        job.readings.push(reading.clone());
    }
    let (mut before, mut still) = (reading.steps(), Duration::ZERO);
    while !reading.is_over() {
        tokio::time::sleep(LOOK).await;
        let now = reading.steps();
        still = if now == before { still + LOOK } else { Duration::ZERO };
        if still >= STALLED {
            reading.stop();
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
    use shared::job::{Format, parse};

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
}
