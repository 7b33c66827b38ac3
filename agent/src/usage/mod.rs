//! What running attempts use, sampled at each beat: busy GPUs and their memory and energy as the last
//! look at them saw, CPU and memory as the engine tells.
//!
//! The samples are this run's of the agent; one that ends a job that an earlier run began tells of its
//! own time only.

mod meter;
mod trend;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use shared::{
    id::JobId,
    log::{Job, Usage},
    price::Price,
};

use meter::Meter;

use crate::{
    engine::Stats,
    gpu::{Gpu, Mig},
    ledger::{Holding, Ledger},
    node::Node,
    pace::Pace,
};

/// How many containers are asked about at once.
const PARALLEL: usize = 4;

/// A meter for each running attempt.
#[derive(Debug, Default)]
pub struct Meters(Mutex<BTreeMap<JobId, Meter>>);

impl Meters {
    fn all(&self) -> MutexGuard<'_, BTreeMap<JobId, Meter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an attempt used that has ended, if it ran for so long on a host of that price.
    pub fn close(&self, job: &Job, ledger: &Ledger, ran: Duration, price: Option<&Price>) -> Usage {
        let meter = self.all().remove(&job.id).unwrap_or_default();
        let Some(holding) = ledger.holdings().remove(&job.id) else { return meter.total(0.0, ran) };
        let all = ledger.inventory().gpus;
        let gpus = gpus(&holding, &all);
        let own = all.iter().find(|gpu| holding.gpus.contains(&gpu.uuid));
        let part = part(gpus, &holding, &all, ledger.capacity().cpus);
        Usage {
            gpu_model: own.map(|gpu| gpu.model.clone()),
            cost: price.map(|price| price.of(part, ran.as_secs_f64())),
            provider: price.and_then(|price| price.provider.clone()),
            ..meter.total(gpus, ran)
        }
    }

    /// Takes in what was seen of a job's container.
    fn container(&self, job: &JobId, now: Duration, stats: Stats) {
        self.all().entry(job.clone()).or_default().container(now, stats);
    }

    /// Takes in what the last look saw of all GPUs that are given out, and forgets who has nothing more.
    fn gpus(&self, ledger: &Ledger) {
        let (holdings, inventory, memory) = (ledger.holdings(), ledger.inventory(), ledger.gpu_memory());
        let mut meters = self.all();
        meters.retain(|job, _| holdings.contains_key(job));
        if inventory.simulated {
            return;
        }
        for (job, holding) in &holdings {
            let own: Vec<&Gpu> =
                inventory.gpus.iter().filter(|gpu| holding.gpus.contains(&gpu.uuid)).collect();
            match holding.share.gpu {
                _ if own.is_empty() => {}
                None => meters.entry(job.clone()).or_default().own(&own),
                Some(_) => {
                    let held = memory.get(job).copied().unwrap_or_default();
                    meters.entry(job.clone()).or_default().holds(held);
                }
            }
        }
    }
}

/// How many GPUs a job has; a share is a part of one.
fn gpus(holding: &Holding, all: &[Gpu]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "memory below 8 PiB, and few GPUs")]
    match holding.share.gpu {
        None => holding.gpus.len() as f64,
        Some(share) => {
            let gpu = all.iter().find(|gpu| holding.gpus.contains(&gpu.uuid));
            gpu.map_or(0.0, |gpu| share.bytes() as f64 / gpu.memory.bytes().max(1) as f64)
        }
    }
}

/// How much of the host a job has that has so many of its GPUs: by GPUs, and of one that is cut into instances
/// by memory; by cores on a host without any.
fn part(gpus: f64, holding: &Holding, all: &[Gpu], cpus: f64) -> f64 {
    let (instances, whole): (Vec<&Gpu>, Vec<&Gpu>) =
        all.iter().partition(|gpu| matches!(gpu.mig, Mig::Instance(_)));
    let memory = |gpus: &[&Gpu]| gpus.iter().map(|gpu| gpu.memory.bytes()).sum::<u64>();
    let own: Vec<&Gpu> = instances.into_iter().filter(|gpu| holding.gpus.contains(&gpu.uuid)).collect();
    #[expect(clippy::cast_precision_loss, reason = "few GPUs, and memory below 8 PiB")]
    if !own.is_empty() {
        memory(&own) as f64 / memory(&whole).max(1) as f64
    } else if !whole.is_empty() {
        gpus / whole.len() as f64
    } else if cpus > 0.0 {
        (holding.share.cpus / cpus).min(1.0)
    } else {
        0.0
    }
}

/// Samples at every beat, until it is dropped.
pub async fn watch(node: Arc<Node>) {
    let mut every = Pace::after(node.fleet.clone(), |settings| settings.beat);
    loop {
        every.tick().await;
        node.meters.gpus(&node.ledger);
        let containers = node.ledger.containers();
        stream::iter(&containers)
            .for_each_concurrent(PARALLEL, |(job, container)| {
                let node = node.clone();
                async move {
                    // One that is not there any more uses nothing.
                    if let Ok(stats) = node.engine.stats(container).await {
                        node.meters.container(job, node.clock.elapsed(), stats);
                    }
                }
            })
            .await;
    }
}
