//! The agent as a process: its start, its life, its end.
//!
//! Start: the lock of the state directory, the fleet and its store's promise, the engine, a first
//! look at the host, what an earlier run left. Then the claim loop, the heartbeat, the host checks
//! and the control socket run side by side. SIGTERM or SIGINT ends it by the configured policy; a
//! second one ends it at once, which loses nothing either.

use std::{fs::File, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use fs4::FileExt;
use shared::{
    clock::{Chance, Clock, SystemClock},
    fleet::Fleet,
    node::Mode,
    store,
};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cloud::{Cloud, Notice},
    config::{AgentConfig, OnStop},
    control,
    engine::{ContainerState, Docker, Engine},
    execute::{Removals, labels_of},
    gpu::{Gpus, NoGpus, Nvml, Reader, Simulated},
    health, identity,
    images::clean,
    leave::{self, Why},
    life::Life,
    metrics,
    node::Node,
    notify,
    patience::Chain,
    runs,
    task::Tasks,
    usage,
};

/// How long a machine that goes down while it is cut off from the store has for coming back to it.
const CUT_OFF: Duration = Duration::from_secs(30);

/// Keeps a second agent away from a state directory for as long as it lives.
pub struct Lock(#[expect(dead_code, reason = "its being open is what counts")] File);

/// Takes the lock of the state directory, which is made if it is not there.
///
/// # Errors
/// When another agent has it, or the directory cannot be made.
pub fn lock(config: &AgentConfig) -> Result<Lock> {
    let dir = &config.state_dir;
    std::fs::create_dir_all(dir)
        .with_context(|| format!("cannot make the state directory {}", dir.display()))?;
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    if FileExt::try_lock(&file).is_err() {
        bail!(
            "another agent uses the state directory {}; give this one its own with --state-dir",
            dir.display()
        );
    }
    Ok(Lock(file))
}

/// The GPUs that the configuration names, or the driver's.
///
/// # Errors
/// When there is a driver and it cannot be used.
pub fn gpus(config: &AgentConfig) -> Result<Arc<dyn Gpus>> {
    if let Some(spec) = &config.simulate_gpus {
        return Ok(Arc::new(Simulated::new(spec, &config.node)));
    }
    Ok(match Nvml::open()? {
        Some(nvml) => Arc::new(nvml),
        None => Arc::new(NoGpus),
    })
}

/// A node with everything it stands on, looked at once.
///
/// # Errors
/// When the fleet, the engine or the GPUs cannot be used.
pub async fn open(config: AgentConfig, fleet: Fleet, clock: Arc<dyn Clock>) -> Result<Arc<Node>> {
    let chance = Chance::from_os();
    let engine: Arc<dyn Engine> = Arc::new(Docker::connect(config.engine.as_deref())?);
    engine.info().await?;
    let gpus = Reader::new(gpus(&config)?);
    let node = Arc::new(Node::new(config, fleet, engine, gpus, clock, chance));
    health::check(&node).await;
    Ok(node)
}

/// Runs the agent until it is told to stop, or has reason to.
///
/// # Errors
/// When it cannot start, with what to do about it.
pub async fn run(config: AgentConfig, cloud: Option<Cloud>) -> Result<()> {
    let _lock = lock(&config)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    notify::status("opening the fleet");
    let fleet = Fleet::open(&config.fleet, clock.clone()).await?;
    store::probe(&fleet.store, &Chance::from_os()).await?;
    notify::status("looking at the host");
    let node = open(config, fleet, clock).await?;
    identity::check(&node).await?;
    let inventory = node.ledger.inventory();
    tracing::info!(
        node = %node.id, incarnation = %node.incarnation, fleet = %node.fleet.store.url(),
        gpus = inventory.gpus.len(), simulated = inventory.simulated, "started"
    );
    let tasks = Tasks::default();
    control::listen(node.clone(), &tasks)?;
    notify::status("taking up the jobs of an earlier run");
    let life = Life::begin(&node).await;
    tasks.spawn("tidy", runs::watch(node.config.clone(), node.fleet.clone(), node.clock.clone()));
    tasks.spawn("health", health::watch(node.clone()));
    tasks.spawn("clean", clean::watch(node.clone()));
    tasks.spawn("usage", usage::watch(node.clone()));
    tasks.spawn("metrics", metrics::serve(node.clone(), tasks.clone()));
    tasks.spawn("notify", notify::watch(node.clone()));
    notify::ready();

    let mut signals = Signals::new()?;
    let why = why(&node, cloud.as_ref(), &mut signals).await;
    let why = see_out(&node, &life, cloud.as_ref(), &mut signals, why).await;
    tasks.halt().await;
    life.end().await;
    if why == Why::Namesake {
        bail!("another agent is named {} too; give this one a name of its own with --node", node.id);
    }
    Ok(())
}

/// Waits for a reason to end.
async fn why(node: &Node, cloud: Option<&Cloud>, signals: &mut Signals) -> Why {
    tokio::select! {
        biased;
        () = signals.next() => told().await,
        () = node.give_way.cancelled() => Why::Namesake,
        notice = gone(node, cloud) => Why::Notice(notice),
        span = leave::idle(node, node.config.exit_when_idle) => Why::Idle(span),
    }
}

async fn told() -> Why {
    if leave::is_shutdown().await { Why::Shutdown } else { Why::Signal }
}

async fn gone(node: &Node, cloud: Option<&Cloud>) -> Notice {
    match cloud {
        Some(cloud) => cloud.gone(node).await,
        None => std::future::pending().await,
    }
}

/// Takes no more jobs, and does with those that run what this reason to end wants of them, or a graver one that comes
/// meanwhile. Returns the last.
async fn see_out(
    node: &Arc<Node>,
    life: &Life,
    cloud: Option<&Cloud>,
    signals: &mut Signals,
    mut why: Why,
) -> Why {
    node.ledger.set_mode(Mode::Draining);
    life.stop_claiming();
    loop {
        let on_stop = why.on_stop(node.config.on_stop);
        let is_told = matches!(why, Why::Signal | Why::Shutdown);
        let more = if is_told { "; a second signal stops at once" } else { "" };
        tracing::info!(why = why.say(), ?on_stop, "stopping{more}");
        // From here on systemd waits for no longer than TimeoutStopSec, which a job may.
        match why {
            Why::Idle(_) => notify::status(&why.say()),
            _ => notify::stopping(&why.say()),
        }
        tokio::select! {
            biased;
            () = signals.next() => {
                if is_told {
                    tracing::warn!("stopping at once; running jobs are left to the next start");
                    return why;
                }
                let told = told().await;
                // A machine that is about to go is no less so.
                if told == Why::Shutdown || !matches!(why, Why::Notice(_)) {
                    why = told;
                }
            }
            notice = gone(node, cloud), if !matches!(why, Why::Notice(_)) => why = Why::Notice(notice),
            _ = async { tokio::join!(leave(node, on_stop, &why), life.polls_over()) } => return why,
        }
    }
}

/// Waits until nothing is left to do for the running jobs.
async fn leave(node: &Arc<Node>, on_stop: OnStop, why: &Why) {
    let deadline = node.config.stop_deadline.0;
    let over = match on_stop {
        OnStop::Keep => return,
        // Nobody waits for the agent.
        OnStop::Wait if matches!(why, Why::Idle(_)) => return node.attempts.finished().await,
        OnStop::Wait => tokio::time::timeout(deadline, node.attempts.finished()).await,
        OnStop::Requeue => {
            let gone_at = if let Why::Notice(notice) = why { Some(notice.at) } else { None };
            node.ledger.hand_back(gone_at);
            tokio::select! {
                biased;
                over = tokio::time::timeout(deadline, node.attempts.finished()) => over,
                () = node.fence.closed_for(CUT_OFF), if *why == Why::Shutdown => return abandon(node).await,
            }
        }
    };
    if over.is_err() {
        tracing::warn!(?deadline, "jobs still run at the deadline; they are left to the next start");
    }
}

/// Leaves the jobs of a machine that goes down while it is cut off to whoever takes them over, or to its next boot.
/// Whoever ends a frozen container in order, as the engine does when it stops, lets it run once more, and another node
/// may run the job by now.
async fn abandon(node: &Arc<Node>) {
    tracing::warn!(
        "cut off from the store, which cannot be told of the running jobs: this node is lost to them"
    );
    node.attempts.halt().await;
    match node.engine.list(&labels_of(node.fleet.store.url().as_str(), &node.id)).await {
        Ok(containers) => {
            for frozen in containers.into_iter().filter(|found| found.state == ContainerState::Paused) {
                Removals::begin(node, frozen.name, std::future::ready(()));
            }
        }
        Err(error) => tracing::warn!(error = %Chain(&error), "what is frozen cannot be removed"),
    }
}

struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
