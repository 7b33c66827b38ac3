//! The container engine as the agent meets it: shipped code's `Engine` over a host's containers.

use std::{fmt::Display, sync::Arc, time::Duration};

use agent::engine::{
    Container, ContainerId, ContainerState, Engine, EngineError, EngineInfo, Exit, Frame, GpuAccess,
    ImageInfo, Plan, PullProgress, Stats,
};
use async_trait::async_trait;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use shared::{id::Timestamp, units::Size};
use tokio::sync::mpsc;

use crate::{
    host::{Broken, Link},
    machine::{Machine, refused},
};

/// One agent's connection to its engine.
#[derive(Clone)]
pub struct SimEngine {
    machine: Arc<Machine>,
    link: Link,
}

impl SimEngine {
    /// A connection.
    pub fn new(machine: &Arc<Machine>, link: Link) -> Self {
        Self { machine: machine.clone(), link }
    }

    async fn read<T>(
        &self,
        call: &'static str,
        read: impl FnOnce(&Machine) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let machine = self.machine.clone();
        self.link.read(call, move || read(&machine)).await.map_err(|Broken| silent(call))?
    }

    async fn write<T: Send + 'static>(
        &self,
        call: &'static str,
        on: impl Display,
        effect: impl FnOnce(&Arc<Machine>) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let machine = self.machine.clone();
        let what = format!("engine: {call} {on}");
        self.link.write(what, move || effect(&machine)).await.map_err(|Broken| silent(call))?
    }

    /// Waits for a container to be as wanted, through all changes.
    async fn until<T>(
        &self,
        id: &ContainerId,
        wanted: impl Fn(&Container) -> Result<Option<T>, EngineError> + Send,
    ) -> Result<T, EngineError>
    where
        T: Send,
    {
        let look = || {
            let found = self.machine.on(id, |held| Ok(held.shown()));
            found.and_then(|found| wanted(&found)).transpose()
        };
        let found = self.machine.changed.until(look).await;
        self.link.gate().await;
        found
    }
}

fn silent(call: &'static str) -> EngineError {
    EngineError::Timeout { call, seconds: 30 }
}

fn image() -> ImageInfo {
    ImageInfo { id: "sha256:sim".into(), digest: None, env: Vec::new(), size: Size::MIB }
}

#[async_trait]
impl Engine for SimEngine {
    async fn info(&self) -> Result<EngineInfo, EngineError> {
        Ok(EngineInfo {
            name: "sim",
            version: "1".into(),
            api: "1".into(),
            root: "/".into(),
            images_in_containerd: false,
            systemd_cgroups: false,
            cdi: false,
            live_restore: false,
        })
    }

    async fn is_up(&self) -> bool {
        self.link.gate().await;
        self.machine.is_up()
    }

    async fn image(&self, _: &str) -> Result<Option<ImageInfo>, EngineError> {
        let there = !self.link.host.world.odds(0.2);
        self.read("look for an image", move |_| Ok(there.then(image))).await
    }

    async fn pull(&self, _: &str, _: mpsc::Sender<PullProgress>) -> Result<ImageInfo, EngineError> {
        let takes = self.link.host.world.seconds(1, 20);
        tokio::time::sleep(takes).await;
        self.read("pull", |_| Ok(image())).await
    }

    async fn remove_image(&self, _: &str) -> Result<bool, EngineError> {
        self.read("remove an image", |_| Ok(false)).await
    }

    async fn create(&self, plan: &Plan) -> Result<ContainerId, EngineError> {
        let made = plan.clone();
        self.write("create", &plan.name, move |machine| machine.create(&made)).await
    }

    async fn start(&self, id: &ContainerId) -> Result<(), EngineError> {
        let on = id.clone();
        self.write("start", id, move |machine| machine.start(&on)).await
    }

    async fn verify_gpus(&self, _: &ContainerId, _: &GpuAccess) -> Result<(), EngineError> {
        Ok(())
    }

    async fn signal(&self, id: &ContainerId, _: &str) -> Result<(), EngineError> {
        let on = id.clone();
        self.write("signal", id, move |machine| machine.on(&on, |_| Ok(()))).await
    }

    async fn stop(&self, id: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        let on = id.clone();
        self.write("stop", id, move |machine| machine.stop(&on, grace)).await?;
        self.until(id, |found| Ok(found.exit.is_some().then_some(()))).await
    }

    async fn pause(&self, id: &ContainerId) -> Result<(), EngineError> {
        let on = id.clone();
        self.write("pause", id, move |machine| machine.pause(&on)).await
    }

    async fn unpause(&self, id: &ContainerId) -> Result<(), EngineError> {
        let on = id.clone();
        self.write("unpause", id, move |machine| machine.unpause(&on)).await
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, EngineError> {
        self.until(id, |found| match found.state {
            ContainerState::Created => Err(refused("wait")),
            _ => Ok(found.exit.clone()),
        })
        .await
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Option<Container>, EngineError> {
        let found = self.read("inspect", |machine| machine.on(id, |held| Ok(held.shown()))).await;
        match found {
            Ok(found) => Ok(Some(found)),
            Err(EngineError::NoSuchContainer { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, labels: &[(String, String)]) -> Result<Vec<Container>, EngineError> {
        self.read("list", |machine| machine.list(labels)).await
    }

    async fn remove_unstarted(&self, id: &ContainerId) -> Result<bool, EngineError> {
        let on = id.clone();
        self.write("remove the unstarted", id.clone(), move |machine| machine.remove_unstarted(&on)).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        let on = id.clone();
        self.write("remove", id.clone(), move |machine| machine.remove(&on)).await
    }

    async fn stats(&self, _: &ContainerId) -> Result<Stats, EngineError> {
        Ok(Stats::default())
    }

    async fn output(
        &self,
        id: &ContainerId,
        since: Option<Timestamp>,
        follow: bool,
    ) -> Result<BoxStream<'static, Result<Frame, EngineError>>, EngineError> {
        self.read("read the output of", |machine| machine.on(id, |_| Ok(()))).await?;
        let frames = stream::unfold((self.clone(), id.clone(), 0), move |(engine, id, at)| async move {
            let look = || {
                let found = engine.machine.on(&id, |held| {
                    let new = held.frames.iter().enumerate().skip(at);
                    let mut new = new.filter(|(_, frame)| since.is_none_or(|since| frame.at >= since));
                    let next = new.next().map(|(at, frame)| (at, frame.clone()));
                    Ok((next, held.shown().exit.is_some()))
                });
                match found {
                    Ok((Some((at, frame)), _)) => Some(Some((Ok(frame), at + 1))),
                    Ok((None, ended)) => (ended || !follow).then_some(None),
                    Err(EngineError::Unreachable { .. }) => Some(None),
                    Err(error) => Some(Some((Err(error), at))),
                }
            };
            let (frame, at) = engine.machine.changed.until(look).await?;
            engine.link.gate().await;
            Some((frame, (engine, id, at)))
        });
        Ok(frames.boxed())
    }
}
