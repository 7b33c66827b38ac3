//! What a job needs of its host, in canonical form, and the lane that this names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{amount::Amount, model};
use crate::{
    id::{LaneId, VolumeName},
    job::{Arch, ComputeCapability, CudaVersion, JobSpec, Priority},
    record::{self, RecordError},
    units::Size,
};

/// The hard needs of a job, and its priority. Two jobs with equal needs share a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Which lanes are polled first.
    pub priority: Priority,
    /// The image's CPU architecture.
    pub arch: Arch,
    /// `None` for a job that uses only the CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuNeeds>,
    /// Volumes that it mounts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<VolumeName, Access>,
    /// Labels that the node must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What a job needs of its GPUs; every one of them must have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuNeeds {
    /// How many, or how much of one.
    pub amount: Amount,
    /// Any of these models, in canonical spelling; any model at all where empty.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub models: BTreeSet<String>,
    /// At least so much memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
    /// At least this compute capability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_capability: Option<ComputeCapability>,
    /// The driver supports at least this CUDA version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<CudaVersion>,
}

/// What a job does with a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Mounts it read-only.
    Read,
    /// Writes to it.
    Write,
}

impl Needs {
    /// The needs of a job.
    pub fn of(spec: &JobSpec) -> Self {
        let resources = &spec.resources;
        let gpu = Amount::of(resources).map(|amount| GpuNeeds {
            amount,
            models: resources.gpu_model.iter().map(|name| model::canonical(name)).collect(),
            memory: resources.gpu_memory,
            compute_capability: resources.compute_capability,
            cuda: resources.cuda,
        });
        let mut volumes = BTreeMap::new();
        for mount in &spec.mounts {
            let access = if mount.read_only { Access::Read } else { Access::Write };
            let entry = volumes.entry(mount.volume.clone()).or_insert(access);
            *entry = access.max(*entry);
        }
        Self {
            priority: spec.priority,
            arch: resources.arch,
            gpu,
            volumes,
            labels: spec.placement.require.clone(),
        }
    }

    /// The measure of "the largest need first"; jobs that use only the CPU are the smallest.
    pub fn rank(&self) -> Option<(u32, Size)> {
        self.gpu.as_ref().map(|gpu| gpu.amount.rank())
    }

    /// The lane of these needs: readable, then 32 bits of the SHA-256 of their canonical JSON.
    /// That two needs meet in one id is not impossible, so a [`Lane`] found under the id is
    /// compared before it is used.
    pub fn lane_id(&self) -> LaneId {
        let json = serde_json::to_vec(self).expect("needs have only text keys");
        let hash = Sha256::digest(json);
        let hash: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let kind = match &self.gpu {
            None => "cpu".to_owned(),
            Some(gpu) => {
                let amount = match gpu.amount {
                    Amount::Whole(count) => format!("{count}x"),
                    Amount::Share(memory) => memory.to_string(),
                    Amount::Mig(profile) => profile.to_string(),
                };
                let models = gpu.models.iter().map(String::as_str).collect::<Vec<_>>().join("-");
                let models = if models.is_empty() { "gpu" } else { &models };
                format!("{}-{}", slug(&amount, 12), slug(models, 32))
            }
        };
        LaneId::new(format!("{}-{kind}-{hash}", self.priority)).expect("made of slug characters, 61 at most")
    }
}

impl fmt::Display for Needs {
    /// For people: `2 GPUs of p100 or v100, 16GiB each; volume data`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match &self.gpu {
            None => parts.push("CPU".to_owned()),
            Some(gpu) => {
                let mut text = match gpu.amount {
                    Amount::Whole(1) => "1 GPU".to_owned(),
                    Amount::Whole(count) => format!("{count} GPUs"),
                    Amount::Share(memory) => format!("{memory} of a GPU"),
                    Amount::Mig(profile) => format!("a {profile} instance"),
                };
                if !gpu.models.is_empty() {
                    let models: Vec<&str> = gpu.models.iter().map(String::as_str).collect();
                    text.push_str(&format!(" of {}", models.join(" or ")));
                }
                parts.push(text);
                parts.extend(gpu.memory.map(|memory| format!("{memory} each")));
                parts.extend(gpu.compute_capability.map(|cc| format!("compute capability {cc}")));
                parts.extend(gpu.cuda.map(|cuda| format!("CUDA {cuda}")));
            }
        }
        if self.arch != Arch::default() {
            parts.push(self.arch.to_string());
        }
        parts.extend(self.volumes.iter().map(|(name, access)| match access {
            Access::Read => format!("volume {name}"),
            Access::Write => format!("volume {name} writable"),
        }));
        parts.extend(self.labels.iter().map(|(key, value)| format!("{key}={value}")));
        f.pad(&parts.join(", "))
    }
}

