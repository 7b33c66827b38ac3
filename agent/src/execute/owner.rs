//! Whose a container is, readable off the engine alone.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use shared::{
    id::{Attempt, GpuUuid, JobId, NodeId},
    job::OnIsolation,
    node::Share,
    units::Size,
};

use crate::{
    engine::{Container, ContainerId},
    ledger::Holding,
};

const FLEET: &str = "haul.fleet";
const NODE: &str = "haul.node";
const JOB: &str = "haul.job";
const ATTEMPT: &str = "haul.attempt";
const CLAIM: &str = "haul.claim";
const GPUS: &str = "haul.gpus";
const CPUS: &str = "haul.cpus";
const MEMORY: &str = "haul.memory";
const GPU_SHARE: &str = "haul.gpu_share";
const IMAGE: &str = "haul.image";
const ON_ISOLATION: &str = "haul.on-isolation";

/// Whose a container is.
#[derive(Debug, Clone, PartialEq)]
pub struct Owner {
    /// The job.
    pub job: JobId,
    /// Which try.
    pub attempt: Attempt,
    /// What it was given.
    pub holding: Holding,
    /// What becomes of it when its node is cut off.
    pub on_isolation: OnIsolation,
}

/// The labels that all containers of a node carry.
pub fn labels_of(fleet: &str, node: &NodeId) -> Vec<(String, String)> {
    vec![(FLEET.into(), fleet.into()), (NODE.into(), node.to_string())]
}

/// The GPUs that any container of haul, of whatever node and fleet, was given.
pub fn gpus_of(container: &Container) -> Vec<GpuUuid> {
    let text = container.labels.get(GPUS).map_or("", String::as_str);
    text.split(',').filter_map(|uuid| uuid.parse().ok()).collect()
}

/// What runs in a container of haul's, exactly.
pub fn image_of(container: &Container) -> &str {
    container.labels.get(IMAGE).map_or("", String::as_str)
}

fn on_isolation(container: &Container) -> OnIsolation {
    match container.labels.get(ON_ISOLATION).map(String::as_str) {
        Some("continue") => OnIsolation::Continue,
        Some("stop") => OnIsolation::Stop,
        // What says nothing is frozen, which loses nothing.
        _ => OnIsolation::Freeze,
    }
}

/// Whether a container is to be paused when its node is cut off and its agent does not act.
pub fn freezes(container: &Container) -> bool {
    on_isolation(container) != OnIsolation::Continue
}

impl Owner {
    /// The labels of a container of this owner; `claim` names the run of the agent that made it,
    /// `image` what runs in it, exactly.
    pub fn labels(&self, fleet: &str, node: &NodeId, claim: &str, image: &str) -> BTreeMap<String, String> {
        let uuids: Vec<&str> = self.holding.gpus.iter().map(GpuUuid::as_str).collect();
        let own = [
            (JOB, self.job.to_string()),
            (ATTEMPT, self.attempt.to_string()),
            (CLAIM, claim.to_owned()),
            (IMAGE, image.to_owned()),
            (GPUS, uuids.join(",")),
            (ON_ISOLATION, self.on_isolation.as_str().to_owned()),
            (CPUS, self.holding.share.cpus.to_string()),
            (MEMORY, self.holding.share.memory.bytes().to_string()),
        ];
        let share = self.holding.share.gpu.map(|share| (GPU_SHARE, share.bytes().to_string()));
        let own = own.into_iter().chain(share).map(|(key, value)| (key.to_owned(), value));
        labels_of(fleet, node).into_iter().chain(own).collect()
    }

    /// Whose this container is, if its labels say so.
    pub fn of(container: &Container) -> Option<Self> {
        let label = |key: &str| container.labels.get(key).map(String::as_str);
        let attempt = Attempt(label(ATTEMPT)?.parse().ok()?);
        let share = Share {
            cpus: label(CPUS).and_then(|text| text.parse().ok()).unwrap_or_default(),
            memory: Size(label(MEMORY).and_then(|text| text.parse().ok()).unwrap_or_default()),
            gpu: label(GPU_SHARE).and_then(|text| text.parse().ok()).map(Size),
        };
        let holding = Holding { attempt, gpus: gpus_of(container), share };
        let on_isolation = on_isolation(container);
        Some(Self { job: label(JOB)?.parse().ok()?, attempt, holding, on_isolation })
    }
}

/// The name of an attempt's container; the engine refuses a second one of that name. Another fleet on the same
/// engine may have a job of the same id: some of the hash of the fleet's URL tells the two apart.
pub fn container_name(fleet: &str, job: &JobId, attempt: Attempt) -> ContainerId {
    let hash = Sha256::digest(fleet);
    let hash: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    ContainerId::new(format!("haul-{job}-{attempt}-{hash}"))
}
