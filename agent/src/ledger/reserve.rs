//! Room that is kept for a job which needs more than is free, and who may use it meanwhile. Pure.

use shared::{
    id::{JobId, Timestamp},
    job::Priority,
    lane::{Needs, When},
    node::{Capacity, Share},
    units::Span,
};

/// A job that is kept room for. One at a time has that on a host.
#[derive(Debug, Clone, PartialEq)]
pub struct Reservation {
    /// The job.
    pub job: JobId,
    /// What it needs of GPUs.
    pub needs: Needs,
    /// What it needs of the rest.
    pub share: Share,
    /// Since when room is kept.
    pub since: Timestamp,
    /// Until when at most.
    pub until: Timestamp,
    /// When the job was expected to start as the room began to be kept.
    pub planned: When,
}

/// A job that would like to start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newcomer<'j> {
    pub(super) job: &'j JobId,
    pub(super) priority: Priority,
    /// When it will have ended.
    pub(super) until: When,
}

impl Reservation {
    /// For so long at most.
    pub(super) fn new(job: &JobId, needs: Needs, share: Share, now: Timestamp, most: Span) -> Self {
        let (job, until) = (job.clone(), now + most.0);
        Self { job, needs, share, since: now, until, planned: When::Unknown }
    }

    /// Whether a job may use what is kept, which is expected to be needed at `start`: the job itself, one that
    /// goes before it, and one that will have ended by then (backfill). What was let in and takes longer than it
    /// said does not put the start off for those that come after it.
    pub(super) fn lets_in(&self, newcomer: Newcomer<'_>, start: When) -> bool {
        let start = start.min(self.planned);
        self.job == *newcomer.job
            || newcomer.priority > self.needs.priority
            || (start > When::Now && newcomer.until != When::Unknown && newcomer.until <= start)
    }

    /// The host's capacity less what is kept.
    pub(super) fn taken_from(&self, capacity: Capacity) -> Capacity {
        let mut left = capacity;
        left.take(self.share);
        left
    }
}

/// When so much of CPU, memory and slots will be free, given who has what until when.
pub(super) fn capacity_start(capacity: Capacity, wanted: Share, holders: &mut [(When, Share)]) -> When {
    holders.sort_by_key(|(until, _)| *until);
    let mut left = capacity;
    let mut when = When::Now;
    for (until, share) in holders {
        if left.has_room_for(wanted) {
            break;
        }
        left.give_back(*share);
        when = *until;
    }
    when
}
