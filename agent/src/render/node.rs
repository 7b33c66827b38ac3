//! Nodes, lanes and GPUs as people see them.

use std::collections::BTreeMap;

use shared::{
    client::{LaneReport, NodeFit, NodeReport},
    id::Timestamp,
    lane::{GpuState, OfferedGpu},
    node::{Capacity, Mode},
    units::Size,
};

use super::{Out, table::Table, time::ago};
use crate::{
    control::Status,
    gpu::{Inventory, Mig},
};

/// `2 of 4 free` for GPUs, by what they are doing.
fn gpu_counts(gpus: &[OfferedGpu]) -> [usize; 4] {
    let count = |which: fn(&GpuState) -> bool| gpus.iter().filter(|gpu| which(&gpu.state)).count();
    [
        count(|state| *state == GpuState::Free),
        count(|state| matches!(state, GpuState::Held | GpuState::Shared { .. } | GpuState::Reserved { .. })),
        count(|state| matches!(state, GpuState::Foreign { .. })),
        count(|state| matches!(state, GpuState::Out { .. })),
    ]
}

/// What is to be said of a GPU that is neither free nor one job's.
fn remarkable(gpu: &OfferedGpu) -> Option<String> {
    match &gpu.state {
        GpuState::Free | GpuState::Held => None,
        GpuState::Reserved { job } => Some(format!("kept for job {job}")),
        GpuState::Shared { free } => Some(format!("shared, {} of {} left", human(*free), gpu.memory.human())),
        GpuState::Foreign { by } => Some(format!("used outside haul by {by}")),
        GpuState::Out { why } => Some(format!("out of service: {why}")),
        GpuState::Unknown => Some("in a state that only a newer haul knows".into()),
    }
}

/// `2x P100 16GiB`, models in order of their first GPU.
fn models(gpus: &[OfferedGpu], simulated: bool) -> String {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for gpu in gpus {
        let name = format!("{} {}", gpu.model, gpu.memory);
        match kinds.iter_mut().find(|(kind, _)| *kind == name) {
            Some((_, count)) => *count += 1,
            None => kinds.push((name, 1)),
        }
    }
    let kinds: Vec<String> = kinds.into_iter().map(|(name, count)| format!("{count}x {name}")).collect();
    match (kinds.is_empty(), simulated) {
        (true, _) => "none".into(),
        (false, true) => format!("{} (simulated)", kinds.join(", ")),
        (false, false) => kinds.join(", "),
    }
}

fn cpus(capacity: &Capacity) -> String {
    format!("{}/{}", capacity.cpus_used, capacity.cpus)
}

fn mode(mode: Mode, problems: &[String], silent: bool) -> String {
    match mode {
        _ if silent => "silent".into(),
        Mode::Ready if !problems.is_empty() => "unwell".into(),
        mode => mode.as_str().into(),
    }
}

/// A list of nodes.
pub fn nodes(out: Out, nodes: &[NodeReport], now: Timestamp) {
    if nodes.is_empty() {
        out.line("no nodes; start one with: haul agent");
        return;
    }
    let heads = ["NODE", "STATE", "GPUS", ">FREE", ">USED", ">FOREIGN", ">FAULTY", ">CPUS", ">JOBS", ">BEAT"];
    let mut table = Table::new(out, &heads);
    for NodeReport { record, silent } in nodes {
        let [free, used, foreign, broken] = gpu_counts(&record.offer.gpus);
        table.row([
            record.node.to_string(),
            mode(record.mode, &record.problems, *silent),
            models(&record.offer.gpus, record.simulated),
            free.to_string(),
            used.to_string(),
            foreign.to_string(),
            broken.to_string(),
            cpus(&record.capacity),
            record.jobs.len().to_string(),
            ago(record.at, now),
        ]);
    }
    table.print();
    for NodeReport { record, .. } in nodes {
        for problem in &record.problems {
            out.line(format!("{}: {problem}", record.node));
        }
        for gpu in &record.offer.gpus {
            if let Some(words) = remarkable(gpu) {
                out.line(format!("{}: {} {}: {words}", record.node, gpu.model, gpu.uuid));
            }
        }
        for (name, volume) in &record.offer.volumes {
            if let Some(problem) = &volume.problem {
                out.line(format!("{}: volume {name}: {problem}", record.node));
            }
        }
    }
}

