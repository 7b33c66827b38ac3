//! Links to device nodes by their numbers, so that a container's devices stay its own.
//!
//! Under systemd's driver for control groups, runc tells systemd what devices a container may open, as
//! `/dev/char/MAJOR:MINOR`, and up to version 1.1.6 leaves out those for which that link is not there. udev makes the
//! links, and does not know NVIDIA's nodes. At the next `systemctl daemon-reload`, which an upgrade of any package
//! brings, systemd sets what it was told, and a container without such a link loses its GPUs while it computes.

use std::{
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, symlink},
    path::{Path, PathBuf},
};

/// Makes the links that are missing. A host that does not let it, or whose engine is elsewhere, goes on without.
pub(super) fn link(nodes: &[PathBuf]) {
    for node in nodes {
        if let Err(error) = link_in(Path::new("/dev/char"), node) {
            tracing::debug!(node = %node.display(), %error, "no link to the device by its number");
        }
    }
}

fn link_in(dir: &Path, node: &Path) -> io::Result<()> {
    let found = std::fs::metadata(node)?;
    if !found.file_type().is_char_device() {
        return Ok(());
    }
    let (major, minor) = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
    std::fs::create_dir_all(dir)?;
    match symlink(node, dir.join(format!("{major}:{minor}"))) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_its_number() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let links = dir.path().join("char");
        for _ in 0..2 {
            link_in(&links, Path::new("/dev/null")).expect("made");
        }
        assert_eq!(std::fs::read_link(links.join("1:3")).expect("a link"), Path::new("/dev/null"));
        link_in(&links, dir.path()).expect("no device");
        assert_eq!(std::fs::read_dir(&links).expect("a directory").count(), 1);
        link_in(&links, Path::new("/dev/none")).expect_err("not there");
    }
}
