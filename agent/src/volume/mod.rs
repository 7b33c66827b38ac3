//! Volumes: host directories that jobs may mount, never anything outside them.
//!
//! A volume is often an NFS mount, and a server that is gone makes every call on it hang for
//! ever. So volumes are only touched from threads that may be left behind, with a deadline; while
//! some of a volume's threads hang, no more are sent after them.

mod beneath;
mod look;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shared::{
    id::VolumeName,
    lane::{Access, OfferedVolume},
};
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, timeout_at},
};

pub(crate) use self::{beneath::beneath, look::look};
use crate::config::VolumeConfig;

/// How long a volume may take to answer. NFS over a slow link takes tens of milliseconds; one
/// that takes seconds would stall every job on it.
const DEADLINE: Duration = Duration::from_secs(5);

/// A mount that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The host does not offer the volume.
    #[error("this host does not offer volume {0}")]
    Unknown(VolumeName),
    /// The host offers it read-only.
    #[error("this host offers volume {0} read-only")]
    ReadOnly(VolumeName),
    /// The path leads out of the volume, by `..` or by a symbolic link.
    #[error("{path:?} leads outside volume {volume}")]
    Outside {
        /// The volume.
        volume: VolumeName,
        /// The path below it.
        path: String,
    },
    /// The path is not there.
    #[error("volume {volume} has no directory or file {path:?}")]
    NotFound {
        /// The volume.
        volume: VolumeName,
        /// The path below it.
        path: String,
    },
    /// It does not answer, or with an error.
    #[error("volume {volume} at {} is not usable: {why}", path.display())]
    Down {
        /// The volume.
        volume: VolumeName,
        /// Where it is.
        path: PathBuf,
        /// What was found.
        why: String,
    },
}

/// The host's volumes.
#[derive(Debug, Default)]
pub struct Volumes(BTreeMap<VolumeName, Volume>);

#[derive(Debug)]
struct Volume {
    config: VolumeConfig,
    threads: Threads,
}

impl Volumes {
    /// These volumes.
    pub fn new(volumes: BTreeMap<VolumeName, VolumeConfig>) -> Self {
        let volume = |config| Volume { config, threads: Threads::default() };
        Self(volumes.into_iter().map(|(name, config)| (name, volume(config))).collect())
    }

    /// Looks at each volume, and says what is wrong with it.
    pub async fn check(&self) -> BTreeMap<VolumeName, OfferedVolume> {
        let checks = self.0.iter().map(|(name, volume)| async move {
            let access = if volume.config.read_only { Access::Read } else { Access::Write };
            let config = volume.config.clone();
            let problem = volume.threads.run(move || look::look(&config)).await.err();
            (name.clone(), OfferedVolume { access, problem })
        });
        futures::future::join_all(checks).await.into_iter().collect()
    }

    /// The host's path for a mount, with all symbolic links followed, inside the volume.
    ///
    /// # Errors
    /// [`VolumeError`]
    pub async fn resolve(
        &self,
        volume: &VolumeName,
        path: Option<&str>,
        access: Access,
    ) -> Result<PathBuf, VolumeError> {
        let Volume { config, threads } =
            self.0.get(volume).ok_or_else(|| VolumeError::Unknown(volume.clone()))?;
        if config.read_only && access == Access::Write {
            return Err(VolumeError::ReadOnly(volume.clone()));
        }
        let (root, below) = (config.path.clone(), path.unwrap_or(".").to_owned());
        let found = threads.run(move || Ok(beneath::beneath(&root, &below))).await;
        let shown = || path.unwrap_or(".").to_owned();
        match found {
            Ok(Ok(path)) => Ok(path),
            Ok(Err(rustix::io::Errno::XDEV | rustix::io::Errno::LOOP)) => {
                Err(VolumeError::Outside { volume: volume.clone(), path: shown() })
            }
            Ok(Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR)) if path.is_some() => {
                Err(VolumeError::NotFound { volume: volume.clone(), path: shown() })
            }
            Ok(Err(errno)) => Err(down(volume, config, std::io::Error::from(errno).to_string())),
            Err(why) => Err(down(volume, config, why)),
        }
    }
}

fn down(volume: &VolumeName, config: &VolumeConfig, why: String) -> VolumeError {
    VolumeError::Down { volume: volume.clone(), path: config.path.clone(), why }
}

/// How many threads may look at one place at once. Those that hang are counted: no more are sent after as many.
const MOST_THREADS: usize = 4;

/// Threads that look at one place of the file system, and may be left behind there.
#[derive(Debug, Clone)]
pub(crate) struct Threads {
    turns: Arc<Semaphore>,
    /// When each that looks began.
    looking: Arc<Mutex<Vec<(Turn, Instant)>>>,
}

/// One look, among those of its place.
type Turn = u64;

impl Default for Threads {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(MOST_THREADS)), looking: Arc::default() }
    }
}

