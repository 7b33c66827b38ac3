//! `haul logs`

use std::{io::Write, process::ExitCode};

use anyhow::Result;
use futures::{TryStreamExt, pin_mut};
use shared::{
    client::{Client, LogItem},
    id::{Attempt, JobId},
    output::{Record, Stream},
};

use super::{Context, exit_code};
use crate::{cli::Logs, render::Out};

/// Prints a job's output.
pub async fn run(context: &Context, args: &Logs) -> Result<ExitCode> {
    let client = context.client().await?;
    let id = client.resolve(&args.job).await?;
    print(context, &client, &id, args.attempt, args.follow, args.timestamps).await?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a job's output until it is finished, and ends with its code.
pub async fn follow(
    context: &Context,
    client: &Client,
    id: &JobId,
    attempt: Option<Attempt>,
    timestamps: bool,
) -> Result<ExitCode> {
    print(context, client, id, attempt, true, timestamps).await?;
    let job = client.wait(id, |_| ()).await?;
    super::wait::explain(&job);
    Ok(exit_code(&job))
}

async fn print(
    context: &Context,
    client: &Client,
    id: &JobId,
    attempt: Option<Attempt>,
    follow: bool,
    timestamps: bool,
) -> Result<()> {
    let items = client.logs(id, attempt, follow).await?;
    pin_mut!(items);
    let mut printer = Printer { out: context.out, timestamps, at_start: [true, true] };
    while let Some(items) = items.try_next().await? {
        for item in items {
            match item {
                LogItem::Attempt(Attempt(n)) if n > 1 => eprintln!("--- attempt {n}"),
                LogItem::Attempt(_) | LogItem::End(_) => {}
                LogItem::Record(record) => printer.print(&record),
            }
        }
    }
    Ok(())
}

/// Prints records to the stream that the job wrote them to.
struct Printer {
    out: Out,
    timestamps: bool,
    /// Whether the next record begins a line, for stdout and stderr.
    at_start: [bool; 2],
}

impl Printer {
    fn print(&mut self, record: &Record) {
        let mut bytes = Vec::with_capacity(record.bytes.len() + 40);
        let at_start = &mut self.at_start[usize::from(record.stream == Stream::Stderr)];
        if self.timestamps && *at_start {
            let time = record.at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            bytes.extend_from_slice(format!("{time} ").as_bytes());
        }
        *at_start = record.complete;
        record.raw().for_each(|part| bytes.extend_from_slice(part));
        match record.stream {
            Stream::Stdout => self.out.raw(&bytes),
            Stream::Stderr => {
                // A reader that has gone away is no error.
                let _ = std::io::stderr().lock().write_all(&bytes);
            }
        }
    }
}
