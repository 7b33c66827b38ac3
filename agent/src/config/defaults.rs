//! What holds where nobody said anything.

use std::path::PathBuf;

use etcetera::BaseStrategy;
use sha2::{Digest, Sha256};
use shared::{id::NodeId, units::Size};
use url::Url;

/// The user's data directory (XDG Base Directory Specification).
pub(super) fn data_dir() -> PathBuf {
    etcetera::choose_base_strategy()
        .map_or_else(|_| PathBuf::from("/var/lib"), |base| base.data_dir())
        .join("haul")
}

/// A directory of the user's: the embedded fleet.
pub fn default_fleet() -> Url {
    Url::from_directory_path(data_dir().join("fleet")).expect("the data directory is absolute")
}

/// systemd's `StateDirectory=`, or a directory of the user's.
pub(super) fn state_dir() -> PathBuf {
    std::env::var_os("STATE_DIRECTORY").map_or_else(|| data_dir().join("agent"), PathBuf::from)
}

/// systemd's `LoadCredential=` directory, or else that of packages, where there is one. The packaged unit does not load
/// the one into the other: systemd before 251, such as of Ubuntu 22.04, takes no directory and would not start it.
pub(super) fn secrets_dir() -> Option<PathBuf> {
    let packaged = || Some(PathBuf::from("/etc/haul/secrets")).filter(|dir| dir.is_dir());
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from).or_else(packaged)
}

/// The host's name and some of the hash of its machine id (`machine-id(5)`, which asks not to
/// show the id itself), so that two hosts named `localhost` differ.
pub(super) fn node() -> NodeId {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name: String =
        name.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).take(48).collect();
    let name = if name.is_empty() { "node".to_owned() } else { name };
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let hash: String = match id.trim() {
        "" | "uninitialized" => String::new(),
        id => Sha256::digest(format!("haul:{id}"))
            .iter()
            .take(3)
            .fold("-".to_owned(), |text, byte| format!("{text}{byte:02x}")),
    };
    NodeId::new(format!("{}{hash}", name.trim_start_matches(['-', '.'])))
        .unwrap_or_else(|_| NodeId::new("node").expect("a valid name"))
}

/// All CPU cores and all memory of the host, within this process's own limits.
pub(super) fn capacity() -> (f64, Size) {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = sysinfo::System::new().map_or(0, |mut system| {
        system.refresh_memory();
        system.cgroup_limits().map_or(system.total_memory(), |limits| limits.total_memory)
    });
    #[expect(clippy::cast_precision_loss, reason = "no host has 2^52 cores")]
    (cpus as f64, Size(memory))
}
