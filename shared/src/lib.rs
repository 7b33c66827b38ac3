//! What haul's producers and agents share.

pub mod clock;
pub mod id;
pub mod job;
pub mod units;
