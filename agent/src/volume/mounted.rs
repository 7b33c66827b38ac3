//! What the kernel says is mounted where (`proc(5)`, `mountinfo`).

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
};

use crate::config::MountKind;

/// Whether something of a wanted kind is mounted at an open directory itself.
pub(super) fn at(dir: impl AsFd, wanted: &MountKind) -> Result<(), String> {
    let path = real(dir)?;
    match holding(&mounts()?, &path) {
        Some(mount) if mount.point == path => mount.allowed_by(wanted),
        Some(_) | None => Err(format!("nothing is mounted at {}", path.display())),
    }
}

/// Whether an open directory is on a mount of a wanted kind; what is anything, the root of all is not.
pub(super) fn above(dir: impl AsFd, wanted: &MountKind) -> Result<(), String> {
    match holding(&mounts()?, &real(dir)?) {
        Some(mount) if mount.point != Path::new("/") => mount.allowed_by(wanted),
        Some(root) if !matches!(wanted, MountKind::Any(_)) && wanted.allows(&root.kind) => Ok(()),
        Some(_) | None => Err("nothing is mounted there or above it".into()),
    }
}

/// A file system, where it is mounted.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    kind: String,
}

impl Mount {
    fn allowed_by(&self, wanted: &MountKind) -> Result<(), String> {
        let Self { point, kind } = self;
        if wanted.allows(kind) {
            Ok(())
        } else {
            let (point, wanted) = (point.display(), wanted.names());
            Err(format!("a file system of type {kind} is mounted at {point}, not {wanted}"))
        }
    }
}

/// Asked for only once a directory has been opened: an automount is mounted by that.
fn mounts() -> Result<String, String> {
    fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())
}

/// Where it is, with all links followed.
fn real(dir: impl AsFd) -> Result<PathBuf, String> {
    let link = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
    fs::read_link(link).map_err(|error| error.to_string())
}

/// What a path is on. Of several on top of each other the last is seen.
fn holding(mounts: &str, path: &Path) -> Option<Mount> {
    let mount = |line: &str| {
        let (place, source) = line.split_once(" - ")?;
        let point = unescaped(place.split(' ').nth(4)?).into();
        Some(Mount { point, kind: source.split(' ').next()?.to_owned() })
    };
    let above = mounts.lines().filter_map(mount).filter(|mount| path.starts_with(&mount.point));
    above.max_by_key(|mount| mount.point.components().count())
}

/// A path as the kernel lists it, with blanks as `\040`.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, char)| text.replace(code, char))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rstest::rstest;

    use super::*;

    const MOUNTS: &str = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 22 0:35 / /mnt/data rw,relatime shared:1 - autofs systemd-1 rw,fd=40
41 40 0:36 / /mnt/data ro,relatime shared:2 - nfs4 10.0.0.1:/data ro,vers=4.2
42 22 0:37 / /mnt/my\\040data rw - fuse.s3fs s3fs rw
";

    #[rstest]
    #[case("/mnt/data", "/mnt/data", "nfs4")]
    #[case("/mnt/data/outputs/j", "/mnt/data", "nfs4")]
    #[case("/mnt/my data/x", "/mnt/my data", "fuse.s3fs")]
    #[case("/mnt/database", "/", "ext4")]
    #[case("/", "/", "ext4")]
    fn a_path_is_on_the_nearest_mount(#[case] path: &str, #[case] point: &str, #[case] kind: &str) {
        let expected = Mount { point: point.into(), kind: kind.into() };
        assert_eq!(holding(MOUNTS, Path::new(path)), Some(expected));
    }

    #[rstest]
    #[case("/proc", MountKind::Any(true), None, None)]
    #[case("/proc", MountKind::One("proc".into()), None, None)]
    #[case("/proc/self/fd", MountKind::OneOf(vec!["nfs4".into(), "proc".into()]), Some("nothing is mounted at"), None)]
    #[case("/proc", MountKind::One("nfs4".into()), Some("a file system of type proc is mounted at /proc, not nfs4"), Some("a file system of type proc is mounted at /proc, not nfs4"))]
    #[case("/", MountKind::Any(true), None, Some("nothing is mounted there or above it"))]
    #[case("/", MountKind::One("nfs4".into()), Some("a file system of type"), Some("nothing is mounted there or above it"))]
    fn what_is_mounted_is_of_the_wanted_kind(
        #[case] path: &str,
        #[case] wanted: MountKind,
        #[case] at_it: Option<&str>,
        #[case] above_it: Option<&str>,
    ) {
        let dir = File::open(path).expect("a directory");
        for (found, problem) in [(at(&dir, &wanted), at_it), (above(&dir, &wanted), above_it)] {
            match (found, problem) {
                (Ok(()), None) => {}
                (Err(said), Some(problem)) => assert!(said.starts_with(problem), "{said}"),
                (found, problem) => panic!("{found:?} instead of {problem:?}"),
            }
        }
    }
}
