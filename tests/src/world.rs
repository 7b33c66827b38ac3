//! A fleet of a test's own, and the commands given to it.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
};

use serde_json::Value;
use shared::{
    clock::SystemClock,
    fleet::{self, Settings},
    id::Team,
    queue::{Counted, Outgoing, Queue, QueueError, QueueName, Received},
    store::Store,
};
use tempfile::TempDir;

use crate::{engine, eventually};

/// The image of the small jobs, made by `examples/images/build busybox`.
pub const BUSYBOX: &str = "haul/busybox:1";

/// Counts on from its checkpoint, four further; without one, until it is asked to end and writes one.
pub const COUNTS: &str = r#"
from=$(cat $HAUL_CHECKPOINT_DIR/n 2>/dev/null || echo 0)
n=$((from + 1))
trap 'echo $n > $HAUL_CHECKPOINT_DIR/n; exit 1' TERM
echo "counts from $from"
until [ $from -gt 0 ] && [ $n -ge $((from + 4)) ]; do sleep 0.5; n=$((n + 1)); done
echo "counted to $n"
"#;

/// A record with a job, as a newer haul may write it.
pub fn newer(record: &str) -> String {
    record.replace(r#""spec":{"#, r#""spec":{"flavour":"sour","#)
}

/// The project's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The built program, or the one that `HAUL_TEST_PROGRAM` names.
///
/// # Panics
/// When it has not been built.
pub fn haul() -> PathBuf {
    if let Some(program) = std::env::var_os("HAUL_TEST_PROGRAM") {
        return program.into();
    }
    let test = std::env::current_exe().expect("this test's path");
    // Beside this program, or above it if this is a test.
    let found = test.ancestors().skip(1).take(2).map(|dir| dir.join("haul")).find(|haul| haul.is_file());
    found.expect("haul is not built; run: cargo build")
}

/// A fleet in a temporary directory, or at a cloud's emulator.
pub struct World {
    dir: TempDir,
    engine: Option<String>,
    cloud: Option<Cloud>,
}

/// A fleet that is not in a directory.
struct Cloud {
    fleet: String,
    env: Vec<(String, String)>,
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said beside that.
    pub stderr: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }
}

