//! How much of a host's GPUs a job takes.

use serde::{Deserialize, Serialize};

use crate::{
    job::{MigProfile, Resources},
    units::Size,
};

/// How much of a host's GPUs a job takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Amount {
    /// So many GPUs, each for this job alone.
    Whole(u32),
    /// So much memory of one GPU, which other jobs may use beside it.
    Share(Size),
    /// An instance of this kind, of a GPU in MIG mode.
    Mig(MigProfile),
}

impl Amount {
    /// What a job asks for; `None` for one that uses only the CPU.
    pub fn of(resources: &Resources) -> Option<Self> {
        let whole = (resources.gpus > 0).then_some(Self::Whole(resources.gpus));
        whole.or(resources.gpu_share.map(Self::Share)).or(resources.mig.map(Self::Mig))
    }

    /// How many devices that is.
    pub fn devices(self) -> u32 {
        match self {
            Self::Whole(count) => count,
            Self::Share(_) | Self::Mig(_) => 1,
        }
    }

    /// By which the larger of two is told: whole GPUs, then memory of one.
    pub fn rank(self) -> (u32, Size) {
        match self {
            Self::Whole(count) => (count, Size(0)),
            Self::Share(memory) => (0, memory),
            Self::Mig(profile) => (0, profile.memory()),
        }
    }
}
