//! The fields of a job. DESIGN of the format: flat where a job always has it, a table where it
//! belongs together; every default is what a training job wants.

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    env::{EnvName, EnvValue, SecretName},
    mig::MigProfile,
};
use crate::{
    event::Webhook,
    id::{JobName, Team, VolumeName},
    units::{Size, Span, UnitError},
};

/// A job: an image, what runs in it, and what it needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "haul job")]
pub struct JobSpec {
    /// For people; need not be unique. Without one, the image's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<JobName>,
    /// The container image, with registry and tag or digest as in `docker run`.
    pub image: String,
    /// What to run: program and arguments. Without it, what the image says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Replaces the image's entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Working directory in the container, an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// User (and group) in the container, as in `docker run --user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Environment variables. Stored with the job: for what must stay secret use `secrets`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<EnvName, EnvValue>,
    /// Names of secrets that the node holds; each becomes an environment variable. Their values
    /// are never in the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretName>,
    /// Whose job it is; teams take turns.
    #[serde(default)]
    pub team: Team,
    /// Which jobs go first.
    #[serde(default)]
    pub priority: Priority,
    /// Whether it gives way to jobs of a higher priority: its container gets SIGTERM and `grace`, and it waits
    /// again, with its checkpoints and at nobody's charge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preemptible: bool,
    /// How long one attempt may run before it is stopped; unlimited without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// So long before `timeout` the container gets SIGUSR1, to write a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warn: Option<Span>,
    /// How long after SIGTERM the container is killed.
    #[serde(default = "default_grace")]
    pub grace: Span,
    /// How often the job is tried again after it failed by its own doing (0 to 100). What the
    /// platform broke is retried apart from this.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub retries: u32,
    /// The next attempt after running out of memory gets this many times the memory (1 to 10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub retry_memory: Option<f64>,
    /// What becomes of its container when its node is cut off from the store for so long that the
    /// job may be given to another.
    #[serde(default, skip_serializing_if = "OnIsolation::is_default")]
    pub on_isolation: OnIsolation,
    /// When the image is fetched from its registry.
    #[serde(default)]
    pub pull: Pull,
    /// What the job uses of its host.
    #[serde(default)]
    pub resources: Resources,
    /// Which hosts may run it.
    #[serde(default, skip_serializing_if = "Placement::is_empty")]
    pub placement: Placement,
    /// Volumes of the host that the container sees.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Who is told of what becomes of the job, beside whom the fleet tells.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<Webhook>,
    /// Which element of an array of jobs this is; set by `haul submit --array`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub array_index: Option<u32>,
}

fn default_grace() -> Span {
    Span::secs(30)
}

impl JobSpec {
    /// The smallest job: an image, and all else by default.
    pub fn new(image: impl Into<String>) -> Self {
        Self {
            name: None,
            image: image.into(),
            command: None,
            entrypoint: None,
            workdir: None,
            user: None,
            env: BTreeMap::new(),
            secrets: Vec::new(),
            team: Team::default(),
            priority: Priority::default(),
            preemptible: false,
            timeout: None,
            warn: None,
            grace: default_grace(),
            retries: 0,
            retry_memory: None,
            on_isolation: OnIsolation::default(),
            pull: Pull::default(),
            resources: Resources::default(),
            placement: Placement::default(),
            mounts: Vec::new(),
            webhooks: Vec::new(),
            array_index: None,
        }
    }

    /// The job's name, or the last part of its image's name.
    pub fn display_name(&self) -> &str {
        self.name.as_ref().map_or_else(
            || {
                let last = self.image.rsplit('/').next().unwrap_or(&self.image);
                last.split(['@', ':']).next().unwrap_or(last)
            },
            JobName::as_str,
        )
    }
}

