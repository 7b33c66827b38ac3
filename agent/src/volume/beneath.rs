//! A path below a directory: links are followed, and nothing leads out of it.
//!
//! One step after the other, with a handle on each, as `openat2(2)` does it with `RESOLVE_BENEATH`. That call itself is
//! closed to a service with `RestrictSUIDSGID=`, as ours is: systemd's filter cannot see what mode it would give a file.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, fstat, openat, readlinkat},
    io::Errno,
};

/// How many links may be followed, as by the kernel.
const MOST_LINKS: usize = 40;

/// The real path of `below`. `XDEV` where it leads out of `root`, `LOOP` where it has no end.
pub(crate) fn beneath(root: &Path, below: &str) -> Result<PathBuf, Errno> {
    let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut way = vec![openat(CWD, root, dir, Mode::empty())?];
    let mut rest = steps(Path::new(below))?;
    let mut links = 0;
    while let Some(step) = rest.pop_front() {
        if step == ".." {
            way.pop();
            if way.is_empty() {
                return Err(Errno::XDEV);
            }
            continue;
        }
        let here = way.last().ok_or(Errno::XDEV)?;
        let next = openat(here, &step, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        match FileType::from_raw_mode(fstat(&next)?.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = readlinkat(&next, "", Vec::new())?;
                let mut first = steps(Path::new(OsStr::from_bytes(target.as_bytes())))?;
                first.append(&mut rest);
                rest = first;
            }
            // Asked for as a directory, since that mounts what is an automount.
            FileType::Directory => way.push(openat(here, &step, dir | OFlags::NOFOLLOW, Mode::empty())?),
            _ => way.push(next),
        }
    }
    let found = way.last().ok_or(Errno::XDEV)?;
    std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))
        .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
}

/// Its steps; none of them is `/`.
fn steps(path: &Path) -> Result<VecDeque<OsString>, Errno> {
    let mut steps = VecDeque::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(_) | Component::ParentDir => steps.push_back(component.as_os_str().to_owned()),
            Component::RootDir | Component::Prefix(_) => return Err(Errno::XDEV),
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_as_far_as_they_stay_inside() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let root = dir.path().canonicalize().expect("there");
        std::fs::create_dir_all(root.join("a/b")).expect("made");
        std::fs::write(root.join("a/file"), "").expect("written");
        for (target, link) in
            [("a", "to-a"), ("../to-a/b", "a/around"), ("loop", "loop"), ("../..", "a/up"), ("/etc", "a/etc")]
        {
            symlink(target, root.join(link)).expect("made");
        }
        let found = |below: &str| beneath(&root, below);
        for (below, real) in [
            (".", ""),
            ("to-a", "a"),
            ("to-a/./b/../file", "a/file"),
            ("a/around", "a/b"),
            ("to-a/around/..", "a"),
        ] {
            assert_eq!(found(below), Ok(root.join(real).components().collect()), "{below}");
        }
        for (below, error) in [
            ("..", Errno::XDEV),
            ("a/../..", Errno::XDEV),
            ("to-a/up", Errno::XDEV),
            ("a/etc", Errno::XDEV),
            ("a/etc/passwd", Errno::XDEV),
            ("/etc", Errno::XDEV),
            ("loop", Errno::LOOP),
            ("a/none", Errno::NOENT),
            ("a/file/x", Errno::NOTDIR),
        ] {
            assert_eq!(found(below), Err(error), "{below}");
        }
    }
}
