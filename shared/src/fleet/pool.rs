//! Pools: kinds of machines that an autoscaler starts and ends.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    id::{GpuUuid, VolumeName},
    job::{Arch, Version2},
    lane::{Access, GpuState, Offer, OfferedGpu, OfferedVolume},
    node::{Capacity, NodeRecord},
    units::{Size, Span},
};

/// How many jobs a machine is reckoned to run at once.
const SLOTS: u32 = 64;

/// More than any job asks for.
const ENOUGH: Version2 = Version2 { major: 9999, minor: 0 };

/// Machines of one kind, of which somebody may start and end as many as are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Labels that its machines' agents carry, and no others': by these they are known.
    pub labels: BTreeMap<String, String>,
    /// The driver's name for their GPUs, such as `NVIDIA H100 80GB HBM3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_model: Option<String>,
    /// GPUs of a machine.
    #[serde(default)]
    pub gpus: u32,
    /// The memory of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<Size>,
    /// CPU cores of a machine.
    pub cpus: u32,
    /// Main memory of a machine.
    pub memory: Size,
    /// Their CPU architecture.
    #[serde(default)]
    pub arch: Arch,
    /// Volumes that they offer, for reading and writing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeName>,
    /// At least so many machines.
    #[serde(default)]
    pub min: u32,
    /// And at most so many.
    pub max: u32,
    /// How long a machine without jobs is kept.
    #[serde(default = "default_keep_idle")]
    pub keep_idle: Span,
}

fn default_keep_idle() -> Span {
    Span::secs(600)
}

impl Pool {
    /// Whether a node is one of its machines.
    pub fn has(&self, node: &NodeRecord) -> bool {
        self.labels.iter().all(|(key, value)| node.offer.labels.get(key) == Some(value))
    }

    /// What a new machine has. What is not said of it, such as its driver, is taken to be enough.
    pub fn offer(&self) -> Offer {
        let gpu = |index: u32| OfferedGpu {
            uuid: GpuUuid::new(format!("GPU-00000000-0000-0000-0000-{index:012}")).expect("a valid name"),
            model: self.gpu_model.clone().unwrap_or_default(),
            memory: self.gpu_memory.unwrap_or_default(),
            reserved: Size(0),
            compute_capability: ENOUGH,
            mig: None,
            state: GpuState::Free,
        };
        let volume =
            |name: &VolumeName| (name.clone(), OfferedVolume { access: Access::Write, problem: None });
        Offer {
            arch: self.arch,
            cuda: (self.gpus > 0).then_some(ENOUGH),
            gpus: (0..self.gpus).map(gpu).collect(),
            volumes: self.volumes.iter().map(volume).collect(),
            labels: self.labels.clone(),
        }
    }

    /// What jobs may use of a new machine.
    pub fn capacity(&self) -> Capacity {
        Capacity { cpus: self.cpus.into(), memory: self.memory, slots: SLOTS, ..Capacity::default() }
    }

    /// What is wrong with it: the field, and what it may be.
    pub fn fault(&self) -> Option<(&'static str, &'static str)> {
        let faults = [
            (self.labels.is_empty(), "labels", "at least one, by which its machines are known"),
            (self.cpus == 0, "cpus", "at least 1"),
            (self.gpus > 64, "gpus", "0 to 64"),
            (self.gpus > 0 && self.gpu_model.is_none(), "gpu_model", "the driver's name for its GPUs"),
            (self.gpus > 0 && self.gpu_memory.is_none(), "gpu_memory", "the memory of each GPU"),
            (self.max < self.min, "max", "at least min"),
            (self.max > 10_000, "max", "up to 10000"),
        ];
        faults.into_iter().find_map(|(is, field, allowed)| is.then_some((field, allowed)))
    }
}