/// Why no node can take a lane's jobs, the commonest reasons first.
fn why_none(never: &[NodeFit]) -> String {
    let mut reasons: BTreeMap<String, Vec<&NodeFit>> = BTreeMap::new();
    for fit in never {
        if let Some(why) = fit.why.first() {
            reasons.entry(why.to_string()).or_default().push(fit);
        }
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, nodes)| std::cmp::Reverse(nodes.len()));
    let text = reasons.iter().take(3).map(|(why, nodes)| match nodes.as_slice() {
        [one] => format!("{}: {why}", one.node),
        many => format!("{} nodes: {why}", many.len()),
    });
    match reasons.len() {
        0 => "no node is alive".into(),
        _ => text.collect::<Vec<_>>().join("; "),
    }
}

/// A list of lanes.
pub fn lanes(out: Out, lanes: &[LaneReport], now: Timestamp) {
    if lanes.is_empty() {
        out.line("no lanes; the first job makes one");
        return;
    }
    let mut table = Table::new(
        out,
        &["LANE", "NEEDS", ">JOBS", ">PARKED", ">QUEUED", ">OLDEST", ">FITS NOW", ">LATER", "WHY NONE"],
    );
    for lane in lanes {
        let nobody = lane.now.is_empty() && lane.when_empty.is_empty();
        table.row([
            lane.lane.id.to_string(),
            lane.lane.needs.to_string(),
            lane.jobs.to_string(),
            lane.parked.to_string(),
            (lane.depth.waiting + lane.depth.in_flight + lane.depth.delayed).to_string(),
            lane.oldest.map_or_else(String::new, |oldest| ago(oldest, now)),
            lane.now.len().to_string(),
            lane.when_empty.len().to_string(),
            if nobody { why_none(&lane.never) } else { String::new() },
        ]);
    }
    table.print();
}

/// This host's GPUs.
pub fn gpus(out: Out, inventory: &Inventory) {
    if inventory.gpus.is_empty() {
        out.line("no NVIDIA GPUs on this host (no driver library); it takes jobs that use only the CPU");
        return;
    }
    if let Some(driver) = &inventory.driver {
        let kind = if inventory.simulated { "simulated driver" } else { "driver" };
        out.line(format!("{kind} {}, CUDA up to {}", driver.version, driver.cuda));
    }
    let mut table =
        Table::new(out, &["GPU", "UUID", "MODEL", ">MEMORY", ">USED", ">CC", ">UTIL", ">POWER", "STATE"]);
    for gpu in &inventory.gpus {
        let unknown = || "-".to_owned();
        let state = match (&gpu.fault, gpu.mig, gpu.processes.iter().flatten().next()) {
            (Some(fault), ..) => fault.to_string(),
            (None, Mig::Cut, _) => "MIG mode".into(),
            (None, Mig::Off | Mig::Instance(_), Some(process)) => {
                let name = process.name.as_deref().unwrap_or("a process");
                format!("used by {name} (pid {})", process.pid)
            }
            (None, Mig::Off | Mig::Instance(_), None) => "idle".into(),
        };
        table.row([
            gpu.index.to_string(),
            gpu.uuid.to_string(),
            gpu.model.clone(),
            gpu.memory.human(),
            gpu.memory_used.human(),
            gpu.compute_capability.to_string(),
            gpu.utilization.map_or_else(unknown, |percent| format!("{percent}%")),
            gpu.power.map_or_else(unknown, |watts| format!("{watts:.0}W")),
            state,
        ]);
    }
    table.print();
}

/// An agent, as it describes itself.
pub fn agent(out: Out, status: &Status) {
    let field = |name: &str, value: String| out.line(format!("{name:<10} {value}"));
    field("node", status.node.to_string());
    field("state", mode(status.mode, &status.problems, false));
    status.problems.iter().for_each(|problem| field("problem", problem.clone()));
    field("fleet", status.fleet.clone());
    field("pid", status.pid.to_string());
    let [free, used, foreign, broken] = gpu_counts(&status.offer.gpus);
    field("gpus", models(&status.offer.gpus, status.simulated));
    if !status.offer.gpus.is_empty() {
        field("", format!("{free} free, {used} used, {foreign} used by others, {broken} out of service"));
    }
    field("cpus", format!("{} in use", cpus(&status.capacity)));
    let Capacity { memory, memory_used, .. } = status.capacity;
    field("memory", format!("{} of {} promised to jobs", human(memory_used), human(memory)));
    for (name, volume) in &status.offer.volumes {
        let state = volume.problem.as_deref().unwrap_or("ok");
        field("volume", format!("{name} ({:?}): {state}", volume.access).to_lowercase());
    }
    field("jobs", status.jobs.len().to_string());
    for job in &status.jobs {
        field("", job.to_string());
    }
}

fn human(size: Size) -> String {
    if size == Size(0) { "0".into() } else { size.human() }
}
