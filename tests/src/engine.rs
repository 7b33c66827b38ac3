//! The container engine, by its own command line: what the tests see must not come from haul.

use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{eventually, world::root};

/// The engine's command line for this address, the machine's own without.
pub fn docker(address: Option<&str>) -> Command {
    let mut command = Command::new("docker");
    command.env_remove("DOCKER_HOST").stdin(Stdio::null());
    if let Some(address) = address {
        command.env("DOCKER_HOST", address);
    }
    command
}

/// What the engine's command line prints.
///
/// # Panics
/// When it fails.
pub fn ask(address: Option<&str>, args: &[&str]) -> String {
    let output = docker(address).args(args).output().expect("docker starts");
    assert!(output.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The names of a fleet's containers, in any state.
pub fn containers(address: Option<&str>, fleet: &str) -> Vec<String> {
    let filter = format!("label=haul.fleet={fleet}");
    let mut list = docker(address);
    list.args(["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"]);
    let Ok(output) = list.output() else { return Vec::new() };
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// A value of the container of a job, by a template (`{{.State.Pid}}`).
///
/// # Panics
/// When the job has not one container.
pub fn container(address: Option<&str>, job: &str, template: &str) -> String {
    let list = ask(address, &["ps", "--all", "--quiet", "--filter", &format!("label=haul.job={job}")]);
    let ids: Vec<&str> = list.lines().collect();
    assert_eq!(ids.len(), 1, "containers of {job}");
    ask(address, &["inspect", "--format", template, ids[0]]).trim().to_owned()
}

/// Removes containers.
pub fn remove(address: Option<&str>, names: &[String]) {
    if !names.is_empty() {
        let mut remove = docker(address);
        // The engine may be gone already, and its containers with it.
        let _ = remove.args(["rm", "--force", "--volumes"]).args(names).output();
    }
}

/// An engine of a test's own, in its own network namespace, that can be stopped and started.
pub struct Engine {
    dir: TempDir,
    /// What starts it, before the options that all have.
    daemon: Vec<PathBuf>,
    process: Option<Child>,
}

impl Engine {
    /// Starts one, with the images that the machine's own engine has under these names.
    pub fn start(images: &[&str]) -> Self {
        Self::start_with(images, &[])
    }

    /// Starts one that finds these shell scripts, by name and text, on its path.
    pub fn start_with(images: &[&str], programs: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        Self { dir, daemon: vec!["dockerd".into()], process: None }.begin(images, programs)
    }

    /// Starts one that is newer than the machine's, without NVIDIA's hook, that finds this specification of devices
    /// (Container Device Interface).
    pub fn with_devices(images: &[&str], specification: &Value) -> Self {
        let tree = root().join(".cache/engines/newer");
        assert!(tree.is_dir(), "{} is not there; run: tests/engines/build", tree.display());
        let dir = tempfile::tempdir().expect("temporary directory");
        let (devices, config) = (dir.path().join("cdi"), dir.path().join("daemon.json"));
        std::fs::create_dir(&devices).expect("made");
        std::fs::write(devices.join("devices.json"), specification.to_string()).expect("written");
        let wanted = json!({ "features": { "cdi": true }, "cdi-spec-dirs": [devices] });
        std::fs::write(&config, wanted.to_string()).expect("written");
        let daemon = vec![root().join("tests/engines/dockerd"), "--config-file".into(), config];
        Self { dir, daemon, process: None }.begin(images, &[])
    }

    fn begin(mut self, images: &[&str], programs: &[(&str, &str)]) -> Self {
        std::fs::create_dir(self.path("bin")).expect("made");
        for (name, text) in programs {
            let path = self.path("bin").join(name);
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("set");
        }
        self.up();
        for image in images {
            let mut save =
                docker(None).args(["save", image]).stdout(Stdio::piped()).spawn().expect("docker starts");
            let saved = save.stdout.take().expect("piped");
            let mut load = docker(Some(&self.address()));
            let loaded = load.args(["load", "-q"]).stdin(saved).output().expect("docker starts");
            assert!(loaded.status.success() && save.wait().expect("ends").success());
        }
        self
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts it, and waits until it answers.
    pub fn up(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.path("log")).expect("opened");
        let mut dockerd = Command::new("unshare");
        dockerd.arg("--net").args(&self.daemon);
        dockerd.args(["--bridge", "none", "--iptables=false", "-H", &self.address()]);
        for (flag, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            dockerd.arg(flag).arg(self.path(name));
        }
        let path = std::env::var("PATH").unwrap_or_default();
        dockerd.env("PATH", format!("{}:{path}", self.path("bin").display()));
        let process = dockerd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.process = Some(process.expect("dockerd starts"));
        let address = self.address();
        eventually("the engine answers", || {
            let asked = docker(Some(&address)).args(["version"]).output().expect("docker starts");
            asked.status.success().then_some(())
        });
    }

    /// Stops it in order, as a package upgrade does: its containers are stopped.
    pub fn down(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        signal(process.id(), rustix::process::Signal::TERM);
        process.wait().expect("dockerd ends");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.down();
        // What a container had mounted is not always let go of.
        for place in ["exec/netns/default", "data/overlay2", "data"] {
            let _ = Command::new("umount").args(["-q", "-l"]).arg(self.path(place)).output();
        }
    }
}

/// Sends a signal to a process.
///
/// # Panics
/// When it is gone.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, signal).expect("the process is there");
}