impl Done {
    /// Its output, if it succeeded.
    ///
    /// # Panics
    /// When it did not.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "failed: {self:?}");
        self.stdout
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A fleet on the machine's own engine.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("temporary directory"), engine: None, cloud: None }
    }

    /// A fleet at this URL, on the machine's own engine, whose commands and agents find this in
    /// their environment.
    pub fn in_cloud(fleet: String, env: Vec<(String, String)>) -> Self {
        let mut world = Self::new();
        world.cloud = Some(Cloud { fleet, env });
        world
    }

    /// A fleet with these settings, on the machine's own engine.
    pub fn with_settings(settings: Settings) -> Self {
        let world = Self::new();
        world.wait_for(async {
            let url = world.fleet().parse().expect("a URL");
            let store = Store::open(&url).expect("opens");
            fleet::create(&store, settings).await.expect("made");
        });
        world
    }

    /// Empties all queues of the fleet.
    pub fn purge(&self) {
        self.wait_for(async {
            let queue = self.queue().await;
            for name in queue.list().await.expect("listed") {
                queue.purge(&name).await.expect("purged");
            }
        });
    }

    /// Sends a message to a queue of the fleet, as another program would.
    pub fn send(&self, name: &QueueName, body: &str) {
        self.wait_for(async {
            let queue = self.queue().await;
            queue.ensure(name).await.expect("made");
            let message = Outgoing::new(Team::default(), body);
            queue.send(name, &message, std::time::Duration::ZERO).await.expect("sent");
        });
    }

    /// Receives what is in a queue of the fleet.
    pub fn receive(&self, name: &QueueName) -> Vec<Received> {
        let hidden = std::time::Duration::from_secs(30);
        self.wait_for(async {
            match self.queue().await.receive(name, 10, std::time::Duration::ZERO, hidden).await {
                Err(QueueError::NoSuchQueue { .. }) => Vec::new(),
                received => received.expect("answered"),
            }
        })
    }

    async fn queue(&self) -> Arc<Counted> {
        let url = self.fleet().parse().expect("a URL");
        fleet::Fleet::open(&url, Arc::new(SystemClock)).await.expect("opens").queue
    }

    /// Does this on a runtime of its own.
    pub fn wait_for<T>(&self, work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(work)
    }

    /// A fleet on another engine.
    pub fn on_engine(address: String) -> Self {
        let mut world = Self::new();
        world.engine = Some(address);
        world
    }

    /// A path in the test's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The fleet's URL.
    pub fn fleet(&self) -> String {
        match &self.cloud {
            Some(cloud) => cloud.fleet.clone(),
            None => format!("file://{}/fleet", self.dir.path().display()),
        }
    }

    /// A command on this fleet, ready to start.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(haul());
        // Nothing of whoever runs the tests.
        for (name, _) in
            std::env::vars().filter(|(name, _)| name.starts_with("HAUL_") || name.starts_with("AWS_"))
        {
            command.env_remove(name);
        }
        command.args(args).current_dir(self.dir.path());
        command.env("HAUL_FLEET", self.fleet()).env("HAUL_STATE_DIR", self.path("state"));
        command.env("XDG_DATA_HOME", self.path("data")).env("XDG_CACHE_HOME", self.path("cache"));
        // The images of tests are on the engine alone; a test of registries takes this away.
        command.env("HAUL_NO_INSPECT", "1");
        if let Some(cloud) = &self.cloud {
            command.envs(cloud.env.iter().map(|(name, value)| (name, value)));
        }
        if let Some(engine) = &self.engine {
            command.env("HAUL_ENGINE", engine);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Done {
        self.command(args).output().expect("haul starts").into()
    }

    /// Starts a command.
    pub fn start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Child {
        self.command(args).spawn().expect("haul starts")
    }

    /// Runs a command that prints JSON.
    ///
    /// # Panics
    /// When it fails, or prints something else.
    pub fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Value {
        let text = self.run(args).ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("no JSON ({e}): {text}"))
    }

    /// Writes a job's file and gives its path.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    /// Submits a small shell job with these flags and gives its id.
    pub fn submit(&self, flags: &[&str], script: &str) -> String {
        let job = ["--", BUSYBOX, "sh", "-c", script];
        let args = ["submit"].iter().chain(flags).chain(&job);
        self.run(args).ok().trim().to_owned()
    }

    /// Adds to a job, by its log, what only a newer haul knows.
    ///
    /// # Panics
    /// When there is no such job.
    pub fn make_newer(&self, id: &str) {
        let submitted = self.path(&format!("fleet/jobs/{id}/log/0000000000.json"));
        let entry = std::fs::read_to_string(&submitted).expect("read");
        let newer = newer(&entry);
        assert_ne!(newer, entry);
        std::fs::write(&submitted, newer).expect("written");
    }

    /// A job's state by `haul status`.
    pub fn state(&self, id: &str) -> String {
        let status = self.json(["status", id, "--json"]);
        status["job"]["state"].as_str().expect("a state").to_owned()
    }

    /// Waits until a job is in a state.
    pub fn until(&self, id: &str, state: &str) {
        eventually(&format!("job {id} is {state}"), || (self.state(id) == state).then_some(()));
    }

    /// A job's history.
    pub fn history(&self, id: &str) -> Vec<Value> {
        let status = self.json(["status", id, "--json"]);
        status["history"].as_array().expect("a history").clone()
    }

    /// The events of a kind in a job's history.
    pub fn events(&self, id: &str, kind: &str) -> Vec<Value> {
        let events = self.history(id).into_iter().map(|entry| entry["event"].clone());
        events.filter(|event| event["kind"] == kind).collect()
    }

    /// The containers of this fleet, by name, in any state.
    pub fn containers(&self) -> Vec<String> {
        engine::containers(self.engine.as_deref(), &self.fleet())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        engine::remove(self.engine.as_deref(), &self.containers());
    }
}
