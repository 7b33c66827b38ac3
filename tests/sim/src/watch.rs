//! Whoever sees everything: each entry of each log, each marker, each container of each host, as
//! it happens, and says at once when an invariant is broken.
//!
//! The invariants are those of haul's design: (1) every submitted job ends exactly once; (2) at no
//! time do two unfrozen containers of one job run; (3) a GPU is never given out twice; (4) output
//! in the store is the container's output, in order, once; (5) no container outlives its claim
//! without an owner; (6) what is acknowledged survives. What can only be seen at the end is checked
//! in [`crate::rest`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    time::Duration,
};

use agent::{engine::Frame, execute::Owner};
use shared::{
    id::{Attempt, GpuUuid, Incarnation, JobId, NodeId},
    log::{Author, Claim, Claimed, Entry, Event, Job, Phase},
    message::Message,
};

use crate::{
    toxics::{Peer, Toxic},
    world::World,
};

/// How long agents and guards may need once their engines answer again: one answer may be awaited for
/// half a minute.
const ENGINES_CALM: Duration = Duration::from_secs(60);

/// One container, by host and name.
type Place = (String, String);

/// A job as its log and its markers have it.
#[derive(Debug, Default)]
pub struct Seen {
    /// The fold of its log.
    pub job: Option<Job>,
    /// The keys of its markers.
    pub markers: BTreeSet<String>,
    /// A client was told that it is submitted.
    pub acknowledged: bool,
}

/// How a container ended.
#[derive(Debug, Clone)]
pub struct Over {
    /// Its exit code.
    pub code: i64,
    /// All that it printed.
    pub frames: Vec<Frame>,
}

/// A container that runs or is frozen.
#[derive(Debug, Clone)]
struct Alive {
    job: JobId,
    attempt: Attempt,
    gpus: Vec<GpuUuid>,
    frozen: bool,
    ownerless_since: Option<Duration>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Watch {
    /// All jobs.
    pub jobs: BTreeMap<JobId, Seen>,
    /// How the container of each attempt ended.
    pub over: BTreeMap<(JobId, Attempt), Over>,
    alive: BTreeMap<Place, Alive>,
    started: BTreeSet<(JobId, Attempt)>,
    given: BTreeMap<GpuUuid, JobId>,
    /// The run of each node's agent that began last.
    runs: BTreeMap<NodeId, Incarnation>,
    still: BTreeSet<String>,
    /// Hosts that stood still, whose agents cannot know yet; until when.
    excused: BTreeMap<String, Duration>,
    /// Hosts whose engine did not do what the guard last asked of it.
    unguarded: BTreeSet<String>,
    /// When an engine was last out of order.
    engines_troubled: Duration,
    /// Sees nothing.
    blind: bool,
    broken: Option<String>,
}

impl Watch {
    /// One that sees nothing, for runs of which only the cost is wanted.
    pub fn blind() -> Self {
        Self { blind: true, ..Self::default() }
    }

    /// What was broken first.
    pub fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Notes that an invariant is broken.
    pub fn breaks(&mut self, world: &World, what: impl Display) {
        if !world.is_over() && self.broken.is_none() {
            world.note("BROKEN", &what);
            self.broken = Some(what.to_string());
        }
    }

    /// An agent starts.
    pub fn begins(&mut self, node: NodeId, run: Incarnation) {
        self.runs.insert(node, run);
    }

    /// An object was written.
    pub fn stored(&mut self, world: &World, key: &str, body: &[u8]) {
        if self.blind {
            return;
        }
        let parts: Vec<&str> = key.split('/').collect();
        match parts.as_slice() {
            ["jobs", job, "log", _] => self.logged(world, job, body),
            ["index", .., job] => {
                let Some(id) = marked(job) else { return };
                self.jobs.entry(id).or_default().markers.insert(key.to_owned());
            }
            _ => {}
        }
    }

    /// The node that holds the job in whose log this key is.
    pub fn holder(&self, key: &str) -> Option<String> {
        let mut parts = key.split('/');
        let (Some("jobs"), Some(job), Some("log")) = (parts.next(), parts.next(), parts.next()) else {
            return None;
        };
        let seen = self.jobs.get(&job.parse().ok()?)?;
        Some(seen.job.as_ref()?.held()?.node.to_string())
    }

    /// An object was deleted.
    pub fn deleted(&mut self, world: &World, key: &str) {
        if self.blind {
            return;
        }
        let Some(("index", job)) =
            key.split_once('/').and_then(|(top, rest)| Some((top, rest.rsplit('/').next()?)))
        else {
            return;
        };
        let Some(id) = marked(job) else { return };
        let seen = self.jobs.entry(id.clone()).or_default();
        seen.markers.remove(key);
        if seen.markers.is_empty() && seen.job.is_some() {
            self.breaks(world, format_args!("(6) job {id} is on no shelf once {key} is deleted"));
        }
    }

