//! Ending all of a frozen container before it is thawed.
//!
//! Under version 1 of control groups what is frozen dies of a SIGKILL only once it is thawed. An engine that removes a
//! frozen container kills its first process and thaws it, and until that one has ended and taken the others along, they
//! run. A job may be running elsewhere by then. A process that has been killed itself does nothing any more.

use crate::gpu::{Place, kill_in, place_of};

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
