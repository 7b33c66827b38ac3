//! `sim scale`: what fleets of several sizes ask of their services and how long their jobs wait, with
//! nothing going wrong but the death of one node in a hundred.
//!
//! Each fleet is started, left alone for a while, and then given jobs for seven tenths of its GPUs.
//! Agents, clients and all between them are the shipped ones; a request takes 4 to 60 ms.

use std::{collections::BTreeMap, process::ExitCode, sync::Arc, time::Duration};

use shared::{
    client::{Client, Filter},
    fleet::Settings,
    id::{LaneId, NodeId, Team},
    units::Span,
};

use crate::{
    client::Desk,
    meter::{Ask, Counts, For},
    node::{Server, Services},
    script::Script,
    world::World,
};

/// How long the fleet is looked at while it has nothing to do.
const IDLE: Duration = Duration::from_secs(600);

/// How much of the GPUs the jobs would use if none ever waited.
const LOAD: f64 = 0.7;

/// How many GPUs a host has.
const GPUS: u32 = 2;

/// How many jobs are given to the fleet that each fit only one host, in a lane that nobody knows yet.
const PINNED: usize = 20;

/// What a fleet is given to do.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// How many jobs for each node.
    pub jobs: usize,
    /// How long a job's container runs.
    pub runs: Duration,
    /// How wide a team's window is.
    pub window: u32,
}

/// What was measured of one fleet.
struct Measured {
    nodes: usize,
    jobs: usize,
    idle: Counts,
    busy: Counts,
    /// How long the jobs took.
    took: Duration,
    waits: BTreeMap<LaneId, Vec<Duration>>,
    /// Of jobs that fit one host only, and are the first of their lanes.
    pinned: Vec<Duration>,
    failovers: Vec<Duration>,
    wrong: usize,
    jobs_listed: Listing,
    nodes_listed: Listing,
}

/// What a listing took.
struct Listing {
    time: Duration,
    requests: u64,
}

