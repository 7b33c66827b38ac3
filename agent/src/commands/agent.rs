//! `haul agent`, `haul agent status`, `haul drain`

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::ArgMatches;

use super::Context;
use crate::{
    cli::{Agent, AgentCommand, Drain, Guard},
    config::{self, AgentFlags, Effective, HostFlags},
    control::{self, Request},
    daemon, guard,
    render::{self, Table},
};

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
    let (config, effective) = config::resolve(context.fleet.clone(), args.flags, &|id| source(matches, id))?;
    if args.check {
        check(context, &effective);
        return Ok(ExitCode::SUCCESS);
    }
    daemon::run(config).await?;
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

/// The state directory that an agent without flags would use.
fn state_dir(given: Option<PathBuf>) -> Result<PathBuf> {
    let flags =
        AgentFlags { host: HostFlags { state_dir: given, ..HostFlags::default() }, ..AgentFlags::default() };
    let (config, _) = config::resolve(None, flags, &|_| None)?;
    Ok(config.state_dir)
}

/// `haul guard`
pub async fn guard(args: Guard) -> Result<ExitCode> {
    guard::run(&state_dir(args.state_dir)?, args.engine).await?;
    Ok(ExitCode::SUCCESS)
}

/// `haul drain`
pub async fn drain(args: &Drain) -> Result<ExitCode> {
    let dir = state_dir(args.state_dir.clone())?;
    let request = if args.resume { Request::Resume } else { Request::Drain };
    let mut status = control::ask(&dir, request).await?;
    while args.wait && !args.resume && !status.jobs.is_empty() {
        tokio::time::sleep(Duration::from_millis(500)).await;
        status = control::ask(&dir, Request::Status).await?;
    }
    eprintln!("{} is {}, {} jobs run", status.node, status.mode.as_str(), status.jobs.len());
    Ok(ExitCode::SUCCESS)
}