impl Threads {
    /// Runs it on a thread of its own, when it is its turn, with a deadline. A thread stuck on a dead server is not
    /// counted against the runtime's own, and none of them keeps the process from ending.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let silent = || format!("it did not answer within {} s", DEADLINE.as_secs());
        let deadline = Instant::now() + DEADLINE;
        if self.are_stuck() {
            return Err(silent());
        }
        let turn = timeout_at(deadline, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = turn else { return Err(silent()) };
        let turn = self.begin();
        let (answer, answered) = oneshot::channel();
        let threads = self.clone();
        let thread = std::thread::Builder::new().name("volume".into()).spawn(move || {
            let done = call();
            threads.end(turn);
            drop(permit);
            // Nobody listens any more after the deadline.
            let _ = answer.send(done);
        });
        if let Err(error) = thread {
            self.end(turn);
            return Err(format!("no thread to look at it: {error}"));
        }
        match timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("looking at it failed".into()),
            Err(_) => Err(silent()),
        }
    }

    fn looking(&self) -> MutexGuard<'_, Vec<(Turn, Instant)>> {
        self.looking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether as many as may look have done so for longer than anybody waits.
    fn are_stuck(&self) -> bool {
        self.looking().iter().filter(|(_, began)| began.elapsed() >= DEADLINE).count() >= MOST_THREADS
    }

    fn begin(&self) -> Turn {
        static TURNS: AtomicU64 = AtomicU64::new(0);
        let turn = TURNS.fetch_add(1, Ordering::Relaxed);
        self.looking().push((turn, Instant::now()));
        turn
    }

    fn end(&self, turn: Turn) {
        self.looking().retain(|(other, _)| *other != turn);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn volumes(dir: &Path, read_only: bool) -> (Volumes, VolumeName) {
        let name = VolumeName::new("data").expect("valid");
        let config = VolumeConfig { path: dir.to_owned(), read_only, ..VolumeConfig::default() };
        (Volumes::new(BTreeMap::from([(name.clone(), config)])), name)
    }

    #[tokio::test]
    async fn a_path_inside_is_found_and_one_outside_is_not() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let root = dir.path().canonicalize().expect("there");
        std::fs::create_dir_all(root.join("a/b")).expect("made");
        std::os::unix::fs::symlink("a/b", root.join("inside")).expect("made");
        std::os::unix::fs::symlink("/etc", root.join("absolute")).expect("made");
        std::os::unix::fs::symlink("../..", root.join("up")).expect("made");
        let (volumes, name) = volumes(&root, false);
        let resolve = async |path: Option<&str>| volumes.resolve(&name, path, Access::Write).await;
        assert_eq!(resolve(None).await.expect("inside"), root);
        assert_eq!(resolve(Some("a/b")).await.expect("inside"), root.join("a/b"));
        assert_eq!(resolve(Some("inside")).await.expect("inside"), root.join("a/b"));
        for outside in ["absolute", "absolute/passwd", "up", "..", "a/../../x", "/etc"] {
            let error = resolve(Some(outside)).await.expect_err("outside");
            assert_eq!(error.to_string(), format!("{outside:?} leads outside volume data"));
        }
        let error = resolve(Some("a/c")).await.expect_err("not there");
        assert_eq!(error.to_string(), "volume data has no directory or file \"a/c\"");
    }

    #[tokio::test]
    async fn a_read_only_volume_is_not_given_for_writing() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (volumes, name) = volumes(dir.path(), true);
        let error = volumes.resolve(&name, None, Access::Write).await.expect_err("read-only");
        assert_eq!(error.to_string(), "this host offers volume data read-only");
        volumes.resolve(&name, None, Access::Read).await.expect("may be read");
        let unknown = VolumeName::new("models").expect("valid");
        let error = volumes.resolve(&unknown, None, Access::Read).await.expect_err("unknown");
        assert_eq!(error.to_string(), "this host does not offer volume models");
    }

    /// A call that hangs until the other end is dropped.
    fn hanging() -> (impl Fn() -> Result<(), String> + Clone, std::sync::mpsc::Sender<()>) {
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let hang = move || {
            let _ = held.lock().map(|held| held.recv());
            Ok(())
        };
        (hang, let_go)
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_threads_are_sent_after_those_that_hang() {
        let threads = Threads::default();
        let (hang, let_go) = hanging();
        for _ in 0..MOST_THREADS + 2 {
            let error = threads.run(hang.clone()).await.expect_err("hangs");
            assert_eq!(error, "it did not answer within 5 s");
            assert!(threads.looking().len() <= MOST_THREADS);
        }
        assert!(threads.are_stuck(), "nobody waits for those");
        drop(let_go);
        tokio::time::resume();
        while !threads.looking().is_empty() {
            tokio::task::yield_now().await;
        }
        threads.run(|| Ok(())).await.expect("answers again");
    }

    #[tokio::test]
    async fn many_that_look_at_once_take_turns() {
        let threads = Threads::default();
        let (hang, let_go) = hanging();
        let first = futures::future::join_all((0..MOST_THREADS).map(|_| threads.run(hang.clone())));
        let more = futures::future::join_all((0..20).map(|_| threads.run(|| Ok(()))));
        let let_go = async {
            while threads.looking().len() < MOST_THREADS {
                tokio::task::yield_now().await;
            }
            drop(let_go);
        };
        let (first, more, ()) = futures::join!(first, more, let_go);
        assert!(first.into_iter().chain(more).all(|done| done == Ok(())));
    }

    #[tokio::test]
    async fn a_volume_that_is_gone_is_a_problem_until_it_is_back() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("mount");
        let (volumes, name) = volumes(&path, false);
        let problem = async || volumes.check().await[&name].problem.clone();
        assert_eq!(problem().await.as_deref(), Some("No such file or directory (os error 2)"));
        std::fs::create_dir(&path).expect("made");
        assert_eq!(problem().await, None);
    }
}
