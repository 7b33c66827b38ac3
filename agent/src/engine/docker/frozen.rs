//! What the kernel says of frozen containers, where the engine does not know.
//!
//! Under version 1 of control groups what is frozen dies of a SIGKILL only once it is thawed. An engine that removes a
//! frozen container kills its first process and thaws it, and until that one has ended and taken the others along, they
//! run. A job may be running elsewhere by then. A process that has been killed itself does nothing any more.
//!
//! Under version 2 a process that waits in the kernel, as for an NFS server, is frozen only when that is over, before it
//! does anything else. runc gives up after 10 s and leaves the group's switch where it is; the engine then takes the
//! container for one that runs, and can neither freeze it (runc: it is not running) nor thaw it (the engine: it is not
//! paused). So the switch itself is looked at, and thrown (`cgroup.freeze` in the kernel's
//! admin-guide/cgroup-v2.rst).

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::gpu::{Place, kill_in, place_of};

/// Where version 2 is mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// The host's own mounts, for an agent for which the groups are mounted read-only (`ProtectControlGroups=`).
const OF_HOST: &str = "/proc/1/root";

/// Kills every process of a container, as far as they are on this host.
pub(super) fn kill_all(container: &str) {
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids.filter(|pid| place_of(*pid) == Place::Container(container.to_owned())) {
        if let Err(error) = kill_in(container, pid) {
            tracing::warn!(container, pid, %error, "a process may run on for a moment when it is thawed to end");
        }
    }
}

/// Whether a container's processes are frozen, or are as soon as they have waited, by its first process.
pub(super) fn is_frozen(container: &str, pid: u32) -> bool {
    let switch = switch(container, pid);
    switch.and_then(|switch| std::fs::read_to_string(switch).ok()).is_some_and(|on| on.trim() == "1")
}

/// Lets them go on.
pub(super) fn thaw(container: &str, pid: u32) -> io::Result<()> {
    let Some(switch) = switch(container, pid) else { return Ok(()) };
    match std::fs::write(&switch, "0") {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            let below = switch.strip_prefix("/").unwrap_or(&switch);
            std::fs::write(Path::new(OF_HOST).join(below), "0")
        }
        done => done,
    }
}

fn switch(container: &str, pid: u32) -> Option<PathBuf> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    Some(Path::new(GROUPS).join(group_of(container, &groups)?).join("cgroup.freeze"))
}

/// The group of a container under version 2, of which a process may be in one below (`cgroups(7)`).
fn group_of<'g>(container: &str, groups: &'g str) -> Option<&'g str> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let name = path.split('/').find(|name| name.contains(container))?;
    let end = path.find(name)? + name.len();
    Some(&path[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_the_container_s_own() {
        for (groups, expected) in [
            ("0::/haul.slice/docker-abc.scope\n", Some("haul.slice/docker-abc.scope")),
            ("0::/docker/abc/init.scope\n", Some("docker/abc")),
            ("12:freezer:/docker/abc\n0::/\n", None),
            ("0::/docker/def\n", None),
        ] {
            assert_eq!(group_of("abc", groups), expected, "{groups}");
        }
    }
}
