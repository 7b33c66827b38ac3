//! One attempt at a job, from its claim to its end.
//!
//! [`run`] takes an attempt up wherever it stands: just claimed, or with a container that an
//! earlier start of the agent made. It prepares ([`prepare`]: image, directories, mounts), makes
//! and starts the container, watches it ([`supervise`]: its exit, its time limit, a cancel), ships
//! its output, and writes how it ended ([`outcome`]). [`settle`] then moves the job's marker and
//! sends its next message.
//!
//! The task may be dropped at any await, by a crash or by a stop of the agent; what stands in the
//! log and what the engine says is then enough to take it up again.

mod owner;
mod prepare;
mod removal;
pub mod settle;
mod stage;
mod supervise;
mod verdict;

pub mod outcome;

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use outcome::{Ending, Reason};
pub use owner::{Owner, freezes, gpus_of, labels_of};
pub use removal::Removals;
use shared::{
    id::Attempt,
    job::OnIsolation,
    lease::Deadline,
    log::{Ended, Event, Job, OutputSize, Resumed, Started, next_step, second_opinion},
    mutant::{self, Mutant},
};
pub use stage::Stage;

use crate::{
    changes::Watcher,
    engine::{Container, ContainerId, EngineError, GpuAccess, Plan},
    fence::Epoch,
    ledger::Terms,
    node::Node,
    pace::Pace,
    patience::{Patience, insist},
};

/// What an attempt is told while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notice {
    /// Stop, for this reason.
    Stop(Reason),
    /// The job is somebody else's by now.
    Lost,
    /// This node may have been replaced: nothing may be done for the job until it is known.
    Cut,
    /// The job has proved to be this node's still.
    Back,
}

/// The attempt is not ours any more.
struct Lost;

/// An attempt on its way.
struct Run {
    node: Arc<Node>,
    job: Job,
    attempt: Attempt,
    beat: Pace,
    evictions: Watcher,
    told: Option<Notice>,
    /// The fence's epoch in which the job's log last proved to be this node's.
    proven: Option<Epoch>,
    /// Whether it was told that it is cut off, and not yet that it is back.
    cut: bool,
    /// Cancelled once the job's marker is gone from where it waited before the claim.
    moved: CancellationToken,
}

/// Runs a job that this node holds until its attempt has ended and its marker is moved. `proven` is
/// the fence's epoch as it was before the log said so; `moved` is cancelled once the job's marker is gone
/// from where it waited, before which it must not be put there again.
pub async fn run(node: Arc<Node>, job: Job, stage: Stage, proven: Option<Epoch>, moved: CancellationToken) {
    let Some(attempt) = job.held().map(|claim| claim.attempt) else {
        tracing::error!(job = %job.id, "the job to run is not held; please report this as a bug");
        return;
    };
    let beat = Pace::after(node.fleet.clone(), |settings| settings.beat);
    let evictions = node.ledger.evictions();
    let mut run =
        Run { node: node.clone(), job, attempt, beat, evictions, told: None, proven, cut: false, moved };
    if let Some(epoch) = proven {
        run.proved(epoch);
    }
    let name = match &stage {
        // As an earlier run of the agent has called it.
        Stage::Made(container) | Stage::Started(container) => ContainerId::new(container.name.clone()),
        Stage::Claimed | Stage::Gone | Stage::Lost => {
            owner::container_name(node.fleet.store.url().as_str(), &run.job.id, attempt)
        }
    };
    match run.live(stage, &name).await {
        Ok((ending, output)) => run.end(ending, output, &name).await,
        Err(Lost) => {
            tracing::warn!("the job was taken over by another node; its container here is removed");
            insist("the container's removal", || node.engine.remove(&name)).await;
            settle::give_up(&node, &run.job.id, attempt).await;
            node.ledger.give_back(&run.job.id);
            node.ledger.settled(&run.job.id);
        }
    }
}

