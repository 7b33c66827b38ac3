//! The command line, as parsed. What the words mean is decided in [`crate::commands`].

mod operate;
mod source;
mod spend;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use shared::{
    fleet::QueueSettings,
    id::{Attempt, JobId, NodeId, Team},
    log::Phase,
    queue::AddressError,
    units::Span,
};
use url::Url;

pub use operate::{
    Fleet, FleetCommand, FleetSet, FleetShow, Nodes, NodesCommand, NodesRm, Queue, QueueCommand, QueuePurge,
};

pub use source::JobSource;
pub use spend::{Compare, Cost, CostBy, EachModel};

use crate::config::{AgentFlags, HostFlags, parse_fleet};

/// GPU container jobs on hosts in any cloud, with no server of its own.
///
/// Agents pull jobs from a queue, run them in containers on their free GPUs, and write what
/// happened to an object store. Without --fleet, everything stays on this host: a directory of
/// yours is the store, and Docker is all that is needed.
#[derive(Debug, Parser)]
#[command(name = "haul", version, propagate_version = true, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// The fleet: a directory, or a URL such as s3://bucket/prefix [default: a directory of yours]
    #[arg(long, global = true, value_name = "URL", env = "HAUL_FLEET", value_parser = parse_fleet)]
    pub fleet: Option<Url>,
    /// Whether to use colours: auto, always or never
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, env = "HAUL_COLOR", hide_possible_values = true)]
    pub color: Color,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 the request failed, 2 usage, 3 not found. For run, wait and submit --wait: \
the job's own code, 124 if it timed out, 125 if the platform failed it.";

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What haul can be told to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a job here and now, as a node would; stream its output and exit with its code
    Run(Run),
    /// Submit a job to the fleet and print its id
    Submit(Submit),
    /// List jobs
    Ps(Ps),
    /// Show a job's history, and why it waits
    Status(Status),
    /// Print a job's output
    Logs(Logs),
    /// Wait for jobs to finish, and exit with the code of the first that failed
    Wait(Wait),
    /// Cancel jobs: waiting ones at once, running ones with SIGTERM
    Cancel(Cancel),
    /// Run finished jobs again, under the same id
    Retry(Ids),
    /// Run the agent of this host, or ask it how it is
    Agent(Agent),
    /// Freeze this host's containers when its agent no longer holds its lease
    Guard(Guard),
    /// Let a host take no new jobs; running ones go on
    Drain(Drain),
    /// List the fleet's nodes, or forget some
    Nodes(Nodes),
    /// List the fleet's lanes: what waits, and which nodes fit
    Lanes(Listing),
    /// Say how many machines of each pool are wanted, for an autoscaler
    Demand(Listing),
    /// Say what jobs used and cost
    Cost(Cost),
    /// Compare the kinds of hosts on which the same program ran: time, and what a run costs
    Compare(Compare),
    /// List this host's GPUs
    Gpus(Gpus),
    /// Check this host and the fleet, and say how to mend what is wrong
    Doctor(Doctor),
    /// Make a fleet
    Init(Init),
    /// Show or change the fleet's settings
    Fleet(Fleet),
    /// Look after the fleet's queues
    Queue(Queue),
    /// Print the JSON Schema of a format
    Schema(Schema),
    /// Print a shell's completion script
    Completions(Completions),
    /// Write the manual pages
    Man(Man),
}

/// The causes on one line: clap prints no others.
fn parse_queue(text: &str) -> Result<QueueSettings, String> {
    text.parse().map_err(|error: AddressError| crate::patience::Chain(&error).to_string())
}

fn parse_phase(text: &str) -> Result<Phase, String> {
    serde_json::from_value(text.into()).map_err(|_| {
        "allowed are parked, queued, reserved, starting, running, frozen, stopping, succeeded, failed, cancelled, rejected".into()
    })
}

fn parse_attempt(text: &str) -> Result<Attempt, String> {
    text.parse().ok().filter(|n| *n > 0).map(Attempt).ok_or_else(|| "an attempt is a number from 1".into())
}

/// `haul run`
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub job: JobSource,
    #[command(flatten)]
    pub host: HostFlags,
}

/// `haul submit`
#[derive(Debug, Args)]
pub struct Submit {
    /// Give it this id; submitting the same job under it again changes nothing
    #[arg(long, value_name = "ID")]
    pub id: Option<JobId>,
    /// Wait until it is finished, and exit with its code
    #[arg(long)]
    pub wait: bool,
    /// Print its output as it comes, and exit with its code
    #[arg(long)]
    pub follow: bool,
    /// Submit one job for each index, as in 0-9 or 0-9:3 or 1,5,7
    #[arg(long, value_name = "RANGE", conflicts_with = "follow")]
    pub array: Option<String>,
    /// Submit one job for each GPU model that the fleet's nodes have; `haul compare` tells how they did
    #[arg(long, value_name = "each=gpu_model", value_parser = spend::parse_on, conflicts_with_all = ["follow", "array", "dry_run"])]
    pub on: Option<spend::EachModel>,
    /// Do not ask the image's registry what the image needs of a host: CPU architecture, CUDA, GPUs
    #[arg(long, env = "HAUL_NO_INSPECT", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_inspect: bool,
    /// Check it, and show its lane and which nodes fit; submit nothing
    #[arg(long, conflicts_with_all = ["wait", "follow"])]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub job: JobSource,
}

