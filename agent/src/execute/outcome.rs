//! How an attempt ended: from what the engine says to an outcome. Pure.

use std::time::Duration;

use shared::{
    id::Timestamp,
    log::{Job, Outcome},
};

use crate::{
    engine::{EngineError, Exit},
    ledger::Excess,
    secret::SecretError,
    volume::VolumeError,
};

/// Why haul stopped a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Somebody cancelled the job.
    Cancelled,
    /// It ran longer than it may.
    TimedOut,
    /// The host goes away.
    Preempted,
    /// It holds more of a GPU that it shares than it asked for.
    ShareExceeded(Excess),
    /// A GPU that it has is lost for it.
    GpuFault,
    /// A job that goes before it needs what it has.
    GaveWay,
}

impl Reason {
    fn outcome(self) -> Outcome {
        match self {
            Self::Cancelled => Outcome::Cancelled,
            Self::TimedOut => Outcome::TimedOut,
            Self::Preempted | Self::GaveWay => Outcome::Preempted,
            Self::ShareExceeded(_) => Outcome::ShareExceeded,
            Self::GpuFault => Outcome::GpuFault,
        }
    }

    fn message(self) -> Option<String> {
        match self {
            Self::Cancelled | Self::TimedOut | Self::Preempted | Self::GpuFault | Self::GaveWay => None,
            Self::ShareExceeded(excess) => Some(excess.to_string()),
        }
    }
}

/// What a process ends with when its machine goes down in order: by SIGTERM, or by SIGKILL.
const WENT_DOWN: [i64; 2] = [128 + 15, 128 + 9];

/// Whether a container ended with its machine, which was started at that time, rather than by itself. Of one that
/// was running when the power went, engines say no end, or one after the machine's start, with a code of their own:
/// Docker 255 or 0, podman 0.
pub fn went_down(exit: &Exit, booted: Option<Timestamp>) -> bool {
    let Some(booted) = booted.filter(|booted| exit.started_at.is_some_and(|at| at < *booted)) else {
        return false;
    };
    exit.finished_at.is_none_or(|at| at >= booted) || (!exit.oom && WENT_DOWN.contains(&exit.code))
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    outcome: Outcome,
    /// The exit code of the container's process.
    pub exit_code: Option<i64>,
    /// What went wrong, for people.
    pub message: Option<String>,
    /// When the container started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl Ending {
    fn without_container(outcome: Outcome, message: impl Into<String>) -> Self {
        let message = Some(message.into());
        Self { outcome, exit_code: None, message, started_at: None, finished_at: None }
    }

    /// It was stopped before its container was there.
    pub fn before_start(reason: Reason) -> Self {
        Self::without_container(reason.outcome(), "stopped before its container started")
    }

    /// The engine's fault.
    pub fn engine_fault(message: impl Into<String>) -> Self {
        Self::without_container(Outcome::EngineFault, message)
    }

    /// There is no place for its results.
    pub fn no_outputs(message: impl Into<String>) -> Self {
        Self::without_container(Outcome::VolumeUnavailable, message)
    }

    /// The machine went down while its container ran, which ended so if it is there yet.
    pub fn node_lost(exit: Option<&Exit>) -> Self {
        let lost = Self::without_container(Outcome::NodeLost, "the host went down while the job ran");
        let (started_at, finished_at) =
            exit.map(|exit| (exit.started_at, exit.finished_at)).unwrap_or_default();
        Self { started_at, finished_at, ..lost }
    }

    /// The image demands what the host does not have.
    pub fn incompatible(message: impl Into<String>) -> Self {
        Self::without_container(Outcome::IncompatibleHost, message)
    }

    /// What the engine's refusal means for the job.
    pub fn from_engine(error: &EngineError) -> Self {
        let outcome = match error {
            EngineError::NoSuchImage { .. }
            | EngineError::NoAccess { .. }
            | EngineError::RegistryUnavailable { .. } => Outcome::ImageUnavailable,
            EngineError::BadCommand { .. } => Outcome::Exited,
            EngineError::MountFailed { .. } => Outcome::VolumeUnavailable,
            EngineError::Unreachable { .. }
            | EngineError::NoSpace { .. }
            | EngineError::GpusMissing { .. }
            | EngineError::AskedTooMuch { .. }
            | EngineError::NameTaken { .. }
            | EngineError::NoSuchContainer { .. }
            | EngineError::Timeout { .. }
            | EngineError::Other { .. } => Outcome::EngineFault,
        };
        let mut ending = Self::without_container(outcome, error.to_string());
        if let EngineError::BadCommand { code, .. } = error {
            ending.exit_code = Some(*code);
        }
        ending
    }

    /// What the container's exit means, if haul asked it to stop for this reason, the engine went away at
    /// that time, or one of its GPUs is `broken`.
    pub fn from_exit(exit: &Exit, asked: Option<Reason>, engine_went: bool, broken: Option<String>) -> Self {
        let (outcome, message) = match asked {
            _ if engine_went => {
                let message = "the container engine stopped or restarted while the job ran";
                (Outcome::EngineFault, Some(message.to_owned()))
            }
            Some(Reason::GpuFault) => (Outcome::GpuFault, broken),
            Some(reason) => (reason.outcome(), reason.message()),
            None if exit.oom && exit.code != 0 => {
                (Outcome::OutOfMemory, Some("killed for using more memory than resources.memory".into()))
            }
            None if exit.code == 0 => (Outcome::Succeeded, None),
            None if broken.is_some() => (Outcome::GpuFault, broken),
            None => (Outcome::Exited, exit.error.clone().filter(|text| !text.is_empty())),
        };
        Self {
            outcome,
            exit_code: Some(exit.code),
            message,
            started_at: exit.started_at,
            finished_at: exit.finished_at,
        }
    }

    /// How long its container ran, if it did.
    pub fn ran(&self) -> Option<Duration> {
        let (started, finished) = self.started_at.zip(self.finished_at)?;
        Some((finished - started).to_std().unwrap_or_default())
    }

    /// The outcome for a job as it stands: what happens after somebody asked it to stop is not
    /// held against it or the host.
    pub fn outcome_of(&self, job: &Job) -> Outcome {
        let stopped = job.cancel_requested.is_some() && self.outcome != Outcome::Succeeded;
        if stopped { Outcome::Cancelled } else { self.outcome }
    }
}

