//! What can happen to a job.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::usage::Usage;
use crate::{
    id::{Attempt, GpuUuid, Incarnation, LaneId, NodeId, Nonce, Seq, Timestamp},
    job::JobSpec,
};

/// One entry of a job's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of this record's form.
    pub v: u32,
    /// Its position, from 0.
    pub seq: Seq,
    /// When its author wrote it, by the author's clock: for people, no decision rests on it.
    pub at: Timestamp,
    /// Who wrote it.
    pub author: Author,
    /// Drawn afresh for each append; tells the author whether a put whose answer was lost won.
    pub nonce: Nonce,
    /// What happened.
    pub event: Event,
}

impl Entry {
    /// The form that this program writes, and the newest that it reads.
    pub const VERSION: u32 = 1;
}

/// Who wrote an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// A person or program, as `user@host`.
    Client(String),
    /// A node's agent.
    Node {
        /// The node.
        name: NodeId,
        /// Which run of its agent.
        incarnation: Incarnation,
    },
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(name) => f.pad(name),
            Self::Node { name, .. } => f.pad(name.as_str()),
        }
    }
}

/// What happened to a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// It exists and waits.
    Submitted(Box<Submitted>),
    /// A node has taken it.
    Claimed(Claimed),
    /// Its container runs.
    Started(Started),
    /// Its node was cut off for so long that it might have been replaced, is back, and goes on.
    Resumed(Resumed),
    /// An attempt is over.
    Ended(Box<Ended>),
    /// Somebody wants a claimed job to stop; its node does so.
    CancelRequested(CancelRequested),
    /// It was cancelled while it waited.
    Cancelled,
    /// It cannot be run by anybody.
    Rejected(Rejected),
    /// Somebody wants a finished job to be run again.
    Retried,
}

impl Event {
    /// The word for it in listings.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Submitted(_) => "submitted",
            Self::Claimed(_) => "claimed",
            Self::Started(_) => "started",
            Self::Resumed(_) => "resumed",
            Self::Ended(_) => "ended",
            Self::CancelRequested(_) => "cancel requested",
            Self::Cancelled => "cancelled",
            Self::Rejected(_) => "rejected",
            Self::Retried => "retried",
        }
    }
}

/// The job as it was submitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submitted {
    /// What to run.
    pub spec: JobSpec,
    /// The lane of its needs.
    pub lane: LaneId,
    /// Nobody but its author's own process runs it, and only while that lives (`haul run`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
}

/// A node has taken the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimed {
    /// Which try this is.
    pub attempt: Attempt,
    /// Who runs it.
    pub node: NodeId,
    /// Which run of that node's agent.
    pub incarnation: Incarnation,
    /// The GPUs it got.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuUuid>,
}

/// The container runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Which try this is.
    pub attempt: Attempt,
    /// The engine's id of the container.
    pub container: String,
    /// What ran, exactly: the image by digest, or by id where it came from no registry.
    pub image: String,
    /// When the engine started it.
    pub started_at: Timestamp,
}

/// A node that was cut off past its fence deadline goes on with the job. It may do so only once
/// this stands in the log: a node that takes the job over writes at the same position, so of the
/// two one wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// Which try goes on.
    pub attempt: Attempt,
    /// Which run of the node's agent has it from now on.
    pub incarnation: Incarnation,
}

/// An attempt is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// Which try this was.
    pub attempt: Attempt,
    /// How it ended.
    pub outcome: Outcome,
    /// The exit code of the container's process, where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// What went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What becomes of the job.
    pub next: Next,
    /// The output in the store.
    #[serde(default)]
    pub output: OutputSize,
    /// When the container started, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the container ended, where it had started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// What it used, where it ran and its own node saw its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Box<Usage>>,
}

/// How much output an attempt left in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputSize {
    /// Number of chunks.
    pub chunks: u64,
}

/// What becomes of a job after an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Next {
    /// Nothing: it is finished.
    Final,
    /// It waits again.
    Requeue {
        /// Not before this time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<Timestamp>,
        /// Rather not on this node.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        avoid: Option<NodeId>,
    },
}

/// Somebody wants a claimed job to stop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelRequested {
    /// Why, where they said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Nobody can run the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Why.
    pub reason: String,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Exit code 0.
    Succeeded,
    /// Another exit code, or a command that could not be run.
    Exited,
    /// Killed by the kernel for using more memory than it asked for.
    OutOfMemory,
    /// Ran longer than its `timeout`.
    TimedOut,
    /// Stopped because somebody wanted so.
    Cancelled,
    /// The image could not be had.
    ImageUnavailable,
    /// The image demands what this host does not have.
    IncompatibleHost,
    /// A volume was not there or did not answer.
    VolumeUnavailable,
    /// A GPU broke.
    GpuFault,
    /// The container engine failed or restarted.
    EngineFault,
    /// Stopped to make room, or because the host goes away.
    Preempted,
    /// The node was not heard from for a lease.
    NodeLost,
    /// Used more of a shared GPU than it asked for.
    ShareExceeded,
}

/// Whose doing an outcome is; all that follows from an outcome follows from this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// Nobody's: it is done, or it was wanted.
    Nobody,
    /// The job's own: counts against its `retries`.
    Job,
    /// The platform's: tried again, elsewhere where possible, and never charged.
    Platform,
}

impl Outcome {
    /// Each of them.
    pub const ALL: [Self; 13] = [
        Self::Succeeded,
        Self::Exited,
        Self::OutOfMemory,
        Self::TimedOut,
        Self::Cancelled,
        Self::ImageUnavailable,
        Self::IncompatibleHost,
        Self::VolumeUnavailable,
        Self::GpuFault,
        Self::EngineFault,
        Self::Preempted,
        Self::NodeLost,
        Self::ShareExceeded,
    ];

    pub(super) fn blame(self) -> Blame {
        match self {
            Self::Succeeded | Self::Cancelled => Blame::Nobody,
            Self::Exited | Self::OutOfMemory | Self::TimedOut | Self::ShareExceeded => Blame::Job,
            Self::ImageUnavailable
            | Self::IncompatibleHost
            | Self::VolumeUnavailable
            | Self::GpuFault
            | Self::EngineFault
            | Self::Preempted
            | Self::NodeLost => Blame::Platform,
        }
    }

    /// Whether the platform, not the job, is to blame.
    pub fn is_platform(self) -> bool {
        self.blame() == Blame::Platform
    }

    /// The word for it, as in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Exited => "exited",
            Self::OutOfMemory => "out_of_memory",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::ImageUnavailable => "image_unavailable",
            Self::IncompatibleHost => "incompatible_host",
            Self::VolumeUnavailable => "volume_unavailable",
            Self::GpuFault => "gpu_fault",
            Self::EngineFault => "engine_fault",
            Self::Preempted => "preempted",
            Self::NodeLost => "node_lost",
            Self::ShareExceeded => "share_exceeded",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_outcomes_are_all_that_a_record_may_have() {
        let refused = serde_json::from_str::<Outcome>("\"?\"").expect_err("none of them").to_string();
        let (_, known) = refused.split_once("expected one of ").expect("it says what there is");
        let words = Outcome::ALL.map(|outcome| format!("`{outcome}`")).join(", ");
        assert!(known.starts_with(&format!("{words} at line ")), "{known} is not {words}");
    }
}
