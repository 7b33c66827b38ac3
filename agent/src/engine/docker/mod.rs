//! Docker's Engine API, through bollard, and whatever else speaks it.

mod connection;
mod create;
mod error;
mod frozen;
mod gpus;
mod nodes;
mod oom;
mod output;
mod pull;
mod read;
mod ways;

#[cfg(test)]
pub mod live;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bollard::{
    errors::Error,
    models::ContainerInspectResponse,
    query_parameters::{
        CreateContainerOptions, KillContainerOptions, ListContainersOptionsBuilder, RemoveContainerOptions,
        RemoveImageOptions, StatsOptionsBuilder, StopContainerOptions, WaitContainerOptions,
    },
};
use futures::{StreamExt, stream::BoxStream};
use shared::id::Timestamp;
use tokio::sync::mpsc;

use super::{
    Container, ContainerId, ContainerState, Engine, EngineError, EngineInfo, Exit, Frame, GpuAccess,
    ImageInfo, PODMAN, Plan, PullProgress, Stats, credentials, reference::Reference,
};
pub use connection::usual_address;
use connection::{Connection, DEFAULT_ADDRESS};
use error::{Call, classify};
use ways::Refused;

/// For what the engine answers out of its memory; twenty times what a busy one takes.
const QUICK: Duration = Duration::from_secs(20);
/// For what it does on disk, with mounts, cgroups and hooks: NVIDIA's may load the driver first.
const SLOW: Duration = Duration::from_secs(120);
/// The code of a process that SIGKILL ended.
const KILLED: i64 = 128 + 9;
/// Between two looks at a container that somebody else removes.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// An engine at an address.
pub struct Docker {
    address: String,
    /// The engine that answered last; nothing while it is away, since another version may come back.
    known: Mutex<Option<Arc<Connection>>>,
    refused: Refused,
    /// The file with the host's registry credentials.
    credentials: Option<PathBuf>,
}

impl Docker {
    /// An engine at this address (`unix:///path`, a path, or `tcp://host:port`), at `DOCKER_HOST`,
    /// or at Docker's usual place. Nothing is asked of it yet, and nothing need be there yet.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] for what is no address.
    pub fn connect(given: Option<&str>) -> Result<Self, EngineError> {
        let given = given.map(str::to_owned).filter(|given| !given.is_empty()).or_else(usual_address);
        let given = given.unwrap_or_else(|| DEFAULT_ADDRESS.into());
        let address = connection::address(&given).ok_or_else(|| EngineError::Unreachable {
            address: given,
            detail: "an address is a socket (unix:///path) or a host (tcp://host:port)".into(),
        })?;
        Ok(Self {
            address,
            known: Mutex::new(None),
            refused: Refused::default(),
            credentials: credentials::usual_config(),
        })
    }

    /// With registry credentials from this file.
    #[cfg(test)]
    fn with_credentials(mut self, config: PathBuf) -> Self {
        self.credentials = Some(config);
        self
    }

    fn set_known(&self, connection: Option<Arc<Connection>>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    /// The engine, once an API version is agreed upon. Two callers may do so at once: they agree
    /// upon the same.
    async fn agree(&self) -> Result<Arc<Connection>, EngineError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let met = Arc::new(self.meet().await?);
        self.set_known(Some(met.clone()));
        Ok(met)
    }

    async fn client(&self) -> Result<bollard::Docker, EngineError> {
        Ok(self.agree().await?.client.clone())
    }

