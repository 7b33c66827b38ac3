//! An NFS server of a test's own, in userspace, which can be made to hang.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{engine::signal, eventually, machine};

/// A server that runs, with one export: `/data`.
pub struct Nfs {
    process: Child,
    port: u16,
    _dir: TempDir,
}

impl Nfs {
    /// Serves a directory.
    ///
    /// # Panics
    /// When it does not start: it needs root, as file handles do.
    pub fn start(data: &Path) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        for name in ["data", "recovery"] {
            std::fs::create_dir(dir.path().join(name)).expect("made");
        }
        // Freed again at once: another process could take it, but ports are given out in turn.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        std::fs::write(dir.path().join("conf"), configuration(port)).expect("written");
        // In its distribution's tree, with what it serves and writes mounted there, for itself alone.
        let script = "set -e; mount --bind \"$1\" \"$3/srv\"; mount --bind \"$2\" \"$3/srv/data\"; \
            mount -t proc proc \"$3/proc\"; mount --bind /dev \"$3/dev\"; \
            exec chroot \"$3\" /usr/bin/ganesha.nfsd -F -f /srv/conf -L /srv/log -p /srv/pid";
        let mut serve = Command::new("setpriv");
        serve.args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "sh", "-c", script, "serve"]);
        serve.arg(dir.path()).arg(data).arg(machine::tools());
        let process = serve.stdin(Stdio::null()).spawn().expect("starts");
        let server = Self { process, port, _dir: dir };
        eventually("the NFS server listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
        server
    }

    /// Its port, of TCP, at the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops it: nothing is refused, nothing is answered.
    pub fn hang(&self) {
        signal(self.process.id(), Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        signal(self.process.id(), Signal::CONT);
    }
}

impl Drop for Nfs {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// As NFS-Ganesha reads it: version 4 and nothing beside it, no grace period, owners by number, and a second for which
/// it goes by its memory of a file.
fn configuration(port: u16) -> String {
    format!(
        "NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = {port}; Bind_addr = 127.0.0.1; Enable_NLM = false;\n\
         Enable_RQUOTA = false; Enable_UDP = false; mount_path_pseudo = true; allow_set_io_flusher_fail = true; }}\n\
         NFSV4 {{ Graceless = true; Lease_Lifetime = 10; RecoveryBackend = fs; RecoveryRoot = \"/srv/recovery\";\n\
         Only_Numeric_Owners = true; }}\n\
         EXPORT {{ Export_Id = 1; Path = /srv/data; Pseudo = /data; SecType = sys; Squash = no_root_squash;\n\
         Access_Type = RW; Protocols = 4; Transports = TCP; Attr_Expiration_Time = 1; FSAL {{ Name = VFS; }} }}\n"
    )
}
