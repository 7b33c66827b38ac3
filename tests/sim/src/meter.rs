//! What a fleet asks of its services, and how long its jobs wait: for `sim scale`.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use shared::{
    id::{GpuUuid, JobId, LaneId, NodeId},
    log::{Entry, Event, Next, Outcome},
};

/// Kinds of requests, as clouds price them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// Reading an object.
    Get,
    /// Writing one.
    Put,
    /// Deleting one.
    Delete,
    /// A page of a listing.
    List,
    /// Any request to the queue.
    Queue,
}

impl Ask {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Get, Self::Put, Self::Delete, Self::List, Self::Queue];

    /// In a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::List => "LIST",
            Self::Queue => "queue",
        }
    }

    /// US dollars for a million, at the list prices of us-east-1 on 2026-11-25: S3 Standard
    /// (<https://aws.amazon.com/s3/pricing/>) and SQS standard queues beyond the free first million
    /// (<https://aws.amazon.com/sqs/pricing/>).
    pub fn price(self) -> f64 {
        match self {
            Self::Put | Self::List => 5.0,
            Self::Get | Self::Queue => 0.4,
            Self::Delete => 0.0,
        }
    }
}

/// Whom a request is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum For {
    /// A node: heartbeats, looks at others, lanes and settings, polls that bring nothing.
    Node,
    /// A job.
    Job,
    /// A job's output.
    Output,
}

/// Requests of a stretch of time.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    all: BTreeMap<(For, Ask), u64>,
    /// Of keys and listings that many ask for.
    keys: HashMap<String, u64>,
}

impl Counts {
    /// How many.
    pub fn of(&self, whom: For, ask: Ask) -> u64 {
        self.all.get(&(whom, ask)).copied().unwrap_or_default()
    }

    /// What was asked for most, and how often.
    pub fn hottest(&self) -> (String, u64) {
        let hottest = self.keys.iter().max_by_key(|(key, count)| (**count, std::cmp::Reverse(*key)));
        hottest.map(|(key, count)| (key.clone(), *count)).unwrap_or_default()
    }
}

/// One job's times.
#[derive(Debug, Default)]
struct Seen {
    lane: Option<LaneId>,
    submitted: Duration,
    claimed: Option<Duration>,
    holder: Option<NodeId>,
    gpus: Vec<GpuUuid>,
    /// When the last claim was.
    held_since: Duration,
    /// When its holder died.
    bereaved: Option<Duration>,
    finals: u32,
}

/// A job on a node, from its claim to the end of the attempt.
#[derive(Debug, Clone)]
pub struct Attempted {
    /// The job.
    pub job: JobId,
    /// Where.
    pub node: NodeId,
    /// On which GPUs.
    pub gpus: Vec<GpuUuid>,
    /// Since when.
    pub from: Duration,
    /// Until when.
    pub to: Duration,
    /// How it ended.
    pub outcome: Outcome,
}

/// The meter; one that is off counts nothing.
#[derive(Debug, Default)]
pub struct Meter {
    on: bool,
    counts: Counts,
    by_clients: u64,
    jobs: HashMap<JobId, Seen>,
    finals: usize,
    waits: BTreeMap<LaneId, Vec<Duration>>,
    failovers: Vec<Duration>,
    attempts: Vec<Attempted>,
}

impl Meter {
    /// One that counts.
    pub fn running() -> Self {
        Self { on: true, ..Self::default() }
    }

    /// The requests since this was last called.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// A request to the store. What is asked for again and again by many is remembered by its key; jobs
    /// have their own keys, which only their own node and clients ask for.
    pub fn store(&mut self, ask: Ask, key: &str, by_client: bool) {
        if !self.on {
            return;
        }
        self.by_clients += u64::from(by_client);
        let whom = match key.trim_start_matches("LIST ").split('/').next() {
            Some("jobs") if key.contains("/attempts/") => For::Output,
            Some("jobs" | "index") => For::Job,
            _ => For::Node,
        };
        *self.counts.all.entry((whom, ask)).or_default() += 1;
        if whom != For::Node && ask != Ask::List {
            return;
        }
        match self.counts.keys.get_mut(key) {
            Some(count) => *count += 1,
            None => drop(self.counts.keys.insert(key.to_owned(), 1)),
        }
    }

    /// Requests to the store that clients have made so far.
    pub fn asked_by_clients(&self) -> u64 {
        self.by_clients
    }

    /// A request to the queue.
    pub fn queue(&mut self, whom: For) {
        if self.on {
            *self.counts.all.entry((whom, Ask::Queue)).or_default() += 1;
        }
    }

    /// An object was written.
    pub fn stored(&mut self, now: Duration, key: &str, body: &[u8]) {
        if !self.on {
            return;
        }
        let parts: Vec<&str> = key.split('/').collect();
        let ["jobs", job, "log", _] = parts.as_slice() else { return };
        let (Ok(id), Ok(entry)) = (job.parse::<JobId>(), serde_json::from_slice::<Entry>(body)) else {
            unreachable!("agents write what they can read")
        };
        let seen = self.jobs.entry(id.clone()).or_default();
        match entry.event {
            Event::Submitted(submitted) => (seen.submitted, seen.lane) = (now, Some(submitted.lane)),
            Event::Claimed(claimed) => {
                if seen.claimed.is_none() {
                    seen.claimed = Some(now);
                    let lane = seen.lane.clone().expect("submitted before");
                    self.waits.entry(lane).or_default().push(now - seen.submitted);
                }
                if let Some(died) = seen.bereaved.take() {
                    self.failovers.push(now - died);
                }
                (seen.holder, seen.gpus, seen.held_since) = (Some(claimed.node), claimed.gpus, now);
            }
            Event::Ended(ended) => {
                if let Some(node) = seen.holder.take() {
                    let (gpus, from) = (std::mem::take(&mut seen.gpus), seen.held_since);
                    let outcome = ended.outcome;
                    self.attempts.push(Attempted { job: id, node, gpus, from, to: now, outcome });
                }
                if ended.next == Next::Final {
                    seen.finals += 1;
                    self.finals += 1;
                }
            }
            _ => {}
        }
    }

    /// A node died; its jobs wait for another.
    pub fn died(&mut self, now: Duration, node: &NodeId) {
        let held = self.jobs.values_mut().filter(|seen| seen.holder.as_ref() == Some(node));
        held.for_each(|seen| seen.bereaved = Some(now));
    }

    /// How many jobs have ended for good.
    pub fn finals(&self) -> usize {
        self.finals
    }

    /// Jobs that have not ended just once.
    pub fn wrong(&self) -> usize {
        self.jobs.values().filter(|seen| seen.finals != 1).count()
    }

    /// How long each lane's jobs waited for their first claim.
    pub fn waits(&self) -> &BTreeMap<LaneId, Vec<Duration>> {
        &self.waits
    }

    /// All attempts that have ended.
    pub fn attempts(&self) -> &[Attempted] {
        &self.attempts
    }

    /// How long jobs of dead nodes waited for their next claim.
    pub fn failovers(&self) -> &[Duration] {
        &self.failovers
    }
}