    /// An agent deleted the last copy of a message.
    pub fn message_deleted(&mut self, world: &World, body: &str) {
        let Ok(message) = Message::read(body) else { return };
        let Some(seen) = self.jobs.get(&message.job) else { return };
        // Seen twice by its claimant, who is about to write the claim.
        let claimed = seen.markers.iter().any(|key| key.starts_with("index/held/"));
        let waits =
            seen.job.as_ref().is_some_and(|job| job.next == message.seq && job.phase() == Phase::Queued);
        if waits && !claimed {
            let id = &message.job;
            self.breaks(world, format_args!("(6) the message of {id} is deleted while the job waits"));
        }
    }

    fn logged(&mut self, world: &World, job: &str, body: &[u8]) {
        let (Ok(id), Ok(entry)) = (job.parse::<JobId>(), serde_json::from_slice::<Entry>(body)) else {
            return self.breaks(world, format_args!("an entry of job {job} is none"));
        };
        world.note("log", format_args!("{id} {} {} by {}", entry.seq, entry.event.name(), entry.author));
        let seen = self.jobs.entry(id.clone()).or_default();
        let unmarked = seen.markers.is_empty();
        let before = seen.job.as_ref().and_then(Job::held).cloned();
        let folded = match &mut seen.job {
            Some(job) => job.apply(&entry).err(),
            none => match Job::begin(id.clone(), &entry) {
                Ok(job) => {
                    *none = Some(job);
                    None
                }
                Err(error) => Some(error),
            },
        };
        let held = seen.job.as_ref().is_some_and(|job| job.held().is_some());
        if let Some(error) = folded {
            self.breaks(world, format_args!("(1) {error}"));
        }
        if unmarked {
            self.breaks(world, format_args!("(6) job {id} has a log and is on no shelf"));
        }
        if let Some(claim) = before.filter(|_| !held) {
            self.given.retain(|_, holder| *holder != id);
            if !matches!(&entry.author, Author::Node { name, .. } if *name == claim.node) {
                self.taken_from(world, &id, &claim);
            }
        }
        // A claim of an agent that has crashed since is begun by nobody, and the sweep ends it; or the agent's next run
        // does, where it finds it at its start.
        if let Event::Claimed(claimed) = &entry.event
            && self.runs.get(&claimed.node) == Some(&claimed.incarnation)
        {
            for gpu in &claimed.gpus {
                let other = self.given.insert(gpu.clone(), id.clone());
                if let Some(other) = other.filter(|other| !self.is_late(other, claimed)) {
                    let node = &claimed.node;
                    self.breaks(world, format_args!("(3) {node} gives {gpu} to {id}; {other} has it"));
                }
            }
        }
    }

    /// Whether a job's claim is of an earlier run of the agent that claims now, and came after that had
    /// looked what it holds.
    fn is_late(&self, job: &JobId, claimed: &Claimed) -> bool {
        let claim = self.jobs.get(job).and_then(|seen| seen.job.as_ref()).and_then(Job::held);
        claim.is_some_and(|claim| claim.incarnation != claimed.incarnation && claim.started.is_none())
    }

    /// A claim was ended by another than its node: whoever may run the job next finds no copy running.
    fn taken_from(&mut self, world: &World, id: &JobId, claim: &Claim) {
        let host = claim.node.as_str();
        let mut here = self.alive.iter().filter(|((on, _), _)| on == host).map(|(_, alive)| alive);
        let runs = here.any(|alive| alive.job == *id && alive.attempt == claim.attempt && !alive.frozen);
        // An engine that is out of order cannot freeze; its containers are seen when a copy starts.
        let calm = world.elapsed().saturating_sub(self.engines_troubled) > ENGINES_CALM;
        let can_freeze = world.toxics().of(Peer::Engine) == Toxic::default() && calm;
        if runs && can_freeze && !self.is_excused(world, host) {
            self.breaks(world, format_args!("(2) {id} is taken from {host}, where it is not frozen"));
        }
    }

    /// Whether the host cannot know what happened meanwhile, or its engine does not freeze.
    fn is_excused(&self, world: &World, host: &str) -> bool {
        let excused = self.excused.get(host).is_some_and(|until| world.elapsed() < *until);
        excused || self.still.contains(host) || self.unguarded.contains(host)
    }

