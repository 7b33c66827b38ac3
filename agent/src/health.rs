//! What the host looks like: engine, disk, volumes, GPUs. Looked at each beat, and before GPUs
//! change hands; what fails keeps jobs away and shows in `haul nodes`, and clears by itself.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use shared::{id::GpuUuid, units::Size};

use crate::{
    engine::EngineInfo,
    gpu::{self, Inventory},
    node::Node,
    pace::Pace,
};

/// How long a look at the GPUs may take. NVML answers in milliseconds; one that is stuck in the
/// driver never does.
const GPU_DEADLINE: Duration = Duration::from_secs(5);

/// Looks at everything once.
pub async fn check(node: &Node) {
    let (engine, volumes, inventory) =
        futures::join!(node.engine.info(), node.volumes.check(), node.gpus.read(GPU_DEADLINE));
    let mut problems = Vec::new();
    match &engine {
        Ok(info) => {
            node.note_engine(format!("{} {}", info.name, info.version));
            problems.extend(disk(info, node.config.disk_floor));
        }
        Err(error) => problems.push(error.to_string()),
    }
    match inventory {
        Ok(inventory) => {
            let foreign = foreign(node, &inventory).await;
            node.ledger.set_gpus(inventory, foreign);
        }
        Err(error) => {
            // What cannot be seen is not given out.
            problems.push(error.to_string());
        }
    }
    node.ledger.set_volumes(volumes);
    let before = node.ledger.problems();
    if before != problems {
        for problem in &problems {
            tracing::warn!(problem, "no jobs are taken until this is mended");
        }
        if problems.is_empty() {
            tracing::info!("the host is well again");
        }
    }
    node.ledger.set_problems(problems);
}

fn disk(info: &EngineInfo, floor: Size) -> Option<String> {
    // An engine in another file system namespace has a root that is not ours to look at.
    let stat = rustix::fs::statvfs(&info.root).ok()?;
    let free = Size(stat.f_bavail.saturating_mul(stat.f_frsize));
    (free < floor).then(|| {
        format!(
            "the engine's disk at {} has {} free, less than {floor}; remove images (docker image prune) or lower disk_floor",
            info.root.display(),
            free.human()
        )
    })
}

/// Which GPUs are used by programs that are not in a container of this node, or given to another
/// agent's container.
async fn foreign(node: &Node, inventory: &Inventory) -> BTreeMap<GpuUuid, String> {
    let mut foreign = BTreeMap::new();
    if inventory.simulated || inventory.gpus.is_empty() {
        return foreign;
    }
    let all = node.engine.list(&[]).await.unwrap_or_default();
    let own = crate::execute::labels_of(node.fleet.store.url().as_str(), &node.id);
    let is_own =
        |labels: &BTreeMap<String, String>| own.iter().all(|(key, value)| labels.get(key) == Some(value));
    for container in all.iter().filter(|container| !is_own(&container.labels)) {
        for uuid in crate::execute::gpus_of(container) {
            foreign.insert(uuid, format!("another agent's container {}", container.name));
        }
    }
    let ours: Vec<&str> = all
        .iter()
        .filter(|container| is_own(&container.labels))
        .map(|container| container.id.as_str())
        .collect();
    for gpu in &inventory.gpus {
        let others = gpu::foreign(&gpu.processes, |pid| {
            gpu::container_of(pid).is_some_and(|id| ours.contains(&id.as_str()))
        });
        if let Some(process) = others.first() {
            let name = process.name.as_deref().unwrap_or("a process");
            foreign.insert(gpu.uuid.clone(), format!("{name} (pid {})", process.pid));
        }
    }
    foreign
}

/// Looks again at every beat, until it is dropped.
pub async fn watch(node: Arc<Node>) {
    let mut every = Pace::after(node.fleet.clone(), |settings| settings.beat);
    loop {
        every.tick().await;
        check(&node).await;
    }
}
