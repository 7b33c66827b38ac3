//! Whether a host serves a lane.

use super::{
    amount::Amount,
    misfit::Misfit,
    model,
    needs::{GpuNeeds, Needs},
    offer::{GpuState, Offer, OfferedGpu, OfferedVolume},
};
use crate::{job::MigProfile, units::Size};

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
        misfits.extend(gpu.misfit(offer));
    }
    if misfits.is_empty() {
        Fit::Now
    } else if misfits.iter().all(Misfit::passes_when_empty) {
        Fit::WhenEmpty(misfits)
    } else {
        Fit::Never(misfits)
    }
}

fn count<'g>(gpus: impl Iterator<Item = &'g OfferedGpu>) -> u32 {
    u32::try_from(gpus.count()).unwrap_or(u32::MAX)
}

impl GpuNeeds {
    /// Whether it is of the kind that is asked for: a whole GPU, or an instance of the profile.
    fn of_kind(&self, gpu: &OfferedGpu) -> bool {
        match self.amount {
            Amount::Whole(_) | Amount::Share(_) => gpu.mig.is_none(),
            Amount::Mig(profile) => gpu.mig == Some(profile),
        }
    }

    fn of_model(&self, gpu: &OfferedGpu) -> bool {
        self.models.is_empty() || self.models.iter().any(|wish| model::matches(wish, &gpu.model))
    }

    /// Whether a GPU has the memory that each must have at least. Cards have up to a sixteenth less than the
    /// size that they are sold by: 15 GiB of 16 on a T4, 22.5 of 24 on an L4.
    fn is_large(&self, gpu: &OfferedGpu) -> bool {
        self.memory.is_none_or(|least| gpu.memory.bytes() >= least.bytes() - least.bytes() / 16)
    }

    /// Whether a share would find room on a GPU that nobody uses.
    fn has_room_when_empty(&self, gpu: &OfferedGpu) -> bool {
        match self.amount {
            Amount::Share(share) => gpu.usable() >= share,
            Amount::Whole(_) | Amount::Mig(_) => true,
        }
    }

    /// Would this GPU serve, were it free?
    pub(super) fn served_by(&self, gpu: &OfferedGpu) -> bool {
        self.of_kind(gpu)
            && self.of_model(gpu)
            && self.is_large(gpu)
            && self.has_room_when_empty(gpu)
            && self.compute_capability.is_none_or(|cc| gpu.compute_capability >= cc)
    }

    /// How much of this GPU's memory there is for the job now; `None` where it is not for it.
    pub(super) fn room_on(&self, gpu: &OfferedGpu) -> Option<Size> {
        match (&gpu.state, self.amount) {
            (GpuState::Free, _) => Some(gpu.usable()),
            (GpuState::Shared { free }, Amount::Share(_)) => Some(*free),
            (
                GpuState::Shared { .. }
                | GpuState::Held
                | GpuState::Reserved { .. }
                | GpuState::Foreign { .. }
                | GpuState::Out { .. }
                | GpuState::Unknown,
                _,
            ) => None,
        }
    }

    /// Whether this GPU serves now.
    pub(super) fn served_now_by(&self, gpu: &OfferedGpu) -> bool {
        let enough = |room: Size| match self.amount {
            Amount::Share(share) => room >= share,
            Amount::Whole(_) | Amount::Mig(_) => true,
        };
        self.served_by(gpu) && self.room_on(gpu).is_some_and(enough)
    }

    /// How many jobs of these needs there is room for now.
    pub fn room(&self, offer: &Offer) -> usize {
        let free = offer.gpus.iter().filter(|gpu| self.served_now_by(gpu));
        match self.amount {
            Amount::Share(share) => {
                let memory = free.filter_map(|gpu| self.room_on(gpu));
                memory
                    .map(|room| usize::try_from(room.bytes() / share.bytes().max(1)).unwrap_or(usize::MAX))
                    .sum()
            }
            Amount::Whole(_) | Amount::Mig(_) => free.count() / self.amount.devices().max(1) as usize,
        }
    }

    /// Whether the host's driver is too old.
    pub(super) fn needs_newer_driver(&self, offer: &Offer) -> bool {
        self.cuda.is_some_and(|cuda| offer.cuda.is_none_or(|has| has < cuda))
    }

