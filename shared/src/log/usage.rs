//! What an attempt used of its host.

use serde::{Deserialize, Serialize};

use crate::{price::Cost, units::Size};

/// What an attempt used of its host, as far as it was sampled: at each beat, and by the agent's run in
/// which it ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// GPUs times the seconds that its container ran; a share counts as its part of the GPU's memory.
    #[serde(default)]
    pub gpu_seconds: f64,
    /// Of its GPUs; none where nothing measures them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuUsage>,
    /// Of the CPU, in cores; none where it ended before it was sampled twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuUsage>,
    /// The most main memory at one time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak: Option<Size>,
    /// The model of its GPUs, where it had any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_model: Option<String>,
    /// What its part of the host cost for that time, where the host's price is known: by GPUs on a host that has
    /// any, where a job without GPUs costs nothing, else by CPU cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// Who is paid for the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
}

/// What an attempt used of its GPUs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuUsage {
    /// How busy they were, in percent: the mean over time and GPUs. None where they are shared: the
    /// driver tells only of the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization: Option<f64>,
    /// The most that they were at one time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization_peak: Option<f64>,
    /// The most memory at one time, on all together.
    #[serde(default)]
    pub memory_peak: Size,
    /// What they drew, in joules, as their own counters tell; none where they have none, or are shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<f64>,
    /// How busy they were in stretches of equal length, in percent, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trend: Vec<u8>,
}

/// CPU cores that an attempt used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CpuUsage {
    /// The mean.
    pub mean: f64,
    /// The most from one sample to the next.
    pub peak: f64,
}
