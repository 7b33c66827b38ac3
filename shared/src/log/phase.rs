//! The words for where a job stands.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What listings say of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waits in the store for its team's turn.
    Parked,
    /// Waits in its lane's queue.
    Queued,
    /// A host keeps GPUs back for it.
    Reserved,
    /// Claimed; the image is fetched and the container made.
    Starting,
    /// Its container runs.
    Running,
    /// Its container is paused because its node is cut off.
    Frozen,
    /// It was asked to stop and is doing so.
    Stopping,
    /// Finished with exit code 0.
    Succeeded,
    /// Finished otherwise.
    Failed,
    /// Cancelled.
    Cancelled,
    /// Nobody can run it.
    Rejected,
}

impl Phase {
    /// Nothing more will happen to it by itself.
    pub fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Rejected => true,
            Self::Parked
            | Self::Queued
            | Self::Reserved
            | Self::Starting
            | Self::Running
            | Self::Frozen
            | Self::Stopping => false,
        }
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parked => "parked",
            Self::Queued => "queued",
            Self::Reserved => "reserved",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Frozen => "frozen",
            Self::Stopping => "stopping",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
