//! Why a host does not serve a lane: a data type, so that every surface says it the same way.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    id::VolumeName,
    job::{Arch, ComputeCapability, CudaVersion, MigProfile},
    units::{Size, Span},
};

/// One reason why a host cannot take a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Misfit {
    /// The image is for another CPU.
    Arch {
        /// What the job needs.
        needs: Arch,
        /// What the host is.
        has: Arch,
    },
    /// Fewer GPUs than needed, whatever they are.
    TooFewGpus {
        /// How many the job needs.
        needs: u32,
        /// How many the host has.
        has: u32,
        /// How many MIG instances it has beside them.
        #[serde(default)]
        instances: usize,
    },
    /// No MIG instance of the wanted kind.
    MigProfile {
        /// The kind that the job needs.
        needs: MigProfile,
        /// The kinds that the host has.
        has: Vec<MigProfile>,
    },
    /// Not enough GPUs of a wanted model.
    Model {
        /// The wanted models.
        needs: Vec<String>,
        /// The host's.
        has: Vec<String>,
    },
    /// GPUs of the model, but too small.
    GpuMemory {
        /// At least so much on each.
        needs: Size,
        /// The largest there is.
        has: Size,
    },
    /// GPUs too old.
    ComputeCapability {
        /// At least this.
        needs: ComputeCapability,
        /// The newest there is.
        has: ComputeCapability,
    },
    /// The driver is too old.
    Cuda {
        /// At least this CUDA version.
        needs: CudaVersion,
        /// What the driver supports.
        has: Option<CudaVersion>,
    },
    /// Each need is met by some GPU, but not all needs by enough of them.
    Combination {
        /// How many the job needs.
        needs: u32,
        /// How many have all that is asked of each.
        has: u32,
    },
    /// A GPU that would serve is broken or set aside.
    OutOfService {
        /// What is wrong with it.
        why: String,
    },
    /// GPUs that would serve are in use.
    Busy {
        /// How many the job needs.
        needs: u32,
        /// How many of those that would serve are free.
        free: u32,
        /// How many are used by programs that haul did not start.
        foreign: u32,
        /// How many of those that would serve are kept for a job that needs more than is free.
        #[serde(default)]
        reserved: u32,
    },
    /// No GPU that would serve has so much memory left.
    BusyShare {
        /// How much of a GPU's memory the job needs.
        needs: Size,
        /// The most that is left on one.
        free: Size,
        /// How many of those that would serve are used by programs that haul did not start.
        foreign: u32,
        /// How many of those that would serve are kept for a job that needs more than is free.
        #[serde(default)]
        reserved: u32,
    },
    /// The host does not offer the volume.
    NoVolume {
        /// The volume.
        volume: VolumeName,
    },
    /// The host offers the volume read-only, the job writes to it.
    ReadOnly {
        /// The volume.
        volume: VolumeName,
    },
    /// The volume does not answer.
    VolumeDown {
        /// The volume.
        volume: VolumeName,
        /// What its check found.
        why: String,
    },
    /// A label is missing or has another value.
    Label {
        /// The label.
        key: String,
        /// The value needed.
        needs: String,
        /// The host's value.
        has: Option<String>,
    },
    /// Not enough CPU cores free, or at all.
    Cpus {
        /// Cores needed.
        needs: f64,
        /// Cores free now.
        free: f64,
        /// Cores there are.
        has: f64,
    },
    /// Not enough memory free, or at all.
    Memory {
        /// Needed.
        needs: Size,
        /// Free now.
        free: Size,
        /// What there is.
        has: Size,
    },
    /// As many jobs as the host may run at once.
    Slots {
        /// The limit.
        limit: u32,
    },
    /// The host does not hold the secret.
    NoSecret {
        /// The secret's name.
        name: String,
    },
    /// The last attempt failed here by the platform's doing; another host is asked first.
    Avoided,
    /// The host leaves jobs to others until they have waited for so long.
    ClaimAfter {
        /// How long.
        claim_after: Span,
    },
    /// Another with room is better for the job, and is left it for a while.
    LeftToOthers,
    /// The host takes no jobs at present.
    Closed {
        /// Why.
        why: String,
    },
    /// What a newer haul has to say.
    #[serde(other)]
    Unknown,
}

/// When a misfit passes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passes {
    /// With the next thing that ends or opens on the host.
    AtAnyMoment,
    /// With the host's running work, or with time.
    WhenEmpty,
    /// Not as the host is.
    Never,
}

impl Misfit {
    /// Whether it may pass at any moment, so that the job is to be offered again at once: another host may
    /// well have room.
    pub fn is_passing(&self) -> bool {
        self.passes() == Passes::AtAnyMoment
    }

    /// Whether it passes when the host's running work ends.
    pub fn passes_when_empty(&self) -> bool {
        self.passes() != Passes::Never
    }

