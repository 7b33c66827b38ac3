//! `haul wait`

use std::process::ExitCode;

use anyhow::{Result, bail};
use futures::future::join_all;
use shared::{
    client::Client,
    id::JobId,
    log::{Job, Phase, State},
    units::Span,
};

use super::{Context, exit_code, progress::Progress};
use crate::cli::Wait;

/// Waits for all, and ends with the code of the first, in the order given, that failed.
pub async fn run(context: &Context, args: &Wait) -> Result<ExitCode> {
    let client = context.client().await?;
    let mut ids = Vec::new();
    for text in &args.jobs {
        ids.push(client.resolve(text).await?);
    }
    all(&client, &ids, args.timeout).await
}

/// Waits for these jobs.
pub async fn all(client: &Client, ids: &[JobId], timeout: Option<Span>) -> Result<ExitCode> {
    let progress = Progress::new(ids.len());
    let waits = join_all(ids.iter().map(|id| {
        let progress = &progress;
        async move {
            let job = client.wait(id, |job| progress.seen(job)).await;
            progress.done();
            job
        }
    }));
    let jobs = match timeout {
        None => waits.await,
        Some(timeout) => match tokio::time::timeout(timeout.0, waits).await {
            Ok(jobs) => jobs,
            Err(_) => {
                progress.clear();
                bail!("not finished after {timeout}; haul status ID says where a job stands")
            }
        },
    };
    progress.clear();
    let mut code = None;
    for job in jobs {
        let job = job?;
        explain(&job);
        if job.exit_status() != Some(0) {
            code.get_or_insert(exit_code(&job));
        }
    }
    Ok(code.unwrap_or(ExitCode::SUCCESS))
}

/// Says why a job did not succeed.
pub fn explain(job: &Job) {
    let State::Done { phase, outcome, exit_code, message, .. } = &job.state else { return };
    if *phase == Phase::Succeeded {
        return;
    }
    let outcome = outcome.map_or(phase.as_str(), |outcome| outcome.as_str());
    let code =
        exit_code.filter(|code| *code != 0).map_or_else(String::new, |code| format!(", exit code {code}"));
    let message = message.as_ref().map_or_else(String::new, |message| format!(": {message}"));
    eprintln!("{}: {outcome}{code}{message}", job.id);
}
