//! Status events: what is told to whoever wants to hear of a job's changes.
//!
//! Each entry of a job's log becomes one event ([`StatusEvent`]), whose id is the job's and the
//! entry's position, so that receivers can drop doubles. It is told at least once, and in order
//! per job and receiver: nothing is told before all that came earlier was. Receivers are the
//! fleet's status queue and [webhooks](Webhook), the fleet's and the job's own.
//!
//! Who tells: the node that holds a job tells of it, from the claim to the end of the attempt. What
//! clients write while nobody holds the job (submitted, cancelled, retried) they tell the status
//! queue themselves; the webhooks, for which only nodes have secrets, hear of it from the next
//! node that gets the job's message. That message says from where ([`Told`]); one that does not
//! know says from the beginning.

mod signature;
mod status;
mod webhook;

pub use signature::{BadKey, SigningKey};
pub use status::{Data, JobData, StatusEvent, Subject};
pub use webhook::{EventType, Webhook};

use serde::{Deserialize, Serialize};

use crate::id::Seq;

/// How far a job's events have been told: the next one to tell. All before it have been.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// To the status queue.
    #[serde(default)]
    pub status: Seq,
    /// To every webhook.
    #[serde(default)]
    pub webhooks: Seq,
}

impl Told {
    /// All up to the entry before this position.
    pub fn all_before(seq: Seq) -> Self {
        Self { status: seq, webhooks: seq }
    }

    /// Nothing yet, or nobody knows.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
