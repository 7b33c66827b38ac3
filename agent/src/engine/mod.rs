//! The container engine: what haul needs of it, and Docker's API as the first that gives it.
//!
//! - Containers outlive the agent, and the engine is asked for the truth about them; nothing is
//!   remembered that [`Engine::list`] would not tell.
//! - Every call but [`Engine::wait`] and following [`Engine::output`] has a deadline: an engine can
//!   hang on a dead mount, and one stuck container must not stop the others.
//! - An engine that is away gives [`EngineError::Unreachable`]; the next call reaches it again once
//!   it is back.

mod credentials;
mod docker;
mod error;
mod reference;

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use shared::{
    id::{GpuUuid, Timestamp},
    output::Stream,
    units::Size,
};
use tokio::sync::mpsc;

pub use credentials::{Credential, find as find_credential, usual_config};
pub use docker::{Docker, usual_address};
pub use error::EngineError;
pub use reference::Reference;

/// What tests of other modules need of a real registry.
#[cfg(test)]
pub use docker::live::registry as live_registry;

/// A container's id or name, as the engine takes either.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

impl ContainerId {
    /// Takes what the engine gave, or a name that haul gave.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What Docker calls itself.
pub const DOCKER: &str = "Docker";
/// What podman calls itself.
pub const PODMAN: &str = "Podman";

/// What the engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// What it calls itself: [`DOCKER`] or [`PODMAN`].
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// The API version that is spoken with it.
    pub api: String,
    /// Where it keeps what it has.
    pub root: PathBuf,
    /// Whether images, and what containers write into them, are in a containerd: Docker's "containerd image store",
    /// which it has by itself from version 29.
    pub images_in_containerd: bool,
    /// Whether systemd manages its cgroups.
    pub systemd_cgroups: bool,
    /// Whether it takes devices by their names in the Container Device Interface. It may, and still know none of a
    /// GPU's name: the host's CDI specifications say which there are.
    pub cdi: bool,
    /// Whether containers run on while it restarts.
    pub live_restore: bool,
}

impl EngineInfo {
    /// What does not work with it as it should.
    pub fn caveat(&self) -> Option<&'static str> {
        (self.name == PODMAN).then_some(
            "podman's logs come in other pieces than Docker's and forget lines, so the output of jobs may be incomplete or \
             repeated; use Docker Engine",
        )
    }
}

/// An image that the host has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// The engine's id of it: `sha256:…` of its configuration, or where images are in containerd of its manifest.
    pub id: String,
    /// The digest under which its registry has it; none for one that came from no registry, but where the engine keeps
    /// images in containerd: there each has one.
    pub digest: Option<String>,
    /// The environment that it sets.
    pub env: Vec<(String, String)>,
    /// Its size on disk.
    pub size: Size,
}

/// How far a pull is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Layers that are there.
    pub layers_done: usize,
    /// Layers that are known so far.
    pub layers_total: usize,
    /// Bytes fetched, of the layers whose size is known.
    pub bytes_done: u64,
    /// Bytes to fetch, as far as known.
    pub bytes_total: u64,
}

/// A directory or file of the host in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// On the host; must be there.
    pub source: PathBuf,
    /// In the container.
    pub target: String,
    /// It cannot be written to.
    pub read_only: bool,
}

/// The GPUs of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GpuAccess {
    /// None.
    None,
    /// Made-up ones: the container is told their names and gets no device.
    Simulated(Vec<GpuUuid>),
    /// Real ones.
    Nvidia {
        /// Which, by full UUID.
        uuids: Vec<GpuUuid>,
        /// Their device nodes and the driver's, which the container must have.
        nodes: Vec<PathBuf>,
    },
}

/// A container to be made.
#[derive(Clone)]
pub struct Plan {
    /// Its name; the engine refuses a second one of that name.
    pub name: String,
    /// The image's id.
    pub image: String,
    /// What to run; what the image says without.
    pub command: Option<Vec<String>>,
    /// Instead of the image's entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Instead of the image's directory.
    pub workdir: Option<String>,
    /// Instead of the image's user.
    pub user: Option<String>,
    /// Variables; of two of one name the later holds. May hold secrets.
    pub env: Vec<(String, String)>,
    /// Whose it is.
    pub labels: BTreeMap<String, String>,
    /// What it sees of the host.
    pub binds: Vec<Bind>,
    /// Its GPUs.
    pub gpus: GpuAccess,
    /// Its limit of CPU time, in cores.
    pub cpus: Option<f64>,
    /// Its limit of memory, swap included.
    pub memory: Option<Size>,
    /// The size of `/dev/shm`.
    pub shm: Size,
    /// How long after SIGTERM it is killed when the engine itself stops.
    pub grace: Duration,
    /// How much of its output the engine keeps, at least the newest half of it. Reading goes on
    /// across the turn of the engine's log files; only what lies further back than this when it is
    /// read is lost.
    pub log_limit: Size,
}

impl fmt::Debug for Plan {
    /// Without the values of its variables, of which any may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Plan")
            .field("name", &self.name)
            .field("image", &self.image)
            .field("command", &self.command)
            .field("env", &names)
            .field("binds", &self.binds)
            .field("gpus", &self.gpus)
            .finish_non_exhaustive()
    }
}

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Made, and never started.
    Created,
    /// Runs.
    Running,
    /// Runs, and is paused.
    Paused,
    /// Between two runs.
    Restarting,
    /// Ended.
    Exited,
    /// About to be removed.
    Removing,
    /// Could not be removed.
    Dead,
}

