//! The host's GPUs: what they are, and how they are.
//!
//! [`Gpus`] reads them, from NVIDIA's management library ([`Nvml`]) or made up ([`Simulated`]);
//! both give the same [`Inventory`]. A read may hang in the driver, so the agent reads through
//! [`Reader`], which has a thread to lose. Who has which GPU is not known here, but in the ledger.

mod container;
mod fault;
mod nvml;
mod reader;
mod simulated;
mod users;
mod xids;

use std::path::PathBuf;

use serde::Serialize;
use shared::{
    id::GpuUuid,
    job::{ComputeCapability, CudaVersion, MigProfile},
    units::Size,
};

pub use container::{Place, kill_in, place_of};
pub use fault::{GpuFault, Slowdown, Xid};
pub use nvml::Nvml;
pub use reader::Reader;
pub use simulated::{Simulated, SimulatedSpec};
pub use users::{Containers, Foreign, Leftover, Users, users};

/// One GPU.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gpu {
    /// The driver's number for it; may change when the host restarts.
    pub index: u32,
    /// Its name for ever.
    pub uuid: GpuUuid,
    /// The driver's name for its model.
    pub model: String,
    /// All of its memory.
    pub memory: Size,
    /// What of that the driver keeps for itself.
    pub memory_reserved: Size,
    /// What of it is in use, by whomever.
    pub memory_used: Size,
    /// What its instructions are.
    pub compute_capability: ComputeCapability,
    /// Its device node; none for a made-up one.
    pub device_node: Option<PathBuf>,
    /// Where it sits.
    pub pci_bus: Option<String>,
    /// Programs that use it, in containers or not; none where the driver does not tell, as in WSL and on
    /// virtual GPUs.
    pub processes: Option<Vec<GpuProcess>>,
    /// How much of the last sample period it was busy, in percent.
    pub utilization: Option<u32>,
    /// What it draws, in watts.
    pub power: Option<f64>,
    /// What it has drawn since the driver was loaded, in joules.
    pub energy: Option<f64>,
    /// How warm it is, in °C.
    pub temperature: Option<u32>,
    /// Whether it is whole, cut into instances, or one of these.
    pub mig: Mig,
    /// What is wrong with it.
    pub fault: Option<GpuFault>,
}

/// How a GPU stands to MIG, by which one is cut into several (NVIDIA Multi-Instance GPU User Guide).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mig {
    /// It is whole.
    #[default]
    Off,
    /// It is cut into instances, which follow it; it is not given out itself.
    Cut,
    /// It is an instance of this kind.
    Instance(MigProfile),
}

/// A program that uses a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuProcess {
    /// Its process id, as the host counts.
    pub pid: u32,
    /// Its name.
    pub name: Option<String>,
    /// What it uses of the GPU's memory.
    pub memory: Option<Size>,
}

/// The NVIDIA driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Driver {
    /// Its version.
    pub version: String,
    /// The newest CUDA that it supports.
    pub cuda: CudaVersion,
}

/// All GPUs of a host.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Inventory {
    /// None on a host without.
    pub driver: Option<Driver>,
    /// In the driver's order.
    pub gpus: Vec<Gpu>,
    /// They are made up.
    pub simulated: bool,
}

/// Why GPUs cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GpuError {
    /// The driver's library is there and does not work.
    #[error("the NVIDIA library {library} does not work: {detail}")]
    Library {
        /// Which.
        library: String,
        /// NVML's words, and the fix where it is known.
        detail: String,
    },
    /// The driver does not answer.
    #[error(
        "the NVIDIA driver did not answer within {seconds} s; nvidia-smi hangs as well then, and only a restart helps"
    )]
    Hung {
        /// How long was waited.
        seconds: u64,
    },
}

/// Something that reads GPUs. May block for ever; see [`Reader`].
pub trait Gpus: Send + Sync + 'static {
    /// The GPUs as they are now.
    ///
    /// # Errors
    /// [`GpuError::Library`]. A single GPU that cannot be read has a fault instead.
    fn read(&self) -> Result<Inventory, GpuError>;
}

/// A host without the driver.
#[derive(Debug, Clone, Copy)]
pub struct NoGpus;

impl Gpus for NoGpus {
    fn read(&self) -> Result<Inventory, GpuError> {
        Ok(Inventory::default())
    }
}

/// The driver's own device nodes, which every container with a GPU needs.
pub fn control_nodes() -> [PathBuf; 4] {
    ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset"].map(PathBuf::from)
}