impl Run {
    /// From where it stands to the end of its container.
    async fn live(&mut self, stage: Stage, name: &ContainerId) -> Result<(Ending, OutputSize), Lost> {
        let container = match stage {
            Stage::Gone => {
                let message = "the container was gone when the agent looked for it";
                return Ok((Ending::engine_fault(message), self.shipped().await));
            }
            Stage::Lost => return Ok((Ending::node_lost(None), self.shipped().await)),
            Stage::Started(container) => {
                if mutant::is_on(Mutant::StartTwice) {
                    let _ = self.node.engine.start(&container.id).await;
                }
                container.id
            }
            // What was made is dealt with where the next one's name is found taken.
            Stage::Claimed | Stage::Made(_) => match self.begin(name).await? {
                Ok(container) => container,
                Err(ending) => return Ok((ending, OutputSize::default())),
            },
        };
        self.supervise(&container).await
    }

    /// Makes and starts the container.
    async fn begin(&mut self, name: &ContainerId) -> Result<Result<ContainerId, Ending>, Lost> {
        let prepare = prepare::prepare(self.node.clone(), self.job.clone(), self.attempt, name.clone());
        let plan = tokio::select! {
            // What is to stop is not prepared any further.
            biased;
            notice = self.until_stopped() => match notice {
                None => return Err(Lost),
                Some(reason) => return Ok(Err(Ending::before_start(reason))),
            },
            plan = prepare => plan,
        };
        let plan = match plan {
            Ok(plan) => plan,
            Err(ending) => return Ok(Err(ending)),
        };
        self.hold().await?;
        let engine = self.node.engine.clone();
        let mut started = self.make_and_start(&plan, name).await?;
        // It knows by now what not to ask for: raised limits, and NVIDIA's hook.
        for _ in 0..2 {
            if !matches!(started, Err(EngineError::AskedTooMuch { .. })) {
                break;
            }
            insist("the container's removal", || engine.remove(name)).await;
            started = self.make_and_start(&plan, name).await?;
        }
        let container = match started {
            Ok(container) => container,
            Err(error) => return Ok(Err(Ending::from_engine(&error))),
        };
        if plan.gpus != GpuAccess::None
            && let Err(error) = engine.verify_gpus(&container, &plan.gpus).await
        {
            insist("the container's removal", || engine.remove(name)).await;
            return Ok(Err(Ending::from_engine(&error)));
        }
        Ok(Ok(container))
    }

    /// Makes the container and starts it. One that an earlier run of the agent made, whose start may
    /// still be under way, is taken as it is if it was started, and made anew if not: starting it once
    /// more could run the job twice.
    async fn make_and_start(
        &mut self,
        plan: &Plan,
        name: &ContainerId,
    ) -> Result<Result<ContainerId, EngineError>, Lost> {
        let engine = self.node.engine.clone();
        let made = match engine.create(plan).await {
            Err(EngineError::NameTaken { .. }) => match engine.remove_unstarted(name).await {
                Ok(true) => engine.create(plan).await,
                Ok(false) => return Ok(Ok(name.clone())),
                Err(error) => Err(error),
            },
            made => made,
        };
        let container = match made {
            Ok(container) => container,
            Err(error) => return Ok(Err(error)),
        };
        // It may have taken long to make.
        self.hold().await?;
        let Err(error) = engine.start(&container).await else { return Ok(Ok(container)) };
        // It may run all the same, or begin to later. It is taken as it is if it does; before the log
        // gives the job to anybody else, it is gone. One that ran is not removed here: a crash right
        // after would leave nothing that says so, and the next run of the agent would start the
        // attempt again.
        let removed = insist("the container's removal", || engine.remove_unstarted(name)).await;
        Ok(if removed { Err(error) } else { Ok(container) })
    }

    /// Writes that the container runs, unless that stands there already.
    async fn started(&mut self, container: &Container) -> Result<(), Lost> {
        let event = Started {
            attempt: self.attempt,
            container: container.id.to_string(),
            image: owner::image_of(container).to_owned(),
            started_at: container.started_at.unwrap_or_else(|| self.node.clock.now()),
        };
        self.node.ledger.began(&self.job.id, Terms::running(&self.job.spec, event.started_at));
        let (log, node, attempt) = (self.node.log.clone(), self.node.id.clone(), self.attempt);
        loop {
            let decide = |job: &Job| {
                let ours = job.is_held_by(&node, attempt);
                let missing = job.held().is_some_and(|claim| claim.started.is_none());
                (ours && missing).then(|| Event::Started(event.clone()))
            };
            match log.append(&mut self.job, decide).await {
                Ok(_) => break,
                Err(error) => Patience::default().wait("the job's log", &error).await,
            }
        }
        if self.job.is_held_by(&node, attempt) { Ok(()) } else { Err(Lost) }
    }

