//! Lanes: all jobs with the same needs and priority, and which hosts may take them.
//!
//! A message queue cannot hand out "the first message that fits this host". So jobs are routed
//! before they are sent: the hard needs of a job, in canonical form, name its lane, each lane has
//! a queue of its own, and a host polls the lanes that fit what it has free. Jobs that say the
//! same in other words (`["V100", "p100"]`, `["P100", "v100"]`) meet in one lane.
//!
//! - [`Needs`] is that canonical form, [`Lane`] its record in the store under `lanes/`.
//! - [`Offer`] is what a host has, [`fit`] whether the one serves the other: now, when running
//!   work has ended, or never, and in the last two cases why ([`Misfit`]).
//! - [`choose`] picks the GPUs; [`plan`] says when, and on which, a job could start that does not fit yet.
//!
//! All of it is pure: agents decide with it, `haul status` explains with it.

mod amount;
mod choose;
mod edition;
mod fit;
mod misfit;
mod model;
mod needs;
mod offer;
mod plan;

pub use amount::Amount;
pub use choose::choose;
pub use edition::Edition;
pub use fit::{Fit, fit};
pub use misfit::Misfit;
pub use model::exactly;
pub use needs::{Access, GpuNeeds, Lane, LaneError, Needs};
pub use offer::{GpuState, Offer, OfferedGpu, OfferedVolume};
pub use plan::{Plan, Running, When, plan};
