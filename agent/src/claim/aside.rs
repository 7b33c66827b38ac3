//! Lanes that this host leaves alone for a while: left to others, or with jobs that need more CPU or memory
//! than is free here.

use std::{collections::BTreeMap, time::Duration};

use shared::{id::LaneId, node::Capacity};
use tokio::time::Instant;

/// How long a lane is left alone after the first look that found a misfit; doubled after each further one.
const FIRST: Duration = Duration::from_secs(2);

/// And at most.
const LONGEST: Duration = Duration::from_secs(8);

/// Lanes that are left alone.
#[derive(Debug, Default)]
pub(super) struct Aside {
    /// Until when they are left to others.
    left: BTreeMap<LaneId, Instant>,
    /// Those with misfits: when they are looked at again, and how long that pause is.
    misfits: BTreeMap<LaneId, (Instant, Duration)>,
    /// What was in use at the last look.
    capacity: Capacity,
}

impl Aside {
    /// Whether a lane may be looked at.
    pub(super) fn is_open(&self, lane: &LaneId) -> bool {
        let now = Instant::now();
        let misfit = self.misfits.get(lane).map(|(until, _)| until);
        !self.left.get(lane).into_iter().chain(misfit).any(|until| *until > now)
    }

    /// Leaves a lane to others for so long.
    pub(super) fn leave(&mut self, lane: &LaneId, rest: Duration) {
        self.left.insert(lane.clone(), Instant::now() + rest);
    }

    /// A look at a lane found jobs that need more CPU or memory than is free.
    pub(super) fn misfit(&mut self, lane: &LaneId) {
        let pause = self.misfits.get(lane).map_or(FIRST, |(_, pause)| (*pause * 2).min(LONGEST));
        self.misfits.insert(lane.clone(), (Instant::now() + pause, pause));
    }

    /// A look at a lane found none.
    pub(super) fn fits(&mut self, lane: &LaneId) {
        self.misfits.remove(lane);
    }

    /// Whether the last look found some.
    pub(super) fn has_misfits(&self, lane: &LaneId) -> bool {
        self.misfits.contains_key(lane)
    }

    /// What the host has by now: what did not fit may do so where some has come free.
    pub(super) fn now_has(&mut self, capacity: Capacity) {
        let freed = capacity.cpus_used < self.capacity.cpus_used
            || capacity.memory_used < self.capacity.memory_used
            || capacity.slots_used < self.capacity.slots_used;
        if freed {
            self.misfits.clear();
        }
        self.capacity = capacity;
    }

    /// Waits until the next lane may be looked at; for ever where none is left alone.
    pub(super) async fn over(&mut self) {
        let now = Instant::now();
        let misfits = self.misfits.values().map(|(until, _)| *until).filter(|until| *until > now);
        match self.left.values().copied().chain(misfits).min() {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
        let now = Instant::now();
        self.left.retain(|_, until| *until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane() -> LaneId {
        LaneId::new("normal-1x-gpu-979ce467").expect("valid")
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_is_looked_at_again_when_its_pause_is_over() {
        let (mut aside, began) = (Aside::default(), Instant::now());
        for pause in [2, 4, 8, 8] {
            aside.misfit(&lane());
            assert!(!aside.is_open(&lane()));
            let since = Instant::now();
            aside.over().await;
            assert_eq!((since.elapsed().as_secs(), aside.is_open(&lane())), (pause, true));
        }
        aside.fits(&lane());
        aside.misfit(&lane());
        aside.leave(&lane(), Duration::from_secs(9));
        aside.over().await;
        assert_eq!((began.elapsed().as_secs(), aside.is_open(&lane())), (24, false), "left to others still");
        aside.over().await;
        assert!(aside.is_open(&lane()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_free_opens_what_did_not_fit() {
        let mut aside = Aside::default();
        let uses = |cpus_used| Capacity { cpus: 8.0, cpus_used, ..Capacity::default() };
        aside.now_has(uses(4.0));
        aside.misfit(&lane());
        aside.now_has(uses(6.0));
        assert!(!aside.is_open(&lane()));
        aside.now_has(uses(2.0));
        assert!(aside.is_open(&lane()));
    }
}
