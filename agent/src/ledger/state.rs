//! What is known of the host, and what follows from it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use shared::{
    id::{JobId, LaneId, Timestamp, VolumeName},
    job::{Arch, Priority},
    lane::{Fit, GpuState, Needs, Offer, OfferedVolume, Plan, Running, When, fit, plan},
    node::{Capacity, Mode, Refusal, Share},
    units::Size,
};

use super::{
    Holding, Reservation, Terms,
    breaker::Breaker,
    cards::Cards,
    evict::{self, Candidate},
    excess::Excesses,
    leaving::HandBack,
    reserve::{Newcomer, capacity_start},
    view::View,
};
use crate::engine::ContainerId;

/// What is known of the host.
#[derive(Debug)]
pub(super) struct State {
    pub(super) cards: Cards,
    pub(super) volumes: BTreeMap<VolumeName, OfferedVolume>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) capacity: Capacity,
    pub(super) holdings: BTreeMap<JobId, Holding>,
    /// How often anything was given out.
    pub(super) taken: u64,
    /// Where the jobs that run here do.
    pub(super) containers: BTreeMap<JobId, ContainerId>,
    /// Jobs whose last attempt here has ended and whose markers are on their way.
    pub(super) settling: BTreeSet<JobId>,
    /// Jobs whose container was found paused though nobody here keeps it so.
    pub(super) paused: BTreeSet<JobId>,
    pub(super) mode: Mode,
    /// Somebody has drained it.
    pub(super) drained: bool,
    /// Its jobs are to be stopped with notice and queued again.
    pub(super) handing_back: Option<HandBack>,
    pub(super) problems: Vec<String>,
    pub(super) breaker: Breaker,
    /// Cut off from the store for so long that the node may be replaced.
    pub(super) isolated: bool,
    pub(super) refusals: BTreeMap<LaneId, Refusal>,
    /// What the programs of each job hold of GPUs' memory, as last seen.
    pub(super) gpu_memory: BTreeMap<JobId, Size>,
    pub(super) excesses: Excesses,
    pub(super) terms: BTreeMap<JobId, Terms>,
    /// Jobs that are to give way, and to whom.
    pub(super) evicted: BTreeMap<JobId, JobId>,
    pub(super) reservation: Option<Reservation>,
    /// Jobs that room was kept for in vain, and until when it is not again.
    pub(super) given_up: BTreeMap<JobId, Timestamp>,
}

impl State {
    pub(super) fn new(capacity: Capacity, labels: BTreeMap<String, String>) -> Self {
        Self {
            cards: Cards::default(),
            volumes: BTreeMap::new(),
            labels,
            capacity,
            holdings: BTreeMap::new(),
            taken: 0,
            containers: BTreeMap::new(),
            settling: BTreeSet::new(),
            paused: BTreeSet::new(),
            mode: Mode::Ready,
            drained: false,
            handing_back: None,
            problems: Vec::new(),
            breaker: Breaker::default(),
            isolated: false,
            refusals: BTreeMap::new(),
            gpu_memory: BTreeMap::new(),
            excesses: Excesses::default(),
            terms: BTreeMap::new(),
            evicted: BTreeMap::new(),
            reservation: None,
            given_up: BTreeMap::new(),
        }
    }

    pub(super) fn mode(&self) -> Mode {
        if self.mode == Mode::Ready && self.drained { Mode::Draining } else { self.mode }
    }

    pub(super) fn closed_by(&self) -> Option<String> {
        match self.mode() {
            Mode::Draining => Some("it is draining".into()),
            Mode::Stopped => Some("its agent has stopped".into()),
            Mode::Ready if self.isolated => Some("it is cut off from the store".into()),
            Mode::Ready => {
                let problems = self.problems();
                (!problems.is_empty()).then(|| problems.join("; "))
            }
        }
    }

    /// What keeps the host from taking any job.
    pub(super) fn problems(&self) -> Vec<String> {
        self.problems.iter().cloned().chain(self.breaker.why_closed()).collect()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed_by().is_some()
    }

    pub(super) fn hold(&mut self, job: &JobId, holding: Holding) {
        self.capacity.take(holding.share);
        self.taken += 1;
        self.holdings.insert(job.clone(), holding);
    }

    /// What the host has, with what is kept for a job marked so.
    pub(super) fn offer(&self) -> Offer {
        let mut offer = self.unreserved();
        if let Some((kept, plan)) = self.reservation.as_ref().zip(self.plan()) {
            for gpu in offer.gpus.iter_mut().filter(|gpu| plan.gpus.contains(&gpu.uuid)) {
                if matches!(gpu.state, GpuState::Free | GpuState::Shared { .. }) {
                    gpu.state = GpuState::Reserved { job: kept.job.clone() };
                }
            }
        }
        offer
    }

