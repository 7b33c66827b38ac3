//! Which lanes are polled, and in which order. Pure.

use shared::{id::LaneId, lane::Lane};

use crate::ledger::Ledger;

/// The lanes that fit what is free, each with how many of its jobs would: by priority, then the
/// largest need first, so that small jobs fill what is left.
pub(super) fn fitting<'l>(lanes: impl Iterator<Item = &'l Lane>, ledger: &Ledger) -> Vec<(LaneId, usize)> {
    let mut fitting: Vec<(&Lane, usize)> =
        lanes.map(|lane| (lane, ledger.room(&lane.needs))).filter(|(_, room)| *room > 0).collect();
    fitting.sort_by_key(|(lane, _)| {
        (std::cmp::Reverse(lane.needs.priority), std::cmp::Reverse(lane.needs.rank()), &lane.id)
    });
    fitting.into_iter().map(|(lane, room)| (lane.id.clone(), room)).collect()
}
