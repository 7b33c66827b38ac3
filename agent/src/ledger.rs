//! What this host has and to whom it is given: the one place where a GPU changes hands.
//!
//! All of it is decided under one lock, without an await in between, so that no GPU can be given
//! out twice. Whoever waits for something to become free watches [`Ledger::changes`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use shared::{
    id::{Attempt, GpuUuid, JobId, LaneId, VolumeName},
    job::{Arch, JobSpec},
    lane::{Fit, GpuState, Misfit, Needs, Offer, OfferedGpu, OfferedVolume, choose, fit},
    node::{Capacity, Mode, Refusal, Share},
    units::Size,
};
use tokio::sync::watch;

use crate::gpu::{Gpu, Inventory, Mig};

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
    inventory: Inventory,
    foreign: BTreeMap<GpuUuid, String>,
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
}

/// What of a GPU is given to jobs.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Given {
    /// All of it, to one.
    Whole,
    /// So much of its memory.
    Shares(Size),
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
            inventory: Inventory::default(),
            foreign: BTreeMap::new(),
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

    /// Notes what the GPUs look like now; `foreign` names what of them is used by others.
    pub fn set_gpus(&self, inventory: Inventory, foreign: BTreeMap<GpuUuid, String>) {
        let mut state = self.state();
        let before = state.offer();
        (state.inventory, state.foreign) = (inventory, foreign);
        self.tell_if(state.offer() != before);
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
        self.state().inventory.clone()
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
        if let Some(holding) = state.holdings.remove(job) {
            state.capacity.give_back(holding.share);
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
        let given = self.given();
        // What is cut into instances is offered as these.
        let all = &self.inventory.gpus;
        let has_instances =
            |cut: &Gpu| all.iter().any(|gpu| gpu.index == cut.index && matches!(gpu.mig, Mig::Instance(_)));
        let devices = all.iter().filter(|gpu| gpu.mig != Mig::Cut || !has_instances(gpu));
        let gpus = devices.map(|gpu| OfferedGpu {
            uuid: gpu.uuid.clone(),
            model: gpu.model.clone(),
            memory: gpu.memory,
            compute_capability: gpu.compute_capability,
            mig: match gpu.mig {
                Mig::Instance(profile) => Some(profile),
                Mig::Off | Mig::Cut => None,
            },
            state: self.gpu_state(gpu, given.get(&gpu.uuid).copied()),
        });
        Offer {
            arch: Arch::HOST,
            cuda: self.inventory.driver.as_ref().map(|driver| driver.cuda),
            gpus: gpus.collect(),
            volumes: self.volumes.clone(),
            labels: self.labels.clone(),
        }
    }

    /// What of each GPU is given to jobs.
    fn given(&self) -> BTreeMap<&GpuUuid, Given> {
        let mut given = BTreeMap::new();
        for holding in self.holdings.values() {
            for uuid in &holding.gpus {
                let before = given.get(uuid).copied();
                given.insert(
                    uuid,
                    match (before, holding.share.gpu) {
                        (None, Some(share)) => Given::Shares(share),
                        (Some(Given::Shares(sum)), Some(share)) => {
                            Given::Shares(Size(sum.bytes().saturating_add(share.bytes())))
                        }
                        (_, None) | (Some(Given::Whole), _) => Given::Whole,
                    },
                );
            }
        }
        given
    }

    fn gpu_state(&self, gpu: &Gpu, given: Option<Given>) -> GpuState {
        if let Some(fault) = &gpu.fault {
            return GpuState::Out { why: fault.to_string() };
        }
        if gpu.mig == Mig::Cut {
            return GpuState::Out { why: "it is in MIG mode and has no instances".into() };
        }
        match (given, self.foreign.get(&gpu.uuid)) {
            (Some(Given::Whole), _) => GpuState::Held,
            (_, Some(by)) => GpuState::Foreign { by: by.clone() },
            (Some(Given::Shares(sum)), None) => {
                GpuState::Shared { free: Size(gpu.memory.bytes().saturating_sub(sum.bytes())) }
            }
            (None, None) => GpuState::Free,
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
