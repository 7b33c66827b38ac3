//! `haul cost` and `haul compare`

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use shared::client::{self, Client, Filter, Run};

use super::Context;
use crate::{
    cli::{Compare, Cost},
    render,
};

/// A day, in seconds.
const DAY: u64 = 86_400;

/// What jobs used and cost.
pub async fn cost(context: &Context, args: &Cost) -> Result<ExitCode> {
    let client = context.client().await?;
    // A job that ended in part before that day and goes on now is on another shelf.
    let days = u32::try_from(args.since.0.as_secs() / DAY + 1).unwrap_or(u32::MAX);
    let filter = Filter { done_days: Some(days), team: args.team.clone(), ..Filter::default() };
    let runs = client.runs(&filter, Some(context.now() - args.since.0)).await?;
    let bills = client::bills(&runs, args.by.into());
    let all = client::bill("total".into(), &runs.iter().collect::<Vec<_>>());
    if args.json {
        context.out.json(&serde_json::json!({ "bills": bills, "total": all }));
    } else if runs.is_empty() {
        context.out.line(format!("no attempt has ended within {}", args.since));
    } else {
        render::bills(context.out, args.by, &bills, &all);
    }
    Ok(ExitCode::SUCCESS)
}

/// How the kinds of hosts did on which some jobs ran.
pub async fn compare(context: &Context, args: &Compare) -> Result<ExitCode> {
    let client = context.client().await?;
    let mut runs: Vec<Run> = Vec::new();
    for name in &args.names {
        let found = named(&client, name).await?;
        runs.extend(found.into_iter().filter(|run| !runs.contains(run)).collect::<Vec<_>>());
    }
    let kinds = client::compare(&runs);
    if kinds.is_empty() {
        let names = args.names.join(", ");
        anyhow::bail!(
            "no attempt of {names} has succeeded yet; haul ps --all --name NAME shows how they stand"
        );
    }
    if args.json {
        context.out.json(&kinds);
    } else {
        render::kinds(context.out, &kinds);
    }
    if let Some(path) = &args.plot {
        let svg = render::plot(&args.names.join(", "), &kinds).context("cannot draw the comparison")?;
        std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The attempts of all jobs of this name, or of the job of this id.
async fn named(client: &Client, name: &str) -> Result<Vec<Run>> {
    let runs = client.runs(&Filter { name: Some(name.to_owned()), ..Filter::all() }, None).await?;
    if !runs.is_empty() {
        return Ok(runs);
    }
    Ok(match client.resolve(name).await {
        Ok(id) => client.runs_of(id, None).await?,
        Err(shared::client::ClientError::NotFound(_)) => Vec::new(),
        Err(error) => return Err(error.into()),
    })
}
