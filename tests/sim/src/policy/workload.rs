//! What a fleet is given to do: hosts, tasks, and when each comes.

use std::{collections::BTreeMap, time::Duration};

use shared::job::Priority;

/// Thousandths: of a GPU, or of a CPU.
pub type Milli = u32;

/// All of a GPU.
pub const WHOLE: Milli = 1000;

/// A kind of host.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    /// The model of its GPUs.
    pub model: String,
    /// How many it has.
    pub gpus: usize,
    /// Its CPUs.
    pub cpus: Milli,
    /// Its memory, in MiB.
    pub memory: u32,
}

/// What a task needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// GPUs; a share is of one.
    pub gpus: usize,
    /// So much of each.
    pub milli: Milli,
    /// Of any of these models; of any at all where empty.
    pub models: Vec<String>,
    /// CPUs.
    pub cpus: Milli,
    /// Memory, in MiB.
    pub memory: u32,
}

impl Need {
    /// How much of GPUs in all.
    pub fn amount(&self) -> f64 {
        self.gpus as f64 * f64::from(self.milli) / f64::from(WHOLE)
    }

    /// Whether a host serves it when nothing else runs there.
    pub fn fits_empty(&self, host: &Host) -> bool {
        let model = self.gpus == 0 || self.models.is_empty() || self.models.contains(&host.model);
        model && self.gpus <= host.gpus && self.cpus <= host.cpus && self.memory <= host.memory
    }

    /// In which row of the table it is.
    pub fn size(&self) -> Size {
        match (self.gpus, self.milli) {
            (0, _) => Size::Cpu,
            (1, WHOLE) => Size::One,
            (1, _) => Size::Share,
            _ => Size::Several,
        }
    }
}

/// How much of GPUs a task needs, roughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// None.
    Cpu,
    /// A part of one.
    Share,
    /// One.
    One,
    /// Two to eight.
    Several,
}

impl Size {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cpu, Self::Share, Self::One, Self::Several];

    /// In a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "no GPU",
            Self::Share => "a share",
            Self::One => "1 GPU",
            Self::Several => "2 to 8 GPUs",
        }
    }
}

/// One task.
#[derive(Debug, Clone)]
pub struct Task {
    /// What it needs.
    pub need: Need,
    /// How urgent it is.
    pub priority: Priority,
    /// When it is submitted, from the beginning.
    pub arrives: Duration,
    /// How long it runs.
    pub runs: Duration,
    /// How long its user says that it runs at most.
    pub at_most: Duration,
}

/// Hosts and tasks.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The tasks, by arrival.
    pub tasks: Vec<Task>,
}

impl Workload {
    /// All GPUs.
    pub fn gpus(&self) -> usize {
        self.hosts.iter().map(|host| host.gpus).sum()
    }

    /// GPU-seconds that the tasks need.
    pub fn demand(&self) -> f64 {
        self.tasks.iter().map(|task| task.need.amount() * task.runs.as_secs_f64()).sum()
    }

    /// Until when tasks come.
    pub fn window(&self) -> Duration {
        self.tasks.last().map_or(Duration::ZERO, |task| task.arrives)
    }

    /// With so many GPUs or a few more: of each kind of host as large a part as of the others, rounded to the
    /// nearest, and at least one host for each task.
    pub fn cut(mut self, gpus: usize) -> Self {
        let part = gpus as f64 / self.gpus() as f64;
        let mut kinds: BTreeMap<Host, usize> = BTreeMap::new();
        self.hosts.into_iter().for_each(|host| *kinds.entry(host).or_default() += 1);
        let mut left: Vec<(Host, usize)> =
            kinds.into_iter().map(|(host, count)| (host, (count as f64 * part).round() as usize)).collect();
        for task in &self.tasks {
            let served = left.iter().any(|(host, count)| *count > 0 && task.need.fits_empty(host));
            if !served && let Some(kind) = left.iter_mut().find(|(host, _)| task.need.fits_empty(host)) {
                kind.1 = 1;
            }
        }
        self.hosts = left.into_iter().flat_map(|(host, count)| vec![host; count]).collect();
        // What nobody could ever run is not a scheduler's matter.
        self.tasks.retain(|task| self.hosts.iter().any(|host| task.need.fits_empty(host)));
        self
    }

    /// With arrivals so much closer or further apart that the tasks need this part of all GPUs until the last
    /// one comes.
    pub fn at_load(mut self, load: f64) -> Self {
        let first = self.tasks.first().map_or(Duration::ZERO, |task| task.arrives);
        let wanted = self.demand() / (load * self.gpus() as f64);
        let pace = wanted / (self.window() - first).as_secs_f64();
        for task in &mut self.tasks {
            task.arrives = (task.arrives - first).mul_f64(pace);
        }
        self
    }
}