    /// What the host has, whatever is kept.
    pub(super) fn unreserved(&self) -> Offer {
        Offer {
            arch: Arch::HOST,
            cuda: self.cards.inventory.driver.as_ref().map(|driver| driver.cuda),
            gpus: self.cards.offered(self.holdings.values()),
            volumes: self.volumes.clone(),
            labels: self.labels.clone(),
        }
    }

    pub(super) fn spare_capacity(&self) -> Capacity {
        self.reservation.as_ref().map_or(self.capacity, |kept| kept.taken_from(self.capacity))
    }

    pub(super) fn end_of(&self, job: &JobId) -> When {
        if self.evicted.contains_key(job) {
            return When::Now;
        }
        self.terms.get(job).map_or(When::Unknown, |terms| terms.until)
    }

    pub(super) fn running(&self) -> Vec<Running> {
        let running = self.holdings.iter().map(|(job, holding)| Running {
            gpus: holding.gpus.clone(),
            gpu_share: holding.share.gpu,
            until: self.end_of(job),
        });
        running.collect()
    }

    pub(super) fn keep_for(&mut self, reservation: Reservation) {
        self.reservation = Some(reservation);
        let planned = self.plan().map_or(When::Unknown, |plan| plan.start);
        self.reservation.iter_mut().for_each(|kept| kept.planned = planned);
    }

    /// Where and when the job that room is kept for is expected to start.
    pub(super) fn plan(&self) -> Option<Plan> {
        let kept = self.reservation.as_ref()?;
        let mut found = plan(&kept.needs, &self.unreserved(), &self.running())?;
        let mut holders: Vec<(When, Share)> =
            self.holdings.iter().map(|(job, holding)| (self.end_of(job), holding.share)).collect();
        found.start = found.start.max(capacity_start(self.capacity, kept.share, &mut holders));
        Some(found)
    }

    /// Whether some job that runs has as much as is needed, so that its end makes room without any that
    /// must be kept until then.
    pub(super) fn comes_by_itself(&self, needs: &Needs, share: Share) -> bool {
        self.holdings.values().any(|held| {
            let mut offer = self.unreserved();
            offer.gpus.retain(|gpu| held.gpus.contains(&gpu.uuid));
            for gpu in &mut offer.gpus {
                gpu.state = held.share.gpu.map_or(GpuState::Free, |free| GpuState::Shared { free });
            }
            let enough = held.share.cpus >= share.cpus && held.share.memory >= share.memory;
            enough && fit(needs, &offer) == Fit::Now
        })
    }

    pub(super) fn lets_in(&self, newcomer: Newcomer<'_>) -> bool {
        let start = self.plan().map_or(When::Unknown, |plan| plan.start);
        self.reservation.as_ref().is_none_or(|kept| kept.lets_in(newcomer, start))
    }

    /// Whether room is kept for a job that goes before those of this priority, or came before them.
    pub(super) fn is_kept_from(&self, priority: Priority) -> bool {
        self.reservation.as_ref().is_some_and(|kept| kept.needs.priority >= priority)
    }

    /// Whether anything that runs gives way to jobs of this priority.
    pub(super) fn has_any_giving_way(&self, priority: Priority) -> bool {
        self.terms.iter().any(|(job, terms)| terms.gives_way_to(priority) && !self.evicted.contains_key(job))
    }

    /// Which jobs would have to give way to one of these needs, or `None` where that would not help.
    pub(super) fn giving_way(&self, needs: &Needs, share: Share) -> Option<BTreeSet<JobId>> {
        let candidates: Vec<Candidate<'_>> = self
            .holdings
            .iter()
            .filter_map(|(job, holding)| {
                let terms = *self.terms.get(job)?;
                let can = terms.gives_way_to(needs.priority) && !self.evicted.contains_key(job);
                can.then_some(Candidate { job, terms, gpus: holding.gpus.len() })
            })
            .collect();
        evict::choose(&candidates, |gone| self.has_room_without(needs, share, gone))
    }

    fn has_room_without(&self, needs: &Needs, share: Share, gone: &BTreeSet<&JobId>) -> bool {
        let mut capacity = self.capacity;
        let (leave, stay): (Vec<_>, Vec<_>) = self.holdings.iter().partition(|(job, _)| gone.contains(job));
        leave.into_iter().for_each(|(_, holding)| capacity.give_back(holding.share));
        let gpus = self.cards.offered(stay.into_iter().map(|(_, holding)| holding));
        capacity.has_room_for(share) && fit(needs, &Offer { gpus, ..self.unreserved() }) == Fit::Now
    }

    /// What is free, for a look at many lanes at once.
    pub(super) fn view(&self) -> View {
        View {
            closed: self.is_closed(),
            offer: self.offer(),
            unreserved: self.unreserved(),
            capacity: self.capacity,
            spare: self.spare_capacity(),
            kept_for: self.reservation.as_ref().map(|kept| kept.needs.priority),
            kept_until: self.plan().map(|plan| plan.start),
        }
    }
}
