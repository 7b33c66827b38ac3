//! `haul`: the agent on every host, and the commands that people give.
//!
//! A library beneath the program of the same name, so that the simulation runs the code that ships.

pub mod beat;
pub mod changes;
pub mod claim;
mod cli;
mod cloud;
mod commands;
pub mod config;
mod control;
mod daemon;
mod disk;
pub mod drain;
pub mod engine;
pub mod execute;
mod exit;
pub mod fence;
pub mod gossip;
pub mod gpu;
pub mod guard;
mod health;
mod identity;
mod images;
pub mod inbox;
mod inspect;
mod leave;
pub mod ledger;
pub mod life;
mod metrics;
pub mod node;
mod notify;
pub mod outputs;
pub mod pace;
mod patience;
mod prefetch;
pub mod publish;
pub mod recover;
mod render;
mod runs;
mod secret;
pub mod settings;
mod ship;
pub mod sweep;
pub mod task;
mod telemetry;
pub mod usage;
mod volume;
pub mod watch;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

/// The program: reads the command line, does what it says, and gives its exit code.
pub fn main() -> ExitCode {
    let matches = cli::Cli::command().get_matches();
    let cli = match cli::Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    // One worker is plenty for what an agent does, and each costs memory; blocking calls of the
    // store and the queue have threads of their own, made when needed.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let done = match runtime {
        Ok(runtime) => {
            let done = runtime.block_on(commands::run(cli, &matches));
            // A thread that hangs on a dead mount must not keep the process.
            runtime.shutdown_background();
            done
        }
        Err(error) => Err(anyhow::Error::from(error).context("cannot start")),
    };
    match done {
        Ok(code) => code,
        Err(error) => exit::report(&error),
    }
}
