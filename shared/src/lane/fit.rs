//! Whether a host serves a lane, and with which GPUs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    misfit::Misfit,
    model,
    needs::{Access, GpuNeeds, Needs},
};
use crate::{
    id::{GpuUuid, VolumeName},
    job::{Arch, ComputeCapability, CudaVersion},
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

/// One GPU of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedGpu {
    /// Its full UUID.
    pub uuid: GpuUuid,
    /// The driver's name for it.
    pub model: String,
    /// All of its memory.
    pub memory: Size,
    /// Its compute capability.
    pub compute_capability: ComputeCapability,
    /// What it is doing.
    pub state: GpuState,
}

/// What a GPU is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum GpuState {
    /// Free for a job.
    Free,
    /// Given to a job.
    Held,
    /// Used by programs that haul did not start.
    Foreign {
        /// Which, for people.
        by: String,
    },
    /// Not to be used until somebody mends it, or not for whole-GPU jobs.
    Out {
        /// Why.
        why: String,
    },
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

/// Whether a host serves a lane.
#[derive(Debug, Clone, PartialEq)]
pub enum Fit {
    /// With what is free now.
    Now,
    /// Once running work has ended.
    WhenEmpty(Vec<Misfit>),
    /// Not as the host is.
    Never(Vec<Misfit>),
}

/// Does this host serve these needs?
pub fn fit(needs: &Needs, offer: &Offer) -> Fit {
    let mut misfits = Vec::new();
    if needs.arch != offer.arch {
        misfits.push(Misfit::Arch { needs: needs.arch, has: offer.arch });
    }
    for (key, value) in &needs.labels {
        if offer.labels.get(key) != Some(value) {
            let has = offer.labels.get(key).cloned();
            misfits.push(Misfit::Label { key: key.clone(), needs: value.clone(), has });
        }
    }
    for (volume, access) in &needs.volumes {
        let volume = volume.clone();
        match offer.volumes.get(&volume) {
            None => misfits.push(Misfit::NoVolume { volume }),
            Some(has) if *access > has.access => misfits.push(Misfit::ReadOnly { volume }),
            Some(OfferedVolume { problem: Some(why), .. }) => {
                misfits.push(Misfit::VolumeDown { volume, why: why.clone() });
            }
            Some(_) => {}
        }
    }
    if let Some(gpu) = &needs.gpu {
        misfits.extend(gpu_misfit(gpu, needs.gpu_count(), offer));
    }
    if misfits.is_empty() {
        Fit::Now
    } else if misfits.iter().all(Misfit::passes_when_empty) {
        Fit::WhenEmpty(misfits)
    } else {
        Fit::Never(misfits)
    }
}

/// Would this GPU serve, were it free?
fn serves(needs: &GpuNeeds, gpu: &OfferedGpu) -> bool {
    model_ok(needs, gpu)
        && needs.memory.is_none_or(|memory| gpu.memory >= memory)
        && needs.compute_capability.is_none_or(|cc| gpu.compute_capability >= cc)
}

fn model_ok(needs: &GpuNeeds, gpu: &OfferedGpu) -> bool {
    needs.models.is_empty() || needs.models.iter().any(|wish| model::matches(wish, &gpu.model))
}

fn count(gpus: &[OfferedGpu], which: impl Fn(&OfferedGpu) -> bool) -> u32 {
    u32::try_from(gpus.iter().filter(|gpu| which(gpu)).count()).unwrap_or(u32::MAX)
}

/// The first reason why the GPUs do not do, from the coarsest to the finest.
fn gpu_misfit(needs: &GpuNeeds, wanted: u32, offer: &Offer) -> Option<Misfit> {
    let gpus = &offer.gpus;
    let has = count(gpus, |_| true);
    if has < wanted {
        return Some(Misfit::TooFewGpus { needs: wanted, has });
    }
    if let Some(cuda) = needs.cuda.filter(|cuda| offer.cuda.is_none_or(|has| has < *cuda)) {
        return Some(Misfit::Cuda { needs: cuda, has: offer.cuda });
    }
    if count(gpus, |gpu| model_ok(needs, gpu)) < wanted {
        let mut has: Vec<String> = gpus.iter().map(|gpu| gpu.model.clone()).collect();
        has.dedup();
        return Some(Misfit::Model { needs: needs.models.iter().cloned().collect(), has });
    }
    let of_model = || gpus.iter().filter(|gpu| model_ok(needs, gpu));
    if let Some(memory) = needs.memory.filter(|memory| of_model().all(|gpu| gpu.memory < *memory)) {
        let has = of_model().map(|gpu| gpu.memory).max().unwrap_or_default();
        return Some(Misfit::GpuMemory { needs: memory, has });
    }
    if let Some(cc) = needs.compute_capability
        && let Some(best) = of_model().map(|gpu| gpu.compute_capability).max().filter(|best| *best < cc)
    {
        return Some(Misfit::ComputeCapability { needs: cc, has: best });
    }
    let serving = count(gpus, |gpu| serves(needs, gpu));
    if serving < wanted {
        return Some(Misfit::Combination { needs: wanted, has: serving });
    }
    let free = count(gpus, |gpu| serves(needs, gpu) && gpu.state == GpuState::Free);
    if free >= wanted {
        return None;
    }
    let out = gpus.iter().filter(|gpu| serves(needs, gpu)).find_map(|gpu| match &gpu.state {
        GpuState::Out { why } => Some(format!("{}: {why}", gpu.uuid)),
        GpuState::Free | GpuState::Held | GpuState::Foreign { .. } => None,
    });
    let usable = count(gpus, |gpu| serves(needs, gpu) && !matches!(gpu.state, GpuState::Out { .. }));
    match out {
        Some(why) if usable < wanted => Some(Misfit::OutOfService { why }),
        _ => {
            let foreign =
                count(gpus, |gpu| serves(needs, gpu) && matches!(gpu.state, GpuState::Foreign { .. }));
            Some(Misfit::Busy { needs: wanted, free, foreign })
        }
    }
}

