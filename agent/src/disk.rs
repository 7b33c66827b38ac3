//! Room on disks.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rustix::fs::StatVfs;
use shared::units::Size;

use crate::{config::Mark, engine::EngineInfo, volume::Threads};

/// How much room the agent's own state needs, and by default results, at most: on a large disk that people share, a
/// part of it may be very much.
const ROOM_ENOUGH: Size = Size::GIB;

/// With so many inodes free, all goes on: a job's container takes some tens, a large image tens of thousands.
const INODES_ENOUGH: u64 = 10_000;

/// A file system, as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// All that programs may use of it.
    pub size: Size,
    /// What of that is free.
    pub free: Size,
    /// How many inodes it has, of which each file takes one; 0 where they are not counted, as on btrfs.
    pub inodes: u64,
    /// How many of those are free.
    pub inodes_free: u64,
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
        Self {
            size: size(stat.f_blocks.saturating_sub(kept)),
            free: size(stat.f_bavail),
            inodes: stat.f_files,
            inodes_free: stat.f_favail,
        }
    }

    /// With how few inodes free no job is taken.
    fn least_inodes(self) -> u64 {
        (self.inodes / 100).clamp(1, INODES_ENOUGH)
    }

    /// Whether it has fewer inodes free than so many times those without which no job is taken. Where they are not
    /// counted it never has.
    pub fn lacks_inodes(self, times: u64) -> bool {
        self.inodes > 0 && self.inodes_free < self.least_inodes() * times
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
    /// What jobs leave in the place for results.
    Outputs,
}

impl Use {
    /// As metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Engine => "engine",
            Self::State => "state",
            Self::Outputs => "outputs",
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

impl Used {
    /// What it has too little of for another job, by `disk_floor` and `outputs_min_free`. A floor of nothing asks for
    /// no inodes either.
    pub fn lack(&self, floor: Mark, results: Option<Mark>) -> Option<String> {
        let Self { by, path, disk, .. } = self;
        let (whose, mend) = match by {
            Use::Images => ("the engine's disk", "remove images (docker image prune)"),
            Use::Engine => ("the engine's disk", "make room (docker system df)"),
            Use::State => ("the disk of the agent's state", "make room"),
            Use::Outputs => ("the disk of jobs' results", "make room"),
        };
        let (floor, setting) = match by {
            Use::Images | Use::Engine | Use::State => (floor, "lower disk_floor"),
            Use::Outputs => (results.unwrap_or(floor), "set outputs_min_free"),
        };
        let all = floor.of(disk.size);
        let least = match by {
            Use::Images | Use::Engine => all,
            Use::State => all.min(ROOM_ENOUGH),
            // As the place of results is looked at for itself: `Outputs::check`.
            Use::Outputs if results.is_some() => Size(0),
            // A gateway to an object store may have no size, and a small disk is not full for good.
            Use::Outputs => all.min(ROOM_ENOUGH).min(Size(disk.size.bytes() / 10)),
        };
        if disk.free < least {
            return Some(format!(
                "{whose} at {} has {} of {} free, less than {}; {mend} or {setting}",
                path.display(),
                disk.free.human(),
                disk.size.human(),
                if least < all { least.human() } else { floor.to_string() }
            ));
        }
        let is_off = matches!(floor, Mark::Percent(0) | Mark::Room(Size(0)));
        (!is_off && disk.lacks_inodes(1)).then(|| {
            format!(
                "{whose} at {} has {} of {} inodes free, fewer than {}; {mend}: each file takes one (du --inodes)",
                path.display(),
                disk.inodes_free,
                disk.inodes,
                disk.least_inodes()
            )
        })
    }
}

/// The disks that haul fills, as they were last looked at: on threads of their own, since each may be on a mount that
/// hangs.
#[derive(Debug, Default)]
pub struct Disks {
    threads: [Threads; 4],
    last: Mutex<Vec<Used>>,
}

impl Disks {
    /// Looks at where the engine keeps things, at the state directory and at the place of results. Each disk comes
    /// once; one that is not there for this process, or does not answer, not at all.
    pub async fn look(&self, engine: &EngineInfo, state_dir: &Path, outputs_dir: &Path) -> Vec<Used> {
        let in_containerd = engine.images_in_containerd;
        let places = [
            (Use::Images, &*engine.root),
            (Use::Engine, &*engine.root),
            (Use::State, state_dir),
            (Use::Outputs, outputs_dir),
        ];
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
    use rstest::rstest;

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
        let uses = async |root: &str, state: &str, outputs: &str| {
            let found = disks.look(&engine(root), Path::new(state), Path::new(outputs)).await;
            assert_eq!(found, disks.last());
            found.into_iter().map(|used| used.by).collect::<Vec<_>>()
        };
        assert_eq!(uses("/", "/", "/").await, [Use::Images]);
        assert_eq!(uses("/no/such/place", "/", "/").await, [Use::State]);
        assert_eq!(uses("/", "/proc", "/proc").await, [Use::Images, Use::State]);
        assert_eq!(uses("/", "/", "/proc").await, [Use::Images, Use::Outputs]);
    }

