//! The node's own side of its lease.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    fleet::Settings,
    id::{Incarnation, NodeId},
    mutant::{self, Mutant},
    record::{self, RecordError},
};

/// When a node must assume that it is being replaced: on the clock that counts suspended time, as
/// [`Clock::elapsed`](crate::clock::Clock::elapsed) gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Duration);

impl Deadline {
    /// After a renewal that began then.
    pub fn after(renewal_began: Duration, settings: &Settings) -> Self {
        let lease = settings.lease.0.saturating_sub(settings.beat.0 * 2);
        Self(renewal_began + lease)
    }

    /// Whether it has passed.
    pub fn is_past(self, now: Duration) -> bool {
        now >= self.0 && !mutant::is_on(Mutant::NoFence)
    }

    /// How long until it passes.
    pub fn left(self, now: Duration) -> Duration {
        self.0.saturating_sub(now)
    }
}

/// A deadline on disk, for whoever acts when the agent cannot: a small process of its own that
/// freezes the node's containers when the deadline has passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceFile {
    /// The version of this record's form.
    pub v: u32,
    /// The boot of the machine whose clock the deadline is on (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// The deadline, in milliseconds of `CLOCK_BOOTTIME`.
    pub deadline_ms: u64,
    /// Whose containers are to be frozen.
    pub node: NodeId,
    /// The run of the agent that wrote this.
    pub incarnation: Incarnation,
    /// Whether the lease has lapsed, and the log of some job that ran then has yet to prove to be this node's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub doubtful: bool,
    /// The fleet's store, as the containers' labels have it.
    pub fleet: String,
    /// The engine's address; its own default without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
}

impl FenceFile {
    /// The form that this program writes, and the newest that it reads.
    pub const VERSION: u32 = 1;

    /// Notes the deadline.
    pub fn set(&mut self, deadline: Deadline) {
        self.deadline_ms = u64::try_from(deadline.0.as_millis()).unwrap_or(u64::MAX);
    }

    /// The deadline, on the clock of that boot.
    pub fn deadline(&self) -> Deadline {
        Deadline(Duration::from_millis(self.deadline_ms))
    }

    /// Whether the node must assume that it is being replaced. The clock of another boot says
    /// nothing; a machine that was off for an unknown time is taken to be late.
    pub fn is_past(&self, boot: &str, now: Duration) -> bool {
        self.boot != boot || self.deadline().is_past(now)
    }

    /// Reads what [`record::write`] wrote.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn read(body: &[u8]) -> Result<Self, RecordError> {
        record::read(body, Self::VERSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        let mut settings = Settings::embedded(None);
        (settings.beat, settings.lease) = (crate::units::Span::secs(15), crate::units::Span::secs(180));
        settings
    }

    #[test]
    fn the_fence_closes_two_beats_before_the_lease_is_over() {
        let began = Duration::from_secs(1000);
        let deadline = Deadline::after(began, &settings());
        assert!(!deadline.is_past(began + Duration::from_secs(149)));
        assert!(deadline.is_past(began + Duration::from_secs(150)));
        assert_eq!(deadline.left(began), Duration::from_secs(150));
        assert_eq!(deadline.left(began + Duration::from_secs(999)), Duration::ZERO);
    }

    #[test]
    fn a_deadline_of_another_boot_has_passed() {
        let mut file = FenceFile {
            v: FenceFile::VERSION,
            boot: "a".into(),
            deadline_ms: 0,
            node: NodeId::new("n").expect("valid"),
            incarnation: Incarnation::new("i").expect("valid"),
            doubtful: true,
            fleet: "file:///f".into(),
            engine: None,
        };
        file.set(Deadline::after(Duration::from_secs(1000), &settings()));
        let read = FenceFile::read(&record::write(&file)).expect("valid");
        assert_eq!(read, file);
        assert!(!read.is_past("a", Duration::from_secs(1100)));
        assert!(read.is_past("a", Duration::from_secs(1150)));
        assert!(read.is_past("b", Duration::from_secs(5)));
    }
}
