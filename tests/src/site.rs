//! A fleet of whole hosts on emulators of SQS and S3, with a directory that all of them mount.

use std::{
    fs::File,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    Cloud, Container, Done, Machine, Nfs, Vm, World, at_once,
    emulator::{Environment, Kind},
    engine::ask,
    eventually,
    machine::{DISK, GATEWAY},
    proxy::Door,
    world::{BUSYBOX, haul, root},
};

/// Where hosts that are containers see what they share.
pub const SHARED: &str = "/mnt/shared";

/// Where virtual machines see it, over NFS.
pub const MOUNTED: &str = "/mnt/data";

/// A version of the package, and the one that comes after it.
pub const VERSIONS: [&str; 2] = ["1.0.0", "1.0.1"];

/// The fleet, and where its hosts find it.
pub struct Site {
    cloud: Cloud,
    shared: TempDir,
    bridge: Ipv4Addr,
}

impl Site {
    /// Makes a fleet that is quick to notice, with a lease of so many seconds.
    ///
    /// # Panics
    /// When the machine's engine has no bridge.
    pub fn new(lease: u32) -> Self {
        let cloud = Cloud::start(Kind::Ministack);
        let lease = format!("lease={lease}s");
        cloud.world().run(["fleet", "set", "beat=1s", &lease, "sweep=2s", "lane_refresh=1s"]).ok();
        let shared = tempfile::tempdir().expect("temporary directory");
        for dir in ["outputs", "ticks"] {
            std::fs::create_dir(shared.path().join(dir)).expect("made");
        }
        Self { cloud, shared, bridge: bridge() }
    }

    /// The fleet, from outside.
    pub fn world(&self) -> &World {
        self.cloud.world()
    }

    /// What the fleet stands on.
    pub fn cloud(&self) -> &Cloud {
        &self.cloud
    }

    /// The machine's address, as hosts know it.
    pub fn bridge(&self) -> Ipv4Addr {
        self.bridge
    }

    /// A path that is [`SHARED`] on hosts.
    pub fn shared(&self, path: &str) -> PathBuf {
        self.shared.path().join(path)
    }

    /// A host with nothing of haul's.
    pub fn bare(&self, name: &str) -> Container {
        Container::start(name, &[(self.shared.path(), SHARED)])
    }

    /// A server of the directory that hosts share.
    pub fn nfs(&self) -> Nfs {
        Nfs::start(self.shared.path())
    }

    /// Nodes of the fleet that are virtual machines and mount the directory from this server, whose variables
    /// are these besides.
    pub fn vms<const N: usize>(&self, names: [&str; N], nfs: &Nfs, more: &str) -> [Vm; N] {
        // Each ends with the thread that has started it.
        let machines = names.map(Vm::start);
        at_once(machines, |machine| {
            machine.mount(nfs, MOUNTED);
            machine.put("/etc/haul/agent.env", format!("{}{more}", self.variables_of_vm()).as_bytes());
            machine.install(&package(VERSIONS[0]));
            machine.until_ready();
            machine
        })
    }

    /// A node of the fleet: a host with the package, whose variables are these besides.
    pub fn host(&self, name: &str, more: &str) -> Container {
        self.joined(self.bare(name), more)
    }

    /// A node whose engine's disk has this size (`300m`), and loses all with the power.
    pub fn host_on_small_disk(&self, name: &str, size: &str) -> Container {
        let disk = format!("--tmpfs={DISK}:size={size}");
        self.joined(Container::start_with(name, &[(self.shared.path(), SHARED)], &disk), "")
    }

    fn joined(&self, machine: Container, more: &str) -> Container {
        machine.put("/etc/haul/agent.env", format!("{}{more}", self.variables()).as_bytes());
        machine.install(&package(VERSIONS[0]));
        machine.until_ready();
        machine
    }

    /// What an agent's `agent.env` has.
    pub fn variables(&self) -> String {
        let (door, env) = self.cloud.other_door_at(self.bridge);
        self.variables_of(&door, &env, SHARED)
    }

    /// Likewise, on a virtual machine.
    pub fn variables_of_vm(&self) -> String {
        let (door, env) = self.cloud.other_door();
        from_vm(&self.variables_of(&door, &env, MOUNTED)) + &format!("HAUL_OUTPUTS_MOUNT={MOUNTED}\n")
    }

    fn variables_of(&self, door: &Door, env: &Environment, shared: &str) -> String {
        door.allow_only(self.cloud.policy("agent"));
        let lines = env.iter().map(|(name, value)| format!("{name}={value}\n")).collect::<String>();
        let fleet = self.world().fleet();
        format!(
            "{lines}HAUL_FLEET={fleet}\nHAUL_VOLUMES=shared={shared}\nHAUL_OUTPUTS_DIR={shared}/outputs\nHAUL_CLOUD=none\n"
        )
    }

    /// Submits a job that runs a shell script and sees the shared directory as `/shared`, with these fields
    /// besides, and gives its id.
    ///
    /// # Panics
    /// When it is refused.
    pub fn submit(&self, more: &Value, script: &str) -> String {
        let mut spec = json!({
            "image": BUSYBOX,
            "command": ["sh", "-c", script],
            "mounts": [{ "volume": "shared", "target": "/shared" }],
        });
        let fields = more.as_object().expect("fields").clone();
        spec.as_object_mut().expect("fields").extend(fields);
        let file = self.world().file("job.json", &spec.to_string());
        self.world().run(["submit".as_ref(), file.as_os_str()]).ok().trim().to_owned()
    }

