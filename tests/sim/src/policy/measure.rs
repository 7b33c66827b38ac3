//! What became of the tasks, and how well the GPUs were used.

use std::time::Duration;

use shared::job::Priority;

use super::{
    place::Free,
    workload::{Need, Size, WHOLE, Workload},
};

/// How often it is looked how much is free.
const LOOK: Duration = Duration::from_secs(60);

/// This part of the time is not looked at: the fleet fills.
const WARM: f64 = 0.1;

/// A task on a host.
#[derive(Debug, Clone)]
pub struct Stay {
    /// Which task.
    pub task: usize,
    /// Where.
    pub host: usize,
    /// On which GPUs.
    pub gpus: Vec<usize>,
    /// Since when it held them.
    pub from: Duration,
    /// Until when.
    pub to: Duration,
    /// It ran to its end.
    pub done: bool,
}

/// All stays.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    /// In any order.
    pub stays: Vec<Stay>,
}

/// How well the GPUs were used, as parts of all, while tasks came.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// GPUs on which anything ran.
    pub busy: f64,
    /// What tasks held of GPUs, which they used to their ends.
    pub used: f64,
    /// What tasks held and did not use to their ends.
    pub lost: f64,
    /// Free, and of no use to any task that waits, though some do.
    pub fragmented: f64,
    /// Free, though a task that waits could use it.
    pub missed: f64,
    /// Stays that did not reach their ends.
    pub given_up: usize,
    waits: Vec<(Size, Priority, Duration)>,
}

impl Measured {
    /// Looks at a schedule.
    pub fn of(work: &Workload, schedule: &Schedule) -> Self {
        let (begin, end) = (work.window().mul_f64(WARM), work.window());
        let mut measured = Self { waits: waits(work, schedule), ..Self::default() };
        measured.given_up = schedule.stays.iter().filter(|stay| !stay.done).count();
        let span = (end - begin).as_secs_f64() * work.gpus() as f64;
        for stay in &schedule.stays {
            let seconds = stay.to.min(end).saturating_sub(stay.from.max(begin)).as_secs_f64();
            let part = seconds * work.tasks[stay.task].need.amount() / span;
            *if stay.done { &mut measured.used } else { &mut measured.lost } += part;
        }
        let looks = (end - begin).as_secs() / LOOK.as_secs();
        let mut began: Vec<Duration> = vec![Duration::MAX; work.tasks.len()];
        for stay in &schedule.stays {
            began[stay.task] = began[stay.task].min(stay.from);
        }
        for look in 0..looks {
            measured.look(work, schedule, &began, begin + LOOK * look as u32, 1.0 / looks as f64);
        }
        measured
    }

    fn look(&mut self, work: &Workload, schedule: &Schedule, began: &[Duration], now: Duration, weight: f64) {
        let mut hosts: Vec<Free> = work.hosts.iter().map(Free::of).collect();
        for stay in schedule.stays.iter().filter(|stay| stay.from <= now && now < stay.to) {
            hosts[stay.host].take(&work.tasks[stay.task].need, &stay.gpus);
        }
        let mut waiting: Vec<&Need> = (0..work.tasks.len())
            .filter(|task| work.tasks[*task].arrives <= now && now < began[*task])
            .map(|task| &work.tasks[task].need)
            .collect();
        waiting.sort();
        waiting.dedup();
        let all = (work.gpus() as u32 * WHOLE) as f64;
        for free in &hosts {
            let (busy, _) = free.used();
            self.busy += busy as f64 * f64::from(WHOLE) / all * weight;
            let mut useful: Vec<usize> = waiting.iter().flat_map(|need| free.of_use(need)).collect();
            useful.sort_unstable();
            useful.dedup();
            let useful = free.left_of(useful.into_iter());
            self.missed += f64::from(useful) / all * weight;
            if !waiting.is_empty() {
                self.fragmented += f64::from(free.left() - useful) / all * weight;
            }
        }
    }

    /// Mean wait and the wait that one in twenty exceeds, of the tasks of a size and a priority; of all where
    /// nothing is given. In seconds.
    pub fn waits(&self, size: Option<Size>, priority: Option<Priority>) -> Option<(f64, f64)> {
        let of = |wait: &&(Size, Priority, Duration)| {
            size.is_none_or(|size| size == wait.0) && priority.is_none_or(|priority| priority == wait.1)
        };
        let mut waits: Vec<f64> = self.waits.iter().filter(of).map(|wait| wait.2.as_secs_f64()).collect();
        waits.sort_by(f64::total_cmp);
        let mean = waits.iter().sum::<f64>() / waits.len() as f64;
        let last = waits.len().checked_sub(1)?;
        Some((mean, waits[(last as f64 * 0.95).round() as usize]))
    }
}

/// From submission to the first start.
fn waits(work: &Workload, schedule: &Schedule) -> Vec<(Size, Priority, Duration)> {
    let mut began: Vec<Option<Duration>> = vec![None; work.tasks.len()];
    for stay in &schedule.stays {
        let first = began[stay.task].get_or_insert(stay.from);
        *first = stay.from.min(*first);
    }
    let waited = work.tasks.iter().zip(&began).map(|(task, began)| {
        let began = began.expect("each task ran");
        (task.need.size(), task.priority, began.saturating_sub(task.arrives))
    });
    waited.collect()
}