    fn passes(&self) -> Passes {
        let if_empty = |does: bool| if does { Passes::WhenEmpty } else { Passes::Never };
        match self {
            Self::Busy { .. } | Self::BusyShare { .. } | Self::Slots { .. } | Self::Closed { .. } => {
                Passes::AtAnyMoment
            }
            Self::Avoided | Self::ClaimAfter { .. } | Self::LeftToOthers => Passes::WhenEmpty,
            Self::Cpus { needs, has, .. } => if_empty(needs <= has),
            Self::Memory { needs, has, .. } => if_empty(needs <= has),
            Self::Arch { .. }
            | Self::TooFewGpus { .. }
            | Self::MigProfile { .. }
            | Self::Model { .. }
            | Self::GpuMemory { .. }
            | Self::ComputeCapability { .. }
            | Self::Cuda { .. }
            | Self::Combination { .. }
            | Self::OutOfService { .. }
            | Self::NoVolume { .. }
            | Self::ReadOnly { .. }
            | Self::VolumeDown { .. }
            | Self::Label { .. }
            | Self::NoSecret { .. }
            | Self::Unknown => Passes::Never,
        }
    }
}

fn gpus(count: u32) -> String {
    format!("{count} GPU{}", if count == 1 { "" } else { "s" })
}

fn others(f: &mut fmt::Formatter<'_>, foreign: u32, reserved: u32) -> fmt::Result {
    if foreign > 0 {
        write!(f, ", {foreign} used by programs outside haul")?;
    }
    if reserved > 0 {
        write!(f, ", {reserved} kept for a larger job")?;
    }
    Ok(())
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arch { needs, has } => write!(f, "needs {needs}, the host is {has}"),
            Self::TooFewGpus { needs, has, instances } => {
                let has = if *has == 0 { "none".to_owned() } else { has.to_string() };
                write!(f, "needs {}, the host has {has}", gpus(*needs))?;
                match instances {
                    0 => Ok(()),
                    count => write!(f, " that is not in MIG mode, and {count} MIG instances"),
                }
            }
            Self::MigProfile { needs, has } if has.is_empty() => {
                write!(f, "needs a {needs} instance, the host has no GPU in MIG mode")
            }
            Self::MigProfile { needs, has } => {
                let has: Vec<String> = has.iter().map(ToString::to_string).collect();
                write!(f, "needs a {needs} instance, the host has {}", has.join(", "))
            }
            Self::Model { needs, has } => {
                write!(f, "needs GPU model {}, the host has {}", needs.join(" or "), has.join(", "))
            }
            Self::GpuMemory { needs, has } => {
                write!(f, "needs {needs} of memory on each GPU, the host's largest has {has}")
            }
            Self::ComputeCapability { needs, has } => {
                write!(f, "needs compute capability {needs}, the host's best is {has}")
            }
            Self::Cuda { needs, has: Some(has) } => {
                write!(f, "needs CUDA {needs}, the host's driver supports {has}")
            }
            Self::Cuda { needs, has: None } => write!(f, "needs CUDA {needs}, the host has no NVIDIA driver"),
            Self::Combination { needs, has } => {
                write!(f, "needs {} with all that is asked of each, the host has {has} such", gpus(*needs))
            }
            Self::OutOfService { why } => write!(f, "a GPU is out of service: {why}"),
            Self::Busy { needs, free, foreign, reserved } => {
                write!(f, "needs {}, {free} free now", gpus(*needs))?;
                others(f, *foreign, *reserved)
            }
            Self::BusyShare { needs, free, foreign, reserved } => {
                write!(f, "needs {needs} of a GPU, {} free now on the emptiest", free.human())?;
                others(f, *foreign, *reserved)
            }
            Self::NoVolume { volume } => write!(f, "the host does not offer volume {volume}"),
            Self::ReadOnly { volume } => write!(f, "the host offers volume {volume} read-only"),
            Self::VolumeDown { volume, why } => write!(f, "volume {volume} is not usable: {why}"),
            Self::Label { key, needs, has: Some(has) } => {
                write!(f, "needs label {key}={needs}, the host has {key}={has}")
            }
            Self::Label { key, needs, has: None } => {
                write!(f, "needs label {key}={needs}, the host has none")
            }
            Self::Cpus { needs, free, has } => {
                write!(f, "needs {needs} CPU cores, {free} of {has} free now")
            }
            Self::Memory { needs, free, has } => {
                write!(f, "needs {needs} of memory, {} of {} free now", free.human(), has.human())
            }
            Self::Slots { limit } => write!(f, "the host runs {limit} jobs already, as many as it may"),
            Self::NoSecret { name } => write!(f, "the host does not hold secret {name}"),
            Self::Avoided => f.write_str("the last attempt failed on this host; another is asked first"),
            Self::ClaimAfter { claim_after } => {
                write!(f, "the host takes jobs that have waited for {claim_after} (claim_after)")
            }
            Self::LeftToOthers => f.write_str(
                "for ten seconds it is left to a host that has its image, or more of what it prefers",
            ),
            Self::Closed { why } => write!(f, "the host takes no jobs: {why}"),
            Self::Unknown => f.write_str("for a reason that only a newer haul knows"),
        }
    }
}