impl From<VolumeError> for Ending {
    fn from(error: VolumeError) -> Self {
        Self::without_container(Outcome::VolumeUnavailable, error.to_string())
    }
}

impl From<SecretError> for Ending {
    fn from(error: SecretError) -> Self {
        Self::without_container(Outcome::IncompatibleHost, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0, Some(5), false)]
    #[case(1, Some(5), false)]
    // In order, just before.
    #[case(143, Some(9), true)]
    #[case(137, Some(9), true)]
    // Without a word.
    #[case(255, Some(11), true)]
    #[case(0, Some(11), true)]
    #[case(0, None, true)]
    fn what_ended_by_itself_did_not_go_down_with_the_machine(
        #[case] code: i64,
        #[case] finished: Option<i64>,
        #[case] went: bool,
    ) {
        let at = |second| Timestamp::from_timestamp(second, 0);
        let exit =
            Exit { code, oom: false, error: None, started_at: at(1), finished_at: finished.and_then(at) };
        assert_eq!(went_down(&exit, at(10)), went);
        // Of a container that was started since, and where it is not known when the machine was.
        assert!(!went_down(&exit, at(0)) && !went_down(&exit, None));
    }

    #[rstest]
    #[case(0, false, None, false, Outcome::Succeeded)]
    #[case(3, false, None, false, Outcome::Exited)]
    #[case(137, true, None, false, Outcome::OutOfMemory)]
    // A child process was killed, the job went on.
    #[case(0, true, None, false, Outcome::Succeeded)]
    #[case(143, false, Some(Reason::Cancelled), false, Outcome::Cancelled)]
    #[case(0, false, Some(Reason::TimedOut), false, Outcome::TimedOut)]
    #[case(0, false, Some(Reason::Preempted), false, Outcome::Preempted)]
    #[case(137, false, None, true, Outcome::EngineFault)]
    // A job that ends in order when it is told to stop has not succeeded.
    #[case(0, false, None, true, Outcome::EngineFault)]
    fn an_exit_is_classified(
        #[case] code: i64,
        #[case] oom: bool,
        #[case] asked: Option<Reason>,
        #[case] engine_went: bool,
        #[case] expected: Outcome,
    ) {
        let exit = Exit { code, oom, error: None, started_at: None, finished_at: None };
        assert_eq!(Ending::from_exit(&exit, asked, engine_went, None).outcome, expected);
    }

    #[rstest]
    #[case(0, false, None, Outcome::Succeeded)]
    #[case(1, false, None, Outcome::GpuFault)]
    #[case(137, true, None, Outcome::OutOfMemory)]
    #[case(0, false, Some(Reason::GpuFault), Outcome::GpuFault)]
    #[case(143, false, Some(Reason::Cancelled), Outcome::Cancelled)]
    fn what_a_broken_gpu_ended_is_not_the_jobs_doing(
        #[case] code: i64,
        #[case] oom: bool,
        #[case] asked: Option<Reason>,
        #[case] expected: Outcome,
    ) {
        let exit = Exit { code, oom, error: None, started_at: None, finished_at: None };
        let ending = Ending::from_exit(&exit, asked, false, Some("GPU-1: lost".into()));
        assert_eq!(ending.outcome, expected);
        assert_eq!(ending.message.as_deref() == Some("GPU-1: lost"), expected == Outcome::GpuFault);
    }
}
