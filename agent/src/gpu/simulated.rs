//! Made-up GPUs, for demonstrations and load tests: `2xP100:16GiB,1xA100:80GiB:cc8.0:cuda12.4`, and
//! `1xA100:80GiB:mig7x1g.10gb` in MIG mode.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use shared::{
    id::{GpuUuid, NodeId},
    job::{ComputeCapability, CudaVersion, MigProfile, Version2},
    units::Size,
};

use super::{Driver, Gpu, GpuError, Gpus, Inventory, Mig};

/// What a text must look like.
const FORM: &str = "COUNTxMODEL:MEMORY, as in 2xP100:16GiB, several parted by commas; :cc7.0, :cuda12.4 and :mig7x1g.10gb may follow";

/// What holds where nothing is said.
const CUDA: CudaVersion = Version2 { major: 12, minor: 4 };

/// Which GPUs to make up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedSpec {
    kinds: Vec<Kind>,
    cuda: CudaVersion,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Kind {
    count: u32,
    model: String,
    memory: Size,
    compute_capability: ComputeCapability,
    /// How many instances of which kinds each is cut into.
    instances: Vec<(u32, MigProfile)>,
}

/// A text that names no GPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{part:?} names no GPUs: {why}; write {FORM}")]
pub struct SpecError {
    part: String,
    why: String,
}

/// The compute capability of well-known models (NVIDIA, "CUDA GPU Compute Capability").
fn compute_capability(model: &str) -> ComputeCapability {
    const KNOWN: [(&str, u32, u32); 18] = [
        ("P100", 6, 0),
        ("P40", 6, 1),
        ("P4", 6, 1),
        ("V100", 7, 0),
        ("T4", 7, 5),
        ("A100", 8, 0),
        ("A30", 8, 0),
        ("A10", 8, 6),
        ("A40", 8, 6),
        ("A6000", 8, 6),
        ("L4", 8, 9),
        ("L40", 8, 9),
        ("L40S", 8, 9),
        ("4090", 8, 9),
        ("H100", 9, 0),
        ("H200", 9, 0),
        ("GH200", 9, 0),
        ("B200", 10, 0),
    ];
    let last = model.split([' ', '-', '_']).next_back().unwrap_or(model);
    let found = KNOWN.iter().find(|(name, ..)| last.eq_ignore_ascii_case(name));
    found.map_or(Version2 { major: 8, minor: 0 }, |(_, major, minor)| Version2 {
        major: *major,
        minor: *minor,
    })
}

impl FromStr for SimulatedSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut kinds = Vec::new();
        let mut cuda: Option<CudaVersion> = None;
        for part in text.split(',') {
            let error = |why: &str| SpecError { part: part.into(), why: why.into() };
            let (count, rest) = part.trim().split_once('x').ok_or_else(|| error("no count"))?;
            let count: u32 = count.parse().map_err(|_| error("the count is no number"))?;
            if !(1..=64).contains(&count) {
                return Err(error("the count is from 1 to 64"));
            }
            let mut fields = rest.split(':');
            let model = fields.next().filter(|model| !model.is_empty()).ok_or_else(|| error("no model"))?;
            let memory = fields.next().ok_or_else(|| error("no memory"))?;
            let memory = memory.parse().map_err(|e: shared::units::UnitError| error(&e.to_string()))?;
            let mut kind = Kind {
                count,
                model: model.into(),
                memory,
                compute_capability: compute_capability(model),
                instances: Vec::new(),
            };
            for field in fields {
                let version = |text: &str| text.parse::<Version2>().map_err(|e| error(&e.to_string()));
                if let Some(text) = field.strip_prefix("cuda") {
                    let version = version(text)?;
                    if cuda.is_some_and(|cuda| cuda != version) {
                        return Err(error("a host has one driver, and so one CUDA version"));
                    }
                    cuda = Some(version);
                } else if let Some(text) = field.strip_prefix("cc") {
                    kind.compute_capability = version(text)?;
                } else if let Some(text) = field.strip_prefix("mig") {
                    let (count, profile) =
                        text.split_once('x').ok_or_else(|| error("no count of instances"))?;
                    let count = count.parse().ok().filter(|count| (1..=7).contains(count));
                    let count = count.ok_or_else(|| error("there are 1 to 7 instances"))?;
                    let profile =
                        profile.parse().map_err(|e: shared::units::UnitError| error(&e.to_string()))?;
                    kind.instances.push((count, profile));
                } else {
                    return Err(error(&format!("{field:?} is neither cc nor cuda nor mig")));
                }
            }
            kinds.push(kind);
        }
        Ok(Self { kinds, cuda: cuda.unwrap_or(CUDA) })
    }
}

