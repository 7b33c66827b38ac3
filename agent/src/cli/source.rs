//! How a job is described on the command line.

use std::path::PathBuf;

use clap::Args;
use shared::{
    id::{JobName, Team},
    job::{MigProfile, Priority},
    units::{Size, Span},
};

/// A job: from a file, or an image and a command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Job")]
pub struct JobSource {
    /// The job's file: TOML, YAML or JSON by its ending
    #[arg(value_name = "JOB", help_heading = "Arguments")]
    pub file: Option<PathBuf>,
    /// With a file, the command to run instead of the file's; without, an image and its command
    #[arg(last = true, value_name = "COMMAND", help_heading = "Arguments")]
    pub words: Vec<String>,
    /// Name it
    #[arg(long, value_name = "NAME")]
    pub name: Option<JobName>,
    /// Set an environment variable; may be given several times
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Ask for this many whole GPUs
    #[arg(long, value_name = "N")]
    pub gpus: Option<u32>,
    /// Ask for this much memory of one GPU, which other jobs may use beside it
    #[arg(long, value_name = "SIZE", conflicts_with = "gpus")]
    pub gpu_share: Option<Size>,
    /// Ask for a MIG instance of this kind, such as 1g.10gb
    #[arg(long, value_name = "PROFILE", conflicts_with_all = ["gpus", "gpu_share"])]
    pub mig: Option<MigProfile>,
    /// Accept this GPU model; may be given several times
    #[arg(long, value_name = "MODEL")]
    pub gpu_model: Vec<String>,
    /// Ask for at least this much memory on each GPU
    #[arg(long, value_name = "SIZE")]
    pub gpu_memory: Option<Size>,
    /// Ask for this many CPU cores
    #[arg(long, value_name = "CORES")]
    pub cpus: Option<f64>,
    /// Limit its main memory
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,
    /// Stop it after this long
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<Span>,
    /// Try again this often after it failed by its own doing
    #[arg(long, value_name = "N")]
    pub retries: Option<u32>,
    /// Whose job it is
    #[arg(long, value_name = "TEAM")]
    pub team: Option<Team>,
    /// Which jobs go first: high, normal, low
    #[arg(long, value_name = "PRIORITY", value_parser = parse_priority)]
    pub priority: Option<Priority>,
    /// Let it give way to jobs of a higher priority, to go on later from its checkpoint
    #[arg(long)]
    pub preemptible: bool,
}

fn parse_priority(text: &str) -> Result<Priority, String> {
    match text {
        "high" => Ok(Priority::High),
        "normal" => Ok(Priority::Normal),
        "low" => Ok(Priority::Low),
        _ => Err("allowed are high, normal, low".into()),
    }
}
