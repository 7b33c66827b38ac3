//! A host of the fleet: its engine and containers, its disk, and one agent after another on it,
//! each the shipped one.

use std::{path::PathBuf, sync::Arc, time::Duration};

use agent::{
    config::{AgentConfig, Mark, OnStop},
    fence,
    gpu::{Gpus, Inventory, NoGpus, Reader, Simulated, SimulatedSpec},
    guard,
    life::Life,
    node::Node,
    outputs::Outputs,
};
use shared::{
    clock::Clock,
    fleet::{Fleet, Settings},
    id::{NodeId, Seq},
    queue::Counted,
    store::Store,
    units::{Size, Span},
};

use tempfile::TempDir;

use crate::{
    clock::HostClock,
    engine::SimEngine,
    host::{Host, Link},
    machine::Machine,
    queue::{Queues, SimQueue},
    store::{Objects, SimStore},
    toxics::Peer,
    world::World,
};

/// What all hosts share.
#[derive(Clone)]
pub struct Services {
    /// The run.
    pub world: World,
    /// The store.
    pub objects: Arc<Objects>,
    /// The queue.
    pub queues: Arc<Queues>,
    /// The fleet's settings.
    pub settings: Settings,
}

impl Services {
    /// Empty ones.
    pub fn new(world: &World, settings: Settings) -> Self {
        let (objects, queues) = (Objects::new(world), Queues::new(world));
        Self { world: world.clone(), objects, queues, settings }
    }

    /// The fleet as one life of a process sees it.
    pub fn fleet(&self, host: &Arc<Host>, life: u64) -> Fleet {
        let store = SimStore::new(&self.objects, Link::new(host, life, Peer::Store));
        let url = "s3://sim/fleet".parse().expect("a URL");
        let queue = SimQueue::new(&self.queues, Link::new(host, life, Peer::Queue));
        let queue = Arc::new(Counted::new(Arc::new(queue)));
        Fleet::assemble(Store::with(Arc::new(store), url), queue, Seq::FIRST, self.settings.clone())
    }
}

/// What a host has.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Its GPUs, as `--simulate-gpus` has them.
    pub gpus: String,
    /// Its CPUs.
    pub cpus: f64,
    /// Its memory.
    pub memory: Size,
    /// How many jobs it runs at once.
    pub max_jobs: u32,
}

impl Shape {
    /// So many GPUs, and what goes with them.
    pub fn with(gpus: u32) -> Self {
        Self { gpus: format!("{gpus}xP100:16GiB"), cpus: 4.0, memory: Size(64 << 30), max_jobs: 8 }
    }
}

/// A host of the fleet.
pub struct Server {
    /// The computer.
    pub host: Arc<Host>,
    /// Its containers.
    pub machine: Arc<Machine>,
    guard: Arc<Host>,
    /// Its disk, as far as agents write to it.
    disk: TempDir,
    services: Services,
    clock: Arc<HostClock>,
    config: AgentConfig,
    gpus: SimulatedSpec,
}

impl Server {
    /// A host on which no agent runs yet. Its clocks are wrong by so much.
    pub fn new(name: &str, services: &Services, gpus: u32, skew: chrono::TimeDelta, drift: f64) -> Arc<Self> {
        Self::shaped(name, services, &Shape::with(gpus), skew, drift)
    }

    /// A host of this shape.
    pub fn shaped(
        name: &str,
        services: &Services,
        shape: &Shape,
        skew: chrono::TimeDelta,
        drift: f64,
    ) -> Arc<Self> {
        let host = Host::new(name, &services.world);
        let clock = Arc::new(HostClock::new(&host, skew, drift));
        let machine = Machine::new(name, &services.world, clock.clone());
        let node = NodeId::new(name).expect("a node's name");
        let gpus = shape.gpus.parse().expect("GPUs");
        // Written without an await, so real files change nothing in the order of things.
        let disk = tempfile::tempdir().expect("a temporary directory");
        let config = config(node, disk.path().to_owned(), shape);
        let guard = Host::new(&format!("{name}-guard"), &services.world);
        let server =
            Arc::new(Self { host, machine, guard, disk, services: services.clone(), clock, config, gpus });
        services.world.spawn(server.clone().stand_guard());
        server
    }

