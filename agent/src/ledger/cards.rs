//! How the GPUs stand: as last looked at, and to whom each is given. Pure.

use std::collections::{BTreeMap, BTreeSet};

use shared::{
    id::{GpuUuid, JobId},
    lane::{GpuState, OfferedGpu},
    units::Size,
};

use super::Holding;
use crate::{
    engine::ContainerId,
    gpu::{Foreign, Gpu, Inventory, Leftover, Mig},
};

/// A look at the GPUs, by its number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Look(u64);

/// How many looks after its job's end something may be seen on a GPU; then it is somebody else's.
pub(super) const LAST_SEEN: u32 = 20;

/// A GPU whose job has ended.
#[derive(Debug, Clone, Copy)]
struct Clearing {
    /// The last look that had begun by then, and may not have seen the end.
    after: Look,
    /// How many there were since.
    looks: u32,
}

/// What of a GPU is given to jobs.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Given {
    /// All of it, to one.
    Whole,
    /// So much of its memory.
    Shares(Size),
}

/// The GPUs.
#[derive(Debug, Default)]
pub(super) struct Cards {
    pub(super) inventory: Inventory,
    /// Who uses them beside this node's jobs.
    foreign: BTreeMap<GpuUuid, Foreign>,
    /// Those whose last job has ended, until a look has shown that nothing of it is left there.
    clearing: BTreeMap<GpuUuid, Clearing>,
    /// The containers of jobs that had GPUs and have ended, until nothing of them is left there.
    ended: BTreeMap<ContainerId, Ended>,
    /// The last look that has begun.
    look: Look,
}

/// Whose a container was.
#[derive(Debug)]
struct Ended {
    job: JobId,
    /// Processes of it that were to be killed.
    told: BTreeSet<u32>,
}

impl Cards {
    pub(super) fn begin_look(&mut self) -> Look {
        self.look.0 += 1;
        self.look
    }

    /// What a look has shown; without `foreign` where it could not be told who uses them.
    pub(super) fn seen(
        &mut self,
        look: Look,
        inventory: Inventory,
        foreign: Option<BTreeMap<GpuUuid, Foreign>>,
    ) {
        self.inventory = inventory;
        let Some(foreign) = foreign else { return };
        self.clearing.retain(|uuid, clearing| {
            clearing.looks += u32::from(clearing.after < look);
            let leftover = foreign.get(uuid).is_some_and(|foreign| !foreign.is_outside);
            let is_clear = clearing.looks > 0 && !leftover;
            !is_clear && clearing.looks < LAST_SEEN
        });
        self.foreign = foreign;
        if self.clearing.is_empty() {
            // What outlives the kill is named for as long as it is there.
            let is_left = self.foreign.values().any(|foreign| !foreign.is_outside);
            self.ended.retain(|_, ended| is_left && !ended.told.is_empty());
        }
    }

    /// A job that had these has ended, in this container if there was one.
    pub(super) fn ended(&mut self, job: &JobId, gpus: Vec<GpuUuid>, container: Option<ContainerId>) {
        // Nothing runs on those that are made up.
        if self.inventory.simulated || gpus.is_empty() {
            return;
        }
        let clearing = Clearing { after: self.look, looks: 0 };
        self.clearing.extend(gpus.into_iter().map(|uuid| (uuid, clearing)));
        let ended = Ended { job: job.clone(), told: BTreeSet::new() };
        self.ended.extend(container.map(|container| (container, ended)));
    }

    /// The containers of jobs that have ended and may have left something on their GPUs.
    pub(super) fn ended_in(&self) -> BTreeMap<String, JobId> {
        self.ended.iter().map(|(container, ended)| (container.to_string(), ended.job.clone())).collect()
    }

    /// Whether this process of such a container is to be killed: once.
    pub(super) fn is_to_kill(&mut self, left: &Leftover) -> bool {
        let ended = self.ended.get_mut(&ContainerId::new(&left.container));
        ended.is_some_and(|ended| ended.told.insert(left.pid))
    }

    pub(super) fn is_clearing(&self) -> bool {
        !self.clearing.is_empty()
    }

    /// What is wrong with the first of these that are lost for whatever runs on them.
    pub(super) fn broken(&self, gpus: &[GpuUuid]) -> Option<String> {
        let mut held = self.inventory.gpus.iter().filter(|gpu| gpus.contains(&gpu.uuid));
        held.find_map(|gpu| {
            let fault = gpu.fault.as_ref().filter(|fault| fault.is_fatal())?;
            Some(format!("{}: {fault}", gpu.uuid))
        })
    }

    /// As lanes see them, while these have been given out.
    pub(super) fn offered<'h>(&self, holdings: impl Iterator<Item = &'h Holding>) -> Vec<OfferedGpu> {
        let given = given(holdings);
        let all = &self.inventory.gpus;
        let has_instances =
            |cut: &Gpu| all.iter().any(|gpu| gpu.index == cut.index && matches!(gpu.mig, Mig::Instance(_)));
        // What is cut into instances is offered as these.
        let devices = all.iter().filter(|gpu| gpu.mig != Mig::Cut || !has_instances(gpu));
        let offered = devices.map(|gpu| OfferedGpu {
            uuid: gpu.uuid.clone(),
            model: gpu.model.clone(),
            memory: gpu.memory,
            reserved: gpu.memory_reserved,
            compute_capability: gpu.compute_capability,
            mig: match gpu.mig {
                Mig::Instance(profile) => Some(profile),
                Mig::Off | Mig::Cut => None,
            },
            state: self.state(gpu, given.get(&gpu.uuid).copied()),
        });
        offered.collect()
    }

    fn state(&self, gpu: &Gpu, given: Option<Given>) -> GpuState {
        if let Some(fault) = &gpu.fault {
            return GpuState::Out { why: fault.to_string() };
        }
        if gpu.mig == Mig::Cut {
            return GpuState::Out {
                why: "it is in MIG mode and has no instances of a kind that is given out".into(),
            };
        }
        let foreign = self.foreign.get(&gpu.uuid);
        if let Some(Foreign { by, is_outside: true }) = foreign {
            // Also where a job has it: both will be the slower for it.
            return GpuState::Foreign { by: by.clone() };
        }
        if self.clearing.contains_key(&gpu.uuid) {
            return GpuState::Held;
        }
        match (given, foreign) {
            (Some(Given::Whole), _) => GpuState::Held,
            (_, Some(Foreign { by, .. })) => GpuState::Foreign { by: by.clone() },
            (Some(Given::Shares(sum)), None) => {
                let gone = sum.bytes().saturating_add(gpu.memory_reserved.bytes());
                GpuState::Shared { free: Size(gpu.memory.bytes().saturating_sub(gone)) }
            }
            (None, None) => GpuState::Free,
        }
    }
}

/// What of each GPU is given to jobs.
fn given<'h>(holdings: impl Iterator<Item = &'h Holding>) -> BTreeMap<&'h GpuUuid, Given> {
    let mut given: BTreeMap<&GpuUuid, Given> = BTreeMap::new();
    for holding in holdings {
        for uuid in &holding.gpus {
            let more = match (given.get(uuid), holding.share.gpu) {
                (None, Some(share)) => Given::Shares(share),
                (Some(Given::Shares(sum)), Some(share)) => {
                    Given::Shares(Size(sum.bytes().saturating_add(share.bytes())))
                }
                (Some(Given::Whole), _) | (_, None) => Given::Whole,
            };
            given.insert(uuid, more);
        }
    }
    given
}