    const GIB: u64 = Size::GIB.0;

    #[rstest]
    #[case(Use::Images, (100 * GIB, 5 * GIB), (0, 0), None)]
    #[case(Use::Images, (100 * GIB, 4 * GIB), (6_400_000, 0), Some("the engine's disk at /d has 4.0 GiB of 100.0 GiB free, less than 5%; remove images (docker image prune) or lower disk_floor"))]
    #[case(Use::State, (100 * GIB, GIB), (6_400_000, 10_000), None)]
    #[case(Use::State, (100 * GIB, GIB / 2), (0, 0), Some("the disk of the agent's state at /d has 512.0 MiB of 100.0 GiB free, less than 1.0 GiB; make room or lower disk_floor"))]
    #[case(Use::State, (100 * GIB, GIB), (6_400_000, 9999), Some("the disk of the agent's state at /d has 9999 of 6400000 inodes free, fewer than 10000; make room: each file takes one (du --inodes)"))]
    #[case(Use::Engine, (GIB, GIB), (65_536, 655), None)]
    #[case(Use::Engine, (GIB, GIB), (65_536, 654), Some("the engine's disk at /d has 654 of 65536 inodes free, fewer than 655; make room (docker system df): each file takes one (du --inodes)"))]
    #[case(Use::Engine, (GIB, GIB), (50, 0), Some("the engine's disk at /d has 0 of 50 inodes free, fewer than 1; make room (docker system df): each file takes one (du --inodes)"))]
    #[case(Use::Outputs, (100 * GIB, GIB), (0, 0), None)]
    #[case(Use::Outputs, (0, 0), (0, 0), None)]
    #[case(Use::Outputs, (10 * GIB, 0), (0, 0), Some("the disk of jobs' results at /d has 0 B of 10.0 GiB free, less than 5%; make room or set outputs_min_free"))]
    fn a_disk_that_lacks_room_or_inodes_takes_no_job(
        #[case] by: Use,
        #[case] (size, free): (u64, u64),
        #[case] (inodes, inodes_free): (u64, u64),
        #[case] lack: Option<&str>,
    ) {
        let disk = Disk { size: Size(size), free: Size(free), inodes, inodes_free };
        let used = Used { by, path: "/d".into(), device: 1, disk };
        assert_eq!(used.lack(Mark::Percent(5), None).as_deref(), lack);
        assert_eq!(used.lack(Mark::Percent(0), None), None, "switched off");
    }

    #[test]
    fn what_results_need_is_what_their_setting_says() {
        let lack = |floor: Mark, results: Mark, inodes_free| {
            let disk = Disk { size: Size(100), free: Size(0), inodes: 200, inodes_free };
            let used = Used { by: Use::Outputs, path: "/d".into(), device: 1, disk };
            used.lack(floor, Some(results)).is_some()
        };
        assert!(!lack(Mark::Percent(5), Mark::Percent(1), 2), "the look at their place says it");
        assert!(lack(Mark::Percent(0), Mark::Percent(1), 1), "inodes are looked at all the same");
        assert!(!lack(Mark::Percent(5), Mark::Percent(0), 0), "switched off");
    }

    #[test]
    fn a_floor_in_bytes_that_is_meant_for_images_leaves_small_disks_of_results_in_use() {
        let lack = |size, free| {
            let disk = Disk { size: Size(size), free: Size(free), inodes: 0, inodes_free: 0 };
            let used = Used { by: Use::Outputs, path: "/d".into(), device: 1, disk };
            used.lack(Mark::Room(Size(20 * GIB)), None).is_some()
        };
        assert_eq!([lack(0, 0), lack(5 * GIB, GIB / 2), lack(5 * GIB, GIB / 2 - 1)], [false, false, true]);
        assert_eq!([lack(100 * GIB, GIB), lack(100 * GIB, GIB - 1)], [false, true]);
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