/// `sim scale`
pub fn run(nodes: &[usize], work: Work, seed: u64) -> ExitCode {
    let measured: Vec<Measured> = nodes.iter().map(|nodes| of_size(*nodes, work, seed)).collect();
    let wrong: usize = measured.iter().map(|fleet| fleet.wrong).sum();
    tell(&measured);
    if wrong > 0 {
        println!("FAILED: {wrong} jobs have not ended just once");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn of_size(nodes: usize, work: Work, seed: u64) -> Measured {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O");
    let measured = runtime.block_on(measure(nodes, work, seed));
    eprintln!("{nodes} nodes: {} jobs in {:.0} virtual seconds", measured.jobs, measured.took.as_secs_f64());
    measured
}

async fn measure(nodes: usize, Work { jobs, runs, window }: Work, seed: u64) -> Measured {
    let jobs = nodes * jobs;
    let world = World::metered(seed);
    let settings = Settings {
        beat: Span::secs(15),
        lane_refresh: Span::secs(15),
        inbox: true,
        window,
        ..Settings::embedded(None)
    };
    let lease = settings.lease.0;
    let services = Services::new(&world, settings);
    let servers: Vec<Arc<Server>> = (0..nodes)
        .map(|at| Server::new(&format!("node{at:05}"), &services, GPUS, chrono::TimeDelta::zero(), 0.0))
        .collect();
    // As machines come up: not all in one beat. A newcomer follows everybody for its first lease.
    let spread = Duration::from_millis(360).mul_f64(nodes as f64).max(Duration::from_secs(60));
    for server in &servers {
        let (server, at) = (server.clone(), world.span(Duration::ZERO, spread));
        world.spawn(async move {
            tokio::time::sleep(at).await;
            server.boot();
        });
    }
    let clients: Arc<Vec<Client>> = Arc::new(
        (0..nodes.div_ceil(100)).map(|at| Desk::new(&format!("desk{at}"), &services).client()).collect(),
    );
    tokio::time::sleep(spread).await;
    // One job of each kind, so that there are lanes to be polled.
    for gpus in 1..=GPUS {
        submit(&world, &clients, gpus, runs).await;
    }
    tokio::time::sleep(lease * 2).await;
    world.meter().take_counts();
    tokio::time::sleep(IDLE).await;
    let idle = world.meter().take_counts();

    let began = world.elapsed();
    // One in five wants both GPUs of a host.
    let busy_a_job = (runs.as_secs_f64() + 0.5) * 1.2;
    let every = Duration::from_secs_f64(busy_a_job / (LOAD * nodes as f64 * f64::from(GPUS)));
    let death = world.number(0..=(jobs as u64 / 2)) as usize;
    for number in 0..jobs {
        let (task, clients) = (world.clone(), clients.clone());
        let gpus = if world.odds(0.2) { 2 } else { 1 };
        world.spawn(async move { submit(&task, &clients, gpus, runs).await });
        if number == death {
            for server in servers.iter().take(nodes.div_ceil(100)) {
                server.lose_power();
                let name = NodeId::new(&server.host.name).expect("a node's name");
                world.meter().died(world.elapsed(), &name);
            }
        }
        // Independent arrivals: exponential pauses.
        let pause = -(1.0 - world.number(0..=999_999) as f64 / 1e6).ln();
        tokio::time::sleep(every.mul_f64(pause)).await;
    }
    while world.meter().finals() < jobs + GPUS as usize {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let took = world.elapsed() - began;
    let (busy, waits, failovers, wrong) = {
        let mut meter = world.meter();
        (meter.take_counts(), meter.waits().clone(), meter.failovers().to_vec(), meter.wrong())
    };
    let jobs_listed = listing(&world, async {
        // As `haul ps` does on a terminal.
        let filter = Filter { done_days: Some(1), limit: Some(200), ..Filter::all() };
        assert_eq!(clients[0].page(&filter).await.expect("listed").jobs.len(), 200.min(jobs));
    })
    .await;
    let nodes_listed =
        listing(&world, async { assert_eq!(clients[0].nodes().await.expect("listed").len(), nodes) }).await;
    let pinned = pinned(&world, &clients, &servers, runs).await;
    world.end();
    Measured { nodes, jobs, idle, busy, took, waits, pinned, failovers, wrong, jobs_listed, nodes_listed }
}

/// How long jobs wait until the one host that fits has heard of their lane. The first hosts may be dead.
async fn pinned(world: &World, clients: &[Client], servers: &[Arc<Server>], runs: Duration) -> Vec<Duration> {
    let (already, dead) = (world.meter().finals(), servers.len().div_ceil(100));
    let mut lanes = Vec::new();
    for number in 0..PINNED {
        let mut spec = Script { runs, exit: 0, lines: 1, deaf: false }.job();
        let host = &servers[dead + number * (servers.len() - dead) / PINNED].host.name;
        spec.placement.require.insert("host".into(), host.clone());
        lanes.push(world.pick(clients).submit(spec, None).await.expect("nothing goes wrong").job.lane);
        tokio::time::sleep(world.span(Duration::ZERO, Duration::from_secs(30))).await;
    }
    while world.meter().finals() < already + PINNED {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // A lane's first job is the one that found it unknown.
    lanes.sort();
    lanes.dedup();
    let meter = world.meter();
    lanes.iter().filter_map(|lane| meter.waits().get(lane)?.first().copied()).collect()
}

/// The time is all virtual: what requests wait for, one after the other.
async fn listing(world: &World, list: impl Future<Output = ()>) -> Listing {
    let (began, before) = (world.elapsed(), world.meter().asked_by_clients());
    list.await;
    Listing { time: world.elapsed() - began, requests: world.meter().asked_by_clients() - before }
}

async fn submit(world: &World, clients: &[Client], gpus: u32, runs: Duration) {
    let mut spec = Script { runs, exit: 0, lines: 1, deaf: false }.job();
    spec.resources.gpus = gpus;
    spec.team = Team::new(*world.pick(&["a", "b", "c", "d", "e"])).expect("a team");
    world.pick(clients).submit(spec, None).await.expect("nothing goes wrong");
}

/// One row: what it is, and its value in each fleet.
struct Row(String, Vec<f64>);

fn tell(fleets: &[Measured]) {
    let each =
        |what: &str, value: &dyn Fn(&Measured) -> f64| Row(what.into(), fleets.iter().map(value).collect());
    let mut rows = Vec::new();
    for ask in Ask::ALL {
        let what = format!("{} a job, output aside", ask.name());
        rows.push(each(&what, &|fleet| fleet.busy.of(For::Job, ask) as f64 / fleet.jobs as f64));
    }
    let price = |counts: &Counts, whom| -> f64 {
        Ask::ALL.iter().map(|ask| counts.of(whom, *ask) as f64 * ask.price() / 1e6).sum()
    };
    rows.push(each("US$ for 1,000 jobs, output of one line each included", &|fleet| {
        (price(&fleet.busy, For::Job) + price(&fleet.busy, For::Output)) * 1e3 / fleet.jobs as f64
    }));
    let hours = |fleet: &Measured| fleet.nodes as f64 * IDLE.as_secs_f64() / 3600.0;
    for ask in Ask::ALL {
        let what = format!("{} an idle node-hour", ask.name());
        rows.push(each(&what, &|fleet| {
            let all = fleet.idle.of(For::Node, ask) + fleet.idle.of(For::Job, ask);
            all as f64 / hours(fleet)
        }));
    }
    rows.push(each("US$ for 1,000 idle node-hours", &|fleet| {
        (price(&fleet.idle, For::Node) + price(&fleet.idle, For::Job)) * 1e3 / hours(fleet)
    }));
    for lane in fleets[0].waits.keys() {
        for (name, share) in [("median", 0.5), ("p95", 0.95)] {
            let what = format!("seconds from submit to claim, {lane}, {name}");
            rows.push(each(&what, &|fleet| fleet.waits.get(lane).map_or(f64::NAN, |waits| at(waits, share))));
        }
    }
    for (name, share) in [("median", 0.5), ("longest", 1.0)] {
        let what = format!("seconds from submit to claim, the first of a lane that fits one host, {name}");
        rows.push(each(&what, &|fleet| at(&fleet.pinned, share)));
    }
    rows.push(each("seconds from death to next claim, median", &|fleet| at(&fleet.failovers, 0.5)));
    rows.push(each("seconds from death to next claim, longest", &|fleet| at(&fleet.failovers, 1.0)));
    rows.push(each("seconds for `haul ps`", &|fleet| fleet.jobs_listed.time.as_secs_f64()));
    rows.push(each("requests for `haul ps`", &|fleet| fleet.jobs_listed.requests as f64));
    rows.push(each("seconds for `haul nodes`", &|fleet| fleet.nodes_listed.time.as_secs_f64()));
    rows.push(each("requests for `haul nodes`", &|fleet| fleet.nodes_listed.requests as f64));
    rows.push(each("requests a second for the hottest key of an idle fleet", &|fleet| {
        fleet.idle.hottest().1 as f64 / IDLE.as_secs_f64()
    }));
    rows.push(each("requests a second for the hottest key of a busy fleet", &|fleet| {
        fleet.busy.hottest().1 as f64 / fleet.took.as_secs_f64()
    }));
    rows.push(each("requests a job for the hottest key of a busy fleet", &|fleet| {
        fleet.busy.hottest().1 as f64 / fleet.jobs as f64
    }));
    let sizes: Vec<String> = fleets.iter().map(|fleet| format!("{} nodes", fleet.nodes)).collect();
    println!("| | {} | exponent |", sizes.join(" | "));
    println!("|---|{}---:|", "---:|".repeat(fleets.len()));
    for Row(what, values) in &rows {
        let shown: Vec<String> = values.iter().map(|value| show(*value)).collect();
        let sizes = fleets.iter().map(|fleet| fleet.nodes as f64);
        println!("| {what} | {} | {} |", shown.join(" | "), exponent(sizes.zip(values.iter().copied())));
    }
    println!();
    for fleet in fleets {
        let ((key, count), idle) = (fleet.busy.hottest(), fleet.idle.hottest().0);
        let (nodes, jobs, dead) = (fleet.nodes, fleet.jobs, fleet.nodes.div_ceil(100));
        let bereaved = fleet.failovers.len();
        println!(
            "{nodes} nodes: {jobs} jobs; {dead} nodes died with {bereaved} jobs; hottest: {key} ({count}), idle: {idle}"
        );
    }
}

fn show(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.4}"),
    }
}

fn at(times: &[Duration], share: f64) -> f64 {
    let mut times: Vec<Duration> = times.to_vec();
    times.sort();
    let place = (times.len().saturating_sub(1) as f64 * share).round() as usize;
    times.get(place).map_or(f64::NAN, Duration::as_secs_f64)
}

/// The exponent of growth with the fleet's size: the slope of the least-squares line through the
/// logarithms. 0 is constant, 1 is proportional.
fn exponent(points: impl Iterator<Item = (f64, f64)>) -> String {
    let points: Vec<(f64, f64)> =
        points.filter(|(_, value)| *value > 0.0).map(|(size, value)| (size.ln(), value.ln())).collect();
    if points.len() < 2 {
        return "-".into();
    }
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    let (x, y) = (x / count, y / count);
    let over: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let under: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    format!("{:+.2}", over / under)
}