impl fmt::Display for SimulatedSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Kind { count, model, memory, compute_capability, instances }) in self.kinds.iter().enumerate()
        {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{count}x{model}:{memory}:cc{compute_capability}:cuda{}", self.cuda)?;
            for (count, profile) in instances {
                write!(f, ":mig{count}x{profile}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for SimulatedSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SimulatedSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Made-up GPUs.
#[derive(Debug, Clone)]
pub struct Simulated(Inventory);

impl Simulated {
    /// The GPUs of this node; their UUIDs follow from its name, so that they stay the same.
    pub fn new(spec: &SimulatedSpec, node: &NodeId) -> Self {
        let kinds = spec.kinds.iter().flat_map(|kind| (0..kind.count).map(move |_| kind));
        let gpus = (0..).zip(kinds).flat_map(|(index, kind)| made_up(node, index, kind));
        let driver = Driver { version: "simulated".into(), cuda: spec.cuda };
        Self(Inventory { driver: Some(driver), gpus: gpus.collect(), simulated: true })
    }
}

/// A GPU, and its instances.
fn made_up(node: &NodeId, index: u32, kind: &Kind) -> Vec<Gpu> {
    let uuid = |text: String| GpuUuid::new(text).expect("of the form of a UUID");
    let card = Gpu {
        index,
        uuid: uuid(format!("GPU-{}", digits(node, &index.to_string()))),
        model: kind.model.clone(),
        memory: kind.memory,
        memory_reserved: Size(0),
        memory_used: Size(0),
        compute_capability: kind.compute_capability,
        device_node: None,
        pci_bus: None,
        processes: Some(Vec::new()),
        utilization: None,
        power: None,
        energy: None,
        temperature: None,
        mig: if kind.instances.is_empty() { Mig::Off } else { Mig::Cut },
        fault: None,
    };
    let profiles = kind.instances.iter().flat_map(|(count, profile)| (0..*count).map(|_| *profile));
    let instances = profiles.enumerate().map(|(at, profile)| Gpu {
        uuid: uuid(format!("MIG-{}", digits(node, &format!("{index}.{at}")))),
        model: format!("{} MIG {profile}", card.model),
        memory: profile.memory(),
        mig: Mig::Instance(profile),
        ..card.clone()
    });
    let instances: Vec<Gpu> = instances.collect();
    std::iter::once(card).chain(instances).collect()
}

/// The digits of a UUID, in its five groups.
fn digits(node: &NodeId, which: &str) -> String {
    let hash = Sha256::digest(format!("haul simulated GPU {which} of {node}"));
    let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

impl Gpus for Simulated {
    fn read(&self) -> Result<Inventory, GpuError> {
        Ok(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_mixed_host_is_made_up() {
        let spec: SimulatedSpec =
            "2xP100:16GiB,1xA100:80GiB:cc8.0:cuda12.2,1xA100:80GiB:mig2x1g.10gb:mig1x3g.40gb"
                .parse()
                .expect("valid");
        let node = NodeId::new("n").expect("valid");
        let read = Simulated::new(&spec, &node).read().expect("reads");
        let models: Vec<&str> = read.gpus.iter().map(|gpu| gpu.model.as_str()).collect();
        let mig = ["A100", "A100 MIG 1g.10gb", "A100 MIG 1g.10gb", "A100 MIG 3g.40gb"];
        assert_eq!(models, [&["P100", "P100", "A100"], &mig[..]].concat());
        assert_eq!(read.gpus[0].compute_capability, Version2 { major: 6, minor: 0 });
        assert_eq!(read.driver.as_ref().expect("there").cuda, Version2 { major: 12, minor: 2 });
        let uuids: std::collections::BTreeSet<_> = read.gpus.iter().map(|gpu| &gpu.uuid).collect();
        assert_eq!(uuids.len(), 7);
        assert_eq!(Simulated::new(&spec, &node).read().expect("reads"), read, "the same at each start");
        assert_eq!(spec.to_string().parse(), Ok(spec));
    }

    #[rstest]
    #[case("P100", "no count")]
    #[case("2xP100", "no memory")]
    #[case("0xP100:16GiB", "from 1 to 64")]
    #[case("2xP100:16", "not a size")]
    #[case("2xP100:16GiB:fast", "neither cc nor cuda")]
    #[case("1xA100:80GiB:mig1g.10gb", "no count of instances")]
    #[case("1xA100:80GiB:mig9x1g.10gb", "1 to 7")]
    #[case("1xA100:80GiB:mig2xlarge", "not a MIG profile")]
    #[case("1xP100:16GiB:cuda12.0,1xP100:16GiB:cuda11.0", "one driver")]
    fn what_names_no_gpus_is_refused(#[case] text: &str, #[case] why: &str) {
        let error = text.parse::<SimulatedSpec>().expect_err("invalid").to_string();
        assert!(error.contains(why) && error.contains("2xP100:16GiB"), "{error}");
    }
}