    /// The first reason why the host's GPUs do not do, from the coarsest to the finest.
    fn misfit(&self, offer: &Offer) -> Option<Misfit> {
        let of_kind = || offer.gpus.iter().filter(|gpu| self.of_kind(gpu));
        let wanted = self.amount.devices();
        if count(of_kind()) < wanted {
            return Some(self.too_few(offer, count(of_kind())));
        }
        if let Some(cuda) = self.cuda.filter(|_| self.needs_newer_driver(offer)) {
            return Some(Misfit::Cuda { needs: cuda, has: offer.cuda });
        }
        let of_model = || of_kind().filter(|gpu| self.of_model(gpu));
        if count(of_model()) < wanted {
            let mut has: Vec<String> = of_kind().map(|gpu| gpu.model.clone()).collect();
            has.dedup();
            return Some(Misfit::Model { needs: self.models.iter().cloned().collect(), has });
        }
        if let Some(needs) = self.memory.filter(|_| !of_model().any(|gpu| self.is_large(gpu))) {
            let has = of_model().map(|gpu| gpu.memory).max().unwrap_or_default();
            return Some(Misfit::GpuMemory { needs, has });
        }
        if let Amount::Share(needs) = self.amount
            && !of_model().any(|gpu| self.has_room_when_empty(gpu))
        {
            let has = of_model().map(OfferedGpu::usable).max().unwrap_or_default();
            return Some(Misfit::GpuMemory { needs, has });
        }
        if let Some(cc) = self.compute_capability
            && let Some(best) = of_model().map(|gpu| gpu.compute_capability).max().filter(|best| *best < cc)
        {
            return Some(Misfit::ComputeCapability { needs: cc, has: best });
        }
        let serving = || of_kind().filter(|gpu| self.served_by(gpu));
        if count(serving()) < wanted {
            return Some(Misfit::Combination { needs: wanted, has: count(serving()) });
        }
        if count(serving().filter(|gpu| self.served_now_by(gpu))) >= wanted {
            return None;
        }
        let out = serving().find_map(|gpu| match &gpu.state {
            GpuState::Out { why } => Some(format!("{}: {why}", gpu.uuid)),
            GpuState::Free
            | GpuState::Held
            | GpuState::Shared { .. }
            | GpuState::Reserved { .. }
            | GpuState::Foreign { .. }
            | GpuState::Unknown => None,
        });
        let usable = serving().filter(|gpu| !matches!(gpu.state, GpuState::Out { .. }));
        match out {
            Some(why) if count(usable) < wanted => Some(Misfit::OutOfService { why }),
            _ => Some(self.busy(serving())),
        }
    }

    fn too_few(&self, offer: &Offer, has: u32) -> Misfit {
        let instances = || offer.gpus.iter().filter_map(|gpu| gpu.mig);
        match self.amount {
            Amount::Mig(needs) => {
                let mut has: Vec<MigProfile> = instances().collect();
                has.sort_unstable();
                has.dedup();
                Misfit::MigProfile { needs, has }
            }
            Amount::Whole(needs) => Misfit::TooFewGpus { needs, has, instances: instances().count() },
            Amount::Share(_) => Misfit::TooFewGpus { needs: 1, has, instances: instances().count() },
        }
    }

    fn busy<'g>(&self, serving: impl Iterator<Item = &'g OfferedGpu> + Clone) -> Misfit {
        let foreign = count(serving.clone().filter(|gpu| matches!(gpu.state, GpuState::Foreign { .. })));
        let reserved = count(serving.clone().filter(|gpu| matches!(gpu.state, GpuState::Reserved { .. })));
        match self.amount {
            Amount::Share(needs) => {
                let free = serving.filter_map(|gpu| self.room_on(gpu)).max().unwrap_or_default();
                Misfit::BusyShare { needs, free, foreign, reserved }
            }
            Amount::Whole(_) | Amount::Mig(_) => {
                let free = count(serving.filter(|gpu| gpu.state == GpuState::Free));
                Misfit::Busy { needs: self.amount.devices(), free, foreign, reserved }
            }
        }
    }
}

#[cfg(test)]
#[path = "fit_tests.rs"]
mod tests;
