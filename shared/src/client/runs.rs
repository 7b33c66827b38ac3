//! What attempts used and cost, and how kinds of hosts compare.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use super::{Client, ClientError, Filter};
use crate::{
    id::{JobId, NodeId, Team, Timestamp},
    log::{Entry, Event, Job, LogError, Outcome, Usage},
};

/// How many logs are read at once.
const PARALLEL: usize = 32;

/// An attempt that has ended and whose container ran.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// The job.
    pub job: JobId,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub team: Team,
    /// Where it ran.
    pub node: NodeId,
    /// How it ended.
    pub outcome: Outcome,
    /// When the end was written.
    pub ended_at: Timestamp,
    /// How long its container ran, in seconds; where its node was lost, until the loss was written.
    pub seconds: f64,
    /// What it used, where its node saw its end.
    pub usage: Option<Usage>,
}

/// By what costs are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// By job.
    Job,
    /// By team.
    Team,
    /// By node.
    Node,
    /// By the model of the GPUs.
    Model,
    /// By who is paid.
    Provider,
}

/// What some attempts used and cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Bill {
    /// What they have in common.
    pub of: String,
    /// How many.
    pub attempts: usize,
    /// GPUs times hours.
    pub gpu_hours: f64,
    /// How busy their GPUs were, in percent, as far as it was measured: the mean over GPU time.
    pub busy: Option<f64>,
    /// What the GPUs drew, in watt hours, as far as it was measured.
    pub energy: Option<f64>,
    /// What they cost, by currency.
    pub cost: BTreeMap<String, f64>,
    /// How many of them ran on hosts whose price is not known.
    pub unpriced: usize,
}

/// How the same program did on one kind of host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kind {
    /// The model of its GPUs, or `CPU`.
    pub model: String,
    /// How many attempts went well.
    pub runs: usize,
    /// How long one took, in seconds: the mean, the shortest and the longest.
    pub seconds: Spread,
    /// What one cost, by currency: the mean of those whose price is known.
    pub cost: BTreeMap<String, f64>,
    /// How busy its GPUs were, in percent, as far as it was measured.
    pub busy: Option<f64>,
}

/// Several values of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Client {
    /// The attempts of these jobs that have ended since then.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn runs(&self, filter: &Filter, since: Option<Timestamp>) -> Result<Vec<Run>, ClientError> {
        let ids = self.ids(filter).await?;
        let logs: Vec<Vec<Run>> =
            stream::iter(ids).map(|id| self.runs_of(id, since)).buffered(PARALLEL).try_collect().await?;
        Ok(logs.into_iter().flatten().collect())
    }

    /// The attempts of this job that have ended since then.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn runs_of(&self, id: JobId, since: Option<Timestamp>) -> Result<Vec<Run>, ClientError> {
        let entries = self.log.entries(&id).await?;
        let job = Job::fold(id, &entries).map_err(LogError::from)?;
        let runs = job.map(|job| of_log(&job, &entries)).unwrap_or_default();
        Ok(runs.into_iter().filter(|run| since.is_none_or(|since| run.ended_at >= since)).collect())
    }
}

/// The attempts of a log.
fn of_log(job: &Job, entries: &[Entry]) -> Vec<Run> {
    let mut node = None;
    let mut runs = Vec::new();
    for entry in entries {
        match &entry.event {
            Event::Claimed(claimed) => node = Some(claimed.node.clone()),
            Event::Ended(ended) => {
                let (Some(node), Some(started)) = (node.take(), ended.started_at) else { continue };
                let finished = ended.finished_at.unwrap_or(entry.at);
                runs.push(Run {
                    job: job.id.clone(),
                    name: job.spec.display_name().to_owned(),
                    team: job.spec.team.clone(),
                    node,
                    outcome: ended.outcome,
                    ended_at: entry.at,
                    seconds: (finished - started).as_seconds_f64().max(0.0),
                    usage: ended.usage.as_deref().cloned(),
                });
            }
            _ => {}
        }
    }
    runs
}

/// What these cost, summed so, the dearest first.
pub fn bills(runs: &[Run], by: By) -> Vec<Bill> {
    let mut groups: BTreeMap<String, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        groups.entry(by.of(run)).or_default().push(run);
    }
    let mut bills: Vec<Bill> = groups.into_iter().map(|(of, runs)| bill(of, &runs)).collect();
    bills.sort_by(|a, b| total(&b.cost).total_cmp(&total(&a.cost)).then(b.gpu_hours.total_cmp(&a.gpu_hours)));
    bills
}

/// What these cost together.
pub fn bill(of: String, runs: &[&Run]) -> Bill {
    let mut bill = Bill { of, attempts: runs.len(), ..Bill::default() };
    for run in runs {
        let usage = run.usage.as_ref();
        bill.gpu_hours += usage.map_or(0.0, |usage| usage.gpu_seconds) / 3600.0;
        match usage.and_then(|usage| usage.cost.as_ref()) {
            Some(cost) => *bill.cost.entry(cost.currency.clone()).or_default() += cost.amount,
            None => bill.unpriced += 1,
        }
        if let Some(joules) = usage.and_then(|usage| usage.gpu.as_ref()?.energy) {
            *bill.energy.get_or_insert_default() += joules / 3600.0;
        }
    }
    bill.busy = busy(runs);
    bill
}

