//! What is free on the host at one moment, as a look at all lanes needs it. Pure.

use shared::{
    job::Priority,
    lane::{Fit, Needs, Offer, When, fit},
    node::Capacity,
    queue::MAX_BATCH,
};

/// What is free on the host at one moment.
#[derive(Debug)]
pub struct View {
    pub(super) closed: bool,
    /// With what is kept for a job marked so.
    pub(super) offer: Offer,
    /// Whatever is kept.
    pub(super) unreserved: Offer,
    pub(super) capacity: Capacity,
    /// The capacity less what is kept.
    pub(super) spare: Capacity,
    /// The priority of the job that room is kept for.
    pub(super) kept_for: Option<Priority>,
    /// When it is expected to start.
    pub(super) kept_until: Option<When>,
}

impl View {
    /// How many jobs of these needs could be taken now, up to [`MAX_BATCH`]; 0 where the host takes none. What is
    /// kept for another is left out, unless these go before it.
    pub fn room(&self, needs: &Needs) -> usize {
        if self.kept_for.is_none_or(|kept| needs.priority > kept) {
            self.room_with_kept(needs)
        } else {
            self.room_in(needs, &self.offer, self.spare)
        }
    }

    /// How many jobs of these needs could be taken now if they ended before what is kept for another is
    /// needed; 0 where nobody can tell when that is.
    pub fn room_for_a_while(&self, needs: &Needs) -> usize {
        match self.kept_until {
            Some(When::At(_)) => self.room_with_kept(needs),
            Some(_) | None => 0,
        }
    }

    /// Whether a job of these needs would fit if what runs here ended.
    pub fn would_fit(&self, needs: &Needs) -> bool {
        !self.closed && matches!(fit(needs, &self.offer), Fit::WhenEmpty(_))
    }

    /// How many could be taken now, whatever is kept.
    pub(super) fn room_with_kept(&self, needs: &Needs) -> usize {
        self.room_in(needs, &self.unreserved, self.capacity)
    }

    fn room_in(&self, needs: &Needs, offer: &Offer, capacity: Capacity) -> usize {
        if self.closed || fit(needs, offer) != Fit::Now {
            return 0;
        }
        let slots = capacity.slots.saturating_sub(capacity.slots_used) as usize;
        let by_need = match &needs.gpu {
            None => {
                let free = capacity.cpus - capacity.cpus_used;
                // A job may ask for less than a core; which it does is only known once received.
                if free > 0.0 { (free.ceil().min(MAX_BATCH as f64)) as usize } else { 0 }
            }
            Some(gpu) => gpu.room(offer),
        };
        slots.min(by_need).min(MAX_BATCH)
    }
}
