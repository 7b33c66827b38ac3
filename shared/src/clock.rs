//! Time and chance, the two things that make a run differ from the last one.
//!
//! Whoever needs either takes a [`Clock`] or a [`Chance`]: the program hands in the machine's, a
//! test its own. Clippy forbids every other way to them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::Utc;
use rand::{Rng, RngCore, SeedableRng, rngs::SmallRng, seq::index};

use crate::id::{Incarnation, JobId, Nonce, Timestamp};

/// What time it is.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock: for people and for time stamps, never for measuring.
    fn now(&self) -> Timestamp;

    /// Time since some fixed instant, counted also while the machine sleeps (`CLOCK_BOOTTIME`,
    /// `clock_gettime(2)`). It never goes back.
    fn elapsed(&self) -> Duration;

    /// When the machine was started, by [`Clock::now`]; `None` where that is not known.
    fn booted(&self) -> Option<Timestamp> {
        None
    }
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    fn now(&self) -> Timestamp {
        Utc::now()
    }

    fn elapsed(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // Both parts are positive: the clock starts at zero when the machine does.
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    /// As the kernel has it (`proc(5)`, `btime` of `/proc/stat`).
    fn booted(&self) -> Option<Timestamp> {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        Timestamp::from_timestamp(seconds, 0)
    }
}

/// A source of random numbers that several tasks share.
#[derive(Debug, Clone)]
pub struct Chance(Arc<Mutex<SmallRng>>);

impl Chance {
    /// Seeded by the operating system.
    pub fn from_os() -> Self {
        Self(Arc::new(Mutex::new(SmallRng::from_os_rng())))
    }

    /// The same numbers for the same seed.
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(SmallRng::seed_from_u64(seed))))
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut SmallRng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// 64 random bits.
    pub fn bits(&self) -> u64 {
        self.draw(RngCore::next_u64)
    }

    /// A random number below `bound`, which must not be 0.
    pub fn below(&self, bound: usize) -> usize {
        self.draw(|chance| chance.random_range(0..bound))
    }

    /// So many of these at most, each as likely as the others, in their order.
    pub fn some<T>(&self, of: Vec<T>, most: usize) -> Vec<T> {
        let drawn = self.draw(|rng| index::sample(rng, of.len(), most.min(of.len()))).into_vec();
        let drawn: BTreeSet<usize> = drawn.into_iter().collect();
        of.into_iter().enumerate().filter(|(at, _)| drawn.contains(at)).map(|(_, one)| one).collect()
    }

    /// True with this probability (0 to 1).
    pub fn happens(&self, probability: f64) -> bool {
        self.draw(|chance| chance.random_bool(probability.clamp(0.0, 1.0)))
    }

    /// A fresh nonce.
    pub fn nonce(&self) -> Nonce {
        self.draw(Nonce::random)
    }

    /// A fresh job id.
    pub fn job_id(&self) -> JobId {
        self.draw(JobId::random)
    }

    /// A fresh incarnation.
    pub fn incarnation(&self) -> Incarnation {
        self.draw(Incarnation::random)
    }
}
