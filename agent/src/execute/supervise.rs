//! Watching a container: its exit, its time limit, its output, and what its agent is told.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use shared::{
    id::{Attempt, JobId, Timestamp},
    job::OnIsolation,
    log::OutputSize,
    output::{Chunks, OutputError},
    units::Span,
};
use tokio::sync::watch;

use super::{
    Lost, Notice, Run,
    outcome::{Ending, Reason, went_down},
    owner,
};
use crate::{
    engine::{Container, ContainerId, ContainerState, Engine, EngineError, Exit, is_there},
    health,
    node::Node,
    patience::{Chain, Patience, insist},
    ship::Shipper,
};

/// How a container was found after it had ended.
enum Found {
    /// It exited; `engine_went` where the engine was away or going at that time.
    Exited { exit: Exit, engine_went: bool },
    /// It is not there any more.
    Gone,
}

/// What became of the output.
struct Shipped {
    /// What is in the store.
    size: OutputSize,
    /// Why the rest will never be there.
    unkept: Option<String>,
}

impl Run {
    /// Watches a started container to its end.
    pub(super) async fn supervise(&mut self, id: &ContainerId) -> Result<(Ending, OutputSize), Lost> {
        let (node, engine) = (self.node.clone(), self.node.engine.clone());
        let Some(container) = inspect(&engine, id).await else {
            return Ok((Ending::engine_fault("the container vanished"), self.shipped().await));
        };
        // By the engine's id: the processes' groups are named so.
        node.ledger.runs_in(&self.job.id, &container.id);
        // Output is shipped only after this stands in the log.
        let fresh = self.job.held().is_some_and(|claim| claim.started.is_none());
        self.announce(id, &container).await?;
        tracing::info!(container = container.name, image = owner::image_of(&container), "running");
        let (exited, has_exited) = watch::channel(false);
        let shipper = Shipper {
            engine: engine.clone(),
            clock: node.clock.clone(),
            container: id.clone(),
            chunks: Chunks::new(node.fleet.store.clone(), self.job.id.clone(), self.attempt),
            fresh,
            exited: has_exited,
        };
        let mut ship = pin!(ship(node.clone(), self.job.id.clone(), self.attempt, shipper).fuse());
        let mut wait = pin!(until_exit(engine.clone(), id.clone()).fuse());
        let mut limits = pin!(self.limits(&container).fuse());
        let mut stop: BoxFuture<'static, ()> = futures::future::pending().boxed();
        let (mut asked, mut found, mut output) = (None, None, None);
        loop {
            let reason = tokio::select! {
                // The exit first: what has ended by itself was not stopped.
                biased;
                ended = &mut wait, if found.is_none() => {
                    found = Some(ended);
                    exited.send_replace(true);
                    None
                }
                shipped = &mut ship, if output.is_none() => {
                    let shipped = shipped?;
                    let unkept = shipped.unkept.is_some();
                    output = Some(shipped);
                    unkept.then_some(Reason::Preempted)
                }
                // To stop a container thaws it, which is not ours to do while we are cut off.
                () = &mut stop, if !self.cut => {
                    stop = futures::future::pending().boxed();
                    None
                }
                () = &mut limits, if !self.cut => Some(Reason::TimedOut),
                notice = self.notice() => match notice {
                    Notice::Lost => return Err(Lost),
                    Notice::Stop(reason) => Some(reason),
                    Notice::Cut => self.freeze(id).await,
                    Notice::Back => {
                        self.thaw(id).await;
                        None
                    }
                },
            };
            if let (Some(reason), None, None) = (reason, asked, &found) {
                asked = Some(reason);
                let grace = node.ledger.grace(self.job.spec.grace.0, node.clock.now());
                tracing::info!(?reason, grace = %Span(grace), "stopping");
                stop = stop_container(engine.clone(), id.clone(), grace).boxed();
            }
            if let (Some(found), Some(shipped)) = (&found, &output) {
                let broken = self.broken_gpu(found, asked).await;
                let mut ending = match found {
                    Found::Exited { exit, .. } if went_down(exit, node.clock.booted()) => {
                        Ending::node_lost(Some(exit))
                    }
                    found => ending(found, asked, shipped, broken),
                };
                if let (Some(Reason::GaveWay), None) = (asked, &ending.message) {
                    let by = self.node.ledger.gives_way_to(&self.job.id);
                    ending.message = by.map(|by| format!("gave way to job {by}, which goes before it"));
                }
                return Ok((ending, shipped.size));
            }
        }
    }

