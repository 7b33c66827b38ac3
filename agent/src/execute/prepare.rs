//! All that must be there before a container is made.

use std::sync::Arc;

use shared::{
    id::{Attempt, GpuUuid},
    lane::Access,
    log::Job,
    node::Share,
    units::Size,
};

use super::{outcome::Ending, owner::Owner};
use crate::{
    engine::{Bind, ContainerId, GpuAccess, Plan},
    gpu,
    images::fetch::fetch,
    inspect::require,
    ledger::Holding,
    node::Node,
};

/// Where a container finds its output directory.
const OUTPUT: &str = "/haul/output";
/// Where a container finds its checkpoint directory.
const CHECKPOINT: &str = "/haul/checkpoint";
/// `/dev/shm` of a job that says nothing: data loaders hand whole batches through it.
const SHM: Size = Size(8 << 30);

/// The container's plan, or how the attempt ended because something is missing.
pub async fn prepare(node: Arc<Node>, job: Job, attempt: Attempt, name: ContainerId) -> Result<Plan, Ending> {
    let spec = &job.spec;
    let gpus = job.held().map(|claim| claim.gpus.clone()).unwrap_or_default();
    let image = fetch(&node, &job).await.map_err(|error| Ending::from_engine(&error))?;
    node.images.used(&spec.image, &image, node.clock.now());
    let inventory = node.ledger.inventory();
    require::check(&require::overlaid(&image.env, spec), &gpus, &inventory).map_err(Ending::incompatible)?;
    let mut binds = Vec::new();
    for mount in &spec.mounts {
        let access = if mount.read_only { Access::Read } else { Access::Write };
        let source = node.volumes.resolve(&mount.volume, mount.path.as_deref(), access).await?;
        binds.push(Bind { source, target: mount.target.clone(), read_only: mount.read_only });
    }
    let dirs = node.outputs.make(&job.id, attempt).await.map_err(Ending::no_outputs)?;
    binds.push(Bind { source: dirs.output, target: OUTPUT.into(), read_only: false });
    binds.push(Bind { source: dirs.checkpoint, target: CHECKPOINT.into(), read_only: false });
    let memory = job.memory();
    let holding = Holding { attempt, gpus: gpus.clone(), share: Share::of(spec, memory) };
    let owner = Owner { job: job.id.clone(), attempt, holding, on_isolation: spec.on_isolation };
    let fleet = node.fleet.store.url().as_str();
    Ok(Plan {
        name: name.to_string(),
        image: image.id.clone(),
        command: spec.command.clone(),
        entrypoint: spec.entrypoint.clone(),
        workdir: spec.workdir.clone(),
        user: spec.user.clone(),
        env: environment(&node, &job, attempt, &gpus)?,
        labels: owner.labels(
            fleet,
            &node.id,
            node.incarnation.as_str(),
            image.digest.as_ref().unwrap_or(&image.id),
        ),
        binds,
        gpus: access(&node, gpus),
        cpus: spec.resources.cpus,
        memory,
        shm: spec
            .resources
            .shm
            .unwrap_or_else(|| memory.map_or(SHM, |memory| SHM.min(Size(memory.bytes() / 2)))),
        grace: spec.grace.0,
        log_limit: node.config.log_limit,
    })
}

fn access(node: &Node, gpus: Vec<GpuUuid>) -> GpuAccess {
    let inventory = node.ledger.inventory();
    if gpus.is_empty() {
        GpuAccess::None
    } else if inventory.simulated {
        GpuAccess::Simulated(gpus)
    } else {
        let own = inventory.gpus.iter().filter(|gpu| gpus.contains(&gpu.uuid));
        let nodes = own.filter_map(|gpu| gpu.device_node.clone()).chain(gpu::control_nodes());
        // Where the driver makes them elsewhere, its hook alone brings them in.
        let nodes = nodes.filter(|node| node.exists()).collect();
        GpuAccess::Nvidia { uuids: gpus, nodes }
    }
}

/// What the container is told, its own wishes first so that haul's cannot be shadowed.
fn environment(
    node: &Node,
    job: &Job,
    attempt: Attempt,
    gpus: &[GpuUuid],
) -> Result<Vec<(String, String)>, Ending> {
    let spec = &job.spec;
    let mut env: Vec<(String, String)> =
        spec.env.iter().map(|(name, value)| (name.to_string(), value.0.clone())).collect();
    for (name, secret) in node.secrets.read(&spec.secrets)? {
        env.push((name.to_string(), secret.expose().to_owned()));
    }
    if gpus.is_empty() {
        // Where NVIDIA's runtime is the engine's default, an image may ask for all GPUs by itself.
        env.push(("NVIDIA_VISIBLE_DEVICES".into(), "void".into()));
    }
    let mut own = |name: &str, value: String| env.push((name.into(), value));
    own("HAUL_JOB_ID", job.id.to_string());
    own("HAUL_ATTEMPT", attempt.to_string());
    own("HAUL_NODE", node.id.to_string());
    own("HAUL_OUTPUT_DIR", OUTPUT.into());
    own("HAUL_CHECKPOINT_DIR", CHECKPOINT.into());
    if let Some(timeout) = spec.timeout {
        own("HAUL_DEADLINE", (node.clock.now() + timeout.0).timestamp().to_string());
    }
    if let Some(share) = spec.resources.gpu_share {
        own("HAUL_GPU_SHARE", share.bytes().to_string());
    }
    if let Some(index) = spec.array_index {
        own("HAUL_ARRAY_INDEX", index.to_string());
    }
    Ok(env)
}
