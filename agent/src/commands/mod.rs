//! What each command does. One file each; what is printed is in [`crate::render`].

mod agent;
mod doctor;
mod fleet;
mod job;
mod jobs;
mod logs;
mod progress;
mod queue;
mod reference;
mod run;
mod settings;
mod spend;
mod submit;
mod wait;

use std::{process::ExitCode, sync::Arc};

use anyhow::Result;
use clap::ArgMatches;
use shared::{
    client::Client,
    clock::{Chance, SystemClock},
    fleet::Fleet,
    id::Timestamp,
    log::{Author, Job},
};
use tracing::level_filters::LevelFilter;
use url::Url;

use crate::{
    cli::{self, Cli, Command, FleetCommand},
    config::default_fleet,
    render::Out,
    telemetry,
};

/// What a command has at hand.
pub(crate) struct Context {
    fleet: Option<Url>,
    out: Out,
}

impl Context {
    /// Opens the fleet.
    async fn client(&self) -> Result<Client> {
        let url = self.fleet.clone().unwrap_or_else(default_fleet);
        let clock = Arc::new(SystemClock);
        let fleet = Fleet::open(&url, clock.clone()).await?;
        Ok(Client::new(fleet, author(), clock, Chance::from_os()))
    }

    fn now(&self) -> Timestamp {
        shared::clock::Clock::now(&SystemClock)
    }
}

/// `user@host`, for the history.
fn author() -> Author {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let user = user.unwrap_or_else(|_| format!("uid{}", rustix::process::getuid().as_raw()));
    Author::Client(format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy()))
}

/// A finished job's code as this process's.
fn exit_code(job: &Job) -> ExitCode {
    let status = job.exit_status().unwrap_or(1);
    ExitCode::from(u8::try_from(status).unwrap_or(1))
}

/// Does what the command line says.
///
/// # Errors
/// What [`crate::exit::report`] prints.
pub async fn run(cli: Cli, matches: &ArgMatches) -> Result<ExitCode> {
    let context = Context { fleet: cli.fleet, out: Out::new(cli.color) };
    let sub = |name: &str| matches.subcommand_matches(name).expect("this subcommand was given");
    // The agent talks; other commands speak up only when something is wrong.
    let is_agent = match &cli.command {
        Command::Agent(agent) => agent.command.is_none() && !agent.check,
        Command::Guard(_) => true,
        _ => false,
    };
    telemetry::start(if is_agent { LevelFilter::INFO } else { LevelFilter::WARN }, is_agent);
    match cli.command {
        Command::Run(args) => run::run(&context, args, sub("run")).await,
        Command::Submit(args) => submit::run(&context, args).await,
        Command::Ps(args) => jobs::ps(&context, args).await,
        Command::Status(args) => jobs::status(&context, &args).await,
        Command::Logs(args) => logs::run(&context, &args).await,
        Command::Wait(args) => wait::run(&context, &args).await,
        Command::Cancel(args) => jobs::cancel(&context, &args).await,
        Command::Retry(args) => jobs::retry(&context, &args).await,
        Command::Agent(args) => agent::run(&context, args, sub("agent")).await,
        Command::Guard(args) => agent::guard(args).await,
        Command::Drain(args) => agent::drain(&context, &args).await,
        Command::Nodes(args) => fleet::nodes(&context, &args).await,
        Command::Lanes(args) => fleet::lanes(&context, &args).await,
        Command::Demand(args) => fleet::demand(&context, &args).await,
        Command::Cost(args) => spend::cost(&context, &args).await,
        Command::Compare(args) => spend::compare(&context, &args).await,
        Command::Gpus(args) => fleet::gpus(&context, args).await,
        Command::Doctor(args) => doctor::run(&context, args, sub("doctor")).await,
        Command::Init(args) => fleet::init(&context, &args).await,
        Command::Fleet(cli::Fleet { command: FleetCommand::Show(args) }) => {
            settings::show(&context, &args).await
        }
        Command::Fleet(cli::Fleet { command: FleetCommand::Set(args) }) => {
            settings::set(&context, &args).await
        }
        Command::Queue(args) => queue::run(&context, args.command).await,
        Command::Schema(args) => reference::schema(&context, &args),
        Command::Completions(args) => reference::completions(&context, &args),
        Command::Man(args) => reference::man(&context, &args),
    }
}
