//! Whole hosts: systemd as the first process of a container, with an engine, a disk and a network of its own.
//!
//! What `tests/hosts/build` makes. A host loses its power, boots, is cut off, has its processes stopped, all as a
//! machine does; it shares with the tests' machine only the kernel, its clock, and directories that it is given.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    Done,
    engine::{ask, docker, signal},
    eventually,
    nvml::{library, p100},
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

/// The driver's library, where the loader looks.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1";

/// A host, which is removed when it is dropped.
pub struct Machine {
    name: String,
    container: String,
}

impl Machine {
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
        let gpus = (0..2).map(|minor| p100(&machine.gpu(minor), minor, "")).collect::<String>();
        machine.put("/etc/gpus.toml", gpus.as_bytes());
        machine.power_on();
        machine.load(BUSYBOX);
        machine
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of one of its GPUs.
    pub fn gpu(&self, minor: u32) -> String {
        let host = self.name.bytes().fold(0_u32, |sum, byte| sum * 31 % 0xffff + u32::from(byte));
        format!("GPU-5ecf1a1e-0000-0000-{host:04x}-{minor:012}")
    }

    /// A command in it, ready to start.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = docker(None);
        command.args(["exec", "-i", &self.container]).args(args);
        command
    }

    /// What a shell script does in it.
    pub fn run(&self, script: &str) -> Done {
        self.command(&["sh", "-c", script]).output().expect("docker starts").into()
    }

    /// What a shell script prints in it.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, script: &str) -> String {
        let done = self.run(script);
        assert_eq!(done.code, 0, "{}: {script}: {done:?}", self.name);
        done.stdout
    }

    /// Writes a file on its disk, whether it runs or not.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn put(&self, path: &str, text: &[u8]) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("file");
        std::fs::write(&file, text).expect("written");
        if self.is_on() {
            self.ok(&format!("mkdir -p $(dirname {path})"));
        }
        ask(None, &["cp", file.to_str().expect("text"), &format!("{}:{path}", self.container)]);
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

    /// Installs a package, as an operator does.
    ///
    /// # Panics
    /// When apt refuses it.
    pub fn install(&self, package: &Path) {
        self.put("/root/haul.deb", &std::fs::read(package).expect("a package"));
        self.ok("DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends /root/haul.deb 2>&1");
    }

    /// Adds a drop-in to a unit.
    pub fn drop_in(&self, unit: &str, text: &str) {
        self.put(&format!("/etc/systemd/system/{unit}.d/test.conf"), text.as_bytes());
        self.ok("systemctl daemon-reload");
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.ok(&format!("systemctl show --value -p {name} {unit}")).trim().to_owned()
    }

    /// What a unit has said, in all boots.
    pub fn journal(&self, unit: &str) -> String {
        self.run(&format!("journalctl --no-pager -o short-precise -u {unit}")).stdout
    }

    /// What its agent says of itself.
    ///
    /// # Panics
    /// When none answers.
    pub fn agent(&self) -> Value {
        serde_json::from_str(&self.ok("haul agent status --json")).expect("JSON")
    }

    /// Its agent's name in the fleet.
    pub fn node(&self) -> String {
        self.agent()["node"].as_str().expect("a name").to_owned()
    }

    /// Waits until its agent answers.
    pub fn until_ready(&self) {
        eventually("the agent answers", || (self.run("haul agent status").code == 0).then_some(()));
    }

    /// The containers of jobs on it, in a state by the engine's words.
    pub fn containers(&self, state: &str) -> Vec<String> {
        let list = format!("docker ps --no-trunc -q --filter label=haul.job --filter status={state}");
        self.ok(&list).lines().map(str::to_owned).collect()
    }

    /// Cuts it off from everything: nothing is refused, nothing arrives.
    pub fn cut(&self) {
        self.ok("iptables -I INPUT -i eth0 -j DROP && iptables -I OUTPUT -o eth0 -j DROP");
    }

    /// Ends that.
    pub fn join(&self) {
        self.ok("iptables -D INPUT -i eth0 -j DROP && iptables -D OUTPUT -o eth0 -j DROP");
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
        eventually("the host has booted", || {
            let state = self.run("systemctl is-system-running").stdout;
            match state.trim() {
                "running" => Some(()),
                "degraded" => panic!("{} is degraded: {}", self.name, self.run("systemctl --failed").stdout),
                _ => None,
            }
        });
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

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut out = std::io::stderr().lock();
            for unit in ["haul-agent", "haul-guard"] {
                let journal = self.journal(unit);
                let lines: Vec<&str> = journal.lines().collect();
                let tail = lines[lines.len().saturating_sub(60)..].join("\n");
                let _ = writeln!(out, "--- {} of {}:\n{tail}", unit, self.name);
            }
        }
        if let Some(init) = self.init() {
            let pid = i32::try_from(init).ok().and_then(rustix::process::Pid::from_raw);
            let _ = pid.map(|pid| rustix::process::kill_process(pid, Signal::KILL));
            self.thaw();
        }
        let _ = docker(None).args(["rm", "--force", "--volumes", &self.container]).output();
    }
}
