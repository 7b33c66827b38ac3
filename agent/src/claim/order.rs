//! Which lanes are polled, and in which order. Pure.

use std::{
    cmp::Reverse,
    hash::{DefaultHasher, Hash, Hasher},
};

use shared::{
    id::LaneId,
    lane::{Lane, Needs},
};

use crate::ledger::Ledger;

/// The order of lanes at one look: by priority, then the largest need first, so that small jobs fill what is
/// left. Among equals it is drawn anew at each look, so that none waits for ever behind another; jobs that only
/// few kinds of hosts serve are mostly before those that could go elsewhere ("least flexible job first", Pinedo,
/// Scheduling, chapter 5).
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    /// By which the order is drawn.
    pub(super) draw: u64,
}

/// Of two lanes of which one asks for GPU models and the other does not, the first is the first in seven of eight
/// draws.
const PICKY: u64 = 4;

impl Order {
    /// The lanes that fit what is free, each with how many of its jobs would.
    pub(super) fn fitting<'l>(
        self,
        lanes: impl Iterator<Item = &'l Lane>,
        ledger: &Ledger,
    ) -> Vec<(LaneId, usize)> {
        let view = ledger.view();
        self.ordered(lanes, |lane| view.room(&lane.needs))
    }

    /// The lanes that would fit if what runs here ended.
    pub(super) fn waiting<'l>(self, lanes: impl Iterator<Item = &'l Lane>, ledger: &Ledger) -> Vec<LaneId> {
        let view = ledger.view();
        names(self.ordered(lanes, |lane| usize::from(view.would_fit(&lane.needs))))
    }

    /// The lanes that fit only what is kept for a job, where short jobs may use that until it starts.
    pub(super) fn for_a_while<'l>(
        self,
        lanes: impl Iterator<Item = &'l Lane>,
        ledger: &Ledger,
    ) -> Vec<LaneId> {
        let view = ledger.view();
        let fits = |lane: &Lane| view.room(&lane.needs) == 0 && view.room_for_a_while(&lane.needs) > 0;
        names(self.ordered(lanes, |lane| usize::from(fits(lane))))
    }

    /// The lanes that would fit if jobs gave way to theirs.
    pub(super) fn over_others<'l>(
        self,
        lanes: impl Iterator<Item = &'l Lane>,
        ledger: &Ledger,
    ) -> Vec<LaneId> {
        names(self.ordered(lanes, |lane| usize::from(ledger.would_give_way(&lane.needs))))
    }

    fn ordered<'l>(
        self,
        lanes: impl Iterator<Item = &'l Lane>,
        room: impl Fn(&Lane) -> usize,
    ) -> Vec<(LaneId, usize)> {
        let mut fitting: Vec<(&Lane, usize)> =
            lanes.map(|lane| (lane, room(lane))).filter(|(_, room)| *room > 0).collect();
        fitting.sort_by_cached_key(|(lane, _)| {
            (Reverse(lane.needs.priority), Reverse(lane.needs.rank()), self.drawn(lane), lane.id.clone())
        });
        fitting.into_iter().map(|(lane, room)| (lane.id.clone(), room)).collect()
    }

    /// Its place among equals.
    fn drawn(self, lane: &Lane) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.draw, lane.id.as_str()).hash(&mut hasher);
        if is_picky(&lane.needs) { hasher.finish() / PICKY } else { hasher.finish() }
    }
}

fn is_picky(needs: &Needs) -> bool {
    needs.gpu.as_ref().is_some_and(|gpu| !gpu.models.is_empty())
}

fn names(lanes: Vec<(LaneId, usize)>) -> Vec<LaneId> {
    lanes.into_iter().map(|(lane, _)| lane).collect()
}

#[cfg(test)]
mod tests {
    use shared::job::{self, Format};

    use super::*;

    fn lane(priority: &str, resources: &str) -> Lane {
        let text = format!("image = \"i\"\npriority = \"{priority}\"\n[resources]\n{resources}");
        let needs = Needs::of(&job::parse(&text, Format::Toml).expect("valid"));
        Lane::new(needs)
    }

    #[test]
    fn the_urgent_go_first_then_the_large_and_no_equal_always() {
        let high = lane("high", "gpus = 1");
        let large = lane("normal", "gpus = 2");
        let (any, picky) = (lane("normal", "gpus = 1"), lane("normal", "gpus = 1\ngpu_model = \"T4\""));
        let lanes = [&any, &picky, &large, &high];
        let order = |draw| names(Order { draw }.ordered(lanes.into_iter(), |_| 1));
        let first_of_equals = |draw| {
            let order = order(draw);
            assert_eq!(order[..2], [high.id.clone(), large.id.clone()]);
            order[2] == picky.id
        };
        let picky_first = (0..1000).filter(|draw| first_of_equals(*draw)).count();
        assert!((840..910).contains(&picky_first), "{picky_first}");
        assert_eq!(order(7), order(7));
    }
}
