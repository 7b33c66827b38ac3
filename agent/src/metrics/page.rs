//! The page that Prometheus reads.

use std::fmt;

use prometheus_client::{
    encoding::prometheus_text,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use shared::{
    lane::{GpuState, OfferedGpu},
    node::Capacity,
    queue,
    store::Kind,
    units::Size,
};

use super::{Labels, Metrics};
use crate::{
    disk::Used,
    guard::{self, Presence},
    node::Node,
};

/// A number that is looked up when it is asked for.
type Gauges = Family<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>;

/// What the states of a GPU are called ([`state`]): each is told, also where no GPU is in it.
const STATES: [&str; 7] = ["free", "held", "shared", "reserved", "foreign", "out", "unknown"];

fn state(gpu: &OfferedGpu) -> &'static str {
    match gpu.state {
        GpuState::Free => "free",
        GpuState::Held => "held",
        GpuState::Shared { .. } => "shared",
        GpuState::Reserved { .. } => "reserved",
        GpuState::Foreign { .. } => "foreign",
        GpuState::Out { .. } => "out",
        GpuState::Unknown => "unknown",
    }
}

/// All of it, in Prometheus' text format.
pub fn page(node: &Node) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("haul");
    counted(&node.metrics, &mut registry);
    requests(node, &mut registry);
    host(node, &mut registry);
    jobs(node, &mut registry);
    disks(node, &mut registry);
    let mut page = String::new();
    prometheus_text::encode(&mut page, &registry)?;
    Ok(page)
}

fn counted(metrics: &Metrics, registry: &mut Registry) {
    registry.register(
        "attempts_ended",
        "Attempts at jobs that ended here, by outcome",
        metrics.ended.clone(),
    );
    registry.register("beats", "Heartbeats, by whether the store took them", metrics.beats.clone());
    let (waits, pulls) = (metrics.waits.clone(), metrics.pulls.clone());
    let help = "How long the jobs that were claimed here had waited";
    registry.register_with_unit("claim_wait", help, Unit::Seconds, waits);
    registry.register_with_unit("image_pull", "How long pulls of images took", Unit::Seconds, pulls);
}

fn requests(node: &Node, registry: &mut Registry) {
    let requests = Family::<Labels, Counter>::default();
    let count = |service: &str, kind: &str, total: u64| {
        let labels = vec![("service", service.to_owned()), ("kind", kind.to_owned())];
        requests.get_or_create(&labels).inc_by(total);
    };
    let store = node.fleet.store.counts();
    for (name, kind) in
        [("get", Kind::Get), ("put", Kind::Put), ("delete", Kind::Delete), ("list", Kind::List)]
    {
        count("store", name, store.get(kind));
    }
    for kind in queue::Kind::ALL {
        count("queue", kind.name(), node.fleet.queue.requests_of(kind));
    }
    let help =
        "Requests to the store and the queue; messages and deletions that come together are one for SQS";
    registry.register("requests", help, requests);
}

/// Registers one number.
fn one(registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>, value: f64) {
    let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
    gauge.set(value);
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, gauge),
        None => registry.register(name, help, gauge),
    }
}

#[expect(clippy::cast_precision_loss, reason = "no host has 2^52 of anything")]
fn number(count: u64) -> f64 {
    count as f64
}

fn bytes(size: Size) -> f64 {
    number(size.bytes())
}