    /// The fence's epoch, while this node may act for the job.
    fn ours(&self) -> Option<Epoch> {
        self.proven.filter(|epoch| self.node.fence.epoch() == Some(*epoch))
    }

    /// The job's log has proved to be this node's in this epoch.
    fn proved(&mut self, epoch: Epoch) {
        self.proven = Some(epoch);
        self.node.fence.proved(&self.job.id, epoch);
    }

    /// Waits until this node may act for the job: its lease holds, and the job's log has proved to
    /// be its own since the lease was last begun. Safe to drop.
    async fn hold(&mut self) -> Result<(), Lost> {
        loop {
            let epoch = self.node.fence.opened().await;
            if self.proven == Some(epoch) {
                return Ok(());
            }
            let (log, node, attempt) = (self.node.log.clone(), self.node.id.clone(), self.attempt);
            if mutant::is_on(Mutant::ThawBlind) && log.refresh(&mut self.job).await.is_ok() {
                self.proved(epoch);
                return if self.job.is_held_by(&node, attempt) { Ok(()) } else { Err(Lost) };
            }
            let incarnation = self.node.incarnation.clone();
            let decide = |job: &Job| {
                let resumed = Resumed { attempt, incarnation: incarnation.clone() };
                job.is_held_by(&node, attempt).then_some(Event::Resumed(resumed))
            };
            match log.append(&mut self.job, decide).await {
                Ok(Some(_)) => self.proved(epoch),
                Ok(None) => return Err(Lost),
                Err(error) => Patience::default().wait("the job's log", &error).await,
            }
        }
    }

    /// Why the attempt is to stop, or `None` where it is not ours any more. Safe to drop.
    async fn until_stopped(&mut self) -> Option<Reason> {
        loop {
            match self.notice().await {
                Notice::Stop(reason) => return Some(reason),
                Notice::Lost => return None,
                Notice::Cut | Notice::Back => {}
            }
        }
    }

    /// The next thing that the attempt is told. Safe to drop.
    async fn notice(&mut self) -> Notice {
        loop {
            if !self.job.is_held_by(&self.node.id, self.attempt) {
                return Notice::Lost;
            }
            if self.cut {
                let held = self.hold().await;
                self.cut = false;
                return if held.is_ok() { Notice::Back } else { Notice::Lost };
            }
            let Some(epoch) = self.ours() else {
                self.cut = true;
                return Notice::Cut;
            };
            let news = match self.told {
                None if self.job.cancel_requested.is_some() => Some(Notice::Stop(Reason::Cancelled)),
                None if self.node.ledger.is_handing_back() => Some(Notice::Stop(Reason::Preempted)),
                None if self.node.ledger.gives_way_to(&self.job.id).is_some() => {
                    Some(Notice::Stop(Reason::GaveWay))
                }
                None | Some(_) => None,
            };
            if let Some(news) = news {
                self.told = Some(news);
                return news;
            }
            let told = self.told.is_some();
            let (early, notice) = (self.stops_early(), Notice::Stop(Reason::Preempted));
            tokio::select! {
                biased;
                () = self.node.fence.left(epoch) => {}
                () = self.node.fence.ends_within(epoch, early), if !told && !early.is_zero() => {
                    tracing::warn!("the node is about to be cut off, and the job is to be stopped then");
                    self.told = Some(notice);
                    return notice;
                }
                () = self.evictions.changed(), if !told => {}
                () = self.beat.tick() => {
                    if self.node.ledger.take_paused(&self.job.id) {
                        return Notice::Back;
                    }
                    if let (None, Some(reason)) = (self.told, self.unbearable()) {
                        let notice = Notice::Stop(reason);
                        self.told = Some(notice);
                        return notice;
                    }
                    self.read_news(epoch).await;
                }
            }
        }
    }

    /// Why the host cannot let the attempt go on.
    fn unbearable(&self) -> Option<Reason> {
        if let Some(fault) = self.node.ledger.broken(&self.job.id) {
            tracing::warn!(fault, "a GPU of the job is lost for it");
            return Some(Reason::GpuFault);
        }
        self.node.ledger.has_exceeded(&self.job.id).map(Reason::ShareExceeded)
    }