    /// What is wrong with a GPU of a container that has failed. The driver may have said so after the last
    /// beat.
    async fn broken_gpu(&self, found: &Found, asked: Option<Reason>) -> Option<String> {
        let failed = matches!(found, Found::Exited { exit, .. } if exit.code != 0);
        if !matches!((failed, asked), (true, None) | (_, Some(Reason::GpuFault)))
            || self.job.held()?.gpus.is_empty()
            // Those that are made up do not break.
            || self.node.ledger.inventory().simulated
        {
            return None;
        }
        if let Err(error) = health::look_at_gpus(&self.node).await {
            tracing::debug!(%error, "the GPUs cannot be read");
        }
        self.node.ledger.broken(&self.job.id)
    }

    /// Writes that the container runs, as soon as the job is this node's and the container is thawed.
    async fn announce(&mut self, id: &ContainerId, container: &Container) -> Result<(), Lost> {
        let mut frozen = container.state == ContainerState::Paused;
        let node = self.node.clone();
        loop {
            let epoch = self.ours().filter(|_| !frozen);
            let Some(epoch) = epoch else {
                self.freeze(id).await;
                self.hold().await?;
                self.thaw(id).await;
                frozen = false;
                continue;
            };
            // Not for longer than the lease holds: the container runs meanwhile.
            tokio::select! {
                biased;
                () = node.fence.left(epoch) => {}
                started = self.started(container) => return started,
            }
        }
    }

    /// Does to the container what the job wants when its node is cut off; a reason where that is to
    /// stop it.
    async fn freeze(&self, id: &ContainerId) -> Option<Reason> {
        match self.job.spec.on_isolation {
            OnIsolation::Continue => None,
            OnIsolation::Freeze | OnIsolation::Stop => {
                tracing::warn!("frozen: this node is cut off, and the job may be given to another");
                self.pause(id).await;
                // What is left of it by now is stopped if the job is this node's still.
                (self.job.spec.on_isolation == OnIsolation::Stop).then_some(Reason::Preempted)
            }
        }
    }

    async fn thaw(&self, id: &ContainerId) {
        // The guard freezes one that is to be stopped as well.
        if self.job.spec.on_isolation != OnIsolation::Continue {
            tracing::info!("thawed: the job is still this node's");
            let mut patience = Patience::default();
            // Each try for itself: the engine may not answer until the job is somebody else's.
            while self.ours().is_some() {
                match self.node.engine.unpause(id).await {
                    Ok(()) | Err(EngineError::NoSuchContainer { .. }) => return,
                    Err(error) => patience.wait("the container's thaw", &error).await,
                }
            }
        }
    }

    async fn pause(&self, id: &ContainerId) {
        insist("the container's pause", || async move {
            match self.node.engine.pause(id).await {
                Err(EngineError::NoSuchContainer { .. }) => Ok(()),
                done => done,
            }
        })
        .await;
    }