fn host(node: &Node, registry: &mut Registry) {
    let inventory = node.ledger.inventory();
    let info = Gauges::default();
    let labels = vec![
        ("node", node.id.to_string()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("driver", inventory.driver.map(|driver| driver.version).unwrap_or_default()),
        ("simulated", inventory.simulated.to_string()),
    ];
    info.get_or_create(&labels).set(1.0);
    registry.register("node_info", "The node; always 1", info);

    let offer = node.ledger.offer();
    let gpus = Gauges::default();
    for name in STATES {
        gpus.get_or_create(&vec![("state", name.to_owned())]).set(0.0);
    }
    for gpu in &offer.gpus {
        gpus.get_or_create(&vec![("state", state(gpu).to_owned())]).inc();
    }
    registry.register("gpus", "GPUs, and instances of those in MIG mode, by what they are doing", gpus);

    let takes_jobs = !node.ledger.is_closed();
    one(registry, "takes_jobs", "Whether the host takes jobs", None, f64::from(u8::from(takes_jobs)));
    let drained = f64::from(u8::from(node.ledger.is_drained()));
    one(registry, "drained", "Whether somebody has drained the host", None, drained);
    let left = node.fence.time_left().as_secs_f64();
    let help = "How long until the jobs here are frozen if no heartbeat reaches the store";
    one(registry, "lease_left", help, Some(Unit::Seconds), left);

    let watches = matches!(guard::presence(&node.config.state_dir), Ok(Presence::Watches));
    let help = "Whether a guard runs that could freeze the jobs here if this agent hangs";
    one(registry, "guard_watches", help, None, f64::from(u8::from(watches)));

    let volumes = Gauges::default();
    for (name, volume) in &offer.volumes {
        let usable = f64::from(u8::from(volume.problem.is_none()));
        volumes.get_or_create(&vec![("volume", name.to_string())]).set(usable);
    }
    registry.register("volume_usable", "Whether a volume answers as it must", volumes);
}

fn jobs(node: &Node, registry: &mut Registry) {
    let Capacity { cpus, cpus_used, memory, memory_used, .. } = node.ledger.capacity();
    #[expect(clippy::cast_precision_loss, reason = "no host has 2^52 jobs")]
    let running = node.ledger.holdings().len() as f64;
    one(registry, "jobs", "Jobs that the host has", None, running);
    one(registry, "cpus", "Cores that jobs may use together", None, cpus);
    one(registry, "cpus_promised", "Cores that are promised to jobs", None, cpus_used);
    one(registry, "memory", "Memory that jobs may use together", Some(Unit::Bytes), bytes(memory));
    let help = "Memory that is promised to jobs";
    one(registry, "memory_promised", help, Some(Unit::Bytes), bytes(memory_used));
}

fn disks(node: &Node, registry: &mut Registry) {
    let (sizes, free) = (Gauges::default(), Gauges::default());
    let (inodes, inodes_free) = (Gauges::default(), Gauges::default());
    for Used { by, disk, .. } in node.disks.last() {
        let labels = vec![("disk", by.name().to_owned())];
        sizes.get_or_create(&labels).set(bytes(disk.size));
        free.get_or_create(&labels).set(bytes(disk.free));
        if disk.inodes > 0 {
            inodes.get_or_create(&labels).set(number(disk.inodes));
            inodes_free.get_or_create(&labels).set(number(disk.inodes_free));
        }
    }
    let help = "The disks of images, of what else the engine keeps, of the agent's state and of results; one that has several once";
    registry.register_with_unit("disk", help, Unit::Bytes, sizes);
    registry.register_with_unit("disk_free", "What is free of each disk", Unit::Bytes, free);
    registry.register("disk_inodes", "How many inodes each disk has that counts them", inodes);
    registry.register("disk_inodes_free", "How many of those are free", inodes_free);
}

#[cfg(test)]
mod tests {
    use shared::log::Outcome;

    use super::*;

    #[test]
    fn what_has_not_happened_is_told_as_0() {
        let metrics = Metrics::default();
        metrics.ended(Outcome::EngineFault);
        metrics.beat(true);
        let (mut registry, mut page) = (Registry::with_prefix("haul"), String::new());
        counted(&metrics, &mut registry);
        prometheus_text::encode(&mut page, &registry).expect("text");
        let happened = [("attempts_ended", "outcome", "engine_fault"), ("beats", "result", "written")];
        let outcomes = Outcome::ALL.map(|outcome| ("attempts_ended", "outcome", outcome.as_str()));
        for told @ (name, label, value) in
            outcomes.into_iter().chain(["written", "failed"].map(|value| ("beats", "result", value)))
        {
            let n = u8::from(happened.contains(&told));
            let line = format!("haul_{name}_total{{{label}=\"{value}\"}} {n}\n");
            assert!(page.contains(&line), "{line} is missing: {page}");
        }
    }
}
