//! What haul costs over the raw engine API, measured alternately in one run, so that a noisy
//! machine is noisy for both. `tests/bench overhead` builds and runs it.

mod haul;
mod raw;
mod report;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde::Serialize;
use tests::World;

use crate::report::{Spread, Table};

/// Measures haul.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
enum What {
    /// haul against the raw engine API: latency, throughput, and what an idle agent uses
    Overhead(Overhead),
}

/// How much is measured.
#[derive(Debug, clap::Args)]
struct Overhead {
    /// How many containers are started each way, one at a time
    #[arg(long, default_value_t = 30)]
    starts: usize,
    /// How many jobs that do nothing are run each way, four at a time
    #[arg(long, default_value_t = 200)]
    jobs: usize,
    /// How often that is done each way
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// For how many seconds the idle agent is watched
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Where the figures go as JSON
    #[arg(long, default_value = "target/bench/overhead.json")]
    json: PathBuf,
}

/// Jobs at once, for both.
const SLOTS: usize = 4;

/// All that was measured. Times are in seconds.
#[derive(Debug, Serialize)]
struct Figures {
    raw_start: Spread,
    haul_submit_to_start: Spread,
    haul_claim_to_start: Spread,
    submit_ratio_p50: f64,
    claim_ratio_p50: f64,
    claim_ratio_p95: f64,
    raw_rate: Spread,
    haul_rate: Spread,
    rate_ratio: Spread,
    writes_per_job: f64,
    deletes_per_job: f64,
    queue_requests_per_job: f64,
    start_to_first_claim: f64,
    idle: haul::Idle,
    binary_mb: f64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let What::Overhead(args) = Cli::parse().what;
    let figures = measure(&args).await?;
    let text = serde_json::to_string_pretty(&figures)?;
    if let Some(dir) = args.json.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(&args.json, text).with_context(|| format!("cannot write {}", args.json.display()))?;
    print(&figures);
    println!("\nas JSON: {}", args.json.display());
    Ok(())
}

async fn measure(args: &Overhead) -> Result<Figures> {
    let world = World::new();
    let raw = raw::Raw::connect(&world).await?;
    let first_claim = haul::first_claim(&world).await?;
    let agent = haul::Haul::start(&world, SLOTS).await?;
    // Not measured: caches are filled, the first lane is made.
    for _ in 0..3 {
        raw.start_one().await?;
        agent.start_one().await?;
    }
    let (mut raw_starts, mut submits, mut claims) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..args.starts {
        eprint!("\rstart {} of {} ", n + 1, args.starts);
        raw_starts.push(raw.start_one().await?);
        let (submit, claim) = agent.start_one().await?;
        submits.push(submit);
        claims.push(claim);
    }
    let (mut raw_rates, mut rates, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (before, began) = (agent.requests()?, tests::now());
    for n in 0..args.rounds {
        eprint!("\rround {} of {}   ", n + 1, args.rounds);
        let alone = raw.rate(args.jobs, SLOTS).await?;
        let with = agent.rate(args.jobs).await?;
        raw_rates.push(alone);
        rates.push(with);
        ratios.push(with / alone);
    }
    let (after, minutes) = (agent.requests()?, began.elapsed().as_secs_f64() / 60.0);
    eprint!("\ridle for {} s    ", args.idle);
    let idle = agent.idle(Duration::from_secs(args.idle)).await?;
    eprintln!("\r                    ");
    let jobs = (args.jobs * args.rounds) as f64;
    let (raw_start, haul_submit_to_start) = (Spread::of(raw_starts), Spread::of(submits));
    let haul_claim_to_start = Spread::of(claims);
    Ok(Figures {
        submit_ratio_p50: haul_submit_to_start.p50 / raw_start.p50,
        claim_ratio_p50: haul_claim_to_start.p50 / raw_start.p50,
        claim_ratio_p95: haul_claim_to_start.p95 / raw_start.p95,
        raw_start,
        haul_submit_to_start,
        haul_claim_to_start,
        raw_rate: Spread::of(raw_rates),
        haul_rate: Spread::of(rates),
        rate_ratio: Spread::of(ratios),
        // What the agent writes and lists with or without jobs is the node's, not theirs.
        writes_per_job: (after.writes - before.writes - idle.writes_per_minute * minutes) / jobs,
        deletes_per_job: (after.deletes - before.deletes) / jobs,
        queue_requests_per_job: (after.queue - before.queue) / jobs,
        start_to_first_claim: first_claim,
        idle,
        binary_mb: std::fs::metadata(tests::world::haul())?.len() as f64 / 1e6,
    })
}

fn print(figures: &Figures) {
    let mut table = Table::new();
    let ms = |spread: &Spread| spread.show(1000.0, "ms");
    table.row("start: raw engine API, create to start", &ms(&figures.raw_start), "");
    table.row("start: haul, submit to start", &ms(&figures.haul_submit_to_start), "");
    table.row("start: haul, claim to start", &ms(&figures.haul_claim_to_start), "");
    table.row("  claim to start over raw, p50", &format!("{:.3}", figures.claim_ratio_p50), "1.10");
    table.row("  claim to start over raw, p95", &format!("{:.3}", figures.claim_ratio_p95), "1.10");
    table.row("  submit to start over raw, p50", &format!("{:.3}", figures.submit_ratio_p50), "");
    table.row("rate: raw engine API", &figures.raw_rate.show(1.0, "jobs/s"), "");
    table.row("rate: haul", &figures.haul_rate.show(1.0, "jobs/s"), "");
    table.row("  haul over raw", &figures.rate_ratio.show(1.0, ""), "0.90");
    table.row("store writes and lists per job", &format!("{:.1}", figures.writes_per_job), "10");
    table.row("store deletes per job", &format!("{:.1}", figures.deletes_per_job), "");
    table.row("queue requests per job", &format!("{:.1}", figures.queue_requests_per_job), "4");
    table.row("agent start to first claim", &format!("{:.2} s", figures.start_to_first_claim), "1 s");
    let idle = &figures.idle;
    table.row("idle: PSS", &format!("{:.1} MiB", idle.pss_mib), "20 MiB");
    table.row("idle: CPU", &format!("{:.2} % of a core", idle.cpu_percent), "0.2 %");
    let per_lane = format!("{:.1} /min", idle.queue_per_lane_minute);
    table.row("idle: queue requests per polled lane", &per_lane, "5 /min");
    table.row("idle: store requests", &format!("{:.0} /min", idle.store_per_minute), "");
    table.row("binary", &format!("{:.1} MB", figures.binary_mb), "25 MB");
    table.print();
}
