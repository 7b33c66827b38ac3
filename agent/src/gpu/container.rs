//! Which container a process is in, by its control group.

use std::io;

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// Where a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the container of this id.
    Container(String),
    /// In none.
    Host,
    /// It has ended.
    Gone,
}

/// Where a process runs.
pub fn place_of(pid: u32) -> Place {
    match std::fs::read_to_string(format!("/proc/{pid}/cgroup")) {
        Ok(cgroups) => container_in(&cgroups).map_or(Place::Host, Place::Container),
        Err(_) => Place::Gone,
    }
}

/// Kills a process of a container, and says whether it was there: the number may be another's by now.
///
/// # Errors
/// Where this agent may not, or the kernel has no `pidfd_open(2)` (before Linux 5.3).
pub fn kill_in(container: &str, pid: u32) -> io::Result<bool> {
    let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
    // What is looked at next is the process that this stands for, or that one has ended.
    let process = match pidfd_open(raw, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(false),
        opened => opened?,
    };
    if place_of(pid) != Place::Container(container.to_owned()) {
        return Ok(false);
    }
    match pidfd_send_signal(process, Signal::KILL) {
        Err(Errno::SRCH) => Ok(false),
        sent => Ok(sent.map(|()| true)?),
    }
}

/// Engines name a container's group by its 64 hexadecimal digits: `/docker/<id>`,
/// `/haul/<id>`, `/haul.slice/docker-<id>.scope`, `/libpod-<id>.scope`. Of one that is removed while a process ends
/// in it, the kernel writes `/docker/<id> (deleted)`.
fn container_in(cgroups: &str) -> Option<String> {
    let parts = cgroups.split(['/', ' ', '\n']);
    let mut names = parts.map(|part| {
        let name = part.strip_suffix(".scope").unwrap_or(part);
        name.rsplit_once('-').map_or(name, |(_, name)| name)
    });
    let id = names.find(|name| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()))?;
    Some(id.to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("12:memory:/docker/ID\n1:name=systemd:/docker/ID\n", true)]
    #[case("4:devices:/haul/ID\n", true)]
    #[case("0::/haul.slice/docker-ID.scope\n", true)]
    #[case("0::/machine.slice/libpod-ID.scope/container\n", true)]
    #[case("0::/docker/ID (deleted)\n", true)]
    #[case("0::/user.slice/user-1000.slice/session-3.scope\n", false)]
    #[case("", false)]
    fn containers_are_known_by_their_group(#[case] text: &str, #[case] inside: bool) {
        let id = "0123456789abcdef".repeat(4);
        let found = container_in(&text.replace("ID", &id));
        assert_eq!(found, inside.then_some(id));
    }
}