    /// Submits a job that counts so far, or until it is [enough](Self::enough), five times a second, printing and
    /// leaving a tick each time.
    pub fn count(&self, to: u32, more: &Value) -> String {
        let script = format!(
            "t=/shared/ticks/$HAUL_JOB_ID; i=0; while [ $i -lt {to} ] && [ ! -e $t.enough ]; do i=$((i + 1)); echo $i; \
             echo $HAUL_ATTEMPT $HAUL_NODE $i >>$t; sleep 0.2; done"
        );
        self.submit(more, &script)
    }

    /// Ends such a job.
    ///
    /// # Panics
    /// When it cannot be told.
    pub fn enough(&self, job: &str) {
        std::fs::write(self.shared(&format!("ticks/{job}.enough")), "").expect("written");
    }

    /// Waits until an attempt of such a job has counted that far.
    pub fn until_counted(&self, job: &str, attempt: u32, to: u32) {
        eventually(&format!("attempt {attempt} of {job} counts to {to}"), || {
            self.ticks(job).iter().any(|tick| tick.attempt == attempt && tick.count >= to).then_some(())
        });
    }

    /// What such a job has left, in the order in which it was written by whatever containers it had.
    ///
    /// # Panics
    /// When a line is none of a job's.
    pub fn ticks(&self, job: &str) -> Vec<Tick> {
        let text = std::fs::read_to_string(self.shared(&format!("ticks/{job}"))).unwrap_or_default();
        let whole = text.lines().filter(|_| text.ends_with('\n'));
        let tick = |line: &str| {
            let mut words = line.split(' ');
            let mut next = || words.next().expect("three words");
            let (attempt, node, count) = (next(), next(), next());
            let (attempt, count) = (attempt.parse().expect("a number"), count.parse().expect("a number"));
            Tick { attempt, node: node.to_owned(), count }
        };
        whole.map(tick).collect()
    }

    /// What is wrong with such a job: an attempt that did something after a later one had begun, one that did a
    /// thing twice.
    pub fn broken(&self, job: &str) -> Vec<String> {
        let ticks = self.ticks(job);
        let pairs = ticks.windows(2).filter(|pair| {
            let next = if pair[0].attempt == pair[1].attempt { pair[0].count + 1 } else { 1 };
            pair[1].attempt < pair[0].attempt || pair[1].count != next
        });
        pairs.map(|pair| format!("{job}: {:?} and then {:?}", pair[0], pair[1])).collect()
    }
}

/// The machine's loopback address in a text, as virtual machines know it.
pub fn from_vm(text: &str) -> String {
    text.replace(&Ipv4Addr::LOCALHOST.to_string(), &GATEWAY.to_string())
}

/// A step of a job that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// By which of its attempts.
    pub attempt: u32,
    /// Where.
    pub node: String,
    /// Its number, from 1 in each attempt.
    pub count: u32,
}

/// What such a job prints.
pub fn counted(to: u32) -> String {
    (1..=to).map(|step| format!("{step}\n")).collect()
}

/// The machine's address on its engine's bridge.
fn bridge() -> Ipv4Addr {
    let option = "{{index .Options \"com.docker.network.bridge.name\"}}";
    let interface = ask(None, &["network", "inspect", "bridge", "-f", option]);
    let asked = Command::new("ip").args(["-4", "-o", "address", "show", "dev", interface.trim()]).output();
    let said = String::from_utf8(asked.expect("ip starts").stdout).expect("text");
    let address =
        said.split_whitespace().skip_while(|word| *word != "inet").nth(1).expect("the bridge's address");
    address.split('/').next().and_then(|address| address.parse().ok()).expect("an address")
}

/// The package of this version of the program that the tests run, built once for all of them.
///
/// # Panics
/// When it cannot be built.
pub fn package(version: &str) -> PathBuf {
    let program = haul();
    // For each program of its own: HAUL_TEST_PROGRAM may name another.
    let of = program.display().to_string().trim_start_matches('/').replace('/', "-");
    let dir = root().join(".cache/hosts/packages").join(of);
    std::fs::create_dir_all(&dir).expect("made");
    let lock = File::create(dir.join("lock")).expect("made");
    lock.lock().expect("locked");
    let package = dir.join(format!("haul_{version}_{}.deb", architecture()));
    let age = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
    let mut parts = vec![program.clone()];
    for dir in ["packaging", "packaging/deb", "systemd"].map(|dir| root().join(dir)) {
        parts.extend(dir.read_dir().expect("a directory").flatten().map(|entry| entry.path()));
    }
    if parts.iter().any(|part| age(&package) <= age(part)) {
        let mut build = Command::new(root().join("packaging/build"));
        build.arg("--out").arg(&dir).arg("--binary").arg(&program).args([
            "--version",
            version,
            "--level",
            "0",
        ]);
        let built: Done = build.output().expect("starts").into();
        built.ok();
    }
    package
}

/// The same as an `.rpm`.
///
/// # Panics
/// When it cannot be built.
pub fn rpm(version: &str) -> PathBuf {
    let machine = rustix::system::uname();
    let name = format!("haul-{version}-1.{}.rpm", machine.machine().to_string_lossy());
    package(version).with_file_name(name)
}

fn architecture() -> String {
    let asked = Command::new("dpkg").arg("--print-architecture").output().expect("dpkg starts");
    String::from_utf8(asked.stdout).expect("text").trim().to_owned()
}