/// The GPUs that a job of these needs gets, or `None` where too few are free.
///
/// The smallest that serve are taken, so that the large stay free for those who need them, and
/// all of one model where one model has enough: a job on mixed GPUs runs at the slowest one's
/// pace.
pub fn choose(needs: &Needs, offer: &Offer) -> Option<Vec<GpuUuid>> {
    let Some(gpu) = &needs.gpu else { return Some(Vec::new()) };
    let wanted = needs.gpu_count() as usize;
    let mut free: Vec<(usize, &OfferedGpu)> = offer
        .gpus
        .iter()
        .enumerate()
        .filter(|(_, has)| has.state == GpuState::Free && serves(gpu, has))
        .collect();
    if needs_newer_driver(gpu, offer) || free.len() < wanted {
        return None;
    }
    free.sort_by(|(i, a), (j, b)| {
        (a.memory, a.compute_capability, &a.model, i).cmp(&(b.memory, b.compute_capability, &b.model, j))
    });
    let alike = free
        .chunk_by(|(_, a), (_, b)| a.model == b.model && a.memory == b.memory)
        .find(|group| group.len() >= wanted);
    let chosen = alike.unwrap_or(&free);
    Some(chosen.iter().take(wanted).map(|(_, gpu)| gpu.uuid.clone()).collect())
}