/// A container.
#[derive(Debug, Clone)]
pub struct Container {
    /// The engine's id of it.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where it stands.
    pub state: ContainerState,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// How it ended.
    pub exit: Option<Exit>,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The exit code of its process, 128 and the signal's number if one ended it.
    pub code: i64,
    /// The kernel killed some process of it for lack of memory; not always the first one, so the
    /// code may be 0 all the same.
    pub oom: bool,
    /// What the engine says went wrong.
    pub error: Option<String>,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// What a container uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Processor time since it was started, of all cores.
    pub cpu: Duration,
    /// Main memory now, without what the kernel only caches of its files.
    pub memory: Size,
}

/// A line of a container's output, or a part of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// When the engine read it, to the nanosecond. All parts of one long line have the time of the
    /// first, also where lines of the other stream came in between, so within the log times go back.
    pub at: Timestamp,
    /// Where the process wrote it.
    pub stream: Stream,
    /// The bytes, without the newline.
    pub bytes: Bytes,
    /// Whether a newline followed.
    pub complete: bool,
}

/// A container engine.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// What it is.
    async fn info(&self) -> Result<EngineInfo, EngineError>;

    /// Whether it takes new connections.
    async fn is_up(&self) -> bool;

    /// An image, if the host has it.
    async fn image(&self, image: &str) -> Result<Option<ImageInfo>, EngineError>;

    /// Fetches an image with the host's own credentials, telling how far it is. A receiver that is
    /// slow or gone does not hold it up; dropping the future gives it up.
    async fn pull(&self, image: &str, progress: mpsc::Sender<PullProgress>)
    -> Result<ImageInfo, EngineError>;

    /// Removes an image that nothing uses; false where something does. That it is not there is no error.
    async fn remove_image(&self, id: &str) -> Result<bool, EngineError>;

    /// Makes a container.
    async fn create(&self, plan: &Plan) -> Result<ContainerId, EngineError>;

    /// Starts it.
    async fn start(&self, id: &ContainerId) -> Result<(), EngineError>;

    /// Makes sure that the GPUs that were asked for have arrived in a started container: some
    /// engines ignore a request that they do not understand.
    async fn verify_gpus(&self, id: &ContainerId, gpus: &GpuAccess) -> Result<(), EngineError>;

    /// Sends a signal, by name, to its first process. That it has ended is no error.
    async fn signal(&self, id: &ContainerId, signal: &str) -> Result<(), EngineError>;

    /// SIGTERM, and SIGKILL after `grace` (in whole seconds, rounded up); returns when it has
    /// ended. A paused container is thawed for it. That it has ended already is no error.
    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), EngineError>;

    /// Freezes its processes. That they are frozen, or have ended, is no error.
    async fn pause(&self, id: &ContainerId) -> Result<(), EngineError>;

    /// Thaws them. That they are not frozen is no error.
    async fn unpause(&self, id: &ContainerId) -> Result<(), EngineError>;

    /// Waits until it has ended, however long that takes. One that was never started is an error.
    async fn wait(&self, id: &ContainerId) -> Result<Exit, EngineError>;

    /// A container, or `None` where there is none.
    async fn inspect(&self, id: &ContainerId) -> Result<Option<Container>, EngineError>;

    /// The containers, in any state, that carry all of these labels. Without their times and exits,
    /// which the engine tells only one by one: a container that it is busy with would hold up all.
    async fn list(&self, labels: &[(String, String)]) -> Result<Vec<Container>, EngineError>;

    /// What it uses; of one that does not run, nothing.
    async fn stats(&self, id: &ContainerId) -> Result<Stats, EngineError>;

    /// Its output from a time on, that time included, in the engine's order; with `follow` until
    /// it ends.
    async fn output(
        &self,
        id: &ContainerId,
        since: Option<Timestamp>,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<Frame, EngineError>>, EngineError>;

    /// Removes it if it was never started, so that no start of it that is still under way can
    /// succeed; false if it was started. That it is not there is no error.
    async fn remove_unstarted(&self, id: &ContainerId) -> Result<bool, EngineError>;

    /// Removes it with its anonymous volumes, also while it runs; returns when it is gone. That it
    /// is not there is no error.
    async fn remove(&self, id: &ContainerId) -> Result<(), EngineError>;
}

/// How long an engine may take to say that it is up before it is reckoned to be going away.
const ANSWERS: Duration = Duration::from_secs(3);

/// Whether the engine is there and not on its way out: one that shuts down stops its containers first,
/// and may end its answers as if they were complete.
pub async fn is_there(engine: &dyn Engine) -> bool {
    tokio::time::timeout(ANSWERS, engine.is_up()).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_shows_no_values_of_variables() {
        let plan = Plan {
            name: "p".into(),
            image: "busybox".into(),
            command: None,
            entrypoint: None,
            workdir: None,
            user: None,
            env: vec![("TOKEN".into(), "s3cret".into())],
            labels: BTreeMap::new(),
            binds: Vec::new(),
            gpus: GpuAccess::None,
            cpus: None,
            memory: None,
            shm: Size::MIB,
            grace: Duration::ZERO,
            log_limit: Size::MIB,
        };
        let shown = format!("{plan:?}");
        assert!(shown.contains("TOKEN") && !shown.contains("s3cret"), "{shown}");
    }
}