/// How the kinds of hosts compare on which these went well: those of one currency by what a run costs, the
/// cheapest first; without prices, or where currencies differ, the fastest first.
pub fn compare(runs: &[Run]) -> Vec<Kind> {
    let mut groups: BTreeMap<String, Vec<&Run>> = BTreeMap::new();
    for run in runs.iter().filter(|run| run.outcome == Outcome::Succeeded) {
        groups.entry(By::Model.of(run)).or_default().push(run);
    }
    let mut kinds: Vec<Kind> = groups.into_iter().map(|(model, runs)| kind(model, &runs)).collect();
    let currencies: BTreeSet<&String> = kinds.iter().flat_map(|kind| kind.cost.keys()).collect();
    let comparable = currencies.len() == 1 && kinds.iter().all(|kind| !kind.cost.is_empty());
    let key = |kind: &Kind| if comparable { total(&kind.cost) } else { kind.seconds.mean };
    kinds.sort_by(|a, b| key(a).total_cmp(&key(b)));
    kinds
}

fn kind(model: String, runs: &[&Run]) -> Kind {
    let seconds: Vec<f64> = runs.iter().map(|run| run.seconds).collect();
    let mut costs: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for cost in runs.iter().filter_map(|run| run.usage.as_ref()?.cost.as_ref()) {
        costs.entry(cost.currency.clone()).or_default().push(cost.amount);
    }
    Kind {
        model,
        runs: runs.len(),
        seconds: Spread {
            mean: mean(&seconds),
            min: seconds.iter().copied().fold(f64::INFINITY, f64::min),
            max: seconds.iter().copied().fold(0.0, f64::max),
        },
        cost: costs.into_iter().map(|(currency, amounts)| (currency, mean(&amounts))).collect(),
        busy: busy(runs),
    }
}

fn mean(values: &[f64]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 values")]
    let count = values.len().max(1) as f64;
    values.iter().sum::<f64>() / count
}

fn total(cost: &BTreeMap<String, f64>) -> f64 {
    cost.values().sum()
}

/// How busy GPUs were, each run by its GPU time.
fn busy(runs: &[&Run]) -> Option<f64> {
    let (mut time, mut busy) = (0.0, 0.0);
    for usage in runs.iter().filter_map(|run| run.usage.as_ref()) {
        if let Some(percent) = usage.gpu.as_ref().and_then(|gpu| gpu.utilization) {
            time += usage.gpu_seconds;
            busy += percent * usage.gpu_seconds;
        }
    }
    (time > 0.0).then(|| busy / time)
}

impl By {
    fn of(self, run: &Run) -> String {
        let usage = run.usage.as_ref();
        match self {
            Self::Job => run.job.to_string(),
            Self::Team => run.team.to_string(),
            Self::Node => run.node.to_string(),
            Self::Model => usage.and_then(|usage| usage.gpu_model.clone()).unwrap_or_else(|| "CPU".into()),
            Self::Provider => {
                usage.and_then(|usage| usage.provider.clone()).unwrap_or_else(|| "unknown".into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{log::GpuUsage, price::Cost};

    fn run(job: &str, model: &str, seconds: f64, cost: Option<f64>, busy: Option<f64>) -> Run {
        let gpu = GpuUsage { utilization: busy, energy: busy.map(|_| 7200.0), ..GpuUsage::default() };
        let usage = Usage {
            gpu_seconds: seconds * 2.0,
            gpu: Some(gpu),
            gpu_model: Some(model.into()),
            cost: cost.map(|amount| Cost { amount, currency: "USD".into() }),
            ..Usage::default()
        };
        Run {
            job: JobId::new(job).expect("valid"),
            name: "n".into(),
            team: Team::default(),
            node: NodeId::new("a").expect("valid"),
            outcome: Outcome::Succeeded,
            ended_at: Timestamp::UNIX_EPOCH,
            seconds,
            usage: Some(usage),
        }
    }

    #[test]
    fn what_runs_used_is_summed_and_the_dearest_comes_first() {
        let runs = [
            run("cheap", "T4", 1800.0, Some(0.5), Some(100.0)),
            run("dear", "A100", 5400.0, Some(9.0), Some(20.0)),
            run("dear", "A100", 1800.0, None, None),
        ];
        let bills = bills(&runs, By::Job);
        assert_eq!((bills[0].of.as_str(), bills[1].of.as_str()), ("dear", "cheap"));
        assert_eq!((bills[0].attempts, bills[0].gpu_hours, bills[0].unpriced), (2, 4.0, 1));
        assert_eq!((bills[0].cost["USD"], bills[0].busy, bills[0].energy), (9.0, Some(20.0), Some(2.0)));
        // 3600 GPU seconds at 100 % and 10800 at 20 %.
        assert_eq!(super::bill("all".into(), &runs.iter().collect::<Vec<_>>()).busy, Some(40.0));
    }

    #[test]
    fn the_kind_on_which_a_run_costs_least_comes_first() {
        let mut runs = vec![
            run("a", "A100", 100.0, Some(2.0), None),
            run("b", "A100", 300.0, Some(4.0), None),
            run("c", "T4", 900.0, Some(1.0), None),
        ];
        let names =
            |runs: &[Run]| compare(runs).into_iter().map(|kind| kind.model).collect::<Vec<_>>().join(" ");
        assert_eq!(names(&runs), "T4 A100");
        let a100 = compare(&runs)[1].clone();
        assert_eq!((a100.runs, a100.cost["USD"]), (2, 3.0));
        assert_eq!(a100.seconds, Spread { mean: 200.0, min: 100.0, max: 300.0 });
        runs.push(run("d", "V100", 50.0, None, None));
        assert_eq!(names(&runs), "V100 A100 T4", "by time where a price is missing");
        runs.retain(|run| run.outcome != Outcome::Succeeded);
        assert_eq!(compare(&runs), Vec::new());
    }
}
