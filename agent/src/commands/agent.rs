//! `haul agent`, `haul agent status`, `haul drain`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, bail};
use clap::ArgMatches;
use shared::{
    client::{Client, ClientError},
    fleet,
    id::{NodeId, Timestamp},
    node::Mode,
};

use super::Context;
use crate::{
    cli::{Agent, AgentCommand, Drain, Guard},
    cloud::Cloud,
    config::{self, AgentFlags, Effective, HostFlags},
    control::{self, Request},
    daemon, guard,
    render::{self, Table},
};

/// How often who waits for a drain looks.
const LOOK: Duration = Duration::from_millis(500);

/// Runs the agent, checks its configuration, or asks it how it is.
pub async fn run(context: &Context, args: Agent, matches: &ArgMatches) -> Result<ExitCode> {
    if let Some(AgentCommand::Status(status)) = args.command {
        let answer = control::ask(&state_dir(status.state_dir)?, Request::Status).await?;
        if status.json {
            context.out.json(&answer);
        } else {
            render::agent(context.out, &answer);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let cloud = Cloud::wait(config::cloud_of(&args.flags)?).await?;
    let instance = cloud.as_ref().map(|cloud| &cloud.instance);
    let (config, effective) =
        config::resolve(context.fleet.clone(), args.flags, instance, &|id| source(matches, id))?;
    if args.check {
        check(context, &effective);
        return Ok(ExitCode::SUCCESS);
    }
    daemon::run(config, cloud).await?;
    Ok(ExitCode::SUCCESS)
}

/// Where a flag's value came from. Names of settings are those of files; a few flags are called
/// otherwise.
pub fn source(matches: &ArgMatches, id: &str) -> Option<clap::parser::ValueSource> {
    matches.try_contains_id(id).ok().and_then(|_| matches.value_source(id))
}

fn check(context: &Context, effective: &[Effective]) {
    let mut table = Table::new(context.out, &["SETTING", "VALUE", "FROM"]);
    for Effective { name, value, source } in effective {
        table.row([(*name).to_owned(), value.clone(), source.clone()]);
    }
    table.print();
}

/// Where the agent is that packages install.
const SERVICE: &str = "/var/lib/haul";

/// The state directory that an agent without flags would use, or the service's where only that runs.
fn state_dir(given: Option<PathBuf>) -> Result<PathBuf> {
    let is_free = given.is_none();
    let flags =
        AgentFlags { host: HostFlags { state_dir: given, ..HostFlags::default() }, ..AgentFlags::default() };
    let (config, _) = config::resolve(None, flags, None, &|_| None)?;
    let (own, service) = (config.state_dir, PathBuf::from(SERVICE));
    let runs = |dir: &Path| control::socket(dir).exists();
    Ok(if is_free && !runs(&own) && runs(&service) { service } else { own })
}

/// `haul guard`
pub async fn guard(args: Guard) -> Result<ExitCode> {
    guard::run(&state_dir(args.state_dir)?, args.engine).await?;
    Ok(ExitCode::SUCCESS)
}

/// `haul drain`
pub async fn drain(context: &Context, args: &Drain) -> Result<ExitCode> {
    let deadline = args.deadline.map(|deadline| context.now() + deadline.0);
    match &args.node {
        Some(node) => drain_from_afar(context, args, node, deadline).await,
        None => drain_here(args, deadline).await,
    }
}

async fn drain_here(args: &Drain, deadline: Option<Timestamp>) -> Result<ExitCode> {
    let dir = state_dir(args.state_dir.clone())?;
    let request = if args.resume { Request::Resume } else { Request::Drain { deadline } };
    let mut status = control::ask(&dir, request).await?;
    while args.wait && !args.resume && !status.jobs.is_empty() {
        tokio::time::sleep(LOOK).await;
        status = control::ask(&dir, Request::Status).await?;
    }
    eprintln!("{} is {}, {} jobs run", status.node, status.mode.as_str(), status.jobs.len());
    if args.resume && status.mode == Mode::Draining {
        let node = &status.node;
        eprintln!("note: the fleet's settings drain it too; haul drain {node} --resume ends that");
    }
    Ok(ExitCode::SUCCESS)
}

async fn drain_from_afar(
    context: &Context,
    args: &Drain,
    node: &NodeId,
    deadline: Option<Timestamp>,
) -> Result<ExitCode> {
    let client = context.client().await?;
    client.drain(node, (!args.resume).then_some(fleet::Drain { deadline })).await?;
    let does = if args.resume { "takes jobs again" } else { "takes no new jobs" };
    eprintln!("{node} {does} as soon as it hears of it, within a minute");
    if args.wait && !args.resume {
        until_empty(context, &client, node).await?;
        eprintln!("{node} takes no jobs, and has none");
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits until a node has heard that it is drained and has no jobs.
async fn until_empty(context: &Context, client: &Client, node: &NodeId) -> Result<()> {
    loop {
        match client.node(node).await {
            Ok(record) if record.mode != Mode::Ready && record.jobs.is_empty() => return Ok(()),
            Ok(record) if record.is_silent(context.now(), record.lease) => {
                bail!("{node} is silent; its jobs are taken over when its lease has passed");
            }
            Ok(_) => {}
            Err(error @ ClientError::NoSuchNode(_)) => return Err(error.into()),
            Err(error) => eprintln!("warning: {error}; looking again"),
        }
        tokio::time::sleep(LOOK).await;
    }
}
