//! Nodes that an operator has drained.

use serde::{Deserialize, Serialize};

use crate::id::Timestamp;

/// A node takes no more jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// When those that still run are stopped with notice and queued again, by the node's clock; without, they
    /// run to their end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
}
