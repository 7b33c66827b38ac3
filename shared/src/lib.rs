//! What haul's producers and agents share.

pub mod clock;
pub mod id;
pub mod index;
pub mod job;
pub mod lane;
pub mod log;
pub mod message;
pub mod node;
pub mod output;
pub mod record;
pub mod store;
pub mod units;
