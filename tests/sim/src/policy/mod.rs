//! `sim policy`: how well haul uses GPUs, without a scheduler, against schedulers that see everything and
//! cost nothing ([`central`]).
//!
//! The work is that of a real cluster ([`openb`]) or like it ([`fitted`]), its fleet cut to a size that can be
//! simulated, its arrivals moved closer together until they offer the load, and its runs cut at some hours, since a
//! service that runs for months says nothing about scheduling ([`workload`]). haul runs as it ships
//! ([`shipped`]); all that is measured is computed alike, from who held what when ([`measure`]).

mod central;
mod fitted;
mod measure;
mod openb;
mod place;
mod shipped;
mod workload;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use shared::{job::Priority, units::Span};

use self::{
    measure::Measured,
    workload::{Size, Workload},
};

/// What is to be measured.
#[derive(Debug, Args)]
pub struct Options {
    /// The folder with the trace's two files [default: work made up with the same distributions]
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Parts of all GPUs that the tasks need, as in 0.7,0.9,1.1
    #[arg(long, value_delimiter = ',', default_values_t = [0.7, 0.9, 1.1], value_parser = load)]
    load: Vec<f64>,
    /// What the made-up work, the users' estimates and the simulation are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// To how many GPUs the fleet is cut
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u16).range(8..=6000))]
    gpus: u16,
    /// At which length runs are cut
    #[arg(long, default_value = "6h")]
    longest: Span,
    /// How many messages a team has in a lane's queue at most; all tasks are of one team
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
}

fn load(text: &str) -> Result<f64, String> {
    let load: f64 = text.parse().map_err(|_| "a load is a number, as in 0.9".to_owned())?;
    if (0.05..=3.0).contains(&load) { Ok(load) } else { Err("a load is from 0.05 to 3".into()) }
}

/// One line of the table.
struct Row {
    name: String,
    measured: Measured,
    /// Queue requests, store requests, and attempts that gave way.
    costs: Option<(f64, f64, usize)>,
}

/// `sim policy`
pub fn run(options: &Options) -> ExitCode {
    let work = match &options.trace {
        Some(folder) => match openb::read(folder) {
            Ok(work) => work,
            Err(error) => {
                eprintln!(
                    "error: {error:#}; --trace takes the folder of cluster-trace-gpu-v2023's CSV files"
                );
                return ExitCode::from(2);
            }
        },
        None => fitted::make(options.seed),
    };
    let mut work = work.cut(options.gpus.into());
    let mut dice = SmallRng::seed_from_u64(options.seed);
    for task in &mut work.tasks {
        task.runs = task.runs.min(options.longest.0);
        // People say more than it takes, by up to three times.
        let said = task.runs.mul_f64(dice.random_range(1.2..3.0)).as_secs() / 60 + 1;
        task.at_most = Duration::from_secs(60 * (said + 1));
    }
    for load in &options.load {
        let work = work.clone().at_load(*load);
        tell(*load, &work, &rows(&work, options));
    }
    ExitCode::SUCCESS
}

fn rows(work: &Workload, options: &Options) -> Vec<Row> {
    let shipped = |name: &str, gives_way| {
        let ran = shipped::run(work, options.seed, options.window, gives_way);
        let costs = Some((ran.queue, ran.store, ran.preempted));
        Row { name: name.into(), measured: Measured::of(work, &ran.schedule), costs }
    };
    std::thread::scope(|threads| {
        let ours = [("haul", false), ("haul, low priority gives way", true)]
            .map(|(name, gives_way)| threads.spawn(move || shipped(name, gives_way)));
        let central = central::POLICIES.iter().map(|policy| Row {
            name: policy.name.into(),
            measured: Measured::of(work, &central::run(work, *policy)),
            costs: None,
        });
        let central: Vec<Row> = central.collect();
        ours.into_iter().map(|row| row.join().expect("a simulation that ends")).chain(central).collect()
    })
}

fn tell(load: f64, work: &Workload, rows: &[Row]) {
    let hours = work.window().as_secs_f64() / 3600.0;
    println!(
        "Load {load}: {} tasks in {hours:.1} hours on {} hosts with {} GPUs\n",
        work.tasks.len(),
        work.hosts.len(),
        work.gpus()
    );
    println!(
        "| | GPUs busy | used | used in vain | fragmented | missed | gave way | queue requests a job | store |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for Row { name, measured, costs } in rows {
        let part = |value: f64| format!("{:.1} %", value * 100.0);
        let cost = costs
            .map_or("- | - | -".into(), |(queue, store, gave)| format!("{gave} | {queue:.1} | {store:.1}"));
        let Measured { busy, used, lost, fragmented, missed, .. } = measured;
        let parts = [busy, used, lost, fragmented, missed].map(|value| part(*value)).join(" | ");
        println!("| {name} | {parts} | {cost} |");
    }
    println!("\nMean wait / p95 in minutes:\n");
    let priorities = [Priority::High, Priority::Normal, Priority::Low];
    let mut classes: Vec<(String, Option<Size>, Option<Priority>)> = vec![("all".into(), None, None)];
    classes.extend(Size::ALL.map(|size| (size.name().into(), Some(size), None)));
    classes.extend(priorities.map(|priority| (priority.as_str().into(), None, Some(priority))));
    classes.retain(|(_, size, priority)| rows[0].measured.waits(*size, *priority).is_some());
    let names: Vec<&str> = classes.iter().map(|(name, ..)| name.as_str()).collect();
    println!("| | {} |", names.join(" | "));
    println!("|---|{}", "---:|".repeat(classes.len()));
    for Row { name, measured, .. } in rows {
        let cells = classes.iter().filter_map(|(_, size, priority)| measured.waits(*size, *priority));
        let cells: Vec<String> =
            cells.map(|(mean, late)| format!("{:.1} / {:.1}", mean / 60.0, late / 60.0)).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
    println!();
}
