//! What is asked about costs.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use shared::{client::By, id::Team, units::Span};

/// `haul cost`
#[derive(Debug, Args)]
pub struct Cost {
    /// Sum them so
    #[arg(long, value_enum, default_value_t = CostBy::Job)]
    pub by: CostBy,
    /// Only attempts that ended within this time
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    pub since: Span,
    /// Only of this team
    #[arg(long)]
    pub team: Option<Team>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// By what costs are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CostBy {
    /// By job.
    Job,
    /// By team.
    Team,
    /// By node.
    Node,
    /// By the model of the GPUs.
    Model,
    /// By who is paid for the host.
    Provider,
}

impl From<CostBy> for By {
    fn from(by: CostBy) -> Self {
        match by {
            CostBy::Job => Self::Job,
            CostBy::Team => Self::Team,
            CostBy::Node => Self::Node,
            CostBy::Model => Self::Model,
            CostBy::Provider => Self::Provider,
        }
    }
}

/// `haul compare`
#[derive(Debug, Args)]
pub struct Compare {
    /// The jobs: names, or ids
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// Also draw it, into this SVG file
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// One job for each GPU model.
#[derive(Debug, Clone, Copy)]
pub struct EachModel;

pub(super) fn parse_on(text: &str) -> Result<EachModel, String> {
    if text == "each=gpu_model" { Ok(EachModel) } else { Err("allowed is each=gpu_model".into()) }
}
