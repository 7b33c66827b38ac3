//! What the end of an attempt says of the host that it ran on.

use shared::log::Outcome;

use super::{Run, outcome::Ending};
use crate::{
    claim::others,
    ledger::{Finding, SOON, Strike},
};

impl Run {
    /// What this end says of the host.
    pub(super) async fn finding(&self, ending: &Ending) -> Finding {
        let outcome = ending.outcome_of(&self.job);
        let soon = ending.ran().is_none_or(|ran| ran < SOON);
        match outcome {
            Outcome::Succeeded => Finding::Well,
            Outcome::Exited | Outcome::EngineFault | Outcome::GpuFault if soon => {
                self.failed(outcome, ending).await
            }
            Outcome::Exited | Outcome::TimedOut | Outcome::OutOfMemory if !soon => Finding::Well,
            Outcome::Exited
            | Outcome::TimedOut
            | Outcome::OutOfMemory
            | Outcome::Cancelled
            | Outcome::ImageUnavailable
            | Outcome::IncompatibleHost
            | Outcome::VolumeUnavailable
            | Outcome::GpuFault
            | Outcome::EngineFault
            | Outcome::Preempted
            | Outcome::NodeLost
            | Outcome::ShareExceeded => Finding::Nothing,
        }
    }

    async fn failed(&self, outcome: Outcome, ending: &Ending) -> Finding {
        let ledger = &self.node.ledger;
        // What exits before it runs is a command that is not there; 75 asks to be run again.
        let by_itself = outcome == Outcome::Exited;
        if by_itself && (ending.ran().is_none() || ending.exit_code == Some(shared::log::AGAIN)) {
            return Finding::Nothing;
        }
        if by_itself && self.job.tally.elsewhere > 0 && !ledger.has_struck(&self.job.id) {
            return Finding::JobsOwn;
        }
        if self.job.local || !others::could_run(&self.node, &self.job).await {
            return Finding::Nothing;
        }
        let (job, image) = (self.job.id.clone(), self.job.spec.image.clone());
        Finding::Soon(Strike { job, attempt: self.attempt, image })
    }

    /// Whether another host's opinion of the job is wanted before the failure counts.
    pub(super) fn wants_opinion(&self, finding: &Finding) -> bool {
        matches!(finding, Finding::Soon(_))
            && self.node.ledger.is_in_doubt(&self.job.spec.image, self.node.clock.now())
    }
}
