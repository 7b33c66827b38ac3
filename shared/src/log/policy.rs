//! Whether a job goes on after an attempt has ended. Pure.

use std::time::Duration;

use super::{
    event::{Blame, Next, Outcome},
    fold::Job,
};
use crate::id::{NodeId, Timestamp};

/// How often a fleet tries again what is not the job's own fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Policy {
    /// How often a job is tried again after the platform's doing.
    pub platform_retries: u32,
    /// How often a job may ask to be run again by exit code 75.
    pub again: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { platform_retries: 5, again: 1000 }
    }
}

/// The exit code by which a job asks to be run again (`EX_TEMPFAIL` of `sysexits.h`).
pub const AGAIN: i64 = 75;

pub(super) fn is_again(outcome: Outcome, exit_code: Option<i64>) -> bool {
    outcome == Outcome::Exited && exit_code == Some(AGAIN)
}

/// The longest pause before a job is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// 0 for the first time, then 2, 4, 8 s and so on, up to 5 minutes: a first failure is most
/// often gone at once, a repeated one needs time or another host.
fn pause(times_before: u32) -> Duration {
    match times_before {
        0 => Duration::ZERO,
        n => Duration::from_secs(1u64.checked_shl(n).unwrap_or(u64::MAX)).min(LONGEST_PAUSE),
    }
}

/// What becomes of the job when its present attempt, on `node`, ends in this way.
pub fn next_step(
    job: &Job,
    outcome: Outcome,
    exit_code: Option<i64>,
    node: &NodeId,
    now: Timestamp,
    policy: &Policy,
) -> Next {
    let requeue = |times_before: u32, avoid: Option<NodeId>| {
        let pause = pause(times_before);
        Next::Requeue { not_before: (!pause.is_zero()).then(|| now + pause), avoid }
    };
    if job.cancel_requested.is_some() {
        return Next::Final;
    }
    match outcome.blame() {
        Blame::Nobody => Next::Final,
        // Whoever waits for it at a terminal is to be told at once; nobody else may run it.
        Blame::Platform if job.local => Next::Final,
        Blame::Job if is_again(outcome, exit_code) => {
            if job.tally.again < policy.again {
                requeue(job.tally.again, None)
            } else {
                Next::Final
            }
        }
        Blame::Job if job.tally.charged < job.spec.retries => requeue(job.tally.charged, None),
        Blame::Job => Next::Final,
        // A preempted job did nothing wrong and neither did its host.
        Blame::Platform if outcome == Outcome::Preempted => requeue(0, None),
        Blame::Platform if job.tally.platform < policy.platform_retries => {
            requeue(job.tally.platform, Some(node.clone()))
        }
        Blame::Platform => Next::Final,
    }
}

/// Lets another node than this try a job that has failed within seconds, once and at nobody's charge, where
/// the failure may be the node's doing.
pub fn second_opinion(job: &Job, outcome: Outcome, node: &NodeId) -> Option<Next> {
    let wanted = outcome.blame() == Blame::Job && job.tally.elsewhere == 0 && job.cancel_requested.is_none();
    (wanted && !job.local).then(|| Next::Requeue { not_before: None, avoid: Some(node.clone()) })
}