/// `haul ps`
#[derive(Debug, Args)]
pub struct Ps {
    /// Also those that finished before yesterday
    #[arg(short, long)]
    pub all: bool,
    /// Only in this state; may be given several times
    #[arg(long, value_name = "STATE", value_parser = parse_phase)]
    pub state: Vec<Phase>,
    /// Only of this name
    #[arg(long)]
    pub name: Option<String>,
    /// Only of this team
    #[arg(long)]
    pub team: Option<Team>,
    /// Only on this node
    #[arg(long)]
    pub node: Option<NodeId>,
    /// Only those that were moved last; 0 for all [default: 200 on a terminal, else all]
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<usize>,
    /// Print only ids
    #[arg(short, long)]
    pub quiet: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `haul status`
#[derive(Debug, Args)]
pub struct Status {
    /// The job: its id, the beginning of its id, or its name
    #[arg(value_name = "ID")]
    pub job: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `haul logs`
#[derive(Debug, Args)]
pub struct Logs {
    /// The job: its id, the beginning of its id, or its name
    #[arg(value_name = "ID")]
    pub job: String,
    /// Go on until it is finished
    #[arg(short, long)]
    pub follow: bool,
    /// Only of this attempt [default: the last]
    #[arg(long, value_name = "N", value_parser = parse_attempt)]
    pub attempt: Option<Attempt>,
    /// Print the time of each line
    #[arg(short, long)]
    pub timestamps: bool,
}

/// `haul wait`
#[derive(Debug, Args)]
pub struct Wait {
    /// The jobs: ids, beginnings of ids, or names
    #[arg(value_name = "ID", required = true)]
    pub jobs: Vec<String>,
    /// Give up after this long, with exit code 1
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<Span>,
}

/// `haul cancel`
#[derive(Debug, Args)]
pub struct Cancel {
    /// The jobs: ids, beginnings of ids, or names
    #[arg(value_name = "ID", required = true)]
    pub jobs: Vec<String>,
    /// Why, for the job's history
    #[arg(long)]
    pub reason: Option<String>,
}

/// Jobs.
#[derive(Debug, Args)]
pub struct Ids {
    /// The jobs: ids, beginnings of ids, or names
    #[arg(value_name = "ID", required = true)]
    pub jobs: Vec<String>,
}

/// `haul agent`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Agent {
    /// Check the configuration, print its values and where each comes from, and stop
    #[arg(long)]
    pub check: bool,
    /// Ask the running agent
    #[command(subcommand)]
    pub command: Option<AgentCommand>,
    #[command(flatten)]
    pub flags: AgentFlags,
}

/// What a running agent can be asked.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Show how this host's agent is
    Status(AgentStatus),
}

/// `haul agent status`
#[derive(Debug, Args)]
pub struct AgentStatus {
    /// The agent's state directory
    #[arg(long, value_name = "DIR", env = "HAUL_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `haul guard`
#[derive(Debug, Args)]
pub struct Guard {
    /// The agent's state directory
    #[arg(long, value_name = "DIR", env = "HAUL_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// The container engine's socket [default: the one that the agent uses]
    #[arg(long, value_name = "ADDRESS", env = "HAUL_ENGINE")]
    pub engine: Option<String>,
}

/// `haul drain`
#[derive(Debug, Args)]
pub struct Drain {
    /// Another node, through the fleet's settings: it hears of it within a minute, and takes no jobs until
    /// --resume, also after a restart [default: this host's, until its agent ends]
    #[arg(value_name = "NODE")]
    pub node: Option<NodeId>,
    /// Stop what still runs then, with notice; it is queued again [default: never]
    #[arg(long, value_name = "DURATION", conflicts_with = "resume")]
    pub deadline: Option<Span>,
    /// Take jobs again
    #[arg(long)]
    pub resume: bool,
    /// Return only when no job runs any more
    #[arg(long)]
    pub wait: bool,
    /// The agent's state directory
    #[arg(long, value_name = "DIR", env = "HAUL_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
}

/// A listing.
#[derive(Debug, Args)]
pub struct Listing {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `haul gpus`
#[derive(Debug, Args)]
pub struct Gpus {
    /// Pretend to have these GPUs, as in 2xP100:16GiB
    #[arg(long, value_name = "SPEC", env = "HAUL_SIMULATE_GPUS")]
    pub simulate_gpus: Option<crate::gpu::SimulatedSpec>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `haul doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub agent: AgentFlags,
}

/// `haul init`
#[derive(Debug, Args)]
pub struct Init {
    /// The fleet's store: a directory, or a URL such as s3://bucket/prefix
    #[arg(value_name = "URL", value_parser = parse_fleet)]
    pub url: Url,
    /// The fleet's queue: sqs://REGION/PREFIX, or for one host sqlite or sqlite:/path/to/file
    #[arg(long, value_name = "QUEUE", default_value = "sqlite", value_parser = parse_queue)]
    pub queue: QueueSettings,
    /// Make nothing; print the policies alone
    #[arg(long)]
    pub policies: bool,
    /// Print the policies as JSON
    #[arg(long, requires = "policies")]
    pub json: bool,
}

/// `haul schema`
#[derive(Debug, Args)]
pub struct Schema {
    /// Which format: job
    #[arg(value_enum, hide_possible_values = true)]
    pub format: SchemaFormat,
}

/// The formats that have a schema.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum SchemaFormat {
    /// A job's file.
    Job,
}

/// `haul completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `haul man`
#[derive(Debug, Args)]
pub struct Man {
    /// Write one page for each command into this directory [default: print the first page]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