fn needs_newer_driver(gpu: &GpuNeeds, offer: &Offer) -> bool {
    gpu.cuda.is_some_and(|cuda| offer.cuda.is_none_or(|has| has < cuda))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::{Format, parse};

    fn needs(rest: &str) -> Needs {
        Needs::of(&parse(&format!("image = \"i\"\n{rest}"), Format::Toml).expect("valid"))
    }

    fn gpu(n: u32, model: &str, gib: u64, cc: &str, state: GpuState) -> OfferedGpu {
        OfferedGpu {
            uuid: GpuUuid::new(format!("GPU-{n}")).expect("valid"),
            model: model.into(),
            memory: Size(gib << 30),
            compute_capability: cc.parse().expect("valid"),
            state,
        }
    }

    fn host(gpus: Vec<OfferedGpu>) -> Offer {
        Offer {
            arch: Arch::Amd64,
            cuda: Some("12.4".parse().expect("valid")),
            gpus,
            volumes: BTreeMap::from([(
                VolumeName::new("data").expect("valid"),
                OfferedVolume { access: Access::Read, problem: None },
            )]),
            labels: BTreeMap::from([("tier".into(), "vm".into())]),
        }
    }

    fn two_p100() -> Offer {
        host(vec![
            gpu(0, "Tesla P100", 16, "6.0", GpuState::Free),
            gpu(1, "Tesla P100", 16, "6.0", GpuState::Free),
        ])
    }

    fn why(needs: &Needs, offer: &Offer) -> String {
        match fit(needs, offer) {
            Fit::Now => "now".into(),
            Fit::WhenEmpty(why) => {
                format!("when empty: {}", why.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
            }
            Fit::Never(why) => {
                format!("never: {}", why.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
            }
        }
    }

    #[rstest::rstest]
    #[case("", "now")]
    #[case("[resources]\ngpus = 2", "now")]
    #[case("[resources]\ngpus = 3", "never: needs 3 GPUs, the host has 2")]
    #[case(
        "[resources]\ngpus = 1\ngpu_model = [\"A100\", \"H100\"]",
        "never: needs GPU model a100 or h100, the host has Tesla P100"
    )]
    #[case(
        "[resources]\ngpus = 1\ngpu_memory = \"24GiB\"",
        "never: needs 24GiB of memory on each GPU, the host's largest has 16GiB"
    )]
    #[case(
        "[resources]\ngpus = 1\ncompute_capability = \"7.0\"",
        "never: needs compute capability 7.0, the host's best is 6.0"
    )]
    #[case(
        "[resources]\ngpus = 1\ncuda = \"12.6\"",
        "never: needs CUDA 12.6, the host's driver supports 12.4"
    )]
    #[case("[resources]\narch = \"arm64\"", "never: needs arm64, the host is amd64")]
    #[case(
        "[placement]\nrequire = { tier = \"metal\" }",
        "never: needs label tier=metal, the host has tier=vm"
    )]
    #[case("[[mounts]]\nvolume = \"data\"\ntarget = \"/d\"", "never: the host offers volume data read-only")]
    #[case("[[mounts]]\nvolume = \"data\"\ntarget = \"/d\"\nread_only = true", "now")]
    #[case(
        "[[mounts]]\nvolume = \"models\"\ntarget = \"/d\"",
        "never: the host does not offer volume models"
    )]
    fn the_reason_is_named(#[case] job: &str, #[case] expected: &str) {
        assert_eq!(why(&needs(job), &two_p100()), expected);
    }

    #[test]
    fn what_is_in_use_passes_and_what_is_broken_does_not() {
        let two = needs("[resources]\ngpus = 2");
        let mut offer = two_p100();
        offer.gpus[0].state = GpuState::Held;
        assert_eq!(why(&two, &offer), "when empty: needs 2 GPUs, 1 free now");
        offer.gpus[0].state = GpuState::Foreign { by: "python (pid 7)".into() };
        assert_eq!(
            why(&two, &offer),
            "when empty: needs 2 GPUs, 1 free now, 1 used by programs outside haul"
        );
        offer.gpus[0].state = GpuState::Out { why: "XID 79".into() };
        assert_eq!(why(&two, &offer), "never: a GPU is out of service: GPU-0: XID 79");
    }

    #[test]
    fn small_gpus_are_taken_first_and_alike_ones_together() {
        let offer = host(vec![
            gpu(0, "A100", 80, "8.0", GpuState::Free),
            gpu(1, "T4", 16, "7.5", GpuState::Free),
            gpu(2, "A100", 80, "8.0", GpuState::Free),
        ]);
        let names = |job: &str| {
            choose(&needs(job), &offer)
                .map(|chosen| chosen.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(names("[resources]\ngpus = 1"), Some(vec!["GPU-1".into()]));
        assert_eq!(names("[resources]\ngpus = 2"), Some(vec!["GPU-0".into(), "GPU-2".into()]));
        assert_eq!(names("[resources]\ngpus = 4"), None);
    }

    fn any_state() -> impl Strategy<Value = GpuState> {
        prop_oneof![
            3 => Just(GpuState::Free),
            1 => Just(GpuState::Held),
            1 => Just(GpuState::Foreign { by: "x".into() }),
            1 => Just(GpuState::Out { why: "y".into() }),
        ]
    }

    proptest! {
        /// The two answers, whether it fits and with what, never contradict each other.
        #[test]
        fn what_fits_now_can_be_chosen_and_only_that(
            gpus in prop::collection::vec((0..3usize, any_state()), 0..6),
            wanted in 0..5u32,
            model in 0..4usize,
            gib in 0..100u64,
        ) {
            let kinds = [("A100", 80, "8.0"), ("T4", 16, "7.5"), ("P100", 16, "6.0")];
            let offer = host(gpus.iter().enumerate().map(|(i, (kind, state))| {
                let (model, gib, cc) = kinds[*kind];
                gpu(u32::try_from(i).expect("small"), model, gib, cc, state.clone())
            }).collect());
            let mut text = format!("[resources]\ngpus = {wanted}\n");
            if wanted > 0 {
                text += &format!("gpu_memory = \"{gib}GiB\"\n");
                if let Some((model, ..)) = kinds.get(model) {
                    text += &format!("gpu_model = \"{model}\"\n");
                }
            }
            let needs = needs(&text);
            let chosen = choose(&needs, &offer);
            prop_assert_eq!(chosen.is_some(), fit(&needs, &offer) == Fit::Now);
            let chosen = chosen.unwrap_or_default();
            let distinct: std::collections::BTreeSet<_> = chosen.iter().collect();
            prop_assert_eq!(distinct.len(), chosen.len());
            for uuid in &chosen {
                let gpu = offer.gpus.iter().find(|gpu| gpu.uuid == *uuid).expect("offered");
                prop_assert_eq!(&gpu.state, &GpuState::Free);
                prop_assert!(gpu.memory >= Size(gib << 30));
            }
        }
    }
}
