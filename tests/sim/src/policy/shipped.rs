//! haul itself: agents and clients as they ship, on virtual time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use shared::{
    client::Client,
    fleet::Settings,
    id::{GpuUuid, JobId, Team},
    job::JobSpec,
    log::Outcome,
    units::{Size, Span},
};

use super::{
    measure::{Schedule, Stay},
    workload::{Task, WHOLE, Workload},
};
use crate::{
    client::Desk,
    meter::{Ask, For},
    node::{Server, Services, Shape},
    script::Script,
    world::World,
};

/// What each GPU has, so that a share of its memory is the same share of any.
const MEMORY: u64 = 16 << 30;

/// How long the fleet is up before the first task comes.
const START: Duration = Duration::from_secs(600);

/// How many clients there are.
const DESKS: usize = 8;

/// What haul made of the work.
pub struct Ran {
    /// What ran where and when.
    pub schedule: Schedule,
    /// Requests to the queue for each task.
    pub queue: f64,
    /// Requests to the store for each task, those for its output aside.
    pub store: f64,
    /// Attempts that gave way to others.
    pub preempted: usize,
}

/// Runs the tasks to their ends. With `gives_way`, those of the lowest priority give way to others.
pub fn run(work: &Workload, seed: u64, window: u32, gives_way: bool) -> Ran {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O").block_on(live(work, seed, window, gives_way))
}

async fn live(work: &Workload, seed: u64, window: u32, gives_way: bool) -> Ran {
    let world = World::metered(seed);
    let settings =
        Settings { beat: Span::secs(15), lane_refresh: Span::secs(15), window, ..Settings::embedded(None) };
    let services = Services::new(&world, settings);
    let servers: Vec<Arc<Server>> = work
        .hosts
        .iter()
        .enumerate()
        .map(|(at, host)| {
            let shape = Shape {
                gpus: format!("{}x{}:16GiB", host.gpus, host.model),
                cpus: f64::from(host.cpus) / f64::from(WHOLE),
                memory: Size(u64::from(host.memory) << 20),
                max_jobs: 256,
            };
            Server::shaped(&format!("node{at}"), &services, &shape, chrono::TimeDelta::zero(), 0.0)
        })
        .collect();
    servers.iter().for_each(Server::boot);
    let clients: Vec<Arc<Client>> =
        (0..DESKS).map(|at| Arc::new(Desk::new(&format!("desk{at}"), &services).client())).collect();
    tokio::time::sleep(START).await;
    world.meter().take_counts();
    let began = world.elapsed();
    for (at, task) in work.tasks.iter().enumerate() {
        if at % (work.tasks.len() / 10).max(1) == 0 {
            eprintln!("{at} of {} tasks came, {} ended", work.tasks.len(), world.meter().finals());
        }
        tokio::time::sleep((began + task.arrives).saturating_sub(world.elapsed())).await;
        let (client, spec) = (clients[at % DESKS].clone(), job(task, gives_way));
        world.spawn(async move {
            client.submit(spec, Some(id(at))).await.expect("nothing goes wrong");
        });
    }
    while world.meter().finals() < work.tasks.len() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.end();
    let counts = world.meter().take_counts();
    let tasks = work.tasks.len() as f64;
    let of = |whom: &[For], asks: &[Ask]| -> f64 {
        whom.iter().flat_map(|whom| asks.iter().map(|ask| counts.of(*whom, *ask) as f64)).sum()
    };
    let schedule = schedule(&world, &servers, began);
    let preempted =
        world.meter().attempts().iter().filter(|attempt| attempt.outcome == Outcome::Preempted).count();
    Ran {
        schedule,
        queue: of(&[For::Node, For::Job], &[Ask::Queue]) / tasks,
        store: of(&[For::Job], &[Ask::Get, Ask::Put, Ask::Delete, Ask::List]) / tasks,
        preempted,
    }
}

fn id(task: usize) -> JobId {
    JobId::new(format!("task{task}")).expect("an id")
}

fn job(task: &Task, gives_way: bool) -> JobSpec {
    let mut spec = Script { runs: task.runs, exit: 0, lines: 0, deaf: false }.job();
    let need = &task.need;
    spec.team = Team::new("a").expect("a team");
    spec.priority = task.priority;
    spec.preemptible = gives_way && task.priority == shared::job::Priority::Low;
    spec.timeout = Some(Span(task.at_most));
    spec.resources.cpus = Some(f64::from(need.cpus) / f64::from(WHOLE));
    spec.resources.memory = Some(Size(u64::from(need.memory) << 20));
    spec.resources.gpu_model = need.models.clone();
    if need.gpus == 1 && need.milli < WHOLE {
        spec.resources.gpu_share = Some(Size(u64::from(need.milli) * MEMORY / u64::from(WHOLE)));
    } else {
        spec.resources.gpus = u32::try_from(need.gpus).expect("few");
    }
    spec
}

fn schedule(world: &World, servers: &[Arc<Server>], began: Duration) -> Schedule {
    let gpus: HashMap<GpuUuid, usize> = servers
        .iter()
        .flat_map(|server| server.inventory().gpus.into_iter().enumerate().map(|(at, gpu)| (gpu.uuid, at)))
        .collect();
    let number = |text: &str, before: &str| text.trim_start_matches(before).parse().expect("a number");
    let meter = world.meter();
    let stays = meter.attempts().iter().map(|attempt| Stay {
        task: number(attempt.job.as_str(), "task"),
        host: number(attempt.node.as_str(), "node"),
        gpus: attempt.gpus.iter().map(|gpu| gpus[gpu]).collect(),
        from: attempt.from - began,
        to: attempt.to - began,
        done: attempt.outcome == Outcome::Succeeded,
    });
    Schedule { stays: stays.collect() }
}
