//! `haul ps`, `status`, `cancel`, `retry`

use std::process::ExitCode;

use anyhow::Result;
use shared::client::{Cancel, Filter};

use super::Context;
use crate::{
    cli::{self, Ids, Ps},
    render,
};

/// How many jobs are listed where somebody watches and says nothing else.
const ON_A_TERMINAL: usize = 200;

/// `haul ps`
pub async fn ps(context: &Context, args: Ps) -> Result<ExitCode> {
    let filter = Filter {
        done_days: if args.all { None } else { Some(1) },
        states: args.state,
        name: args.name,
        team: args.team,
        node: args.node,
        limit: match args.limit {
            Some(0) => None,
            None if !args.json && !args.quiet && context.out.is_terminal() => Some(ON_A_TERMINAL),
            limit => limit,
        },
    };
    let client = context.client().await?;
    if args.quiet && !args.json {
        client.ids(&filter).await?.iter().for_each(|id| context.out.line(id.as_str()));
        return Ok(ExitCode::SUCCESS);
    }
    let page = client.page(&filter).await?;
    if args.json {
        context.out.json(&page.jobs);
    } else {
        render::jobs(context.out, &page.jobs, context.now());
    }
    if page.more > 0 && filter.limit.is_some() {
        eprintln!("{} more were moved longer ago; -n 0 lists them all", page.more);
    }
    Ok(ExitCode::SUCCESS)
}

/// `haul status`
pub async fn status(context: &Context, args: &cli::Status) -> Result<ExitCode> {
    let client = context.client().await?;
    let id = client.resolve(&args.job).await?;
    let status = client.status(&id).await?;
    if args.json {
        context.out.json(&render::status_json(&status));
    } else {
        render::status(context.out, &status, context.now());
    }
    Ok(ExitCode::SUCCESS)
}

/// `haul cancel`. All are tried, even when one is not there.
pub async fn cancel(context: &Context, args: &cli::Cancel) -> Result<ExitCode> {
    let client = context.client().await?;
    let mut failed = None;
    for text in &args.jobs {
        let done = async {
            let id = client.resolve(text).await?;
            client.cancel(&id, args.reason.clone()).await.map(|done| (id, done))
        };
        match done.await {
            Ok((id, Cancel::Done)) => context.out.line(format!("{id} cancelled")),
            Ok((id, Cancel::Requested)) => {
                context.out.line(format!("{id} asked to stop; haul wait {id} waits for it"));
            }
            Ok((id, Cancel::WasFinished)) => context.out.line(format!("{id} was finished already")),
            Err(error) => failed = next_failure(failed, error.into()),
        }
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// `haul retry`. All are tried, even when one is not there.
pub async fn retry(context: &Context, args: &Ids) -> Result<ExitCode> {
    let client = context.client().await?;
    let mut failed = None;
    for text in &args.jobs {
        let done = async {
            let id = client.resolve(text).await?;
            client.retry(&id).await
        };
        match done.await {
            Ok(job) => context.out.line(job.id.as_str()),
            Err(error) => failed = next_failure(failed, error.into()),
        }
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Reports the failure before, so that the last one is left to be reported with its code.
fn next_failure(before: Option<anyhow::Error>, error: anyhow::Error) -> Option<anyhow::Error> {
    if let Some(before) = before {
        crate::exit::report(&before);
    }
    Some(error)
}
