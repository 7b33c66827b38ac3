//! Hosts that are virtual machines, in plain emulation: a kernel of its own, version 2 of control groups, and NFS.
//!
//! What `tests/hosts/build-vm` makes. A machine takes half a minute to boot, so each begins as a copy of one that has
//! booted already, with the images of the tests' jobs: a snapshot, which the first that needs it makes.

use std::{
    fs::File,
    io::{Read, Write, copy},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{LIBRARY, Machine, control::Control};
use crate::{
    Done, Nfs,
    engine::{ask, docker},
    nvml::library,
    wall_clock, within,
    world::BUSYBOX,
};

/// The tests' machine, as it is seen from a virtual one: its loopback address.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// The image of the example that trains, made by `examples/images/build digits`.
pub const DIGITS: &str = "haul/digits:1";

/// Emulated, and two of them at once on two cores.
const PATIENCE: Duration = Duration::from_secs(240);

/// What the kernel is told: to be quick, and systemd: to name what it waits for.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 quiet systemd.show_status=auto mitigations=off nokaslr audit=0 \
    apparmor=0 nowatchdog random.trust_cpu=1 net.ifnames=0";

/// Memory that was never written takes no room, in the way that only a file can do without it.
const SPARSE: &str = "mapped-ram";

/// A virtual machine, which is gone when it is dropped.
pub struct Vm {
    name: String,
    dir: TempDir,
    process: Mutex<Option<Child>>,
    agent: Mutex<Option<Control>>,
}

impl Vm {
    /// Starts one of this name with two GPUs.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(name: &str) -> Self {
        let snapshot = snapshot();
        let vm = Self::on(&snapshot.join("disk"), "qcow2", name);
        vm.spawn(&["-incoming", "defer"]);
        let mut monitor = vm.monitor();
        let sparse = json!({ "capabilities": [{ "capability": SPARSE, "state": true }] });
        monitor.ask("migrate-set-capabilities", &sparse).expect("set");
        let memory = format!("file:{}", snapshot.join("memory").display());
        monitor.ask("migrate-incoming", &json!({ "uri": memory })).expect("read");
        until_migrated(&mut monitor);
        monitor.ask("cont", &json!({})).expect("runs");
        drop(monitor);
        // What two copies must not have in common, before anything asks for it.
        let now = wall_clock().timestamp_micros();
        vm.ok(&format!(
            "date -s @{}.{:06} >/dev/null; hostname {name}; echo {name} >/etc/hostname; sed -i 's/127.0.1.1 .*/127.0.1.1 {name}/' /etc/hosts; \
             tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id; systemctl restart systemd-journald",
            now / 1_000_000,
            now % 1_000_000
        ));
        vm.put(LIBRARY, &std::fs::read(library()).expect("built"));
        vm.put_gpus();
        vm
    }

    /// One that is off, whose disk begins as this one.
    fn on(disk: &Path, format: &str, name: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut create = program("qemu-img");
        create
            .args(["create", "-q", "-f", "qcow2", "-F", format, "-b"])
            .arg(disk)
            .arg(dir.path().join("disk"));
        Done::from(create.output().expect("starts")).ok();
        Self { name: name.to_owned(), dir, process: Mutex::new(None), agent: Mutex::new(None) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the emulator, which ends with the tests: when the thread does that has started it.
    fn spawn(&self, more: &[&str]) {
        let (cache, path) = (cache(), |name: &str| self.path(name).display().to_string());
        let mut qemu = program("qemu-system-x86_64");
        for firmware in ["qemu", "seabios"] {
            qemu.arg("-L").arg(tools().join("usr/share").join(firmware));
        }
        qemu.args(["-name", &self.name, "-machine", "q35", "-cpu", "Nehalem", "-smp", "1", "-m", "2048"]);
        qemu.args([
            "-accel",
            "tcg,thread=multi,tb-size=256",
            "-display",
            "none",
            "-nodefaults",
            "-no-reboot",
        ]);
        qemu.arg("-kernel").arg(cache.join("kernel")).arg("-initrd").arg(cache.join("initramfs"));
        qemu.args(["-append", COMMAND_LINE, "-serial", &format!("file:{}", path("console"))]);
        qemu.args(["-qmp", &format!("unix:{},server=on,wait=off", path("monitor"))]);
        qemu.args(["-drive", &format!("file={},if=none,id=disk,format=qcow2,cache=unsafe", path("disk"))]);
        qemu.args(["-device", "virtio-blk-pci,drive=disk", "-netdev", "user,id=net"]);
        qemu.args(["-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"]);
        // A copy of a machine has a new id, by which its kernel knows that its random numbers are another's.
        qemu.args(["-device", "vmgenid,guid=auto", "-device", "virtio-serial-pci"]);
        qemu.args(["-chardev", &format!("socket,id=agent,path={},server=on,wait=off", path("agent"))]);
        qemu.args(["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]).args(more);
        let log = File::create(self.path("log")).expect("made");
        qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        *self.process.lock().expect("sound") = Some(qemu.spawn().expect("starts"));
    }

    fn monitor(&self) -> Control {
        within(PATIENCE, "QEMU's monitor answers", || Control::monitor(&self.path("monitor")).ok())
    }

    /// What the agent in the guest gives.
    fn ask(&self, command: &str, arguments: &Value) -> Value {
        let mut agent = self.agent.lock().expect("sound");
        let agent = agent.get_or_insert_with(|| {
            within(PATIENCE, "the guest's agent answers", || Control::agent(&self.path("agent")).ok())
        });
        agent.ask(command, arguments).expect("the guest's agent answers")
    }

    /// Runs a script whose standard input is this.
    fn feed(&self, script: &str, mut source: impl Read + Send) {
        let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = door.local_addr().expect("bound").port();
        std::thread::scope(|scope| {
            scope.spawn(move || copy(&mut source, &mut door.accept().expect("it comes").0));
            self.ok(&format!("exec </dev/tcp/{GATEWAY}/{port}; {script}"));
        });
    }

    /// Loads an image of the machine's engine into its own.
    fn load(&self, image: &str) {
        let mut save =
            docker(None).args(["save", image]).stdout(Stdio::piped()).spawn().expect("docker starts");
        self.feed("docker load -q", save.stdout.take().expect("piped"));
        assert!(save.wait().expect("ends").success());
    }

    /// Mounts what a server exports, now and at each boot, when somebody looks.
    pub fn mount(&self, nfs: &Nfs, at: &str) {
        let options = format!(
            "nfsvers=4.1,port={},hard,nconnect=8,lookupcache=positive,_netdev,x-systemd.automount",
            nfs.port()
        );
        self.ok(&format!(
            "mkdir -p {at} && echo {GATEWAY}:/data {at} nfs {options} 0 0 >>/etc/fstab && systemctl daemon-reload && \
             systemctl restart remote-fs.target && ls {at}"
        ));
    }

    /// Takes its power: no process gets a word in, and what was on its way to the disk is lost.
    ///
    /// # Panics
    /// When the emulator does not end.
    pub fn power_off(&self) {
        // The answer may be cut short by the end.
        let _ = self.monitor().ask("quit", &json!({}));
        let process = self.process.lock().expect("sound").take();
        process.expect("it is on").wait().expect("ends");
        *self.agent.lock().expect("sound") = None;
    }

    /// Goes down in order and comes up again.
    ///
    /// # Panics
    /// When it does not.
    pub fn reboot(&self) {
        let reboot = json!({ "path": "/bin/systemctl", "arg": ["reboot"] });
        self.ask("guest-exec", &reboot);
        *self.agent.lock().expect("sound") = None;
        // The emulator's own end (`-no-reboot`).
        let ended = || self.process.lock().expect("sound").as_mut().expect("it is on").try_wait();
        within(PATIENCE, "it has gone down", || ended().expect("a child"));
        self.power_on();
    }

    /// Gives it power, and waits until systemd has started everything.
    ///
    /// # Panics
    /// When it does not boot.
    pub fn power_on(&self) {
        self.spawn(&[]);
        self.until_booted(PATIENCE);
    }
}

impl Machine for Vm {
    fn name(&self) -> &str {
        &self.name
    }

    fn run(&self, script: &str) -> Done {
        let command = json!({ "path": "/bin/bash", "arg": ["-c", script], "capture-output": true });
        let pid = &self.ask("guest-exec", &command)["pid"];
        let ended = within(PATIENCE, script, || {
            let status = self.ask("guest-exec-status", &json!({ "pid": pid }));
            (status["exited"] == true).then_some(status)
        });
        let text = |field: &str| {
            let encoded = ended[field].as_str().unwrap_or_default();
            String::from_utf8_lossy(&from_base64(encoded)).into_owned()
        };
        let code = ended["exitcode"].as_i64().and_then(|code| code.try_into().ok()).unwrap_or(-1);
        Done { code, stdout: text("out-data"), stderr: text("err-data") }
    }

    fn put(&self, path: &str, content: &[u8]) {
        self.feed(&format!("mkdir -p $(dirname {path}) && cat >{path} && sync {path}"), content);
    }

    fn cut(&self) {
        self.monitor().ask("set_link", &json!({ "name": "net", "up": false })).expect("cut");
    }

    fn join(&self) {
        self.monitor().ask("set_link", &json!({ "name": "net", "up": true })).expect("joined");
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let process = self.process.get_mut().map_or(None, Option::take);
        let Some(mut process) = process else { return };
        if std::thread::panicking() {
            let mut out = std::io::stderr().lock();
            let console = std::fs::read(self.path("console")).unwrap_or_default();
            let _ = writeln!(out, "--- console of {}:\n{}", self.name, String::from_utf8_lossy(&console));
            // One that goes down answers no more.
            if self.agent.get_mut().is_ok_and(|agent| agent.is_some())
                && matches!(process.try_wait(), Ok(None))
            {
                let _ = out.write_all(self.last_words().as_bytes());
            }
        }
        let _ = process.kill();
        let _ = process.wait();
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).expect("Base64")
}

fn until_migrated(monitor: &mut Control) {
    within(PATIENCE, "its memory is read or written", || {
        let told = monitor.ask("query-migrate", &json!({})).expect("told");
        assert_ne!(told["status"], "failed", "{told}");
        (told["status"] == "completed").then_some(())
    });
}

/// Where `tests/hosts/build-vm` has put what it makes.
///
/// # Panics
/// When nobody says.
fn cache() -> PathBuf {
    std::env::var_os("VM_DIR").expect("VM_DIR: see tests/run, hosts").into()
}

/// A tree of programs that are not of this machine's distribution.
pub fn tools() -> PathBuf {
    cache().join("tools")
}

/// One of these programs, by the tree's own loader, which ends with the tests.
fn program(name: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(tools().join("usr/lib64/ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(tools().join("usr/lib/x86_64-linux-gnu"));
    command.arg(tools().join("usr/bin").join(name));
    command
}

/// A machine that has booted, with the images of the tests' jobs: its `disk` and its `memory`.
fn snapshot() -> PathBuf {
    let (cache, dir) = (cache(), cache().join("snapshot"));
    let lock = File::create(cache.join("lock")).expect("made");
    lock.lock().expect("locked");
    let recipe = std::fs::read_to_string(cache.join("recipe")).expect("tests/hosts/build-vm has made it");
    let images = [BUSYBOX, DIGITS];
    let made_of =
        images.iter().fold(recipe, |all, image| all + &ask(None, &["inspect", "-f", "{{.Id}}", image]));
    if std::fs::read_to_string(dir.join("made-of")).is_ok_and(|found| found == made_of) {
        return dir;
    }
    let vm = Vm::on(&cache.join("disk"), "raw", "host");
    vm.power_on();
    images.iter().for_each(|image| vm.load(image));
    // What a test is not to wait for: the first container, the modules of NFS.
    vm.ok(&format!(
        "docker run --rm {BUSYBOX} true && modprobe nfsv4 && sync && echo 3 >/proc/sys/vm/drop_caches"
    ));
    let part = cache.join("snapshot.part");
    let _ = std::fs::remove_dir_all(&part);
    std::fs::create_dir(&part).expect("made");
    let mut monitor = vm.monitor();
    monitor.ask("stop", &json!({})).expect("stands still");
    let sparse = json!({ "capabilities": [{ "capability": SPARSE, "state": true }] });
    monitor.ask("migrate-set-capabilities", &sparse).expect("set");
    monitor.ask("migrate-set-parameters", &json!({ "max-bandwidth": 0 })).expect("set");
    let memory = format!("file:{}", part.join("memory").display());
    monitor.ask("migrate", &json!({ "uri": memory })).expect("written");
    until_migrated(&mut monitor);
    drop(monitor);
    vm.power_off();
    std::fs::copy(vm.path("disk"), part.join("disk")).expect("copied");
    std::fs::write(part.join("made-of"), made_of).expect("written");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::rename(part, &dir).expect("renamed");
    dir
}
