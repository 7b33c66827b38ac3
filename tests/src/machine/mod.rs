//! Whole hosts, which boot, lose their power, are cut off and have their processes stopped, as machines do.
//!
//! Two kinds: [`Container`]s, which are up within seconds and share the kernel with the tests, and [`Vm`]s, which
//! have a kernel of their own.

mod container;
mod control;
mod vm;

use std::{path::Path, time::Duration};

use serde_json::Value;

pub use self::{
    container::{Container, DISK},
    vm::{DIGITS, GATEWAY, Vm, tools},
};
use crate::{Done, eventually, nvml::p100, within};

/// The driver's library, where the loader looks.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1";

/// A host with systemd, an engine of its own and two GPUs.
pub trait Machine {
    /// Its host name.
    fn name(&self) -> &str;

    /// What a shell script does in it.
    fn run(&self, script: &str) -> Done;

    /// Writes a file on its disk.
    ///
    /// # Panics
    /// When it cannot be written.
    fn put(&self, path: &str, content: &[u8]);

    /// Cuts it off from everything: nothing is refused, nothing arrives.
    fn cut(&self);

    /// Ends that.
    fn join(&self);

    /// What a shell script prints in it.
    ///
    /// # Panics
    /// When it fails.
    fn ok(&self, script: &str) -> String {
        let done = self.run(script);
        assert_eq!(done.code, 0, "{}: {script}: {done:?}", self.name());
        done.stdout
    }

    /// The name of one of its GPUs.
    fn gpu(&self, minor: u32) -> String {
        let host = self.name().bytes().fold(0_u32, |sum, byte| sum * 31 % 0xffff + u32::from(byte));
        format!("GPU-5ecf1a1e-0000-0000-{host:04x}-{minor:012}")
    }

    /// Makes the GPUs that NVIDIA's stand-in tells of.
    fn put_gpus(&self) {
        let gpus = (0..2).map(|minor| p100(&self.gpu(minor), minor, "")).collect::<String>();
        self.put("/etc/gpus.toml", gpus.as_bytes());
    }

    /// Waits until systemd has started everything.
    ///
    /// # Panics
    /// When it cannot.
    fn until_booted(&self, patience: Duration) {
        let wait = format!("timeout {} systemctl is-system-running --wait", patience.as_secs());
        within(patience, "the host has booted", || match self.run(&wait).stdout.trim() {
            "running" => Some(()),
            "degraded" => {
                panic!("{} is degraded: {}", self.name(), self.run("systemctl --failed").stdout)
            }
            _ => None,
        });
    }

    /// Installs a package, as an operator does.
    ///
    /// # Panics
    /// When apt refuses it.
    fn install(&self, package: &Path) {
        self.put("/root/haul.deb", &std::fs::read(package).expect("a package"));
        self.ok("DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends /root/haul.deb 2>&1");
    }

    /// Puts a package into an archive of the host's own, and brings the host up to date, as an operator does.
    ///
    /// # Panics
    /// When apt refuses it.
    fn upgrade(&self, package: &Path) {
        self.put("/srv/apt/haul.deb", &std::fs::read(package).expect("a package"));
        self.ok("cd /srv/apt && { dpkg-deb -f haul.deb; echo Filename: ./haul.deb; echo Size: $(stat -c %s haul.deb); \
            echo SHA256: $(sha256sum haul.deb | cut -d' ' -f1); } >Packages && \
            echo 'deb [trusted=yes] file:/srv/apt ./' >/etc/apt/sources.list.d/haul.list && apt-get update -qq 2>&1");
        self.ok("DEBIAN_FRONTEND=noninteractive apt-get upgrade -qq -y 2>&1");
    }

    /// Adds a drop-in to a unit.
    fn drop_in(&self, unit: &str, text: &str) {
        self.put(&format!("/etc/systemd/system/{unit}.d/test.conf"), text.as_bytes());
        self.ok("systemctl daemon-reload");
    }

    /// A property of a unit.
    fn property(&self, unit: &str, name: &str) -> String {
        self.ok(&format!("systemctl show --value -p {name} {unit}")).trim().to_owned()
    }

    /// What a unit has said, in all boots.
    fn journal(&self, unit: &str) -> String {
        self.run(&format!("journalctl --no-pager -o short-precise -u {unit}")).stdout
    }

    /// What its agent says of itself.
    ///
    /// # Panics
    /// When none answers.
    fn agent(&self) -> Value {
        serde_json::from_str(&self.ok("haul agent status --json")).expect("JSON")
    }

    /// Its agent's name in the fleet.
    fn node(&self) -> String {
        self.agent()["node"].as_str().expect("a name").to_owned()
    }

    /// Waits until its agent answers.
    fn until_ready(&self) {
        eventually("the agent answers", || (self.run("haul agent status").code == 0).then_some(()));
    }

    /// How long its agent takes for an answer, at most of so many, in milliseconds.
    ///
    /// # Panics
    /// When one takes more than 5 s.
    fn slowest_answer(&self, count: u32) -> u32 {
        // By the shell's own clock, so that no other program is measured with it.
        let script = format!(
            "timeout {} bash -c 'TIMEFORMAT=%3R; for i in $(seq {count}); do \
             time haul agent status >/dev/null </dev/null 2>/dev/null || exit 1; done' 2>&1",
            5 * count
        );
        let times = self.ok(&script);
        let millis = times.split_whitespace().map(|time| time.replace('.', "").parse().expect("seconds"));
        let slowest = millis.max().expect("each was answered");
        assert!(slowest <= 5000, "{times}");
        slowest
    }

    /// The threads of its agent that wait in the kernel for what may never come (`D`), by their names.
    fn stuck_threads(&self) -> Vec<String> {
        let threads = self.ok(&format!(
            "for t in /proc/{}/task/*; do echo $(sed 's/.*) //; s/ .*//' $t/stat) $(cat $t/comm); done",
            self.property("haul-agent", "MainPID")
        ));
        threads.lines().filter_map(|line| line.strip_prefix("D ")).map(str::to_owned).collect()
    }

    /// The containers of jobs on it, in a state by the engine's words.
    fn containers(&self, state: &str) -> Vec<String> {
        let list = format!("docker ps --no-trunc -q --filter label=haul.job --filter status={state}");
        self.ok(&list).lines().map(str::to_owned).collect()
    }

    /// The last that its agent and its guard said, for a test that has failed.
    fn last_words(&self) -> String {
        let of = |unit: &&str| {
            let journal = self.journal(unit);
            let lines: Vec<&str> = journal.lines().collect();
            let tail = lines[lines.len().saturating_sub(60)..].join("\n");
            format!("--- {unit} of {}:\n{tail}\n", self.name())
        };
        ["haul-agent", "haul-guard"].iter().map(of).collect()
    }
}