    /// How long before the lease ends the container is stopped, if it is not to be frozen then: its grace,
    /// up to half of what is left after a renewal.
    fn stops_early(&self) -> Duration {
        if self.job.spec.on_isolation != OnIsolation::Stop {
            return Duration::ZERO;
        }
        let settings = self.node.fleet.settings();
        self.job.spec.grace.0.min(Deadline::after(Duration::ZERO, &settings).left(Duration::ZERO) / 2)
    }

    /// Reads on in the job's log, for no longer than the lease holds: a store that hangs must not keep
    /// the container from being frozen. Safe to drop.
    async fn read_news(&mut self, epoch: Epoch) {
        let (node, early) = (self.node.clone(), self.stops_early());
        tokio::select! {
            biased;
            () = node.fence.ends_within(epoch, early) => {}
            read = node.log.refresh(&mut self.job) => {
                if let Err(error) = read {
                    tracing::warn!(error = %crate::patience::Chain(&error), "cannot read the job's log");
                }
            }
        }
    }

    /// How much output is in the store already.
    async fn shipped(&self) -> OutputSize {
        let chunks =
            shared::output::Chunks::new(self.node.fleet.store.clone(), self.job.id.clone(), self.attempt);
        OutputSize { chunks: insist("the output's size", || chunks.count()).await }
    }

    /// Writes how the attempt ended, frees what it had, and moves the job on.
    async fn end(&mut self, mut ending: Ending, output: OutputSize, name: &ContainerId) {
        let node = self.node.clone();
        let (policy, attempt) = (node.fleet.settings().policy, self.attempt);
        let ran = ending.ran();
        let finding = self.finding(&ending).await;
        let wants_opinion = self.wants_opinion(&finding);
        if wants_opinion {
            ending
                .message
                .get_or_insert_with(|| "within seconds; another node tries it before that counts".into());
        }
        let price = node.price();
        let usage = ran.map(|ran| Box::new(node.meters.close(&self.job, &node.ledger, ran, price.as_ref())));
        let decide = |job: &Job| {
            if !job.is_held_by(&node.id, attempt) {
                return None;
            }
            let outcome = ending.outcome_of(job);
            let elsewhere = || wants_opinion.then(|| second_opinion(job, outcome, &node.id)).flatten();
            let step = || next_step(job, outcome, ending.exit_code, &node.id, node.clock.now(), &policy);
            let next = elsewhere().unwrap_or_else(step);
            Some(Event::Ended(Box::new(Ended {
                attempt,
                outcome,
                exit_code: ending.exit_code,
                message: ending.message.clone(),
                next,
                output,
                started_at: ending.started_at,
                finished_at: ending.finished_at,
                usage: usage.clone(),
            })))
        };
        if mutant::is_on(Mutant::EarlyGpus) {
            node.ledger.give_back(&self.job.id);
        }
        let mut patience = Patience::default();
        let ended = loop {
            match node.log.append(&mut self.job, decide).await {
                Ok(ended) => break ended,
                Err(error) => patience.wait("the job's log", &error).await,
            }
        };
        if let Some(Event::Ended(ended)) = ended.map(|entry| entry.event) {
            let Ended { outcome, exit_code, message, .. } = &*ended;
            // Not as `message`, which is what the entry itself says.
            let why = message.as_deref().unwrap_or_default();
            node.metrics.ended(*outcome);
            tracing::info!(%outcome, exit_code, why, state = %self.job.phase(), "ended");
        }
        node.ledger.found(&self.job.id, &self.job.spec, finding, node.clock.now());
        // From here on the log gives the GPUs to nobody.
        node.ledger.settle(&self.job.id);
        let (owner, job, marked) = (node.clone(), self.job.id.clone(), CancellationToken::new());
        let is_marked = marked.clone();
        Removals::begin(&node, name.to_string(), async move {
            is_marked.cancelled().await;
            owner.ledger.settled(&job);
        });
        self.moved.cancelled().await;
        settle::settle(&node, &self.job, attempt).await;
        marked.cancel();
    }
}
