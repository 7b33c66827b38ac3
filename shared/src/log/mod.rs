//! The job log: the one truth about a job.
//!
//! A job is the fold of its log ([`Job`]), entry by entry, by one pure function. Entries lie in
//! the store as `jobs/<job>/log/<seq>.json` and never change once they are there. Whoever wants to
//! change a job reads the log to its end, decides on what stands there, and creates the next
//! entry by put-if-absent. When somebody else was first, the put fails; the writer reads on and
//! decides again. Each race has one winner, so there is one history, and an entry that was
//! decided on an outdated reading cannot be written.
//!
//! A put whose answer was lost may have happened. Each entry therefore carries a random nonce:
//! when the key turns out to be taken, the writer reads the entry back, and one with its own
//! nonce is a win. Delta Lake commits and SlateDB fences writers in this way.
//!
//! - [`event`](Event): what can happen to a job.
//! - [`fold`](Job): what a job is after all that happened.
//! - [`policy`](next_step): whether an attempt that ended is tried again; pure.
//! - [`usage`](Usage): what an attempt used of its host.
//! - [`append`](Log): reading and creating entries.

mod append;
mod event;
mod fold;
mod phase;
mod policy;
mod usage;

pub use append::{Log, LogError, Put, Reading};
pub use event::{
    Author, CancelRequested, Claimed, Ended, Entry, Event, Next, Outcome, OutputSize, Rejected, Resumed,
    Started, Submitted,
};
pub use fold::{Claim, FoldError, Job, State, Tally};
pub use phase::Phase;
pub use policy::{AGAIN, Policy, next_step, second_opinion};
pub use usage::{CpuUsage, GpuUsage, Usage};
