//! How new a list of lanes is.

use serde::{Deserialize, Serialize};

use crate::id::Timestamp;

/// How new someone's list of the fleet's lanes is. Later ones are greater: lanes are made and stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edition {
    /// When the newest lane on it was made, by the store's clock.
    pub newest: Timestamp,
    /// How many lanes are on it: stores tell times in whole seconds, in which several may be made.
    pub lanes: u32,
}
