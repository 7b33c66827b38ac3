//! What operators of a fleet can say.

use clap::{Args, Subcommand};
use shared::{
    id::{LaneId, NodeId},
    queue::QueueName,
};

/// `haul fleet`
#[derive(Debug, Args)]
pub struct Fleet {
    /// What to do
    #[command(subcommand)]
    pub command: FleetCommand,
}

/// What can be done with a fleet's settings.
#[derive(Debug, Subcommand)]
pub enum FleetCommand {
    /// Show the settings
    Show(FleetShow),
    /// Change settings; agents notice within a minute
    Set(FleetSet),
}

/// `haul fleet show`
#[derive(Debug, Args)]
pub struct FleetShow {
    /// Show all that ever held, with who made them
    #[arg(long)]
    pub history: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `haul fleet set`
#[derive(Debug, Args)]
pub struct FleetSet {
    /// Settings with their new values, as in window=16 or status=true; lists are JSON, and @FILE is what a
    /// file says
    #[arg(value_name = "KEY=VALUE", required = true)]
    pub pairs: Vec<String>,
}

/// `haul nodes`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Nodes {
    /// Forget nodes instead
    #[command(subcommand)]
    pub command: Option<NodesCommand>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What can be done with nodes.
#[derive(Debug, Subcommand)]
pub enum NodesCommand {
    /// Forget nodes that are gone for good; one whose agent lives is refused
    Rm(NodesRm),
}

/// `haul nodes rm`
#[derive(Debug, Args)]
pub struct NodesRm {
    /// Their names
    #[arg(value_name = "NODE", required = true)]
    pub nodes: Vec<NodeId>,
}

/// `haul queue`
#[derive(Debug, Args)]
pub struct Queue {
    /// What to do
    #[command(subcommand)]
    pub command: QueueCommand,
}

/// What can be done with queues.
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// List the queues and how many messages each holds
    List(super::Listing),
    /// Delete all messages of a queue; the jobs stay, and their messages are sent again
    Purge(QueuePurge),
    /// Send the messages of all jobs that wait once more; doubles do no harm
    Resend(QueueResend),
    /// Show the dead letters: what came to the inbox and is no job, and why
    Dead(super::Listing),
}

/// `haul queue purge`
#[derive(Debug, Args)]
pub struct QueuePurge {
    /// The queue: a lane, inbox, dead or status
    #[arg(value_name = "NAME")]
    pub queue: QueueName,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// `haul queue resend`
#[derive(Debug, Args)]
pub struct QueueResend {
    /// Only of this lane
    #[arg(value_name = "LANE")]
    pub lane: Option<LaneId>,
}