    /// A container was started.
    pub fn started(&mut self, world: &World, host: &str, name: &str, owner: &Owner) {
        if self.blind {
            return;
        }
        let (job, attempt) = (owner.job.clone(), owner.attempt);
        if !self.started.insert((job, attempt)) {
            self.breaks(world, format_args!("(2) {host} starts {name}, which was started before"));
        }
    }

    /// A container runs from now on.
    pub fn runs(&mut self, world: &World, host: &str, name: &str, owner: &Owner) {
        if self.blind {
            return;
        }
        let alive = Alive {
            job: owner.job.clone(),
            attempt: owner.attempt,
            gpus: owner.holding.gpus.clone(),
            frozen: false,
            ownerless_since: None,
        };
        let place = (host.to_owned(), name.to_owned());
        for ((on, other), found) in &self.alive {
            let shared = found.gpus.iter().find(|gpu| alive.gpus.contains(gpu));
            if let Some(gpu) = shared.filter(|_| on == host && other != name) {
                let what = format!("(3) on {host} {name} runs with {gpu}, which {other} has");
                self.breaks(world, what);
                break;
            }
        }
        self.alive.insert(place, alive);
        self.check_doubles(world);
    }

    /// A container is frozen.
    pub fn froze(&mut self, host: &str, name: &str) {
        if let Some(alive) = self.alive.get_mut(&(host.to_owned(), name.to_owned())) {
            alive.frozen = true;
        }
    }

    /// A container has ended.
    pub fn ended(&mut self, host: &str, name: &str, code: i64, frames: &[Frame]) {
        if let Some(alive) = self.alive.remove(&(host.to_owned(), name.to_owned())) {
            self.over.insert((alive.job, alive.attempt), Over { code, frames: frames.to_vec() });
        }
    }

    /// A host is gone for ever, with its containers.
    pub fn died(&mut self, host: &str) {
        self.alive.retain(|(on, _), _| on != host);
    }

    /// A host stands still, or moves again; its clocks did not go on, so for as long as `excuse`
    /// its agent cannot know what happened meanwhile.
    pub fn stands_still(&mut self, world: &World, host: &str, still: bool, excuse: Duration) {
        if still {
            self.still.insert(host.to_owned());
        } else {
            self.still.remove(host);
            self.excused.insert(host.to_owned(), world.elapsed() + excuse);
        }
    }

    /// A host's agent was stopped between making sure of a job and acting for it, perhaps; its guard
    /// needs a moment then.
    pub fn excuse(&mut self, world: &World, host: &str, time: Duration) {
        self.excused.insert(host.to_owned(), world.elapsed() + time);
    }

    /// What became of a guard's last look.
    pub fn guarded(&mut self, host: &str, done: bool) {
        if done {
            self.unguarded.remove(host)
        } else {
            self.unguarded.insert(host.to_owned())
        };
    }

    /// An engine was out of order until now.
    pub fn engine_troubled(&mut self, world: &World) {
        self.engines_troubled = world.elapsed();
    }

    /// Whether any job has two unfrozen containers.
    pub fn check_doubles(&mut self, world: &World) {
        let mut runs: BTreeMap<&JobId, &Place> = BTreeMap::new();
        for (place, alive) in self.alive.iter().filter(|(_, alive)| !alive.frozen) {
            if self.is_excused(world, &place.0) {
                continue;
            }
            if let Some(other) = runs.insert(&alive.job, place) {
                let what = format!("(2) {} runs on {} and on {}", alive.job, other.0, place.0);
                return self.breaks(world, what);
            }
        }
    }

    /// Whether a container has been without an owner for too long; `calm` says since when nothing
    /// was done to a host.
    pub fn check_owners(&mut self, world: &World, bound: Duration, calm: impl Fn(&str) -> Duration) {
        let now = world.elapsed();
        let mut broken = None;
        for ((host, name), alive) in &mut self.alive {
            let job = self.jobs.get(&alive.job).and_then(|seen| seen.job.as_ref());
            let node = host.parse().expect("a node's name");
            if job.is_some_and(|job| job.is_held_by(&node, alive.attempt)) {
                alive.ownerless_since = None;
                continue;
            }
            let since = (*alive.ownerless_since.get_or_insert(now)).max(calm(host));
            if now.saturating_sub(since) > bound {
                broken = Some(format!("(5) {name} on {host} has no owner since {since:?}"));
            }
        }
        if let Some(what) = broken {
            self.breaks(world, what);
        }
    }
}

/// The job of a marker, by the last part of its key.
fn marked(name: &str) -> Option<JobId> {
    name.rsplit_once('.')?.0.parse().ok()
}
