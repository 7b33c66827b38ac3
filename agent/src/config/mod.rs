//! What an agent is told: by a file, by `HAUL_*` variables, by flags; the later wins.
//!
//! [`AgentFlags`] (of which [`HostFlags`] is what `haul run` takes as well) is the command line and the variables, as parsed; [`FileConfig`] the file;
//! [`resolve`] makes of both the effective [`AgentConfig`], whole and checked, and notes where each
//! value came from.

mod defaults;
mod mark;
mod resolve;
mod volume;

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use shared::{
    id::{NodeId, VolumeName},
    price::Price,
    units::{Size, Span},
};
use url::Url;

pub use defaults::default_fleet;
pub use mark::Mark;
pub(crate) use resolve::parse_fleet;
pub use resolve::{ConfigError, Effective, cloud_of, resolve};
pub use volume::{MountKind, VolumeConfig};

use crate::{cloud, gpu::SimulatedSpec, metrics::Listen};

/// The effective configuration of an agent.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The fleet's store.
    pub fleet: Url,
    /// This host's name in the fleet.
    pub node: NodeId,
    /// Where the agent keeps its lock and its control socket. Of one agent only.
    pub state_dir: PathBuf,
    /// Below this, each job has its output and checkpoint directories.
    pub outputs_dir: PathBuf,
    /// Where something must be mounted: that or above it. Without, the host's own disk will do.
    pub outputs_mount: Option<PathBuf>,
    /// No job is taken while there is less room than this; without, as with `disk_floor`, of which 1 GiB is enough.
    pub outputs_min_free: Option<Mark>,
    /// Where secrets lie, one file each, named as the secret.
    pub secrets_dir: Option<PathBuf>,
    /// What jobs may mount.
    pub volumes: BTreeMap<VolumeName, VolumeConfig>,
    /// What `placement.require` is compared with.
    pub labels: BTreeMap<String, String>,
    /// Made-up GPUs instead of the driver's.
    pub simulate_gpus: Option<SimulatedSpec>,
    /// The engine's address; Docker's own without.
    pub engine: Option<String>,
    /// How many jobs may run at once.
    pub max_jobs: u32,
    /// How many CPU cores jobs may use together.
    pub cpus: f64,
    /// How much memory jobs may use together.
    pub memory: Size,
    /// What becomes of running jobs when the agent is stopped.
    pub on_stop: OnStop,
    /// How long `on_stop` of `wait` and `requeue` may take.
    pub stop_deadline: Span,
    /// No job is taken while the engine's disk has less room than this.
    pub disk_floor: Mark,
    /// While it has less room than this, images that haul has pulled are removed.
    pub disk_clean: Mark,
    /// Until it has this.
    pub disk_target: Mark,
    /// How much output of one container the engine keeps on disk.
    pub log_limit: Size,
    /// What the host costs.
    pub price: Option<Price>,
    /// Only jobs are taken that have waited in their queue for so long.
    pub claim_after: Span,
    /// Where Prometheus finds the agent's metrics.
    pub metrics: Option<Listen>,
    /// The agent ends when the node has had no job for so long.
    pub exit_when_idle: Option<Span>,
    /// It takes no job but its own process's; set by `haul run` alone.
    pub private: bool,
}

/// What becomes of running jobs when the agent is stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// They run on, and the agent's next start takes them up again.
    #[default]
    Keep,
    /// The agent waits until they have ended.
    Wait,
    /// They are stopped with notice and queued again.
    Requeue,
}

/// The agent's file, TOML. Every field may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    fleet: Option<String>,
    node: Option<NodeId>,
    state_dir: Option<PathBuf>,
    outputs_dir: Option<PathBuf>,
    outputs_mount: Option<PathBuf>,
    secrets_dir: Option<PathBuf>,
    #[serde(default)]
    volumes: BTreeMap<VolumeName, VolumeConfig>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    simulate_gpus: Option<SimulatedSpec>,
    engine: Option<String>,
    max_jobs: Option<u32>,
    cpus: Option<f64>,
    memory: Option<Size>,
    on_stop: Option<OnStop>,
    stop_deadline: Option<Span>,
    disk_floor: Option<Mark>,
    disk_clean: Option<Mark>,
    disk_target: Option<Mark>,
    log_limit: Option<Size>,
    #[serde(default, deserialize_with = "resolve::price")]
    price: Option<Price>,
    claim_after: Option<Span>,
    exit_when_idle: Option<Span>,
    cloud: Option<cloud::Choice>,
    metrics: Option<Listen>,
    outputs_min_free: Option<Mark>,
}

