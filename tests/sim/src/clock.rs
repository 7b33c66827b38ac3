//! Each host's own clocks: set wrong, running fast or slow, standing still with their machine.

use std::{sync::Arc, time::Duration};

use shared::{clock::Clock, id::Timestamp};

use crate::host::Host;

/// Where virtual time begins, as people count it.
pub fn epoch() -> Timestamp {
    "2026-11-24T08:00:00Z".parse().expect("a time")
}

/// A host's clocks.
pub struct HostClock {
    host: Arc<Host>,
    skew: chrono::TimeDelta,
    rate: f64,
}

impl HostClock {
    /// Clocks that are so far off, and gain so much each second.
    pub fn new(host: &Arc<Host>, skew: chrono::TimeDelta, drift: f64) -> Self {
        Self { host: host.clone(), skew, rate: 1.0 + drift }
    }
}

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        epoch() + self.elapsed() + self.skew
    }

    fn elapsed(&self) -> Duration {
        self.host.elapsed().mul_f64(self.rate)
    }
}
