//! What the engine did, event by event, and what must hold of it at every moment: no two containers
//! of one job run at once, unless all but one are frozen, and no GPU is in two containers.
//!
//! An event's time is when the engine had done it, so a start is a little earlier than its event and
//! so is a pause. [`Timeline::closest`] says how far apart they were.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was made, and does not run yet.
    Create,
    /// It runs.
    Start,
    /// It is frozen.
    Pause,
    /// It runs again.
    Unpause,
    /// SIGKILL was sent: it does nothing any more, frozen or not.
    Kill,
    /// It has ended.
    Die,
    /// It is gone.
    Destroy,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds since 1970.
    pub at: u64,
    /// The engine's id of the container.
    pub container: String,
    /// By the container's labels.
    pub job: String,
    /// By the container's labels.
    pub attempt: String,
    /// By the container's labels.
    pub node: String,
    /// By the container's labels.
    pub gpus: Vec<String>,
    /// What happened.
    pub change: Change,
}

/// The events of a fleet's containers, in the engine's order.
#[derive(Debug, Clone, Default)]
pub struct Timeline(Vec<Event>);

impl Event {
    /// From the JSON of `docker events`; `None` for what is not of interest, or of no job.
    fn read(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line).ok()?;
        let label = |name: &str| event["Actor"]["Attributes"][name].as_str().map(str::to_owned);
        let change = match event["Action"].as_str()? {
            "create" => Change::Create,
            "start" => Change::Start,
            "pause" => Change::Pause,
            "unpause" => Change::Unpause,
            "kill" if label("signal").as_deref() == Some("9") => Change::Kill,
            "die" => Change::Die,
            "destroy" => Change::Destroy,
            _ => return None,
        };
        let gpus = label("haul.gpus").unwrap_or_default();
        Some(Self {
            at: event["timeNano"].as_u64()?,
            container: event["Actor"]["ID"].as_str()?.to_owned(),
            job: label("haul.job")?,
            attempt: label("haul.attempt")?,
            node: label("haul.node")?,
            gpus: gpus.split(',').filter(|gpu| !gpu.is_empty()).map(str::to_owned).collect(),
            change,
        })
    }

    fn says(&self) -> String {
        format!("{} of {} on {} ({:?} at {})", self.attempt, self.job, self.node, self.change, self.at)
    }
}

impl Timeline {
    /// From what `docker events --format '{{json .}}'` prints; a last line may be half there.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(Event::read).collect())
    }

    /// From events.
    pub fn new(events: Vec<Event>) -> Self {
        Self(events)
    }

    /// The events.
    pub fn events(&self) -> &[Event] {
        &self.0
    }

    /// How often this happened on a node.
    pub fn count(&self, node: &str, change: Change) -> usize {
        self.0.iter().filter(|event| event.node == node && event.change == change).count()
    }

    /// The jobs that run on a node, frozen ones left out.
    pub fn running_on(&self, node: &str) -> BTreeSet<String> {
        let mut running = BTreeSet::new();
        for event in self.0.iter().filter(|event| event.node == node) {
            match event.change {
                Change::Start | Change::Unpause => running.insert(event.job.clone()),
                Change::Create => false,
                Change::Pause | Change::Kill | Change::Die | Change::Destroy => running.remove(&event.job),
            };
        }
        running
    }

    /// Whether a job was ever started.
    pub fn has_started(&self, job: &str) -> bool {
        self.0.iter().any(|event| event.job == job && event.change == Change::Start)
    }

    /// What must never be: two unfrozen containers of a job, one GPU in two containers, a second
    /// container of one attempt that was started, and a container that was not seen from its beginning,
    /// since nothing can be said of it.
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let (mut made, mut killed) = (BTreeSet::new(), BTreeSet::new());
        // The containers that run by job, and those that hold a GPU, frozen or not.
        let mut running: BTreeMap<&str, BTreeMap<&str, &Event>> = BTreeMap::new();
        let mut holding: BTreeMap<&str, &Event> = BTreeMap::new();
        let mut started: BTreeMap<(&str, &str), &str> = BTreeMap::new();
        for event in &self.0 {
            let id = event.container.as_str();
            if event.change == Change::Create {
                made.insert(id);
                continue;
            }
            if !made.contains(id) {
                broken.push(format!("not seen from its beginning: {}", event.says()));
            }
            let of_job = running.entry(&event.job).or_default();
            match event.change {
                Change::Create => {}
                Change::Start | Change::Unpause => {
                    // What was killed while it was frozen is thawed to die.
                    if killed.contains(id) {
                        continue;
                    }
                    let others = of_job.values().map(|other| format!("; {}", other.says()));
                    let others: String = others.collect();
                    if !others.is_empty() {
                        broken.push(format!("two run at once: {}{others}", event.says()));
                    }
                    of_job.insert(id, event);
                    if event.change == Change::Start {
                        let first = *started.entry((&event.job, &event.attempt)).or_insert(id);
                        if first != id {
                            broken.push(format!("an attempt was started twice: {}", event.says()));
                        }
                        for gpu in &event.gpus {
                            if let Some(other) = holding.insert(gpu, event) {
                                broken.push(format!("{gpu} twice: {}; {}", event.says(), other.says()));
                            }
                        }
                    }
                }
                Change::Pause => {
                    of_job.remove(id);
                }
                Change::Kill | Change::Die | Change::Destroy => {
                    killed.insert(id);
                    of_job.remove(id);
                    if event.change != Change::Kill {
                        holding.retain(|_, holder| holder.container != id);
                    }
                }
            }
        }
        broken
    }

    /// The least time, in seconds, from the moment when a job's container had been frozen or had ended
    /// to the start of its next one; none where no job had two.
    pub fn closest(&self) -> Option<f64> {
        let mut stopped: BTreeMap<&str, u64> = BTreeMap::new();
        let mut closest = None::<u64>;
        for event in &self.0 {
            match event.change {
                Change::Pause | Change::Die => {
                    stopped.insert(&event.job, event.at);
                }
                Change::Start => {
                    let gap = stopped.get(event.job.as_str()).map(|at| event.at.saturating_sub(*at));
                    closest = closest.into_iter().chain(gap).min();
                }
                Change::Create | Change::Unpause | Change::Kill | Change::Destroy => {}
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
        closest.map(|nanoseconds| nanoseconds as f64 / 1e9)
    }
}
