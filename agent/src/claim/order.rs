//! Which lanes are polled, and in which order. Pure.

use shared::{id::LaneId, lane::Lane};

use crate::ledger::Ledger;

/// The lanes that fit what is free, each with how many of its jobs would: by priority, then the
/// largest need first, so that small jobs fill what is left.
pub(super) fn fitting<'l>(lanes: impl Iterator<Item = &'l Lane>, ledger: &Ledger) -> Vec<(LaneId, usize)> {
    let view = ledger.view();
    ordered(lanes, |lane| view.room(&lane.needs))
}

/// The lanes that would fit if what runs here ended.
pub(super) fn waiting<'l>(lanes: impl Iterator<Item = &'l Lane>, ledger: &Ledger) -> Vec<LaneId> {
    let view = ledger.view();
    names(ordered(lanes, |lane| usize::from(view.would_fit(&lane.needs))))
}

/// The lanes that fit only what is kept for a job, where short jobs may use that until it starts.
pub(super) fn for_a_while<'l>(lanes: impl Iterator<Item = &'l Lane>, ledger: &Ledger) -> Vec<LaneId> {
    let view = ledger.view();
    let fits = |lane: &Lane| view.room(&lane.needs) == 0 && view.room_for_a_while(&lane.needs) > 0;
    names(ordered(lanes, |lane| usize::from(fits(lane))))
}

/// The lanes that would fit if jobs gave way to theirs.
pub(super) fn over_others<'l>(lanes: impl Iterator<Item = &'l Lane>, ledger: &Ledger) -> Vec<LaneId> {
    names(ordered(lanes, |lane| usize::from(ledger.would_give_way(&lane.needs))))
}

fn ordered<'l>(lanes: impl Iterator<Item = &'l Lane>, room: impl Fn(&Lane) -> usize) -> Vec<(LaneId, usize)> {
    let mut fitting: Vec<(&Lane, usize)> =
        lanes.map(|lane| (lane, room(lane))).filter(|(_, room)| *room > 0).collect();
    fitting.sort_by_key(|(lane, _)| {
        (std::cmp::Reverse(lane.needs.priority), std::cmp::Reverse(lane.needs.rank()), &lane.id)
    });
    fitting.into_iter().map(|(lane, room)| (lane.id.clone(), room)).collect()
}

fn names(lanes: Vec<(LaneId, usize)>) -> Vec<LaneId> {
    lanes.into_iter().map(|(lane, _)| lane).collect()
}