/// Of a text what may be in an id, cut to this length.
fn slug(text: &str, length: usize) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let text: String = text.chars().take(length).map(plain).collect();
    text.trim_end_matches('-').to_owned()
}

/// A lane's record in the store; it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// The version of this record's form.
    pub v: u32,
    /// The lane's id, which is also its key.
    pub id: LaneId,
    /// What its jobs need.
    pub needs: Needs,
}

/// A lane record that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// A record that this program cannot use.
    #[error("the record of lane {id} cannot be used: {why}")]
    Record {
        /// The lane.
        id: String,
        /// What is wrong with it.
        why: RecordError,
    },
    /// Other needs with the same id: 1 in 4 billion.
    #[error("lane {0} is taken by other needs; change a label of the job to give it another lane")]
    Collision(LaneId),
}

impl Lane {
    /// The form that this program writes, and the newest that it reads.
    pub const VERSION: u32 = 1;

    /// The lane of these needs.
    pub fn new(needs: Needs) -> Self {
        Self { v: Self::VERSION, id: needs.lane_id(), needs }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`LaneError`] where it is damaged or newer than this program.
    pub fn read(id: &str, body: &[u8]) -> Result<Self, LaneError> {
        record::read(body, Self::VERSION).map_err(|why| LaneError::Record { id: id.into(), why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Format, parse};

    fn needs(resources: &str) -> Needs {
        Needs::of(&parse(&format!("image = \"i\"\n{resources}"), Format::Toml).expect("valid"))
    }

    #[test]
    fn the_same_needs_in_other_words_are_one_lane() {
        let a = needs("[resources]\ngpus = 2\ngpu_model = [\"V100\", \"p100\"]");
        let b = needs("name = \"other\"\n[resources]\ngpus = 2\ngpu_model = [\"P100\", \"v100\"]\ncpus = 4");
        assert_eq!(a.lane_id(), b.lane_id());
        assert!(a.lane_id().as_str().starts_with("normal-2x-p100-v100-"), "{}", a.lane_id());
    }

    #[test]
    fn every_need_makes_another_lane() {
        let kinds = [
            "",
            "priority = \"high\"",
            "[resources]\ngpus = 1",
            "[resources]\ngpus = 2",
            "[resources]\ngpus = 1\ngpu_memory = \"16GiB\"",
            "[resources]\ngpus = 1\ncuda = \"12.0\"",
            "[resources]\ngpus = 1\ncompute_capability = \"7.0\"",
            "[resources]\ngpu_share = \"4GiB\"",
            "[resources]\ngpu_share = \"8GiB\"",
            "[resources]\nmig = \"1g.10gb\"",
            "[resources]\nmig = \"1g.10gb+me\"",
            "[resources]\narch = \"arm64\"",
            "[placement]\nrequire = { tier = \"metal\" }",
            "[[mounts]]\nvolume = \"data\"\ntarget = \"/d\"",
            "[[mounts]]\nvolume = \"data\"\ntarget = \"/d\"\nread_only = true",
        ];
        let ids: BTreeSet<LaneId> = kinds.iter().map(|kind| needs(kind).lane_id()).collect();
        assert_eq!(ids.len(), kinds.len(), "{ids:?}");
    }

    #[test]
    fn a_lane_of_a_newer_version_is_refused() {
        let mut record = serde_json::to_value(Lane::new(needs(""))).expect("serialises");
        record["v"] = 2.into();
        record["needs"] = "a form that nobody knows yet".into();
        let error = Lane::read("x", record.to_string().as_bytes()).expect_err("newer").to_string();
        assert!(error.contains("lane x") && error.contains("newer haul (version 2,"), "{error}");
    }

    #[test]
    fn the_lane_id_of_known_needs_never_changes() {
        // Two versions of haul in one fleet must name the same lane.
        insta::assert_snapshot!(needs("[resources]\ngpus = 1\ngpu_model = \"P100\"").lane_id(), @"normal-1x-p100-2156bd12");
        let many = "gpu_model = [\"A100 80GB\", \"H100 80GB HBM3\", \"RTX A6000\"]";
        insta::assert_snapshot!(needs(&format!("[resources]\ngpus = 1\n{many}")).lane_id(), @"normal-1x-a100-80gb-h100-80gb-hbm3-rtx-a60-f6357fdf");
        insta::assert_snapshot!(needs("[resources]\ngpu_share = \"4GiB\"").lane_id(), @"normal-4gib-gpu-d46e0922");
        insta::assert_snapshot!(needs("[resources]\nmig = \"1g.10gb\"\ngpu_model = \"A100\"").lane_id(), @"normal-1g-10gb-a100-2fc6111a");
    }
}
