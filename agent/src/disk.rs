//! Room on a disk.

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use rustix::fs::StatVfs;
use shared::units::Size;

use crate::volume::Threads;

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

/// The engine's disk, as it was last looked at: on a thread of its own, since it may be on a mount that hangs.
#[derive(Debug, Default)]
pub struct EngineDisk {
    threads: Threads,
    last: Mutex<Option<Disk>>,
}

impl EngineDisk {
    /// Looks.
    pub async fn look(&self, root: &Path) -> Option<Disk> {
        let path = root.to_owned();
        let found = self.threads.run(move || Ok(Disk::at(&path))).await.ok().flatten();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = found;
        found
    }

    /// As it was when last looked at.
    pub fn last(&self) -> Option<Disk> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
}
