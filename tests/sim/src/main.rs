//! `sim`: a whole fleet in one process on virtual time, with every fault we can name.
//!
//! A seed draws a fleet, its jobs and what goes wrong ([`scenario`], [`fault`]). Hosts ([`node`])
//! run the shipped agent over an object store ([`store`]), a queue ([`queue`]) and container
//! engines ([`engine`], [`machine`]) whose requests fail as networks do ([`host`], [`toxics`]).
//! [`watch`] sees everything and says when an invariant is broken; [`rest`] looks at the end. Half of
//! the seeds have a [`theme`]. Beside them there are [`calm`] runs, and two that count ([`meter`]):
//! [`scale`], and [`policy`], which sets haul against schedulers that see everything.

mod bell;
mod calm;
mod client;
mod clock;
mod engine;
mod fault;
mod fleet;
mod host;
mod machine;
mod meter;
mod node;
mod policy;
mod pool;
mod queue;
mod report;
mod rest;
mod scale;
mod scenario;
mod script;
mod seed;
mod store;
mod theme;
mod toxics;
mod trace;
mod watch;
mod world;

use std::{ops::Range, process::ExitCode};

use clap::{Parser, Subcommand};
use shared::units::Span;

use crate::{calm::Calm, scale::Work};

/// Runs simulated fleets.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds; the first that fails is shown
    Run {
        /// Which seeds, as in 0..1000
        #[arg(long, default_value = "0..1000", value_parser = seeds)]
        seeds: Range<u64>,
        /// How many at once [default: one for each core]
        #[arg(long)]
        threads: Option<usize>,
    },
    /// Runs one seed and prints all that happens
    Replay {
        seed: u64,
        /// With this bug switched on
        #[arg(long)]
        mutant: Option<String>,
        /// Show what the shipped code logs as well
        #[arg(long)]
        log: bool,
    },
    /// Crashes an agent on both sides of each of its effects, one run for each
    Crashes {
        #[arg(long, default_value = "0..3", value_parser = seeds)]
        seeds: Range<u64>,
    },
    /// Runs seeds twice each: what happens must be the same
    Meta {
        #[arg(long, default_value = "0..20", value_parser = seeds)]
        seeds: Range<u64>,
    },
    /// Jobs that run and wait for longer than the queue keeps or hides a message
    Long {
        /// How long they run
        #[arg(long, default_value = "13h")]
        runs: Span,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Sets haul against central schedulers, on the work of a real cluster
    Policy(policy::Options),
    /// One team's job behind a thousand of another
    Turns {
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// A host that fails whatever it is given, beside five that are well
    BlackHole {
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Counts requests and times in fleets of several sizes
    Scale {
        /// How many nodes each fleet has
        #[arg(long, value_delimiter = ',', default_value = "10,100,1000")]
        nodes: Vec<usize>,
        /// How many jobs for each node
        #[arg(long, default_value_t = 100)]
        jobs: usize,
        /// How long each runs
        #[arg(long, default_value = "20s")]
        runs: Span,
        /// How many messages a team may have in a lane's queue
        #[arg(long, default_value_t = 8)]
        window: u32,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Switches on known bugs, one at a time: each must be caught within so many seeds
    Mutants {
        #[arg(long, default_value = "0..2000", value_parser = seeds)]
        seeds: Range<u64>,
        /// Only this one
        #[arg(long)]
        only: Option<String>,
        /// Print their names instead
        #[arg(long)]
        list: bool,
    },
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let parts = text.split_once("..").ok_or("two numbers with .. between")?;
    let number = |text: &str| text.parse::<u64>().map_err(|e| format!("{text:?}: {e}"));
    Ok(number(parts.0)?..number(parts.1)?)
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { seeds, threads } => report::run(seeds, threads),
        Command::Replay { seed, mutant, log } => report::replay(seed, mutant.as_deref(), log),
        Command::Crashes { seeds } => report::crashes(seeds),
        Command::Meta { seeds } => report::meta(seeds),
        Command::Long { runs, seed } => report::calm(&format!("jobs of {runs}"), Calm::Long(runs.0), seed),
        Command::Turns { seed } => report::calm("a job behind a thousand", Calm::Turns, seed),
        Command::BlackHole { seed } => report::calm("a host that fails all jobs", Calm::BlackHole, seed),
        Command::Scale { nodes, jobs, runs, window, seed } => {
            scale::run(&nodes, Work { jobs, runs: runs.0, window }, seed)
        }
        Command::Policy(options) => policy::run(&options),
        Command::Mutants { list: true, .. } => report::names(),
        Command::Mutants { seeds, only, .. } => report::mutants(&seeds, only.as_deref()),
    }
}
