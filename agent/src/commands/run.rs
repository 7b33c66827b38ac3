//! `haul run`: a job here and now, exactly as a node would run it.
//!
//! The job is in the fleet's store like any other, so that `haul status` and `haul logs` know it,
//! but no queue is asked: this process is a node of its own for as long as it runs, with a queue
//! in memory that only it sees, and takes the job itself.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use clap::ArgMatches;
use shared::{
    client::Client,
    clock::{Chance, Clock, SystemClock},
    fleet::Fleet,
    id::JobId,
    job::JobSpec,
    lane::{Fit, Needs, fit},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Context, agent::source, author, job, logs, progress};
use crate::{
    beat, claim,
    cli::Run,
    config::{self, AgentFlags},
    daemon, fence, health,
    node::Node,
    runs,
    task::Tasks,
    usage,
};

/// How long the run waits for receivers of its events, which hear nothing afterwards.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Runs a job and ends with its code.
pub async fn run(context: &Context, args: Run, matches: &ArgMatches) -> Result<ExitCode> {
    let spec = job::load(&args.job)?;
    let chance = Chance::from_os();
    let id = chance.job_id();
    let flags = AgentFlags { host: args.host, ..AgentFlags::default() };
    let (config, _) = config::resolve(context.fleet.clone(), flags, None, &|name| source(matches, name))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let shared_fleet = Fleet::open(&config.fleet, clock.clone()).await?;
    let host = config.clone();
    let config = runs::config_of(&host, &id)?;
    let fleet = runs::fleet_of(&shared_fleet, clock.clone())?;
    let client = Client::new(fleet.clone(), author(), clock.clone(), chance);
    let state_dir = config.state_dir.clone();
    let _lock = daemon::lock(&config)?;
    let tidying = Tasks::default();
    tidying.spawn("tidy", runs::tidy(host, shared_fleet, clock.clone()));
    let node = daemon::open(config, fleet, clock).await?;
    can_run(&node, &spec)?;
    let (claims, tasks) = (Tasks::default(), Tasks::default());
    tasks.spawn("beat", beat::run(node.clone()));
    tasks.spawn("fence", fence::watch(node.clone()));
    tasks.spawn("health", health::watch(node.clone()));
    tasks.spawn("usage", usage::watch(node.clone()));
    client.submit_local(spec, id.clone()).await?;
    // Its queue is this process's own; halting is all there is to its end.
    claims.spawn("claims", claim::run(node.clone(), CancellationToken::new()));
    claims.spawn("events", node.events.clone().run(node.log.clone()));
    claims.spawn("pulls", progress::pulls(node.clone()));
    let code = follow(context, &client, &node, &id).await;
    node.attempts.finished().await;
    node.removals.finished().await;
    if node.events.settle(LAST_WORDS).await > 0 {
        tracing::warn!("a receiver of status events has not heard all of this run, and will not");
    }
    claims.halt().await;
    tidying.halt().await;
    tasks.halt().await;
    beat::forget(&node).await;
    leave(&node, &state_dir, &id);
    code
}

/// Says at once what would keep the job waiting for ever.
fn can_run(node: &Node, spec: &JobSpec) -> Result<()> {
    let mut why: Vec<String> = Vec::new();
    match fit(&Needs::of(spec), &node.ledger.offer()) {
        Fit::Now => {}
        Fit::WhenEmpty(misfits) | Fit::Never(misfits) => why.extend(misfits.iter().map(ToString::to_string)),
    }
    let memory = spec.resources.memory;
    why.extend(node.ledger.capacity().misfits(spec, memory).iter().map(ToString::to_string));
    why.extend(
        node.secrets.missing(&spec.secrets).map(|name| format!("the host does not hold secret {name}")),
    );
    why.extend(node.ledger.problems());
    if why.is_empty() {
        return Ok(());
    }
    bail!("this host cannot run the job: {}", why.join("; "))
}

/// Prints the output until the job ends; Ctrl-C cancels it.
async fn follow(context: &Context, client: &Client, node: &Node, id: &JobId) -> Result<ExitCode> {
    let mut term = signal(SignalKind::terminate())?;
    let mut follow = std::pin::pin!(logs::follow(context, client, id, None, false));
    tokio::select! {
        biased;
        code = &mut follow => return code,
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
    eprintln!("stopping; once more leaves the container to be removed by the next haul run");
    client.cancel(id, Some("interrupted".into())).await?;
    tokio::select! {
        biased;
        code = follow => code,
        _ = tokio::signal::ctrl_c() => bail!("left job {id} on node {}", node.id),
    }
}

/// Takes the directory of this run away, and says where the results are.
fn leave(node: &Node, state_dir: &PathBuf, id: &JobId) {
    if let Err(error) = std::fs::remove_dir_all(state_dir) {
        tracing::debug!(%error, "the run's directory stays");
    }
    let attempts = node.config.outputs_dir.join(id.as_str());
    let latest = attempts.join("latest");
    let has_any = std::fs::read_dir(&latest).is_ok_and(|mut entries| entries.next().is_some());
    if has_any {
        eprintln!("output: {}", latest.display());
    }
}