    /// The GPUs that its agent finds.
    pub fn inventory(&self) -> Inventory {
        Simulated::new(&self.gpus, &self.config.node).read().expect("made up")
    }

    /// Starts its agent.
    pub fn boot(self: &Arc<Self>) {
        let life = self.host.start();
        self.machine.set_power(true);
        let engine = SimEngine::new(&self.machine, Link::new(&self.host, life, Peer::Engine));
        let clock: Arc<dyn Clock> = self.clock.clone();
        let fleet = self.services.fleet(&self.host, life);
        let (gpus, chance) = (Reader::new(Arc::new(NoGpus)), self.services.world.chance());
        let mut node = Node::new(self.config.clone(), fleet, Arc::new(engine), gpus, clock, chance);
        node.outputs = Outputs::nowhere();
        node.ledger.set_gpus(
            node.ledger.begin_look(),
            self.inventory(),
            Some(std::collections::BTreeMap::new()),
        );
        let node = Arc::new(node);
        self.services.world.watch().begins(node.id.clone(), node.incarnation.clone());
        self.services.world.spawn(async move {
            let _life = Life::begin(&node).await;
            std::future::pending::<()>().await;
        });
    }

    /// The guard, which is a process of its own: whatever becomes of the agent, it reads the deadline
    /// on disk and freezes. As `haul guard` does it, but that it sleeps until the deadline that it read
    /// last, which can only have become later.
    async fn stand_guard(self: Arc<Self>) {
        let life = self.guard.start();
        let engine = SimEngine::new(&self.machine, Link::new(&self.guard, life, Peer::Engine));
        let (path, boot) = (fence::path(self.disk.path()), fence::boot());
        let look = Duration::from_secs(1);
        loop {
            let mut pause = look;
            if let Some(file) = fence::read(&path) {
                if file.is_past(&boot, self.clock.elapsed()) {
                    let frozen = guard::freeze(&engine, &file).await;
                    self.services.world.watch().guarded(&self.host.name, frozen);
                } else {
                    self.services.world.watch().guarded(&self.host.name, true);
                    pause = file.deadline().left(self.clock.elapsed()).max(look);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Loses its power: nothing runs on, and the deadline is that of another boot.
    pub fn lose_power(&self) {
        self.machine.set_power(false);
        self.host.crash();
        let _ = std::fs::remove_file(fence::path(self.disk.path()));
    }

    /// Stands still with all that is on it.
    pub fn stand_still(&self, still: bool) {
        self.guard.pause(still);
        // Its agent hears of a take-over when it next reads the jobs' logs.
        let excuse = self.services.settings.beat.0 * 4 + Duration::from_secs(120);
        self.machine.stand_still(still, excuse);
        self.host.stand_still(still);
    }

    /// The engine stops its containers, is away for a while, and comes back.
    pub async fn restart_engine(&self, away: Duration) {
        let world = &self.services.world;
        self.machine.set_engine(true, false);
        self.machine.end_all();
        tokio::time::sleep(world.span(Duration::ZERO, Duration::from_secs(1))).await;
        self.machine.set_engine(true, true);
        tokio::time::sleep(away).await;
        self.machine.set_engine(false, false);
    }
}

fn config(node: NodeId, state_dir: PathBuf, shape: &Shape) -> AgentConfig {
    let labels = [("host".to_owned(), node.to_string())].into();
    AgentConfig {
        fleet: "s3://sim/fleet".parse().expect("a URL"),
        node,
        state_dir,
        outputs_dir: PathBuf::from("/nowhere"),
        secrets_dir: None,
        volumes: Default::default(),
        labels,
        simulate_gpus: None,
        price: None,
        claim_after: Span::secs(0),
        exit_when_idle: None,
        metrics: None,
        outputs_mount: None,
        outputs_min_free: None,
        engine: None,
        max_jobs: shape.max_jobs,
        cpus: shape.cpus,
        memory: shape.memory,
        on_stop: OnStop::Keep,
        private: false,
        stop_deadline: Span::secs(60),
        disk_floor: Mark::Percent(0),
        disk_clean: Mark::Percent(0),
        disk_target: Mark::Percent(0),
        log_limit: Size::GIB,
    }
}
