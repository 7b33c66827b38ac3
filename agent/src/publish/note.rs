//! What the spool holds of a job: whose events they are, and how far each receiver has been told.
//! The events themselves are in the job's log, and stay there.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use shared::{
    event::{Subject, Webhook},
    id::Seq,
};

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Receiver {
    /// The fleet's status queue.
    Status,
    /// A webhook of the fleet's or the job's.
    Webhook(Webhook),
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status => f.write_str("the status queue"),
            // A query may hold a token.
            Self::Webhook(hook) => {
                write!(f, "{}://{}{}", hook.url.scheme(), hook.url.authority(), hook.url.path())
            }
        }
    }
}

/// How far a receiver has been told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Who.
    pub to: Receiver,
    /// The next entry to tell; all before it have been told.
    pub next: Seq,
}

/// A job whose events this node tells, as the spool holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The version of this record's form.
    pub v: u32,
    /// Whose.
    pub subject: Subject,
    /// Where this node wanted to write. If another's entry stands there, that one tells.
    pub mark: Seq,
    /// The first position that is not this node's to tell, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Seq>,
    /// The receivers that have not been told everything yet.
    pub told: Vec<Position>,
}

impl Note {
    /// The form that this program writes, and the newest that it reads.
    pub const VERSION: u32 = 1;
}

/// The longest pause between two tries.
const LONGEST: Duration = Duration::from_secs(900);

/// The pause after so many failures in a row: 1, 2, 4 s and so on up to a quarter of an hour, of
/// which a random part between a half and all is taken.
pub fn pause(failures: u32, chance: u64) -> Duration {
    let full = Duration::from_secs(1u64 << failures.saturating_sub(1).min(20)).min(LONGEST);
    let part = u32::try_from(chance % 1024).unwrap_or_default();
    full / 2 + full / 2 / 1024 * part
}
