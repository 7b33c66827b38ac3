//! One scheduler that sees everything at once, at no cost: what haul is compared with.

use std::{collections::BTreeSet, time::Duration};

use super::{
    measure::{Schedule, Stay},
    place::{Choice, Free, Mix, Place, place},
    workload::{Need, Task, Workload},
};

/// Which of the waiting goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Who came first; the others wait while it does not fit.
    Fifo,
    /// Whatever fits, the largest first.
    Largest,
    /// Who came first; it is given the earliest place where it will fit, and others may go before it where
    /// that does not put it off (EASY backfill; Lifka, "The ANL/IBM SP Scheduling System", 1995).
    Easy,
}

/// How it schedules. Priorities go before all else.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// In the table.
    pub name: &'static str,
    /// Who goes first.
    pub order: Order,
    /// And where to.
    pub choice: Choice,
}

/// What haul is compared with.
pub const POLICIES: [Policy; 4] = [
    Policy { name: "FIFO, first fit", order: Order::Fifo, choice: Choice::FirstFit },
    Policy { name: "largest first, no reservation", order: Order::Largest, choice: Choice::BestFit },
    Policy { name: "central EASY, best fit", order: Order::Easy, choice: Choice::BestFit },
    Policy { name: "central EASY, fragmentation gradient", order: Order::Easy, choice: Choice::Gradient },
];

struct Running {
    task: usize,
    place: Place,
    from: Duration,
    ends: Duration,
    /// When its user says that it ends at the latest.
    at_most: Duration,
}

struct Central<'w> {
    tasks: &'w [Task],
    policy: Policy,
    hosts: Vec<Free>,
    mix: Mix,
    waiting: Vec<usize>,
    running: Vec<Running>,
    now: Duration,
}

/// Where and when the first of the waiting will start, and what that host has besides by then.
struct Promise {
    host: usize,
    at: Duration,
    spare: Free,
}

/// Runs the tasks to their ends.
pub fn run(work: &Workload, policy: Policy) -> Schedule {
    let hosts = work.hosts.iter().map(Free::of).collect();
    let mut central = Central {
        tasks: &work.tasks,
        policy,
        hosts,
        mix: mix(&work.tasks),
        waiting: Vec::new(),
        running: Vec::new(),
        now: Duration::ZERO,
    };
    let mut stays = Vec::new();
    let mut coming = (0..work.tasks.len()).peekable();
    loop {
        let arrives = coming.peek().map(|task| work.tasks[*task].arrives);
        let ends = central.running.iter().map(|running| running.ends).min();
        let Some(now) = arrives.into_iter().chain(ends).min() else { break };
        central.now = now;
        let ended = |running: &mut Running| running.ends <= now;
        for over in central.running.extract_if(.., ended).collect::<Vec<_>>() {
            let need = &work.tasks[over.task].need;
            central.hosts[over.place.host].give_back(need, &over.place.gpus);
            let Place { host, gpus } = over.place;
            stays.push(Stay { task: over.task, host, gpus, from: over.from, to: over.ends, done: true });
        }
        while let Some(task) = coming.next_if(|task| work.tasks[*task].arrives <= now) {
            central.waiting.push(task);
        }
        central.pass();
    }
    assert!(central.waiting.is_empty(), "each task fits an empty host");
    Schedule { stays }
}

/// The kinds of tasks that want GPUs, by how often they come.
fn mix(tasks: &[Task]) -> Mix {
    let mut kinds = std::collections::BTreeMap::<&Need, f64>::new();
    for task in tasks.iter().filter(|task| task.need.gpus > 0) {
        *kinds.entry(&task.need).or_default() += 1.0;
    }
    let all: f64 = kinds.values().sum();
    kinds.into_iter().map(|(need, count)| (need.clone(), count / all)).collect()
}

impl Central<'_> {
    /// Starts what can start.
    fn pass(&mut self) {
        let tasks = self.tasks;
        self.waiting.sort_by_key(|at| {
            let task = &tasks[*at];
            let size = match self.policy.order {
                Order::Largest => (task.need.gpus, task.need.milli),
                Order::Fifo | Order::Easy => (0, 0),
            };
            (std::cmp::Reverse((task.priority, size)), task.arrives, *at)
        });
        let mut promise: Option<Promise> = None;
        // What did not fit before does not fit now, since nothing ends meanwhile. Of two of one kind the one
        // that ends earlier may be let in where the other is not.
        let mut misfits: BTreeSet<&Need> = BTreeSet::new();
        let mut blocked = false;
        for task in std::mem::take(&mut self.waiting) {
            if blocked {
                self.waiting.push(task);
                continue;
            }
            let need = &tasks[task].need;
            let ends = self.now + tasks[task].at_most;
            let allowed = |place: &Place| {
                let Some(promise) = promise.as_ref().filter(|promise| promise.host == place.host) else {
                    return true;
                };
                ends <= promise.at || promise.spare.fits_on(need, &place.gpus)
            };
            let found = (!misfits.contains(need))
                .then(|| place(&self.hosts, need, self.policy.choice, &self.mix, allowed))
                .flatten();
            if let Some(place) = found {
                if let Some(promise) =
                    promise.as_mut().filter(|promise| promise.host == place.host && ends > promise.at)
                {
                    promise.spare.take(need, &place.gpus);
                }
                self.start(task, place);
                continue;
            }
            self.waiting.push(task);
            if !self.hosts.iter().any(|free| free.fits(need)) {
                misfits.insert(need);
            }
            match self.policy.order {
                Order::Fifo => blocked = true,
                Order::Easy if promise.is_none() => promise = Some(self.promise(need)),
                Order::Largest | Order::Easy => {}
            }
        }
    }

    fn start(&mut self, task: usize, place: Place) {
        let of = &self.tasks[task];
        self.hosts[place.host].take(&of.need, &place.gpus);
        let (from, ends, at_most) = (self.now, self.now + of.runs, self.now + of.at_most);
        self.running.push(Running { task, place, from, ends, at_most });
    }

    /// The earliest time and place for a task, if all that runs takes as long as it may.
    fn promise(&self, need: &Need) -> Promise {
        let promises = (0..self.hosts.len()).filter_map(|host| {
            let mut free = self.hosts[host].clone();
            let mut at = self.now;
            let mut here: Vec<&Running> =
                self.running.iter().filter(|running| running.place.host == host).collect();
            here.sort_by_key(|running| running.at_most);
            let mut here = here.into_iter();
            while !free.fits(need) {
                let next = here.next()?;
                free.give_back(&self.tasks[next.task].need, &next.place.gpus);
                at = next.at_most;
            }
            Some(Promise { host, at, spare: free })
        });
        let mut first = promises.min_by_key(|promise| promise.at).expect("each task fits an empty host");
        let hosts = std::slice::from_ref(&first.spare);
        let own = place(hosts, need, self.policy.choice, &self.mix, |_| true).expect("it fits by then");
        first.spare.take(need, &own.gpus);
        first
    }
}
