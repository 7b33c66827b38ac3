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
        let in_containerd = engine.images_in_containerd;
        let places = [(Use::Images, &*engine.root), (Use::Engine, &*engine.root), (Use::State, state_dir)];
        let looks = self.threads.iter().zip(places).map(|(threads, (by, path))| {
            let path = path.to_owned();
            threads.run(move || {
                let path =
                    if by == Use::Images && in_containerd { of_images(path, CONTAINERD) } else { path };
                Ok(used(by, path))
            })
        });
        let mut found: Vec<Used> = Vec::new();
        for used in futures::future::join_all(looks).await.into_iter().flatten().flatten() {
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

/// Where a containerd of the system's keeps all that it has, unless its configuration says otherwise.
const CONTAINERD: &str = "/var/lib/containerd";

/// Where images are that are in a containerd: in one of Docker's own below Docker's root, else in the system's. Of one
/// that is elsewhere nothing is known, and Docker's root stands for it.
fn of_images(root: PathBuf, system: &str) -> PathBuf {
    let holds_images = Path::new(system).join("io.containerd.content.v1.content").exists();
    if holds_images && !root.join("containerd/daemon").exists() { system.into() } else { root }
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
        let engine = |root: &str| EngineInfo {
            name: "Docker",
            version: "1".into(),
            api: "1".into(),
            root: root.into(),
            images_in_containerd: false,
            systemd_cgroups: false,
            cdi: false,
            live_restore: false,
        };
        let disks = Disks::default();
        let uses = async |root: &str, state: &str| {
            let found = disks.look(&engine(root), Path::new(state)).await;
            assert_eq!(found, disks.last());
            found.into_iter().map(|used| used.by).collect::<Vec<_>>()
        };
        assert_eq!(uses("/", "/").await, [Use::Images]);
        assert_eq!(uses("/no/such/place", "/").await, [Use::State]);
        assert_eq!(uses("/", "/proc").await, [Use::Images, Use::State]);
    }

    #[test]
    fn images_in_containerd_are_where_its_contents_are() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (root, system) = (dir.path().join("docker"), dir.path().join("containerd"));
        let found = || of_images(root.clone(), system.to_str().expect("text"));
        std::fs::create_dir_all(&system).expect("made");
        assert_eq!(found(), root, "the system's is idle, or elsewhere");
        std::fs::create_dir(system.join("io.containerd.content.v1.content")).expect("made");
        assert_eq!(found(), system);
        std::fs::create_dir_all(root.join("containerd/daemon")).expect("made");
        assert_eq!(found(), root, "Docker has one of its own");
    }
}
