//! What this host has and to whom it is given: the one place where a GPU changes hands.
//!
//! All of it is decided under one lock, without an await in between, so that no GPU can be given
//! out twice. Whoever waits for something to become free watches [`Ledger::changes`].

mod breaker;
mod cards;
mod evict;
mod excess;
mod leaving;
mod precedence;
mod reserve;
mod state;
mod trial;
mod view;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

pub use breaker::{SOON, Strike};
pub use cards::Look;
pub use evict::Terms;
pub use excess::Excess;
use reserve::Newcomer;
pub use reserve::Reservation;
use shared::{
    id::{Attempt, GpuUuid, JobId, LaneId, Timestamp, VolumeName},
    job::JobSpec,
    lane::{Fit, Misfit, Needs, Offer, OfferedVolume, choose, fit},
    node::{Capacity, Refusal, Share},
    units::Size,
};
use state::State;
pub use trial::Finding;
pub use view::View;

use crate::{
    changes::{Changes, Watcher},
    engine::ContainerId,
    gpu::{Foreign, Inventory, Leftover},
};

/// What a job has been given.
#[derive(Debug, Clone, PartialEq)]
pub struct Holding {
    /// Which try of it.
    pub attempt: Attempt,
    /// Its GPUs.
    pub gpus: Vec<GpuUuid>,
    /// Its CPU and memory, and of a GPU where it shares that.
    pub share: Share,
}

/// The host's resources.
#[derive(Debug)]
pub struct Ledger {
    state: Mutex<State>,
    changes: Changes,
    evictions: Changes,
}

/// Whether a job may be taken.
#[derive(Debug, Clone, PartialEq)]
pub enum Take {
    /// It may; this is noted as given to it.
    Given(Holding),
    /// This host has the job already.
    Already,
    /// This host is still writing its claim of the job, or tidying up after its last attempt here.
    Settling,
    /// It may not, for these reasons.
    Refused(Vec<Misfit>),
}

