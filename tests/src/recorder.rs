//! What the engine does with a fleet's containers, recorded while it does it.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Stdio},
};

use rustix::process::Signal;

use crate::{
    Timeline, World,
    engine::{ask, docker, signal},
    eventually,
    world::BUSYBOX,
};

/// A record that grows.
pub struct Recorder {
    fleet: String,
    path: PathBuf,
    process: Child,
}

impl Recorder {
    /// Begins before anything of the fleet runs.
    ///
    /// # Panics
    /// When the engine's command line cannot be started.
    pub fn start(world: &World) -> Self {
        let (fleet, path) = (world.fleet(), world.path("events"));
        let filter = format!("label=haul.fleet={fleet}");
        let mut events = docker(None);
        events.args(["events", "--filter", "type=container", "--filter", &filter, "--format", "{{json .}}"]);
        let file = File::create(&path).expect("made");
        let process = events.stdout(file).stderr(Stdio::inherit()).spawn().expect("docker starts");
        let recorder = Self { fleet, path, process };
        recorder.catch_up();
        recorder
    }

    /// Waits until all that happened so far is recorded: the engine tells events in order, so a
    /// container that is made now is told of last.
    fn catch_up(&self) {
        let label = format!("haul.fleet={}", self.fleet);
        eventually("the recorder hears of a container", || {
            let id = ask(None, &["create", "--label", &label, BUSYBOX, "true"]);
            ask(None, &["rm", id.trim()]);
            let text = std::fs::read_to_string(&self.path).expect("there");
            let heard = |line: &str| line.contains("\"destroy\"") && line.contains(id.trim());
            text.lines().any(heard).then_some(())
        });
    }

    /// What was recorded so far.
    pub fn so_far(&self) -> Timeline {
        Timeline::parse(&std::fs::read_to_string(&self.path).expect("there"))
    }

    /// All of it.
    pub fn finish(self) -> Timeline {
        self.catch_up();
        self.so_far()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        signal(self.process.id(), Signal::KILL);
        let _ = self.process.wait();
    }
}