/// What is said of a host, each of which may be given as a variable too.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Host")]
pub struct HostFlags {
    /// Read this TOML file first; variables and flags win over it
    #[arg(long, value_name = "FILE", env = "HAUL_CONFIG")]
    pub config: Option<PathBuf>,
    /// This host's name in the fleet [default: the cloud's instance, or host name and machine id]
    #[arg(long, value_name = "NAME", env = "HAUL_NODE")]
    pub node: Option<NodeId>,
    /// Where the agent keeps its lock and control socket; one agent each
    #[arg(long, value_name = "DIR", env = "HAUL_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where jobs leave their results [default: outputs/ in the state directory]
    #[arg(long, value_name = "DIR", env = "HAUL_OUTPUTS_DIR")]
    pub outputs_dir: Option<PathBuf>,
    /// Take no jobs while nothing is mounted here, which is that directory or above it
    #[arg(long, value_name = "DIR", env = "HAUL_OUTPUTS_MOUNT")]
    pub outputs_mount: Option<PathBuf>,
    /// Where secrets lie, one file each, named as the secret
    #[arg(long, value_name = "DIR", env = "HAUL_SECRETS_DIR")]
    pub secrets_dir: Option<PathBuf>,
    /// A host directory that jobs may mount, where something must be mounted or not; may be given several times
    #[arg(long = "volume", value_name = "NAME=PATH[:ro][:mount]", env = "HAUL_VOLUMES", value_delimiter = ',', value_parser = resolve::parse_volume)]
    pub volumes: Vec<(VolumeName, VolumeConfig)>,
    /// A label that jobs may require; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", env = "HAUL_LABELS", value_delimiter = ',', value_parser = resolve::parse_label)]
    pub labels: Vec<(String, String)>,
    /// Pretend to have these GPUs, as in 2xP100:16GiB,1xA100:80GiB
    #[arg(long, value_name = "SPEC", env = "HAUL_SIMULATE_GPUS")]
    pub simulate_gpus: Option<SimulatedSpec>,
    /// What the host costs for an hour, as in 2.40USD, 2.40USD:on-demand or 1.10EUR:fixed:PROVIDER
    #[arg(long, value_name = "PRICE", env = "HAUL_PRICE")]
    pub price: Option<Price>,
    /// The container engine's socket [default: DOCKER_HOST, or Docker's own]
    #[arg(long, value_name = "ADDRESS", env = "HAUL_ENGINE")]
    pub engine: Option<String>,
    /// How much output of one container the engine keeps on disk [default: 1GiB]
    #[arg(long, value_name = "SIZE", env = "HAUL_LOG_LIMIT")]
    pub log_limit: Option<Size>,
}

/// The agent's flags, each of which may be given as a variable too.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Agent")]
pub struct AgentFlags {
    /// How many jobs may run at once
    #[arg(long, value_name = "N", env = "HAUL_MAX_JOBS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub max_jobs: Option<u32>,
    /// How many CPU cores jobs may use together [default: all]
    #[arg(long, value_name = "CORES", env = "HAUL_CPUS")]
    pub cpus: Option<f64>,
    /// How much memory jobs may use together [default: all]
    #[arg(long, value_name = "SIZE", env = "HAUL_MEMORY")]
    pub memory: Option<Size>,
    /// What becomes of running jobs when the agent is stopped: keep, wait or requeue [default: keep]
    #[arg(long, value_enum, value_name = "POLICY", env = "HAUL_ON_STOP", hide_possible_values = true)]
    pub on_stop: Option<OnStop>,
    /// How long --on-stop wait and requeue may take [default: 10m]
    #[arg(long, value_name = "DURATION", env = "HAUL_STOP_DEADLINE")]
    pub stop_deadline: Option<Span>,
    /// Leave jobs to others until they have waited for this long, so that hosts that are paid for anyway go
    /// first [default: 0s]
    #[arg(long, value_name = "DURATION", env = "HAUL_CLAIM_AFTER")]
    pub claim_after: Option<Span>,
    /// End when there has been no job for this long, so that a rented VM can be given back [default: never]
    #[arg(long, value_name = "DURATION", env = "HAUL_EXIT_WHEN_IDLE")]
    pub exit_when_idle: Option<Span>,
    /// Serve metrics for Prometheus there, as in 127.0.0.1:9469 or unix:/run/haul/metrics.sock [default: nowhere]
    #[arg(long, value_name = "ADDRESS", env = "HAUL_METRICS")]
    pub metrics: Option<Listen>,
    /// Whose metadata service says what machine this is and when it goes: auto, none, aws, gcp or azure
    /// [default: auto, by the firmware]
    #[arg(long, value_enum, value_name = "CLOUD", env = "HAUL_CLOUD", hide_possible_values = true)]
    pub cloud: Option<cloud::Choice>,
    /// Take no jobs while the engine's disk has less room than this, as in 20GiB or 5% [default: 5%]
    #[arg(long, value_name = "ROOM", env = "HAUL_DISK_FLOOR")]
    pub disk_floor: Option<Mark>,
    /// Take no jobs while there is less room than this where jobs leave their results [default: as disk_floor, of
    /// which 1GiB is enough]
    #[arg(long, value_name = "ROOM", env = "HAUL_OUTPUTS_MIN_FREE")]
    pub outputs_min_free: Option<Mark>,
    /// Remove images that haul has pulled, the least recently used first, while the engine's disk has less room
    /// than this; 0% leaves them [default: 15%]
    #[arg(long, value_name = "ROOM", env = "HAUL_DISK_CLEAN")]
    pub disk_clean: Option<Mark>,
    /// Remove them until there is this much room [default: 20%]
    #[arg(long, value_name = "ROOM", env = "HAUL_DISK_TARGET")]
    pub disk_target: Option<Mark>,
    #[command(flatten)]
    pub host: HostFlags,
}
