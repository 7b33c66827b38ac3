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
    config::{Mark, MountKind},
    disk::Disk,
    volume::{Threads, look_above},
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
    mount: Option<MountKind>,
    threads: Option<Threads>,
}

impl Outputs {
    /// Results below this directory, which must be on such a mount.
    pub fn new(root: PathBuf, mount: Option<MountKind>) -> Self {
        let mount = mount.filter(MountKind::is_wanted);
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
        let (made, outputs) = (dirs.clone(), self.clone());
        let run = threads.run(move || {
            outputs.is_on_mount().map_err(|why| cannot(&outputs.root, &why))?;
            for dir in [&made.output, &made.checkpoint] {
                let built = fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
                let open = built.and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(0o1777)));
                open.map_err(|e| format!("the output directory {} cannot be made: {e}", dir.display()))?;
            }
            Ok(())
        });
        run.await?;
        Ok(dirs)
    }

    /// Whether results can be left there.
    ///
    /// # Errors
    /// What is wrong, with the path.
    pub async fn check(&self, least: Option<Mark>) -> Result<(), String> {
        let Some(threads) = &self.threads else { return Ok(()) };
        let (root, outputs) = (self.root.clone(), self.clone());
        let checked = threads.run(move || {
            outputs.is_on_mount()?;
            fs::create_dir_all(&root).map_err(|error| error.to_string())?;
            match (least, Disk::at(&root)) {
                (Some(least), Some(disk)) if disk.free < least.of(disk.size) => {
                    let (free, size) = (disk.free.human(), disk.size.human());
                    Err(format!("it has {free} of {size} free, less than {least}"))
                }
                _ => Ok(()),
            }
        });
        checked.await.map_err(|why| cannot(&self.root, &why))
    }

    /// Looked at before anything is made: what is made while nothing is mounted would be on the host's own disk.
    fn is_on_mount(&self) -> Result<(), String> {
        self.mount.as_ref().map_or(Ok(()), |wanted| look_above(&self.root, wanted))
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

fn cannot(root: &Path, why: &str) -> String {
    format!("jobs cannot leave results in {}: {why}", root.display())
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
        let root = tempfile::tempdir().expect("temporary directory");
        let wanted = Some(MountKind::One("nfs4".into()));
        let outputs = Outputs::new(root.path().join("outputs"), wanted);
        let job = JobId::new("j").expect("valid");
        for error in [outputs.check(None).await, outputs.make(&job, Attempt(1)).await.map(drop)] {
            let error = error.expect_err("refused");
            assert!(error.contains("/outputs: ") && error.contains("mounted"), "{error}");
        }
        assert_eq!(fs::read_dir(root.path()).expect("there").count(), 0);
        let root = root.path().join("outputs");
        Outputs::new(root, Some(MountKind::Any(false))).check(None).await.expect("will do");
    }
}
