//! Docker's Engine API, through bollard, and whatever else speaks it.

mod create;
mod error;
mod output;
mod pull;
mod read;

#[cfg(test)]
mod live;

use std::{
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bollard::query_parameters::{
    CreateContainerOptions, KillContainerOptions, ListContainersOptionsBuilder, RemoveContainerOptions,
    StopContainerOptions, WaitContainerOptions,
};
use futures::{StreamExt, stream::BoxStream};
use shared::id::Timestamp;
use tokio::sync::mpsc;

use super::{
    Container, ContainerId, Engine, EngineError, EngineInfo, Exit, Frame, GpuAccess, ImageInfo, Plan,
    PullProgress,
};
use error::{Call, classify};

/// For what the engine answers out of its memory.
const QUICK: Duration = Duration::from_secs(20);
/// For what it does on disk, with mounts and cgroups.
const SLOW: Duration = Duration::from_secs(120);
/// Docker's own default, on Linux.
const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";

/// An engine at an address.
pub struct Docker {
    client: bollard::Docker,
    address: String,
    /// What the engine is, asked when the API version was agreed upon; nothing while it is away.
    known: Mutex<Option<EngineInfo>>,
    /// Whether it may raise limits; an engine inside a container often may not.
    raises_limits: AtomicBool,
    /// Where the host's registry credentials are; the user's own place without.
    credentials: Option<PathBuf>,
}

impl Docker {
    /// An engine at this address (`unix:///path` or `tcp://host:port`), at `DOCKER_HOST`, or at
    /// Docker's usual place. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`] for what is no address.
    pub fn connect(address: Option<&str>) -> Result<Self, EngineError> {
        let address = address.map(str::to_owned).or_else(|| std::env::var("DOCKER_HOST").ok());
        let address = address.filter(|address| !address.is_empty()).unwrap_or_else(|| DEFAULT_ADDRESS.into());
        let address = if address.starts_with('/') { format!("unix://{address}") } else { address };
        // bollard looks for the socket's file when it is made; ours may come later.
        let client = match address.strip_prefix("unix://") {
            Some(path) => {
                let timeout = SLOW.as_secs();
                bollard::Docker::connect_with_unix(path, timeout, bollard::API_DEFAULT_VERSION)
            }
            None => bollard::Docker::connect_with_host(&address),
        };
        let unreachable = |e: bollard::errors::Error| EngineError::Unreachable {
            address: address.clone(),
            detail: e.to_string(),
        };
        let client = client.map_err(unreachable)?;
        Ok(Self {
            client,
            address,
            known: Mutex::new(None),
            raises_limits: AtomicBool::new(true),
            credentials: None,
        })
    }

    fn known(&self) -> Option<EngineInfo> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_known(&self, info: Option<EngineInfo>) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = info;
    }

    /// What the engine is that is there now, once an API version is agreed upon with it.
    async fn agree(&self) -> Result<EngineInfo, EngineError> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let negotiate = self.client.clone().negotiate_version();
        self.timed("name its version", QUICK, Call::Other, negotiate).await?;
        let info = self.timed("describe itself", QUICK, Call::Other, self.client.info()).await?;
        let api = self.client.client_version();
        let info = read::info(info, format!("{}.{}", api.major_version, api.minor_version));
        self.set_known(Some(info.clone()));
        Ok(info)
    }

    /// The client, once an API version is agreed upon.
    async fn client(&self) -> Result<&bollard::Docker, EngineError> {
        self.agree().await?;
        Ok(&self.client)
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
        if let EngineError::Unreachable { .. } = error {
            // Another version may be there when it comes back.
            self.set_known(None);
        }
        error
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

#[async_trait]
impl Engine for Docker {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        let info = self.agree().await?;
        self.timed("answer", QUICK, Call::Other, self.client.ping()).await?;
        Ok(info)
    }

    async fn is_up(&self) -> bool {
        // Each call opens a connection of its own, which an engine on its way out refuses.
        self.client.ping().await.is_ok()
    }

    async fn image(&self, image: &str) -> Result<Option<ImageInfo>, EngineError> {
        let client = self.client().await?;
        let asked = client.inspect_image(image);
        let image = self.timed("look for the image", QUICK, Call::Image(image), asked).await;
        Ok(found(image)?.map(read::image))
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

    async fn create(&self, plan: &Plan) -> Result<ContainerId, EngineError> {
        let client = self.client().await?;
        let systemd_cgroups = self.agree().await?.systemd_cgroups;
        let raises_limits = self.raises_limits.load(Ordering::Relaxed);
        let options = CreateContainerOptions { name: Some(plan.name.clone()), platform: String::new() };
        let create =
            client.create_container(Some(options), create::body(plan, systemd_cgroups, raises_limits));
        let made = self.timed("make the container", SLOW, Call::Create(&plan.name), create).await?;
        Ok(ContainerId::new(made.id))
    }

    async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        let client = self.client().await?;
        let start = client.start_container(id.as_str(), None);
        let started = self.timed("start the container", SLOW, Call::Container(id), start).await;
        if let Err(EngineError::LimitsRefused { detail }) = &started
            && self.raises_limits.swap(false, Ordering::Relaxed)
        {
            tracing::info!(detail, "containers get the engine's own memlock and stack limits");
        }
        started
    }

    async fn verify_gpus(&self, id: &ContainerId, gpus: &GpuAccess) -> Result<(), EngineError> {
        let GpuAccess::Nvidia { uuids, nodes } = gpus else { return Ok(()) };
        let client = self.client().await?;
        let inspect = client.inspect_container(id.as_str(), None);
        let seen = self.timed("describe the container", QUICK, Call::Container(id), inspect).await?;
        read::verify(&seen, uuids, nodes)
    }

    async fn signal(&self, id: &ContainerId, signal: &str) -> Result<(), EngineError> {
        let client = self.client().await?;
        let kill = client.kill_container(id.as_str(), Some(KillContainerOptions { signal: signal.into() }));
        match self.timed("signal the container", QUICK, Call::Container(id), kill).await {
            Err(EngineError::Other { detail, .. }) if detail.contains("is not running") => Ok(()),
            done => done,
        }
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        let client = self.client().await?;
        let t = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptions { signal: None, t: Some(t) };
        let stop = client.stop_container(id.as_str(), Some(options));
        self.timed("stop the container", grace.saturating_add(SLOW), Call::Container(id), stop).await
    }

    async fn pause(&self, id: &ContainerId) -> Result<(), EngineError> {
        let pause = self.client().await?.pause_container(id.as_str());
        self.timed("pause the container", QUICK, Call::Container(id), pause).await
    }

    async fn unpause(&self, id: &ContainerId) -> Result<(), EngineError> {
        let unpause = self.client().await?.unpause_container(id.as_str());
        self.timed("unpause the container", QUICK, Call::Container(id), unpause).await
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
        let container = self.inspect(id).await?;
        let gone = || EngineError::NoSuchContainer { id: id.to_string() };
        let running =
            || EngineError::Other { call: "wait for the container", detail: "it still runs".into() };
        container.ok_or_else(gone)?.exit.ok_or_else(running)
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Container>, EngineError> {
        let client = self.client().await?;
        let inspect = client.inspect_container(id.as_str(), None);
        let seen = self.timed("describe the container", QUICK, Call::Container(id), inspect).await;
        Ok(found(seen)?.map(read::container))
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

    async fn output(
        &self,
        id: &ContainerId,
        since: Option<Timestamp>,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<Frame, EngineError>>, EngineError> {
        let client = self.client().await?;
        let (address, owned) = (self.address.clone(), id.clone());
        let failed = move |error| classify(&address, "give the output", Call::Container(&owned), error);
        Ok(output::frames(client, id, since, follow, failed))
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
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        let remove = client.remove_container(id.as_str(), Some(options));
        match self.timed("remove the container", SLOW, Call::Container(id), remove).await {
            // Somebody else is at it already.
            Err(EngineError::Other { detail, .. }) if detail.contains("already in progress") => Ok(()),
            done => found(done).map(|_| ()),
        }
    }
}
