//! Hosts that are containers: systemd as the first process, with an engine, a disk and a network of its own.
//!
//! What `tests/hosts/build` makes. It shares with the tests' machine only the kernel, its clock, and directories that
//! it is given.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::process::Signal;

use super::{LIBRARY, Machine};
use crate::{
    Done, PATIENCE,
    engine::{ask, docker, signal},
    eventually,
    nvml::library,
    within,
    world::BUSYBOX,
};

/// What `tests/hosts/build` makes.
const IMAGE: &str = "haul/host:1";

/// By which `tests/run` finds what a test that was killed has left.
const LABEL: &str = "haul.hosts";

/// What a container needs to be a host. Not all capabilities, since not every machine has all to give.
const LIKE_A_HOST: &[&str] = &[
    "--cap-add=ALL",
    "--cap-drop=SYS_RESOURCE",
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--security-opt=systempaths=unconfined",
    "--cgroupns=private",
    "--device=/dev/fuse",
    // The driver's: nobody answers behind them, but they may be opened.
    "--device-cgroup-rule=c 195:* rwm",
    "--tmpfs=/run",
    "--tmpfs=/run/lock",
    "--tmpfs=/tmp:exec",
    "--memory=4g",
];

/// The disk of its engine, which cannot be on top of the layers of the container's own.
pub const DISK: &str = "/var/lib/docker";

/// A host, which is removed when it is dropped.
pub struct Container {
    name: String,
    container: String,
}

impl Container {
    /// Starts one of this name with two GPUs, and these directories of the test as its own.
    ///
    /// # Panics
    /// When it does not boot.
    pub fn start(name: &str, shared: &[(&Path, &str)]) -> Self {
        Self::start_with(name, shared, &format!("--volume={DISK}"))
    }

    /// Likewise, where this flag gives its engine a disk.
    ///
    /// # Panics
    /// When it does not boot.
    pub fn start_with(name: &str, shared: &[(&Path, &str)], disk: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let container = format!("haul-host-{}-{number}-{name}", std::process::id());
        let machine = Self { name: name.to_owned(), container };
        let mounts: Vec<String> =
            shared.iter().map(|(from, to)| format!("--volume={}:{to}", from.display())).collect();
        let named = ["create", "--label", LABEL, "--name", &machine.container, "--hostname", name];
        let mut args = [&named, LIKE_A_HOST, &[disk]].concat();
        args.extend(mounts.iter().map(String::as_str));
        args.push(IMAGE);
        ask(None, &args);
        ask(
            None,
            &["cp", "-L", library().to_str().expect("text"), &format!("{}:{LIBRARY}", machine.container)],
        );
        machine.put_gpus();
        machine.power_on();
        machine.load(BUSYBOX);
        machine
    }

    /// A command in it, ready to start.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = docker(None);
        command.args(["exec", "-i", &self.container]).args(args);
        command
    }

    /// Loads an image of the machine's engine into its own.
    ///
    /// # Panics
    /// When it cannot.
    pub fn load(&self, image: &str) {
        let mut save =
            docker(None).args(["save", image]).stdout(Stdio::piped()).spawn().expect("docker starts");
        let mut load = self.command(&["docker", "load", "-q"]);
        let loaded = load.stdin(save.stdout.take().expect("piped")).output().expect("docker starts");
        assert!(loaded.status.success() && save.wait().expect("ends").success(), "{loaded:?}");
    }

    /// Takes its power: no process gets a word in, and its disk stays.
    pub fn power_off(&self) {
        if let Some(init) = self.init() {
            signal(init, Signal::KILL);
        }
        eventually("it is off", || {
            self.thaw();
            (!self.is_on()).then_some(())
        });
    }

    /// Gives it power, and waits until systemd has started everything.
    ///
    /// # Panics
    /// When it does not boot.
    pub fn power_on(&self) {
        ask(None, &["start", &self.container]);
        self.until_booted(PATIENCE);
    }

    /// Goes down in order, and stays off.
    pub fn shut_down(&self) {
        // The answer may be cut short by the end.
        let _ = self.run("systemctl poweroff");
        within(Duration::from_secs(120), "it has gone down", || (!self.is_on()).then_some(()));
    }

    /// Whether it has power.
    pub fn is_on(&self) -> bool {
        self.init().is_some()
    }

    /// Its first process.
    fn init(&self) -> Option<u32> {
        let asked = docker(None).args(["inspect", "-f", "{{.State.Pid}}", &self.container]).output();
        let pid = String::from_utf8(asked.expect("docker starts").stdout).ok()?.trim().parse().ok()?;
        (pid > 0).then_some(pid)
    }

    /// Under version 1 of control groups what is frozen does not die: so it is killed first, thawed then.
    fn thaw(&self) {
        let id = ask(None, &["inspect", "-f", "{{.Id}}", &self.container]);
        let top = Path::new("/sys/fs/cgroup/freezer/docker").join(id.trim());
        for group in groups(&top).into_iter().filter(|group| *group != top) {
            let processes = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            for process in
                processes.lines().filter_map(|line| rustix::process::Pid::from_raw(line.parse().ok()?))
            {
                let _ = rustix::process::kill_process(process, Signal::KILL);
            }
            let _ = std::fs::write(group.join("freezer.state"), "THAWED");
        }
    }
}

impl Machine for Container {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, script: &str) -> Done {
        self.command(&["sh", "-c", script]).output().expect("docker starts").into()
    }

    fn put(&self, path: &str, content: &[u8]) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("file");
        std::fs::write(&file, content).expect("written");
        if self.is_on() {
            self.ok(&format!("mkdir -p $(dirname {path})"));
        }
        ask(None, &["cp", file.to_str().expect("text"), &format!("{}:{path}", self.container)]);
    }

    fn cut(&self) {
        self.ok("iptables -I INPUT -i eth0 -j DROP && iptables -I OUTPUT -o eth0 -j DROP");
    }

    fn join(&self) {
        self.ok("iptables -D INPUT -i eth0 -j DROP && iptables -D OUTPUT -o eth0 -j DROP");
    }
}

/// A directory and all below it.
fn groups(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    for entry in std::fs::read_dir(top).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.extend(groups(&entry.path()));
        }
    }
    found
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = std::io::stderr().lock().write_all(self.last_words().as_bytes());
        }
        if let Some(init) = self.init() {
            let pid = i32::try_from(init).ok().and_then(rustix::process::Pid::from_raw);
            let _ = pid.map(|pid| rustix::process::kill_process(pid, Signal::KILL));
            self.thaw();
        }
        let _ = docker(None).args(["rm", "--force", "--volumes", &self.container]).output();
    }
}
