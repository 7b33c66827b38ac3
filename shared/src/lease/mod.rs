//! The lease: how a fleet finds out that a node is gone, and how a node that is only cut off keeps
//! from doing harm meanwhile.
//!
//! A node *renews* its lease by rewriting its record with a counter that moves. Two sides draw
//! their conclusions, each by its own clock alone; no two clocks are ever compared.
//!
//! - **The fence** ([`Deadline`]) is the node's own side. Counted from the *start* of its last
//!   renewal, it must assume after `lease - 2 x beat` that it is being replaced: it freezes its
//!   containers, starts none, and claims none.
//! - **The watch** ([`Watch`]) is the others' side. Whoever has read the same counter, successfully
//!   every time, for the whole `lease` calls the node lost. A read that fails begins the wait anew:
//!   an outage of the store, in which nobody can renew, makes nobody look dead.
//!
//! The record was written before a follower first read it, so the fence closes at least two beats
//! before anyone may call the node lost. That margin is for freezing.
//!
//! # Coming back
//!
//! A node whose fence had closed may be alive again while a follower is just about to take its jobs
//! over. Which of them has a job is decided by the job's log, at one position:
//!
//! 1. The follower reads the job's log to its end, *then* the node's record once more. Only if the
//!    counter still has not moved does it create `ended: node_lost`, at exactly the position that
//!    it had read. When something stands there, it starts over.
//! 2. The node renews its lease, *then* appends `resumed` to the job's log, and thaws the container
//!    only if that succeeded.
//!
//! If the follower saw the old counter, the node's renewal was not complete by then, so its
//! `resumed` comes after the follower's reading of the log: both want the same position, and
//! put-if-absent gives it to one. Without the `resumed` entry both could go on: the follower from a
//! reading that was right when it was made, the node because its log said nothing yet.
//!
//! # What is not promised
//!
//! An engine that answers neither the agent nor the guard for two beats cannot be made to freeze
//! anything.
//!
//! A host whose clock stops together with its containers (a virtual machine that its hypervisor
//! suspends) does not know that time has passed. Its containers run until its next beat, at which
//! it reads that it was replaced.

mod fence;
mod look;
mod watch;

pub use fence::{Deadline, FenceFile};
pub use look::{Sight, look};
pub use watch::{Lost, Watch};