/// What a job uses of its host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Whole GPUs, 0 to 64. None without it: a job that uses only the CPU.
    #[serde(default)]
    #[schemars(range(max = 64))]
    pub gpus: u32,
    /// So much memory of one GPU, which other jobs may use beside it, in place of whole GPUs (256MiB or
    /// more). All that the job's programs hold there counts, the CUDA context of each included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_share: Option<Size>,
    /// An instance of this kind, of a GPU in MIG mode, in place of whole GPUs (`1g.10gb`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig: Option<MigProfile>,
    /// Any of these models; matched by the words of the driver's name (`A100` fits
    /// `NVIDIA A100-SXM4-80GB`). With `=` before it, the one model of exactly this name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpu_model: Vec<String>,
    /// At least so much memory on each GPU, by the size that it is sold by: a card may have up to a
    /// sixteenth less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory: Option<Size>,
    /// At least this compute capability on each GPU (`7.0`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_capability: Option<ComputeCapability>,
    /// The CUDA version that the driver must support at least (`11.8`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<CudaVersion>,
    /// CPU cores; fractions are allowed. Without it, as many as are idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.01, max = 4096))]
    pub cpus: Option<f64>,
    /// Main memory; the container is ended when it uses more. Without it, no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// Size of `/dev/shm`, through which data loaders hand over batches. Without it, half of
    /// `memory`, or 8GiB, whichever is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm: Option<Size>,
    /// The CPU architecture the image is built for.
    #[serde(default)]
    pub arch: Arch,
}

/// Which hosts may run a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Labels that the node must have, with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub require: BTreeMap<String, String>,
    /// Labels that the node should have, with these values: one that has more of them and room goes first. Another
    /// takes the job when it has waited for ten seconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prefer: BTreeMap<String, String>,
}

impl Placement {
    fn is_empty(&self) -> bool {
        self.require.is_empty() && self.prefer.is_empty()
    }
}

/// A directory of a volume in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// A volume that the node offers.
    pub volume: VolumeName,
    /// The directory below the volume; the volume itself without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where the container sees it, an absolute path.
    pub target: String,
    /// The container cannot write to it.
    #[serde(default)]
    pub read_only: bool,
    /// Files below it that are read before the job has its GPUs, so that a caching gateway has them: patterns such
    /// as `train/**` or `*.tar`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefetch: Vec<String>,
}

/// Which jobs go first.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// When nothing else waits.
    Low,
    /// The usual.
    #[default]
    Normal,
    /// Before all else.
    High,
}

impl Priority {
    /// The word in files and lane ids.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What becomes of a container whose node is cut off from the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnIsolation {
    /// It is paused, and goes on when the node is back and the job is still its own.
    #[default]
    Freeze,
    /// It runs on, though a second copy may run elsewhere: for services, whose copies do no harm.
    Continue,
    /// It is stopped before that, with SIGTERM and after `grace` (up to half a lease) SIGKILL.
    Stop,
}

impl OnIsolation {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Continue => "continue",
            Self::Stop => "stop",
        }
    }
}

/// When the image is fetched from its registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// At every attempt, so that a moved tag is noticed.
    Always,
    /// When the host does not have it.
    #[default]
    Missing,
    /// The same, and later attempts run the very image that the first one ran, by its digest, also where the
    /// tag has moved since.
    Digest,
}

/// A CPU architecture, by the name that images use for it (OCI image specification).
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// `x86_64`.
    #[default]
    Amd64,
    /// `aarch64`.
    Arm64,
}

impl Arch {
    /// The architecture that this program was built for.
    pub const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 };
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        })
    }
}

/// A version of two numbers, `major.minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version2 {
    /// Before the point.
    pub major: u32,
    /// After the point.
    pub minor: u32,
}

/// A CUDA version that a driver supports.
pub type CudaVersion = Version2;

/// A GPU's compute capability (CUDA C++ Programming Guide, appendix on compute capabilities).
pub type ComputeCapability = Version2;

impl fmt::Display for Version2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version2 {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let part = |part: &str| part.parse::<u32>().ok().filter(|n| *n < 1000);
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        match (part(major), part(minor)) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(UnitError { text: text.into(), expected: "version such as 11.8" }),
        }
    }
}

impl Serialize for Version2 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version2 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Version2 {
    fn schema_name() -> Cow<'static, str> {
        "Version".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A version such as \"11.8\"",
            "pattern": r"^[0-9]{1,3}(\.[0-9]{1,3})?$"
        })
    }
}
