//! Where jobs leave their results: directories of the host, kept after the job.
//!
//! ```text
//! <outputs>/<job>/attempt-<k>/   HAUL_OUTPUT_DIR of attempt k
//! <outputs>/<job>/checkpoint/    HAUL_CHECKPOINT_DIR, the same for every attempt
//! <outputs>/<job>/latest         a link to the attempt that succeeded
//! ```
//!
//! On an NFS mount that all hosts share, a job that is tried again elsewhere finds its
//! checkpoints there.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use shared::id::{Attempt, JobId};

use crate::{
    config::{Mark, MountKind, VolumeConfig},
    disk::Disk,
    volume::{Threads, look},
};

/// Where the directories of an attempt are, on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptDirs {
    /// Of this attempt.
    pub output: PathBuf,
    /// Of all attempts.
    pub checkpoint: PathBuf,
}

/// The directory below which all jobs' results lie.
#[derive(Debug, Clone)]
pub struct Outputs {
    root: PathBuf,
    mount: Option<VolumeConfig>,
    threads: Option<Threads>,
}

impl Outputs {
    /// Results below this directory, and only while something is mounted there, if that is given.
    pub fn new(root: PathBuf, mount: Option<PathBuf>) -> Self {
        let any = Some(MountKind::Any(true));
        let mount = mount.map(|path| VolumeConfig { path, mount: any, ..VolumeConfig::default() });
        Self { root, mount, threads: Some(Threads::default()) }
    }

    /// Results nowhere: for a simulated host, which has no file system.
    pub fn nowhere() -> Self {
        Self { root: PathBuf::from("/nowhere"), mount: None, threads: None }
    }

    /// The directories of an attempt.
    pub fn of(&self, job: &JobId, attempt: Attempt) -> AttemptDirs {
        let job = self.root.join(job.as_str());
        AttemptDirs { output: job.join(format!("attempt-{attempt}")), checkpoint: job.join("checkpoint") }
    }

    /// Makes them. Any user may write, since containers run as any user; who may enter is decided
    /// by the directory above.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub async fn make(&self, job: &JobId, attempt: Attempt) -> Result<AttemptDirs, String> {
        let dirs = self.of(job, attempt);
        let Some(threads) = &self.threads else { return Ok(dirs) };
        let outputs = self.clone();
        let run = threads.run(move || {
            outputs.is_mounted()?;
            for dir in [&dirs.output, &dirs.checkpoint] {
                let built = fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
                let open = built.and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(0o1777)));
                open.map_err(|e| format!("{} cannot be made: {e}", dir.display()))?;
            }
            Ok(dirs)
        });
        run.await.map_err(|why| self.cannot(&why))
    }

    /// Whether results can be left there.
    ///
    /// # Errors
    /// What is wrong, with the path.
    pub async fn check(&self, least: Option<Mark>) -> Result<(), String> {
        let Some(threads) = &self.threads else { return Ok(()) };
        let (root, outputs) = (self.root.clone(), self.clone());
        let checked = threads.run(move || {
            outputs.is_mounted()?;
            fs::create_dir_all(&root).map_err(|error| error.to_string())?;
            match (least, Disk::at(&root)) {
                (Some(least), Some(disk)) if disk.free < least.of(disk.size) => {
                    let (free, size) = (disk.free.human(), disk.size.human());
                    Err(format!("it has {free} of {size} free, less than {least}"))
                }
                _ => Ok(()),
            }
        });
        checked.await.map_err(|why| self.cannot(&why))
    }

    /// Looked at before anything is made: what is made while nothing is mounted would be on the host's own disk.
    fn is_mounted(&self) -> Result<(), String> {
        let Some(mount) = &self.mount else { return Ok(()) };
        look(mount).map_err(|why| format!("{} must be mounted: {why}", mount.path.display()))
    }

    fn cannot(&self, why: &str) -> String {
        format!("jobs cannot leave results in {}: {why}", self.root.display())
    }

    /// Lets `latest` point to the attempt that succeeded.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub async fn link_latest(&self, job: &JobId, attempt: Attempt) -> Result<(), String> {
        let Some(threads) = &self.threads else { return Ok(()) };
        let link = self.root.join(job.as_str()).join("latest");
        let run = threads.run(move || {
            let new = link.with_extension("new");
            let linked = remove(&new).and_then(|()| symlink(format!("attempt-{attempt}"), &new));
            let moved = linked.and_then(|()| fs::rename(&new, &link));
            moved.map_err(|e| format!("{} cannot be made: {e}", link.display()))
        });
        run.await
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn attempts_share_checkpoints_and_latest_moves_on() {
        let root = tempfile::tempdir().expect("temporary directory");
        let outputs = Outputs::new(root.path().into(), None);
        let job = JobId::new("j").expect("valid");
        let first = outputs.make(&job, Attempt(1)).await.expect("made");
        let second = outputs.make(&job, Attempt(2)).await.expect("made");
        assert_eq!(first.checkpoint, second.checkpoint);
        assert_ne!(first.output, second.output);
        fs::write(second.output.join("metrics.json"), "{}").expect("written");
        for attempt in [1, 2, 2] {
            outputs.link_latest(&job, Attempt(attempt)).await.expect("linked");
        }
        assert!(root.path().join("j/latest/metrics.json").is_file());
    }

    #[tokio::test]
    async fn nothing_is_made_where_nothing_is_mounted() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let root = dir.path().join("mount/outputs");
        let outputs = Outputs::new(root.clone(), Some(dir.path().join("mount")));
        let job = JobId::new("j").expect("valid");
        for why in ["No such file or directory", "nothing is mounted at"] {
            for error in [outputs.check(None).await, outputs.make(&job, Attempt(1)).await.map(drop)] {
                let error = error.expect_err("refused");
                assert!(error.contains("/mount must be mounted: ") && error.contains(why), "{error}");
            }
            assert!(!root.exists());
            fs::create_dir_all(dir.path().join("mount")).expect("made");
        }
        let mounted = Outputs::new(root.clone(), Some("/proc".into()));
        mounted.check(None).await.expect("something is mounted there");
        assert!(root.exists());
    }
}
