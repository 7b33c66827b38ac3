//! Whether a volume is as its operator wants it. Each call here may hang for as long as a server is away.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, StatxFlags, fstatvfs, statx},
    io::Errno,
};

use crate::{
    config::{MountKind, VolumeConfig},
    disk::Disk,
};

/// Looks, and says what is wrong.
pub fn look(config: &VolumeConfig) -> Result<(), String> {
    let root = open(&config.path)?;
    if let Some(wanted) = config.mount.as_ref().filter(|kind| kind.is_wanted()) {
        // Only now: an automount is mounted by the look.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
        is_mounted(&mounts, &real(&root)?, wanted)?;
    }
    has_room(config, &root)
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

/// Where it is, with all links followed.
fn real(root: &OwnedFd) -> Result<PathBuf, String> {
    std::fs::read_link(format!("/proc/self/fd/{}", root.as_raw_fd())).map_err(|error| error.to_string())
}

/// Whether something of a wanted kind is mounted at the path, by what the kernel lists (`proc(5)`, `mountinfo`).
/// Of several on top of each other the last is seen.
fn is_mounted(mounts: &str, path: &Path, wanted: &MountKind) -> Result<(), String> {
    let at = |line: &&str| line.split(' ').nth(4).map(unescaped).as_deref() == path.to_str();
    let Some(line) = mounts.lines().rfind(at) else {
        return Err(format!("nothing is mounted at {}", path.display()));
    };
    let kind = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default();
    if wanted.allows(kind) {
        Ok(())
    } else {
        Err(format!("a file system of type {kind} is mounted at {}, not {}", path.display(), wanted.names()))
    }
}

/// A path as the kernel lists it, with blanks as `\040`.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, char)| text.replace(code, char))
}

fn has_room(config: &VolumeConfig, root: impl AsFd) -> Result<(), String> {
    if config.min_free.is_none() && config.min_free_inodes.is_none() {
        return Ok(());
    }
    let disk = Disk::of(&fstatvfs(root).map_err(told)?);
    if let Some(mark) = config.min_free
        && disk.free < mark.of(disk.size)
    {
        return Err(format!("it has {} free, less than {mark}", disk.free.human()));
    }
    match config.min_free_inodes {
        // Some file systems do not count them.
        Some(least) if disk.inodes > 0 && disk.inodes_free < least => {
            Err(format!("it has {} inodes free, less than {least}", disk.inodes_free))
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::config::Mark;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 22 0:35 / /mnt/data rw,relatime shared:1 - autofs systemd-1 rw,fd=40
41 40 0:36 / /mnt/data ro,relatime shared:2 - nfs4 10.0.0.1:/data ro,vers=4.2
42 22 0:37 / /mnt/my\\040data rw - fuse.s3fs s3fs rw
";

    #[rstest]
    #[case("/mnt/data", MountKind::Any(true), None)]
    #[case("/mnt/data", MountKind::One("nfs4".into()), None)]
    #[case("/mnt/my data", MountKind::OneOf(vec!["nfs4".into(), "fuse".into()]), None)]
    #[case("/mnt/my data", MountKind::One("nfs4".into()), Some("a file system of type fuse.s3fs is mounted at /mnt/my data, not nfs4"))]
    #[case("/mnt/other", MountKind::Any(true), Some("nothing is mounted at /mnt/other"))]
    fn what_is_mounted_is_of_the_wanted_kind(
        #[case] path: &str,
        #[case] wanted: MountKind,
        #[case] problem: Option<&str>,
    ) {
        assert_eq!(is_mounted(MOUNTS, Path::new(path), &wanted).err().as_deref(), problem);
    }

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
}
