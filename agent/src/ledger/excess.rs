//! Jobs that hold more of a GPU's memory than their share. Pure.

use std::{collections::BTreeMap, fmt};

use shared::{id::JobId, units::Size};

use super::Holding;

/// How much more of a GPU a job holds than it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess {
    /// What it asked for.
    pub share: Size,
    /// What it holds.
    pub held: Size,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { share, held } = self;
        write!(f, "it holds {held} of a GPU's memory and has asked for {share} of it (gpu_share)")
    }
}

/// Who exceeded its share at the last look, and at how many in a row.
#[derive(Debug, Default)]
pub(super) struct Excesses(BTreeMap<JobId, (Excess, u32)>);

impl Excesses {
    /// Notes what the programs of each job hold, and gives those that exceed their share for the first
    /// time.
    pub(super) fn seen(
        &mut self,
        holdings: &BTreeMap<JobId, Holding>,
        memory: &BTreeMap<JobId, Size>,
    ) -> Vec<(JobId, Excess)> {
        let mut now = BTreeMap::new();
        for (job, holding) in holdings {
            let (Some(share), Some(held)) = (holding.share.gpu, memory.get(job).copied()) else { continue };
            if held > share {
                let looks = self.0.get(job).map_or(1, |(_, looks)| looks + 1);
                now.insert(job.clone(), (Excess { share, held }, looks));
            }
        }
        self.0 = now;
        let new = self.0.iter().filter(|(_, (_, looks))| *looks == 1);
        new.map(|(job, (excess, _))| (job.clone(), *excess)).collect()
    }

    pub(super) fn ended(&mut self, job: &JobId) {
        self.0.remove(job);
    }

    pub(super) fn all(&self) -> BTreeMap<JobId, Excess> {
        self.0.iter().map(|(job, (excess, _))| (job.clone(), *excess)).collect()
    }

    /// What is seen once may be on its way out; what is seen twice stays.
    pub(super) fn lasting(&self, job: &JobId) -> Option<Excess> {
        self.0.get(job).filter(|(_, looks)| *looks > 1).map(|(excess, _)| *excess)
    }
}
