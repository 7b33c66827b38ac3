//! Whether a volume is as its operator wants it. Each call here may hang for as long as a server is away.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, StatxFlags, fstatvfs, statx},
    io::Errno,
};

use super::mounted;
use crate::{
    config::{MountKind, VolumeConfig},
    disk::Disk,
};

/// Looks, and says what is wrong.
pub fn look(config: &VolumeConfig) -> Result<(), String> {
    let root = open(&config.path)?;
    if let Some(wanted) = config.mount.as_ref().filter(|kind| kind.is_wanted()) {
        mounted::at(&root, wanted)?;
    }
    has_room(config, &root)
}

/// Looks whether a directory is on a mount of a wanted kind, or will be once it is made.
pub fn look_above(dir: &Path, wanted: &MountKind) -> Result<(), String> {
    let made = dir.ancestors().find(|dir| !matches!(dir.try_exists(), Ok(false))).unwrap_or(dir);
    mounted::above(open(made)?, wanted)
}

/// The directory itself, of which the server is asked, not what the kernel remembers of it.
fn open(path: &Path) -> Result<OwnedFd, String> {
    let root = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.map_err(told)?;
    let now = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    statx(&root, "", now, StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::MTIME).map_err(told)?;
    Ok(root)
}

fn told(errno: Errno) -> String {
    let why = io::Error::from(errno);
    match errno {
        Errno::STALE => {
            format!("{why}: the server no longer knows what was mounted; unmount it and mount it again")
        }
        Errno::NOTCONN => {
            format!("{why}: the file system's own process has ended; unmount it and mount it again")
        }
        _ => why.to_string(),
    }
}

fn has_room(config: &VolumeConfig, root: impl AsFd) -> Result<(), String> {
    if config.min_free.is_none() && config.min_free_inodes.is_none() {
        return Ok(());
    }
    let stat = fstatvfs(root).map_err(told)?;
    let disk = Disk::of(&stat);
    if let Some(mark) = config.min_free
        && disk.free < mark.of(disk.size)
    {
        return Err(format!("it has {} free, less than {mark}", disk.free.human()));
    }
    match config.min_free_inodes {
        // Some file systems do not count them.
        Some(least) if stat.f_files > 0 && stat.f_favail < least => {
            Err(format!("it has {} inodes free, less than {least}", stat.f_favail))
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mark;

    #[test]
    fn room_and_inodes_are_looked_at() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = VolumeConfig { path: dir.path().to_owned(), ..VolumeConfig::default() };
        assert_eq!(look(&config), Ok(()));
        let error = look(&VolumeConfig { mount: Some(MountKind::Any(true)), ..config.clone() });
        assert!(error.expect_err("refused").starts_with("nothing is mounted at"));
        let error = look(&VolumeConfig { min_free: Some(Mark::Percent(100)), ..config.clone() });
        assert!(error.expect_err("refused").ends_with("free, less than 100%"));
        let error = look(&VolumeConfig { min_free_inodes: Some(u64::MAX), ..config });
        assert!(error.expect_err("refused").contains("inodes free, less than"));
    }

    #[test]
    fn what_is_yet_to_be_made_is_looked_for_above() {
        let any = MountKind::Any(true);
        assert_eq!(look_above(Path::new("/proc/none/such"), &any), Ok(()));
        let error = look_above(Path::new("/none/such"), &any).expect_err("nothing is mounted");
        assert_eq!(error, "nothing is mounted there or above it");
    }
}
