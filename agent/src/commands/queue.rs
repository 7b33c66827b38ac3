//! `haul queue`, `haul nodes rm`

use std::{
    io::{BufRead, IsTerminal, Write},
    process::ExitCode,
};

use anyhow::Result;
use shared::queue::QueueName;

use super::Context;
use crate::{
    cli::{NodesRm, QueueCommand, QueuePurge},
    exit::{self, Usage},
    render,
};

/// `haul queue`
pub async fn run(context: &Context, command: QueueCommand) -> Result<ExitCode> {
    match command {
        QueueCommand::List(args) => {
            let queues = context.client().await?.queues().await?;
            if args.json {
                context.out.json(&queues);
            } else {
                render::queues(context.out, &queues);
            }
        }
        QueueCommand::Purge(args) => return purge(context, &args).await,
        QueueCommand::Resend(args) => {
            let sent = context.client().await?.resend(args.lane.as_ref()).await?;
            let messages = if sent == 1 { "message" } else { "messages" };
            context.out.line(format!("{sent} {messages} sent again"));
        }
        QueueCommand::Dead(args) => {
            let letters = context.client().await?.dead_letters().await?;
            if args.json {
                context.out.json(&letters);
            } else {
                render::dead_letters(context.out, &letters, context.now());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn purge(context: &Context, args: &QueuePurge) -> Result<ExitCode> {
    let what = match &args.queue {
        QueueName::Lane(_) => "the jobs stay, and their messages are sent again by the next sweep",
        QueueName::Inbox => "what programs have left there and no agent has taken is lost",
        QueueName::Dead => "what was refused, and why, is lost",
        QueueName::Status => "events that nobody has read are lost",
    };
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            return Err(Usage(format!("to purge {} without being asked, add --yes", args.queue)).into());
        }
        eprint!("purge the queue {} ({what})? [y/N] ", args.queue);
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            eprintln!("nothing was done");
            return Ok(ExitCode::FAILURE);
        }
    }
    context.client().await?.purge(&args.queue).await?;
    context.out.line(format!("{} is empty", args.queue));
    Ok(ExitCode::SUCCESS)
}

/// `haul nodes rm`. All are tried, even when one is refused.
pub async fn forget(context: &Context, args: &NodesRm) -> Result<ExitCode> {
    let client = context.client().await?;
    let mut code = ExitCode::SUCCESS;
    for node in &args.nodes {
        match client.forget(node).await {
            Ok(()) => context.out.line(format!("{node} is forgotten")),
            Err(error) => code = exit::report(&error.into()),
        }
    }
    Ok(code)
}
