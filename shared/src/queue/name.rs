//! The names of a fleet's queues.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::id::LaneId;

/// One of a fleet's queues. The id of a lane begins with its priority, so no lane is called like
/// one of the others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum QueueName {
    /// Where a lane's jobs wait.
    Lane(LaneId),
    /// Where programs of others leave job specs.
    Inbox,
    /// Where what is no job spec ends, with the reason.
    Dead,
    /// Where every change of a job's state is told.
    Status,
}

impl QueueName {
    /// The name below the fleet's prefix.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Lane(lane) => lane.as_str(),
            Self::Inbox => "inbox",
            Self::Dead => "dead",
            Self::Status => "status",
        }
    }

    /// The lane, if it is one's.
    pub fn lane(&self) -> Option<&LaneId> {
        match self {
            Self::Lane(lane) => Some(lane),
            Self::Inbox | Self::Dead | Self::Status => None,
        }
    }
}

impl From<LaneId> for QueueName {
    fn from(lane: LaneId) -> Self {
        Self::Lane(lane)
    }
}

impl From<&LaneId> for QueueName {
    fn from(lane: &LaneId) -> Self {
        Self::Lane(lane.clone())
    }
}

impl From<QueueName> for String {
    fn from(name: QueueName) -> Self {
        name.as_str().to_owned()
    }
}

impl FromStr for QueueName {
    type Err = crate::id::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "inbox" => Self::Inbox,
            "dead" => Self::Dead,
            "status" => Self::Status,
            lane => Self::Lane(LaneId::new(lane)?),
        })
    }
}

impl TryFrom<String> for QueueName {
    type Error = crate::id::NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
