//! What the agent tells Prometheus: counts kept as things happen, and how the host stands when it is asked
//! ([`page`]); served by [`serve`].
//!
//! Names follow Prometheus' conventions ("Metric and label naming"): base units, `_total` for what only grows.

mod page;
mod serve;

use std::{ops::Deref, time::Duration};

use prometheus_client::metrics::{counter::Counter, family::Family, histogram::Histogram};
pub use serve::{Listen, serve};
use shared::log::Outcome;

/// The labels of a measure.
type Labels = Vec<(&'static str, String)>;

/// From a tenth of a second to a day: jobs wait for milliseconds, and for the night.
const WAITS: [f64; 12] = [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0];

/// From a second to an hour: an image of 10 GB takes minutes.
const PULLS: [f64; 9] = [1.0, 5.0, 15.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0];

/// What is counted as it happens.
#[derive(Debug)]
pub struct Metrics {
    ended: Family<Labels, Counter>,
    beats: Family<Labels, Counter>,
    waits: Histogram,
    pulls: Histogram,
}

impl Default for Metrics {
    /// Each series is there from the start: what a counter had counted when Prometheus first saw it is no increase.
    fn default() -> Self {
        let metrics = Self {
            ended: Family::default(),
            beats: Family::default(),
            waits: Histogram::new(WAITS),
            pulls: Histogram::new(PULLS),
        };
        for outcome in Outcome::ALL {
            drop(metrics.of_outcome(outcome));
        }
        for written in [true, false] {
            drop(metrics.of_beat(written));
        }
        metrics
    }
}

impl Metrics {
    /// An attempt has ended.
    pub fn ended(&self, outcome: Outcome) {
        self.of_outcome(outcome).inc();
    }

    /// The node's record was written, or was not.
    pub fn beat(&self, written: bool) {
        self.of_beat(written).inc();
    }

    /// A job was claimed that had waited for so long.
    pub fn claimed(&self, waited: Duration) {
        self.waits.observe(waited.as_secs_f64());
    }

    /// An image was pulled in this time.
    pub fn pulled(&self, took: Duration) {
        self.pulls.observe(took.as_secs_f64());
    }

    fn of_outcome(&self, outcome: Outcome) -> impl Deref<Target = Counter> {
        self.ended.get_or_create(&vec![("outcome", outcome.to_string())])
    }

    fn of_beat(&self, written: bool) -> impl Deref<Target = Counter> {
        let result = if written { "written" } else { "failed" };
        self.beats.get_or_create(&vec![("result", result.to_owned())])
    }
}
