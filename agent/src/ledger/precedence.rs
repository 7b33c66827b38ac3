//! What a job may have that is not free: room that is kept for it until others have ended, or what others
//! give up for it.

use shared::{
    id::{JobId, Timestamp},
    lane::{Needs, Plan, plan},
    log::Job,
    node::Share,
    units::Span,
};

use super::{Ledger, Reservation, Terms};
use crate::changes::Watcher;

impl Ledger {
    /// Keeps room for a job for so long at most, unless that is done for another. False where it would not
    /// help or was tried in vain a short while ago; and unless it is `overdue`, where some job's end makes as much
    /// room by itself. (Those that are polled before it may take that each time.)
    pub fn reserve(&self, job: &Job, now: Timestamp, most: Span, overdue: bool) -> bool {
        let mut state = self.state();
        state.given_up.retain(|_, until| *until > now);
        if state.is_closed() || state.reservation.is_some() || state.given_up.contains_key(&job.id) {
            return false;
        }
        let (needs, share) = (Needs::of(&job.spec), Share::of(&job.spec, job.memory()));
        if (!overdue && state.comes_by_itself(&needs, share))
            || plan(&needs, &state.unreserved(), &state.running()).is_none()
        {
            return false;
        }
        state.keep_for(Reservation::new(&job.id, needs, share, now, most));
        self.tell_if(true);
        true
    }

    /// Keeps no room for this job any more, nor before `not_before` again.
    pub fn unreserve(&self, job: &JobId, not_before: Option<Timestamp>) {
        let mut state = self.state();
        state.given_up.extend(not_before.map(|time| (job.clone(), time)));
        if state.reservation.take_if(|kept| kept.job == *job).is_some() {
            self.tell_if(true);
        }
    }

    /// The job that room is kept for, and where and when it is expected to start.
    pub fn reservation(&self) -> Option<(Reservation, Option<Plan>)> {
        let state = self.state();
        Some((state.reservation.clone()?, state.plan()))
    }

    /// Notes on which terms a job runs.
    pub fn began(&self, job: &JobId, terms: Terms) {
        let mut state = self.state();
        if state.holdings.contains_key(job) {
            state.terms.insert(job.clone(), terms);
        }
    }

    /// Whether a job of these needs would fit if jobs gave way to it.
    pub fn would_give_way(&self, needs: &Needs) -> bool {
        let state = self.state();
        state.has_any_giving_way(needs.priority)
            && !state.is_closed()
            && !state.is_kept_from(needs.priority)
            && state.view().room_with_kept(needs) == 0
            && state.giving_way(needs, Share::default()).is_some()
    }

    /// Lets as many jobs give way to this one as it needs, and keeps their room for it for so long at most.
    /// False where that would not help, or room is kept for one that goes before it.
    pub fn evict(&self, job: &Job, now: Timestamp, most: Span) -> bool {
        let mut state = self.state();
        let (needs, share) = (Needs::of(&job.spec), Share::of(&job.spec, job.memory()));
        if state.is_closed() || state.is_kept_from(needs.priority) {
            return false;
        }
        let Some(victims) = state.giving_way(&needs, share).filter(|victims| !victims.is_empty()) else {
            return false;
        };
        state.keep_for(Reservation::new(&job.id, needs, share, now, most));
        state.evicted.extend(victims.into_iter().map(|victim| (victim, job.id.clone())));
        self.evictions.tell();
        self.tell_if(true);
        true
    }

    /// Tells of jobs that are to give way.
    pub fn evictions(&self) -> Watcher {
        self.evictions.watch()
    }

    /// To whom a job is to give way.
    pub fn gives_way_to(&self, job: &JobId) -> Option<JobId> {
        self.state().evicted.get(job).cloned()
    }

    /// Whether room is kept for this job.
    pub fn is_kept_for(&self, job: &JobId) -> bool {
        self.state().reservation.as_ref().is_some_and(|kept| kept.job == *job)
    }
}
