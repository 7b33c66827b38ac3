//! What haul's producers and agents share.

pub mod clock;
pub mod id;
pub mod job;
pub mod lane;
pub mod log;
pub mod record;
pub mod store;
pub mod units;
