//! Runs that were killed: `haul run` is a node of its own while it lives, and what a killed one
//! leaves is stopped and finished by the next run, or within a minute by the agent, on this host.

mod aside;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Result;
use shared::{
    client::Client,
    clock::{Chance, Clock},
    fleet::Fleet,
    id::{JobId, NodeId, Seq},
    log::Author,
    queue::{Counted, SqliteQueue},
};

use aside::Aside;

use crate::{beat, config::AgentConfig, daemon, recover, task::Tasks};

/// The configuration of a run of this job on this host: a name and a state directory of its own,
/// so that it can run beside the host's agent.
///
/// # Errors
/// When no node can have that name.
pub fn config_of(config: &AgentConfig, job: &JobId) -> Result<AgentConfig> {
    let name: String = config.node.as_str().chars().take(40).collect();
    let node = NodeId::new(format!("{name}.run-{job}"))?;
    let state_dir = dir(&config.state_dir).join(job.as_str());
    Ok(AgentConfig { node, state_dir, private: true, ..config.clone() })
}

fn dir(state_dir: &Path) -> std::path::PathBuf {
    state_dir.join("runs")
}

/// The fleet as a run sees it: the same store, and lanes that only it sees; what becomes of the
/// job is told to the same status queue.
///
/// # Errors
/// When there is no memory for the queue.
pub fn fleet_of(fleet: &Fleet, clock: Arc<dyn Clock>) -> Result<Fleet> {
    let own = SqliteQueue::in_memory(clock)?;
    let queue = Arc::new(Counted::new(Arc::new(Aside::new(own, fleet.queue.clone()))));
    let mut settings = (*fleet.settings()).clone();
    // Somebody waits at the terminal: what the platform cannot do, it says at once.
    settings.policy.platform_retries = 0;
    Ok(Fleet::assemble(fleet.store.clone(), queue, Seq::FIRST, settings))
}

/// How often an agent looks for what killed runs have left: well within a lease, after which others
/// would end their jobs.
const EVERY: Duration = Duration::from_secs(60);

/// Stops and finishes what killed runs have left, again and again, until it is dropped.
pub async fn watch(config: AgentConfig, fleet: Fleet, clock: Arc<dyn Clock>) {
    loop {
        tidy(config.clone(), fleet.clone(), clock.clone()).await;
        tokio::time::sleep(EVERY).await;
    }
}

/// How long the end of a killed run waits for receivers of its events.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Stops and finishes what killed runs have left.
pub async fn tidy(config: AgentConfig, fleet: Fleet, clock: Arc<dyn Clock>) {
    let Ok(entries) = std::fs::read_dir(dir(&config.state_dir)) else { return };
    for entry in entries.flatten() {
        let Some(job) = entry.file_name().to_str().and_then(|name| name.parse::<JobId>().ok()) else {
            continue;
        };
        if let Err(error) = tidy_one(&config, &fleet, clock.clone(), &job).await {
            tracing::warn!(%job, error = %format!("{error:#}"), "a killed run cannot be tidied up");
        }
    }
}

async fn tidy_one(config: &AgentConfig, fleet: &Fleet, clock: Arc<dyn Clock>, job: &JobId) -> Result<()> {
    let config = config_of(config, job)?;
    // One that has not submitted its job yet is about to take its lock.
    if fleet.store.list(&format!("jobs/{job}/log")).await?.is_empty() {
        return Ok(());
    }
    // A run that lives holds its lock.
    let Ok(_lock) = daemon::lock(&config) else { return Ok(()) };
    let state_dir = config.state_dir.clone();
    let node = daemon::open(config, fleet_of(fleet, clock.clone())?, clock.clone()).await?;
    tracing::info!(%job, "finishing what a killed run left");
    let author = Author::Node { name: node.id.clone(), incarnation: node.incarnation.clone() };
    let client = Client::new(node.fleet.clone(), author, clock, Chance::from_os());
    client.cancel(job, Some("haul run was killed".into())).await?;
    let tasks = Tasks::default();
    tasks.spawn("beat", beat::run(node.clone()));
    tasks.spawn("events", node.events.clone().run(node.log.clone()));
    recover::recover(&node).await;
    node.attempts.finished().await;
    node.removals.finished().await;
    node.events.settle(LAST_WORDS).await;
    tasks.halt().await;
    beat::forget(&node).await;
    std::fs::remove_dir_all(state_dir)?;
    Ok(())
}
