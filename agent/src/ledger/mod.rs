//! What this host has and to whom it is given: the one place where a GPU changes hands.
//!
//! All of it is decided under one lock, without an await in between, so that no GPU can be given
//! out twice. Whoever waits for something to become free watches [`Ledger::changes`].

mod cards;
mod excess;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use shared::{
    id::{Attempt, GpuUuid, JobId, LaneId, VolumeName},
    job::{Arch, JobSpec},
    lane::{Fit, Misfit, Needs, Offer, OfferedVolume, choose, fit},
    node::{Capacity, Mode, Refusal, Share},
    units::Size,
};
use tokio::sync::watch;

use cards::Cards;
pub use cards::Look;
pub use excess::Excess;
use excess::Excesses;

use crate::gpu::{Foreign, Inventory};

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

/// What is known of the host.
#[derive(Debug)]
struct State {
    cards: Cards,
    volumes: BTreeMap<VolumeName, OfferedVolume>,
    labels: BTreeMap<String, String>,
    capacity: Capacity,
    holdings: BTreeMap<JobId, Holding>,
    /// Jobs whose last attempt here has ended and whose markers are on their way.
    settling: BTreeSet<JobId>,
    /// Jobs whose container was found paused though nobody here keeps it so.
    paused: BTreeSet<JobId>,
    mode: Mode,
    problems: Vec<String>,
    /// Cut off from the store for so long that the node may be replaced.
    isolated: bool,
    refusals: BTreeMap<LaneId, Refusal>,
    /// What the programs of each job hold of GPUs' memory, as last seen.
    gpu_memory: BTreeMap<JobId, Size>,
    excesses: Excesses,
}

/// The host's resources.
#[derive(Debug)]
pub struct Ledger {
    state: Mutex<State>,
    changes: watch::Sender<()>,
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
        let state = State {
            cards: Cards::default(),
            volumes: BTreeMap::new(),
            labels,
            capacity,
            holdings: BTreeMap::new(),
            settling: BTreeSet::new(),
            paused: BTreeSet::new(),
            mode: Mode::Ready,
            problems: Vec::new(),
            isolated: false,
            refusals: BTreeMap::new(),
            gpu_memory: BTreeMap::new(),
            excesses: Excesses::default(),
        };
        Self { state: Mutex::new(state), changes: watch::Sender::new(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of each change that may let a job in.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
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

    /// Notes what keeps the host from taking any job.
    pub fn set_problems(&self, problems: Vec<String>) {
        let mut state = self.state();
        let changed = state.problems != problems;
        state.problems = problems;
        self.tell_if(changed);
    }

    /// Whether the node is cut off from the store and may be replaced.
    pub fn set_isolated(&self, isolated: bool) {
        let mut state = self.state();
        let changed = state.isolated != isolated;
        state.isolated = isolated;
        self.tell_if(changed);
    }

    /// Whether new jobs are taken.
    pub fn set_mode(&self, mode: Mode) {
        let mut state = self.state();
        let changed = state.mode != mode;
        state.mode = mode;
        self.tell_if(changed);
    }

    /// Whether new jobs are taken.
    pub fn mode(&self) -> Mode {
        self.state().mode
    }

    /// What keeps the host from taking any job.
    pub fn problems(&self) -> Vec<String> {
        self.state().problems.clone()
    }

    fn tell_if(&self, changed: bool) {
        if changed {
            self.changes.send_replace(());
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

    /// How many jobs of these needs could be taken now, up to ten; 0 where the host takes none.
    pub fn room(&self, needs: &Needs) -> usize {
        let state = self.state();
        if state.is_closed() || fit(needs, &state.offer()) != Fit::Now {
            return 0;
        }
        let slots = state.capacity.slots.saturating_sub(state.capacity.slots_used) as usize;
        let by_need = match &needs.gpu {
            None => {
                let free = state.capacity.cpus - state.capacity.cpus_used;
                // A job may ask for less than a core; which it does is only known once received.
                if free > 0.0 { (free.ceil().min(10.0)) as usize } else { 0 }
            }
            Some(gpu) => gpu.room(&state.offer()),
        };
        slots.min(by_need).min(10)
    }

    /// Gives a job what it needs, or says why not.
    pub fn take(&self, job: &JobId, attempt: Attempt, spec: &JobSpec, memory: Option<Size>) -> Take {
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
        let offer = state.offer();
        if let Fit::WhenEmpty(why) | Fit::Never(why) = fit(&needs, &offer) {
            misfits.extend(why);
        }
        misfits.extend(state.capacity.misfits(spec, memory));
        let gpus = choose(&needs, &offer);
        let (true, Some(gpus)) = (misfits.is_empty(), gpus) else { return Take::Refused(misfits) };
        let holding = Holding { attempt, gpus, share: Share::of(spec, memory) };
        state.hold(job, holding.clone());
        // Until the claim is written: were its message deleted and the agent to crash, nothing would
        // tell of the job.
        state.settling.insert(job.clone());
        Take::Given(holding)
    }

    /// Notes what a job of an earlier start has, whether or not it would be given now.
    pub fn adopt(&self, job: &JobId, holding: Holding) {
        self.state().hold(job, holding);
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
            // The sender is this ledger's.
            let _ = changes.changed().await;
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

    /// Notes that a job's container was found paused.
    pub fn found_paused(&self, job: &JobId) {
        self.state().paused.insert(job.clone());
    }

    /// Whether a job's container has been found paused since this was last asked.
    pub fn take_paused(&self, job: &JobId) -> bool {
        self.state().paused.remove(job)
    }

    /// Takes back what a job had.
    pub fn give_back(&self, job: &JobId) {
        let mut state = self.state();
        state.excesses.ended(job);
        if let Some(holding) = state.holdings.remove(job) {
            state.capacity.give_back(holding.share);
            state.cards.ended(holding.gpus);
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

impl State {
    fn closed_by(&self) -> Option<String> {
        match self.mode {
            Mode::Draining => Some("it is draining".into()),
            Mode::Stopped => Some("its agent has stopped".into()),
            Mode::Ready if self.isolated => Some("it is cut off from the store".into()),
            Mode::Ready => (!self.problems.is_empty()).then(|| self.problems.join("; ")),
        }
    }

    fn is_closed(&self) -> bool {
        self.closed_by().is_some()
    }

    fn hold(&mut self, job: &JobId, holding: Holding) {
        self.capacity.take(holding.share);
        self.holdings.insert(job.clone(), holding);
    }

    fn offer(&self) -> Offer {
        Offer {
            arch: Arch::HOST,
            cuda: self.cards.inventory.driver.as_ref().map(|driver| driver.cuda),
            gpus: self.cards.offered(self.holdings.values()),
            volumes: self.volumes.clone(),
            labels: self.labels.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
