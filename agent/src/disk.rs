//! Room on disks.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rustix::fs::StatVfs;
use shared::units::Size;

use crate::{engine::EngineInfo, volume::Threads};

/// A file system, as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// All that programs may use of it.
    pub size: Size,
    /// What of that is free.
    pub free: Size,
}

impl Disk {
    /// The one that this path is on; none that is this process's to look at otherwise, such as of an engine in
    /// another file system namespace.
    pub fn at(path: &Path) -> Option<Self> {
        Some(Self::of(&rustix::fs::statvfs(path).ok()?))
    }

    /// As the kernel counts it (`statvfs(3)`).
    pub fn of(stat: &StatVfs) -> Self {
        let size = |blocks: u64| Size(blocks.saturating_mul(stat.f_frsize));
        // What only root may use is nobody's.
        let kept = stat.f_bfree.saturating_sub(stat.f_bavail);
        Self { size: size(stat.f_blocks.saturating_sub(kept)), free: size(stat.f_bavail) }
    }
}

/// What fills a disk of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Images, and what containers write into them.
    Images,
    /// What else the engine keeps, such as what containers print.
    Engine,
    /// The agent's own state: its lease, events on their way, and results where no other place is named.
    State,
}

impl Use {
    /// As metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Engine => "engine",
            Self::State => "state",
        }
    }
}

/// A disk, and what fills it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// The first of its uses, where it has several.
    pub by: Use,
    /// Where.
    pub path: PathBuf,
    /// Its device's number; what is on one device has the same room.
    device: u64,
    /// How full it is.
    pub disk: Disk,
}

/// The disks that haul fills, as they were last looked at: on threads of their own, since each may be on a mount that
/// hangs.
#[derive(Debug, Default)]
pub struct Disks {
    threads: [Threads; 3],
    last: Mutex<Vec<Used>>,
}

impl Disks {
    /// Looks at where the engine keeps things, and at the state directory. Each disk comes once; one that is not there
    /// for this process, or does not answer, not at all.
    pub async fn look(&self, engine: &EngineInfo, state_dir: &Path) -> Vec<Used> {
        let places = [(Use::Images, &*engine.images), (Use::Engine, &*engine.root), (Use::State, state_dir)];
        let looks = self.threads.iter().zip(places).map(|(threads, (by, path))| {
            let path = path.to_owned();
            threads.run(move || used(by, path).ok_or_else(String::new))
        });
        let mut found: Vec<Used> = Vec::new();
        for used in futures::future::join_all(looks).await.into_iter().flatten() {
            if found.iter().all(|other| other.device != used.device) {
                found.push(used);
            }
        }
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&found);
        found
    }

    /// As they were when last looked at.
    pub fn last(&self) -> Vec<Used> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn used(by: Use, path: PathBuf) -> Option<Used> {
    let device = rustix::fs::stat(&path).ok()?.st_dev;
    let disk = Disk::at(&path)?;
    Some(Used { by, path, device, disk })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_more_free_than_there_is() {
        let disk = Disk::at(Path::new("/")).expect("the root is there");
        assert!(disk.free <= disk.size && disk.size > Size(0));
        assert_eq!(Disk::at(Path::new("/no/such/place")), None);
    }
    #[tokio::test]
    async fn what_shares_a_disk_is_told_once_and_what_is_not_there_not_at_all() {
        let engine = |images: &str| EngineInfo {
            name: "Docker",
            version: "1".into(),
            api: "1".into(),
            root: "/".into(),
            images: images.into(),
            systemd_cgroups: false,
            cdi: false,
            live_restore: false,
        };
        let disks = Disks::default();
        let uses = async |images: &str, state: &str| {
            let found = disks.look(&engine(images), Path::new(state)).await;
            assert_eq!(found, disks.last());
            found.into_iter().map(|used| used.by).collect::<Vec<_>>()
        };
        assert_eq!(uses("/", "/").await, [Use::Images]);
        assert_eq!(uses("/no/such/place", "/").await, [Use::Engine]);
        assert_eq!(uses("/", "/proc").await, [Use::Images, Use::State]);
    }
}
