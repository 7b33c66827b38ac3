//! What the tasks of an agent share.

use std::sync::{Arc, Mutex, PoisonError, atomic::AtomicU64};

use shared::{
    clock::{Chance, Clock},
    fleet::{Fleet, Tariff},
    id::{Incarnation, NodeId, Timestamp},
    index::Index,
    log::{Author, Log},
    node::Capacity,
    price::Price,
    window::Window,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    config::AgentConfig,
    disk::Disks,
    drain::Drains,
    engine::{self, Engine, EngineInfo, PullProgress},
    execute::Removals,
    fence::Fence,
    gossip::Gossip,
    gpu::Reader,
    images::Images,
    ledger::Ledger,
    metrics::Metrics,
    outputs::Outputs,
    prefetch::Prefetches,
    publish::{Directory, Publisher},
    secret::Secrets,
    task::Tasks,
    usage::Meters,
    volume::Volumes,
    watch::Members,
};

/// A host with an agent.
pub struct Node {
    /// Its name in the fleet.
    pub id: NodeId,
    /// This run of its agent.
    pub incarnation: Incarnation,
    /// What it was told.
    pub config: AgentConfig,
    /// Where jobs come from and results go.
    pub fleet: Fleet,
    /// The jobs' logs, in this node's name.
    pub log: Log,
    /// Where jobs stand.
    pub index: Index,
    /// The container engine.
    pub engine: Arc<dyn Engine>,
    /// The GPUs.
    pub gpus: Reader,
    /// What jobs may mount.
    pub volumes: Volumes,
    /// Who else is told what becomes of jobs.
    pub events: Publisher,
    /// What jobs may be told.
    pub secrets: Secrets,
    /// Where jobs leave their results.
    pub outputs: Outputs,
    /// Who has what.
    pub ledger: Ledger,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Whether this node may act for its jobs.
    pub fence: Fence,
    /// Chance.
    pub chance: Chance,
    /// The other nodes, as far as is known.
    pub members: Members,
    /// What it and the others have read of the fleet's lanes and settings.
    pub gossip: Gossip,
    /// The attempts that run here.
    pub attempts: Tasks,
    /// What is left of those that have ended.
    pub removals: Removals,
    /// What they use.
    pub meters: Meters,
    /// What is read ahead for jobs.
    pub prefetches: Prefetches,
    /// The disks that it fills.
    pub disks: Disks,
    /// What is counted for Prometheus.
    pub metrics: Metrics,
    /// Which images they used lately.
    pub images: Images,
    /// How often the node's record was written.
    pub beats: AtomicU64,
    /// How far the pull is that told last; for whoever watches.
    pub pulling: watch::Sender<Option<PullProgress>>,
    /// Who has drained it.
    pub drains: Drains,
    /// Cancelled when this agent has to give way to another of its name.
    pub give_way: CancellationToken,
    /// What listings call the engine, since it last answered.
    engine_name: Mutex<Option<String>>,
    /// How many jobs it had taken when it was last seen without any, and since when.
    idle: Mutex<Option<(u64, Timestamp)>>,
}

impl Node {
    /// A node of this fleet.
    pub fn new(
        config: AgentConfig,
        fleet: Fleet,
        engine: Arc<dyn Engine>,
        gpus: Reader,
        clock: Arc<dyn Clock>,
        chance: Chance,
    ) -> Self {
        let (id, incarnation) = (config.node.clone(), chance.incarnation());
        let author = Author::Node { name: id.clone(), incarnation: incarnation.clone() };
        let capacity = Capacity {
            cpus: config.cpus,
            memory: config.memory,
            slots: config.max_jobs,
            ..Capacity::default()
        };
        let fence = Fence::new(
            id.clone(),
            incarnation.clone(),
            fleet.store.url().to_string(),
            config.engine.clone().or_else(engine::usual_address),
            clock.clone(),
            Some(&config.state_dir),
        );
        let secrets = Secrets::new(config.secrets_dir.clone());
        let spool = Arc::new(Directory(config.state_dir.join("events")));
        let events =
            Publisher::new(id.clone(), fleet.clone(), secrets.clone(), spool, clock.clone(), chance.clone());
        let ears = events.clone();
        Self {
            log: Log::new(fleet.store.clone(), clock.clone(), chance.clone(), author)
                .watched(move |job, entry| ears.seen(job, entry)),
            events,
            fence,
            chance,
            members: Members::default(),
            index: Index::new(fleet.store.clone()),
            volumes: Volumes::new(config.volumes.clone()),
            secrets,
            outputs: Outputs::new(config.outputs_dir.clone(), config.outputs_mount.clone()),
            ledger: Ledger::new(capacity, config.labels.clone()),
            images: Images::new(&config.state_dir),
            id,
            incarnation,
            config,
            fleet,
            engine,
            gpus,
            clock,
            gossip: Gossip::default(),
            attempts: Tasks::default(),
            removals: Removals::default(),
            meters: Meters::default(),
            metrics: Metrics::default(),
            disks: Disks::default(),
            prefetches: Prefetches::default(),
            beats: AtomicU64::new(0),
            pulling: watch::Sender::new(None),
            drains: Drains::default(),
            give_way: CancellationToken::new(),
            engine_name: Mutex::default(),
            idle: Mutex::default(),
        }
    }

    /// Whether it takes no job but its own process's (`haul run`).
    pub fn is_private(&self) -> bool {
        self.config.private
    }

    /// The windows of teams in lanes.
    pub fn window(&self) -> Window {
        Window::new(self.fleet.clone(), self.log.clone(), self.chance.clone())
    }

    /// What the host costs: what its configuration says, or else the fleet's table.
    pub fn price(&self) -> Option<Price> {
        let listed = || Tariff::price_in(&self.fleet.settings().prices, &self.config.labels);
        self.config.price.clone().or_else(listed)
    }

    /// Since when it has no job; `None` where it has one.
    pub fn idle_since(&self) -> Option<Timestamp> {
        let (taken, is_busy) = self.ledger.taken();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        *idle = match *idle {
            _ if is_busy || self.prefetches.is_busy() => None,
            Some((before, since)) if before == taken => Some((before, since)),
            _ => Some((taken, self.clock.now())),
        };
        idle.map(|(_, since)| since)
    }

    /// Notes what the engine is.
    pub fn note_engine(&self, engine: &EngineInfo) {
        let name = format!("{} {}", engine.name, engine.version);
        let before = self.engine_name.lock().unwrap_or_else(PoisonError::into_inner).replace(name.clone());
        if let Some(caveat) = engine.caveat().filter(|_| before.as_ref() != Some(&name)) {
            tracing::warn!(engine = name, "{caveat}");
        }
    }

    /// What listings call the engine; `None` until it has answered.
    pub fn engine_name(&self) -> Option<String> {
        self.engine_name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
