//! What the kernel says of a container that was killed.
//!
//! containerd hears of a kill for lack of memory through a file of the container's cgroup, and on
//! a busy host the cgroup is often gone before it looks (one in seven with Docker 20.10 on cgroup
//! v1). The kernel's log has it in any case, and names the cgroup, of which the container's id is
//! a part (`dump_oom_victim`, `oom-kill:constraint=…`, since Linux 5.0). Only root may read it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
};

use rustix::fs::OFlags;

/// A record is never longer (`Documentation/ABI/testing/dev-kmsg`).
const RECORD: usize = 8192;

/// Whether the kernel killed a process of this container for lack of memory, as far as it can be
/// told. `id` is the engine's full id.
pub(super) async fn was_killed(id: &str) -> bool {
    let owned = id.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let log = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg");
        log.and_then(|log| search(log, &owned))
    });
    match read.await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::debug!(%error, "cannot look into the kernel's log for a kill for lack of memory");
            false
        }
        Err(_) => false,
    }
}

/// Reads the log, one record each time, until there is no more of it.
fn search(mut log: File, id: &str) -> io::Result<bool> {
    let mut record = [0; RECORD];
    loop {
        match log.read(&mut record) {
            Ok(0) => return Ok(false),
            Ok(length) if is_kill_of(&String::from_utf8_lossy(&record[..length]), id) => return Ok(true),
            // EPIPE: a record was overwritten while it was read.
            Ok(_) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::Interrupted) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        }
    }
}

/// A job chooses its program's name, which stands in the record after the cgroups.
fn is_kill_of(record: &str, id: &str) -> bool {
    let Some((_, kill)) = record.split_once("oom-kill:constraint=") else { return false };
    !id.is_empty() && kill.split(",task=").next().is_some_and(|cgroups| cgroups.contains(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_known_by_the_cgroup() {
        // Linux 6.18, cgroupfs driver; and the same under systemd's.
        let record = "4,1842,5312341,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=8c1f,\
                      mems_allowed=0,oom_memcg=/haul/8c1f,task_memcg=/haul/8c1f,task=tail 77aa,pid=7120,uid=0\n";
        assert!(is_kill_of(record, "8c1f"));
        assert!(is_kill_of(&record.replace("/haul/8c1f", "/haul.slice/docker-8c1f.scope"), "8c1f"));
        assert!(!is_kill_of(record, "77aa"), "only a program's name");
        assert!(!is_kill_of(record, ""));
        assert!(!is_kill_of(
            "4,1843,5312342,-;Memory cgroup out of memory: Killed process 7120 (8c1f)",
            "8c1f"
        ));
    }
}