impl Ledger {
    /// A host with this capacity and these labels; GPUs and volumes come with the first check.
    pub fn new(capacity: Capacity, labels: BTreeMap<String, String>) -> Self {
        let state = State::new(capacity, labels);
        Self { state: Mutex::new(state), changes: Changes::default(), evictions: Changes::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of each change that may let a job in.
    pub fn changes(&self) -> Watcher {
        self.changes.watch()
    }

    /// To be called before the GPUs are looked at.
    pub fn begin_look(&self) -> Look {
        self.state().cards.begin_look()
    }

    /// Notes what the GPUs looked like; `foreign` names what of them is used by others, where that could
    /// be told.
    pub fn set_gpus(&self, look: Look, inventory: Inventory, foreign: Option<BTreeMap<GpuUuid, Foreign>>) {
        let mut state = self.state();
        let before = state.offer();
        state.cards.seen(look, inventory, foreign);
        self.tell_if(state.offer() != before);
    }

    /// Notes what the programs of each job hold of GPUs' memory, and gives those that hold more than
    /// their share for the first time.
    pub fn set_memory(&self, memory: &BTreeMap<JobId, Size>) -> Vec<(JobId, Excess)> {
        let state = &mut *self.state();
        state.gpu_memory.clone_from(memory);
        state.excesses.seen(&state.holdings, memory)
    }

    /// What the programs of each job hold of GPUs' memory, as last seen.
    pub fn gpu_memory(&self) -> BTreeMap<JobId, Size> {
        self.state().gpu_memory.clone()
    }

    /// Jobs that hold more of a GPU than they asked for.
    pub fn exceeding(&self) -> BTreeMap<JobId, Excess> {
        self.state().excesses.all()
    }

    /// Whether a job has held more than its share for so long that it is to end.
    pub fn has_exceeded(&self, job: &JobId) -> Option<Excess> {
        self.state().excesses.lasting(job)
    }

    /// What is wrong with a GPU that a job has, if that ends whatever runs there.
    pub fn broken(&self, job: &JobId) -> Option<String> {
        let state = self.state();
        let holding = state.holdings.get(job)?;
        state.cards.broken(&holding.gpus)
    }

    /// Notes how the volumes are.
    pub fn set_volumes(&self, volumes: BTreeMap<VolumeName, OfferedVolume>) {
        let mut state = self.state();
        let changed = state.volumes != volumes;
        state.volumes = volumes;
        self.tell_if(changed);
    }

    /// Notes what keeps the host from taking any job, and gives what did before.
    pub fn set_problems(&self, problems: Vec<String>) -> Vec<String> {
        let mut state = self.state();
        let changed = state.problems != problems;
        let before = std::mem::replace(&mut state.problems, problems);
        self.tell_if(changed);
        before
    }

    /// Whether the node is cut off from the store and may be replaced.
    pub fn set_isolated(&self, isolated: bool) {
        let mut state = self.state();
        let changed = state.isolated != isolated;
        state.isolated = isolated;
        self.tell_if(changed);
    }

    /// What keeps the host from taking any job.
    pub fn problems(&self) -> Vec<String> {
        self.state().problems()
    }

    fn tell_if(&self, changed: bool) {
        if changed {
            self.changes.tell();
        }
    }

    /// What the host has, as lanes see it.
    pub fn offer(&self) -> Offer {
        self.state().offer()
    }

    /// Its CPU and memory.
    pub fn capacity(&self) -> Capacity {
        self.state().capacity
    }

    /// The GPUs as last read.
    pub fn inventory(&self) -> Inventory {
        self.state().cards.inventory.clone()
    }

    /// Who has what.
    pub fn holdings(&self) -> BTreeMap<JobId, Holding> {
        self.state().holdings.clone()
    }

    /// How often anything was given to a job, and whether any job has something.
    pub fn taken(&self) -> (u64, bool) {
        let state = self.state();
        (state.taken, !state.holdings.is_empty())
    }

    /// What is free now, for a look at many lanes.
    pub fn view(&self) -> View {
        self.state().view()
    }

    /// How many jobs of these needs could be taken now ([`View::room`]).
    pub fn room(&self, needs: &Needs) -> usize {
        self.view().room(needs)
    }

    /// Gives a job what it needs, or says why not.
    pub fn take(
        &self,
        job: &JobId,
        attempt: Attempt,
        spec: &JobSpec,
        memory: Option<Size>,
        now: Timestamp,
    ) -> Take {
        let mut state = self.state();
        match state.holdings.get(job) {
            // Taken over by another node and queued again, which this one has yet to hear of.
            Some(held) if held.attempt < attempt => return Take::Settling,
            Some(_) | None if state.settling.contains(job) => return Take::Settling,
            Some(_) => return Take::Already,
            None => {}
        }
        let mut misfits = Vec::new();
        if let Some(why) = state.closed_by() {
            misfits.push(Misfit::Closed { why });
        }
        let needs = Needs::of(spec);
        let terms = Terms::of(spec, now);
        // What is not kept is taken first.
        let (mut offer, mut capacity) = (state.offer(), state.spare_capacity());
        let fits_beside = fit(&needs, &offer) == Fit::Now && capacity.misfits(spec, memory).is_empty();
        if !fits_beside && state.lets_in(Newcomer { job, priority: spec.priority, until: terms.until }) {
            (offer, capacity) = (state.unreserved(), state.capacity);
        }
        if let Fit::WhenEmpty(why) | Fit::Never(why) = fit(&needs, &offer) {
            misfits.extend(why);
        }
        misfits.extend(capacity.misfits(spec, memory));
        let gpus = choose(&needs, &offer);
        let (true, Some(gpus)) = (misfits.is_empty(), gpus) else { return Take::Refused(misfits) };
        let holding = Holding { attempt, gpus, share: Share::of(spec, memory) };
        state.hold(job, holding.clone());
        state.terms.insert(job.clone(), terms);
        state.breaker.let_in(job);
        if state.reservation.take_if(|kept| kept.job == *job).is_some() {
            self.tell_if(true);
        }
        // Until the claim is written: were its message deleted and the agent to crash, nothing would
        // tell of the job.
        state.settling.insert(job.clone());
        Take::Given(holding)
    }

    /// Notes what a job of an earlier start has, whether or not it would be given now.
    pub fn adopt(&self, job: &JobId, holding: Holding, terms: Terms) {
        let mut state = self.state();
        state.hold(job, holding);
        state.terms.insert(job.clone(), terms);
    }

    /// Takes back what a job had, whose markers are still to be moved: until [`Ledger::settled`] it is
    /// not taken again, since the marker of a new claim could go with the old one's.
    pub fn settle(&self, job: &JobId) {
        self.state().settling.insert(job.clone());
        self.give_back(job);
    }

    /// Waits until there are GPUs that a look would show to be free again.
    pub async fn until_clearing(&self) {
        let mut changes = self.changes();
        while !self.is_clearing() {
            changes.changed().await;
        }
    }

    /// Whether there are GPUs that a look would show to be free again.
    pub fn is_clearing(&self) -> bool {
        self.state().cards.is_clearing()
    }

    /// Notes that nothing more is done for a job's last attempt.
    pub fn settled(&self, job: &JobId) {
        self.state().settling.remove(job);
    }

    /// Whether a job has given back what it had here, and is still tidied up after.
    pub fn is_ending(&self, job: &JobId) -> bool {
        let state = self.state();
        !state.holdings.contains_key(job) && state.settling.contains(job)
    }

    /// Notes that a job's container was found paused.
    pub fn found_paused(&self, job: &JobId) {
        self.state().paused.insert(job.clone());
    }

    /// Whether a job's container has been found paused since this was last asked.
    pub fn take_paused(&self, job: &JobId) -> bool {
        self.state().paused.remove(job)
    }

    /// Notes in which container a job runs.
    pub fn runs_in(&self, job: &JobId, container: &ContainerId) {
        self.state().containers.insert(job.clone(), container.clone());
    }

    /// The containers in which jobs run.
    pub fn containers(&self) -> BTreeMap<JobId, ContainerId> {
        self.state().containers.clone()
    }

    /// The containers of jobs that have ended and may have left something on their GPUs, by the engine's id.
    pub fn ended_in(&self) -> BTreeMap<String, JobId> {
        self.state().cards.ended_in()
    }

    /// Whether what a job has left behind is to be killed: once each.
    pub fn is_to_kill(&self, left: &Leftover) -> bool {
        self.state().cards.is_to_kill(left)
    }

    /// Takes back what a job had.
    pub fn give_back(&self, job: &JobId) {
        let mut state = self.state();
        state.excesses.ended(job);
        state.terms.remove(job);
        state.evicted.remove(job);
        // Where its end said nothing of the host, or was another's to write.
        state.breaker.over(job);
        if let Some(holding) = state.holdings.remove(job) {
            state.capacity.give_back(holding.share);
            let container = state.containers.remove(job);
            state.cards.ended(job, holding.gpus, container);
            self.tell_if(true);
        }
    }

    /// Notes why a lane, or one job of it, was refused.
    pub fn refuse(&self, lane: &LaneId, refusal: Refusal) {
        self.state().refusals.insert(lane.clone(), refusal);
    }

    /// Notes that a lane was served.
    pub fn served(&self, lane: &LaneId) {
        self.state().refusals.remove(lane);
    }

    /// Why lanes were refused.
    pub fn refusals(&self) -> BTreeMap<LaneId, Refusal> {
        self.state().refusals.clone()
    }
}

#[cfg(test)]
mod tests;
