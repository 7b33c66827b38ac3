//! What a host has, as lanes see it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::needs::Access;
use crate::{
    id::{GpuUuid, JobId, VolumeName},
    job::{Arch, ComputeCapability, CudaVersion, MigProfile},
    units::Size,
};

/// What a host has, as it stands now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    /// Its CPU architecture.
    pub arch: Arch,
    /// The CUDA version that its driver supports; `None` without a driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<CudaVersion>,
    /// Its GPUs, in the driver's order.
    #[serde(default)]
    pub gpus: Vec<OfferedGpu>,
    /// Its volumes.
    #[serde(default)]
    pub volumes: BTreeMap<VolumeName, OfferedVolume>,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// One GPU of a host, or one instance of a GPU in MIG mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedGpu {
    /// Its full UUID.
    pub uuid: GpuUuid,
    /// The driver's name for it.
    pub model: String,
    /// All of its memory.
    pub memory: Size,
    /// What of that the driver keeps for itself.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reserved: Size,
    /// Its compute capability.
    pub compute_capability: ComputeCapability,
    /// It is an instance of this kind, of a GPU in MIG mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<MigProfile>,
    /// What it is doing.
    pub state: GpuState,
}

fn is_zero(size: &Size) -> bool {
    *size == Size(0)
}

impl OfferedGpu {
    /// What jobs may have of its memory.
    pub fn usable(&self) -> Size {
        Size(self.memory.bytes().saturating_sub(self.reserved.bytes()))
    }
}

/// What a GPU is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum GpuState {
    /// Free for a job.
    Free,
    /// Given to a job.
    Held,
    /// Given to jobs that share it.
    Shared {
        /// What is left of its memory.
        free: Size,
    },
    /// Nobody has it; it is kept for a job that needs more than is free.
    Reserved {
        /// The job.
        job: JobId,
    },
    /// Used by programs that haul did not start.
    Foreign {
        /// Which, for people.
        by: String,
    },
    /// Not to be used until somebody mends it.
    Out {
        /// Why.
        why: String,
    },
    /// What a newer haul knows.
    #[serde(other)]
    Unknown,
}

/// One volume of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedVolume {
    /// What jobs may do with it.
    pub access: Access,
    /// What its last check found wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