    /// A call with a deadline.
    async fn timed<T>(
        &self,
        call: &'static str,
        deadline: Duration,
        about: Call<'_>,
        request: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, EngineError> {
        match tokio::time::timeout(deadline, request).await {
            Ok(done) => done.map_err(|error| self.failed(call, about, error)),
            Err(_) => Err(EngineError::Timeout { call, seconds: deadline.as_secs() }),
        }
    }

    fn failed(&self, call: &'static str, about: Call<'_>, error: bollard::errors::Error) -> EngineError {
        let error = classify(&self.address, call, about, error);
        let changed = match &error {
            // GPUs may be given in another way once somebody has mended the host.
            EngineError::Unreachable { .. } | EngineError::GpusMissing { .. } => true,
            // An older engine came back while nobody asked.
            EngineError::Other { detail, .. } => detail.starts_with("client version"),
            _ => false,
        };
        if changed {
            self.set_known(None);
        }
        error
    }

    /// The engine's own record of a container.
    async fn record(&self, id: &ContainerId) -> Result<ContainerInspectResponse, EngineError> {
        let client = self.client().await?;
        let inspect = client.inspect_container(id.as_str(), None);
        self.timed("describe the container", QUICK, Call::Container(id), inspect).await
    }

    /// A container as it is, with what the engine may have missed of its end.
    async fn described(&self, id: &ContainerId) -> Result<Container, EngineError> {
        let record = self.record(id).await?;
        let pid = record.state.as_ref().and_then(|state| u32::try_from(state.pid?).ok());
        let mut container = read::container(record);
        if container.state == ContainerState::Running
            && pid.is_some_and(|pid| frozen::is_frozen(container.id.as_str(), pid))
        {
            container.state = ContainerState::Paused;
        }
        if let Some(exit) = &mut container.exit
            && exit.code == KILLED
            && !exit.oom
        {
            exit.oom = oom::was_killed(container.id.as_str()).await;
        }
        Ok(container)
    }

    /// Until a container that somebody else removes is gone.
    async fn until_gone(&self, id: &ContainerId) -> Result<(), EngineError> {
        let gone = async {
            while self.inspect(id).await?.is_some() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Ok(())
        };
        let late = |_| EngineError::Timeout { call: "remove the container", seconds: SLOW.as_secs() };
        tokio::time::timeout(SLOW, gone).await.map_err(late)?
    }
}

/// An error of "there is none" as `None`.
fn found<T>(result: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(EngineError::NoSuchContainer { .. } | EngineError::NoSuchImage { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// As the API counts: half a second of grace must not become none.
fn whole_seconds(grace: Duration) -> i32 {
    i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}

/// No error where the engine says that it is so already.
fn unless(result: Result<(), EngineError>, already: &[&str]) -> Result<(), EngineError> {
    match result {
        Err(EngineError::Other { detail, .. }) if already.iter().any(|words| detail.contains(words)) => {
            Ok(())
        }
        done => done,
    }
}

/// A well-formed reference: there is no image under what is none.
fn reference(image: &str) -> Result<Reference, EngineError> {
    Reference::parse(image).map_err(|detail| EngineError::NoSuchImage { image: image.into(), detail })
}

#[async_trait]
impl Engine for Docker {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        // What is known says nothing about now.
        self.ping().await?;
        Ok(self.agree().await?.info.clone())
    }

    async fn is_up(&self) -> bool {
        // Each call opens a connection of its own, which an engine on its way out refuses.
        self.ping().await.is_ok()
    }

    async fn image(&self, image: &str) -> Result<Option<ImageInfo>, EngineError> {
        let reference = reference(image)?;
        let client = self.client().await?;
        let asked = client.inspect_image(image);
        let found = found(self.timed("look for the image", QUICK, Call::Image(image), asked).await)?;
        Ok(found.map(|found| read::image(found, &reference)))
    }

    async fn pull(
        &self,
        image: &str,
        progress: mpsc::Sender<PullProgress>,
    ) -> Result<ImageInfo, EngineError> {
        self.pull_image(image, progress).await?;
        let none =
            || EngineError::Other { call: "pull", detail: format!("{image} is not there after its pull") };
        self.image(image).await?.ok_or_else(none)
    }

    async fn remove_image(&self, id: &str) -> Result<bool, EngineError> {
        let client = self.client().await?;
        // Without force: the engine refuses while a container is made of it, or people have given it another name.
        let remove = client.remove_image(id, None::<RemoveImageOptions>, None);
        let remove = async {
            match remove.await {
                Ok(_) => Ok(true),
                Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(true),
                Err(Error::DockerResponseServerError { status_code: 409, .. }) => Ok(false),
                Err(error) => Err(error),
            }
        };
        self.timed("remove the image", SLOW, Call::Image(id), remove).await
    }

    async fn create(&self, plan: &Plan) -> Result<ContainerId, EngineError> {
        let engine = self.agree().await?;
        let ways = self.refused.ways(&engine.info);
        let options = CreateContainerOptions { name: Some(plan.name.clone()), platform: String::new() };
        if engine.info.systemd_cgroups
            && let GpuAccess::Nvidia { nodes, .. } = &plan.gpus
        {
            nodes::link(nodes);
        }
        let body = create::body(plan, ways);
        let create = engine.client.create_container(Some(options), body);
        let made = self.timed("make the container", SLOW, Call::Create(&plan.name), create).await?;
        Ok(ContainerId::new(made.id))
    }

    async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        let engine = self.agree().await?;
        let start = engine.client.start_container(id.as_str(), None);
        let started = self.timed("start the container", SLOW, Call::Container(id), start).await;
        started.map_err(|error| self.refused.learn(&engine.info, error))
    }

    async fn verify_gpus(&self, id: &ContainerId, gpus: &GpuAccess) -> Result<(), EngineError> {
        if matches!(gpus, GpuAccess::None | GpuAccess::Simulated(_)) {
            return Ok(());
        }
        let engine = self.agree().await?;
        let records = engine.info.name != PODMAN || !engine.info.cdi;
        gpus::verify(&self.record(id).await?, gpus, records).await
    }

    async fn signal(&self, id: &ContainerId, signal: &str) -> Result<(), EngineError> {
        let client = self.client().await?;
        let kill = client.kill_container(id.as_str(), Some(KillContainerOptions { signal: signal.into() }));
        unless(
            self.timed("signal the container", QUICK, Call::Container(id), kill).await,
            &["is not running"],
        )
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        let client = self.client().await?;
        let options = StopContainerOptions { signal: None, t: Some(whole_seconds(grace)) };
        let stop = client.stop_container(id.as_str(), Some(options));
        self.timed("stop the container", grace.saturating_add(SLOW), Call::Container(id), stop).await
    }

    async fn pause(&self, id: &ContainerId) -> Result<(), EngineError> {
        let client = self.client().await?;
        let pause = self.timed(
            "pause the container",
            QUICK,
            Call::Container(id),
            client.pause_container(id.as_str()),
        );
        let paused = unless(pause.await, &["already paused", "is not running"]);
        if paused.is_err() && self.described(id).await.is_ok_and(|it| it.state == ContainerState::Paused) {
            return Ok(());
        }
        paused
    }

    async fn unpause(&self, id: &ContainerId) -> Result<(), EngineError> {
        let client = self.client().await?;
        let unpause = self.timed(
            "unpause the container",
            QUICK,
            Call::Container(id),
            client.unpause_container(id.as_str()),
        );
        unless(unpause.await, &["is not paused"])?;
        let Some(record) = found(self.record(id).await)? else { return Ok(()) };
        let pid = record.state.and_then(|state| u32::try_from(state.pid?).ok());
        let (Some(container), Some(pid)) = (record.id, pid) else { return Ok(()) };
        if frozen::is_frozen(&container, pid) {
            frozen::thaw(&container, pid).map_err(|error| EngineError::Other {
                call: "unpause the container",
                detail: format!("its control group cannot be thawed: {error}"),
            })?;
        }
        Ok(())
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, EngineError> {
        let client = self.client().await?;
        let options = WaitContainerOptions { condition: "not-running".into() };
        match client.wait_container(id.as_str(), Some(options)).next().await {
            Some(Ok(_) | Err(bollard::errors::Error::DockerContainerWaitError { .. })) => {}
            Some(Err(error)) => {
                return Err(self.failed("wait for the container", Call::Container(id), error));
            }
            None => {
                return Err(EngineError::Unreachable {
                    address: self.address.clone(),
                    detail: "it closed the connection".into(),
                });
            }
        }
        let container = self.described(id).await?;
        container.exit.ok_or_else(|| EngineError::Other {
            call: "wait for the container",
            detail: format!("it has not ended: {:?}", container.state),
        })
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Container>, EngineError> {
        found(self.described(id).await)
    }

    async fn list(&self, labels: &[(String, String)]) -> Result<Vec<Container>, EngineError> {
        let client = self.client().await?;
        let wanted: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let filters = std::collections::HashMap::from([("label".to_owned(), wanted)]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let list = client.list_containers(Some(options));
        let found = self.timed("list the containers", SLOW, Call::Other, list).await?;
        Ok(found.into_iter().filter_map(read::summary).collect())
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats, EngineError> {
        let client = self.client().await?;
        let options = StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let mut answers = Box::pin(client.stats(id.as_str(), Some(options)));
        let first = async { answers.next().await.transpose() };
        let stats = self.timed("look what the container uses", QUICK, Call::Container(id), first).await?;
        Ok(stats.map(read::stats).unwrap_or_default())
    }

    async fn output(
        &self,
        id: &ContainerId,
        since: Option<Timestamp>,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<Frame, EngineError>>, EngineError> {
        let engine = self.agree().await?;
        // podman's lines have the time of the read that they came with.
        let shares_times = engine.info.name != "Docker";
        let (address, owned) = (self.address.clone(), id.clone());
        let failed = move |error| classify(&address, "give the output", Call::Container(&owned), error);
        Ok(output::frames(&engine.client, id, since, follow, shares_times, failed))
    }

    async fn remove_unstarted(&self, id: &ContainerId) -> Result<bool, EngineError> {
        let client = self.client().await?;
        // The engine answers only once a start of the container that is under way is over.
        match self.inspect(id).await? {
            None => return Ok(true),
            Some(container) if container.started_at.is_some() => return Ok(false),
            Some(_) => {}
        }
        // Without force: a start that came in between makes this fail, and one that comes later
        // finds nothing to start.
        let options = RemoveContainerOptions { v: true, force: false, link: false };
        let remove = client.remove_container(id.as_str(), Some(options));
        match self.timed("remove the container", SLOW, Call::Container(id), remove).await {
            Err(EngineError::Other { detail, .. }) if detail.contains("running container") => Ok(false),
            done => found(done).map(|_| true),
        }
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        let client = self.client().await?;
        let known = self.inspect(id).await?;
        if let Some(container) = known.filter(|container| container.state == ContainerState::Paused) {
            // By the engine's id, whatever name it was asked for by: processes' groups are named so.
            frozen::kill_all(container.id.as_str());
        }
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        let remove = client.remove_container(id.as_str(), Some(options));
        match self.timed("remove the container", SLOW, Call::Container(id), remove).await {
            Err(EngineError::Other { detail, .. }) if detail.contains("already in progress") => {
                self.until_gone(id).await
            }
            done => found(done).map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_is_rounded_up() {
        let millis = [0, 1, 1000, 1001].map(Duration::from_millis);
        assert_eq!(millis.map(whole_seconds), [0, 1, 1, 2]);
        assert_eq!(whole_seconds(Duration::MAX), i32::MAX);
    }
}