    /// Warns the container when its time is nearly up, and ends when it is.
    fn limits(&self, container: &Container) -> impl Future<Output = ()> + Send + use<> {
        let (engine, clock, id) = (self.node.engine.clone(), self.node.clock.clone(), container.id.clone());
        let started = container.started_at.unwrap_or_else(|| clock.now());
        let (timeout, warn) = (self.job.spec.timeout, self.job.spec.warn);
        async move {
            let Some(timeout) = timeout else { return std::future::pending().await };
            let left = |until: Timestamp| (until - clock.now()).to_std().unwrap_or_default();
            if let Some(warn) = warn {
                let at = started + timeout.0.saturating_sub(warn.0);
                // Its time may have come while no agent was there; late is better than never.
                tokio::time::sleep(left(at)).await;
                if let Err(error) = engine.signal(&id, "SIGUSR1").await {
                    tracing::warn!(%error, "the container could not be warned of its end");
                }
            }
            tokio::time::sleep(left(started + timeout.0)).await;
        }
    }
}

fn ending(found: &Found, asked: Option<Reason>, shipped: &Shipped, broken: Option<String>) -> Ending {
    if let (Some(message), Some(Reason::Preempted)) = (&shipped.unkept, asked) {
        // Stopped for that alone.
        return Ending::engine_fault(message);
    }
    match found {
        Found::Exited { exit, engine_went } => Ending::from_exit(exit, asked, *engine_went, broken),
        Found::Gone => Ending::engine_fault("the container was removed by somebody else while it ran"),
    }
}

/// Ships the output. What cannot be written on is not by itself a sign that the job is somebody else's:
/// only the log says that.
async fn ship(node: Arc<Node>, job: JobId, attempt: Attempt, mut shipper: Shipper) -> Result<Shipped, Lost> {
    loop {
        let error = match shipper.clone().run().await {
            Ok(size) => return Ok(Shipped { size, unkept: None }),
            Err(error) => error,
        };
        let log = insist("the job's log", || node.log.read(&job)).await;
        if !log.is_some_and(|job| job.is_held_by(&node.id, attempt)) {
            return Err(Lost);
        }
        tracing::warn!(error = %Chain(&error), "the output cannot be written on");
        if matches!(error, OutputError::Taken { .. }) {
            // By a late request of an earlier run of this agent.
            shipper.fresh = false;
            continue;
        }
        let chunks = insist("the output's size", || shipper.chunks.count()).await;
        let unkept = Some(format!("its output cannot be kept: {}", Chain(&error)));
        return Ok(Shipped { size: OutputSize { chunks }, unkept });
    }
}

/// The container, once the engine answers; `None` where it has none of that id.
async fn inspect(engine: &Arc<dyn Engine>, id: &ContainerId) -> Option<Container> {
    insist("the container's state", || engine.inspect(id)).await
}

/// Stops it with notice, and does so again if the engine could not.
async fn stop_container(engine: Arc<dyn Engine>, id: ContainerId, grace: Duration) {
    let mut patience = Patience::default();
    loop {
        match engine.stop(&id, grace).await {
            Ok(()) | Err(EngineError::NoSuchContainer { .. }) => return,
            Err(error) => patience.wait("the container's stop", &error).await,
        }
    }
}

/// Waits until the container has exited, through restarts of the engine.
async fn until_exit(engine: Arc<dyn Engine>, id: ContainerId) -> Found {
    let mut engine_went = false;
    let exit = loop {
        match engine.wait(&id).await {
            Ok(exit) => break exit,
            Err(EngineError::NoSuchContainer { .. }) => return Found::Gone,
            Err(error) => {
                tracing::warn!(%error, "lost sight of the container; looking again");
                engine_went = true;
                tokio::time::sleep(Duration::from_millis(500)).await;
                // A container that outlived the engine's restart was not ended by it.
                match inspect(&engine, &id).await {
                    None => return Found::Gone,
                    Some(container) if container.exit.is_none() => engine_went = false,
                    Some(_) => {}
                }
            }
        }
    };
    // An engine that is shutting down stops its containers first and its answers last.
    if !is_there(engine.as_ref()).await {
        engine_went = true;
        // The rest of the output and the removal need it back.
        if inspect(&engine, &id).await.is_none() {
            return Found::Gone;
        }
    }
    Found::Exited { exit, engine_went }
}
