//! The commands: what they run, and what they say.

use std::{ops::Range, process::ExitCode, time::Instant};

use shared::mutant::Mutant;

use crate::{
    calm::Calm,
    host::Edge,
    pool::{self, Found, cores},
    scenario::Place,
    seed::{self, Options, Verdict},
};

#[expect(clippy::disallowed_methods, reason = "how long the runs really take")]
fn now() -> Instant {
    Instant::now()
}

fn show(what: &str, verdict: &Verdict) -> ExitCode {
    verdict.tail.iter().for_each(|line| println!("{line}"));
    println!("\nFAILED {what}: {}", verdict.broken.as_deref().unwrap_or_default());
    ExitCode::FAILURE
}

/// `sim run`
pub fn run(seeds: Range<u64>, threads: Option<usize>) -> ExitCode {
    let began = now();
    let tally = pool::seeds(seeds, threads.unwrap_or_else(cores), Options::default());
    if let Some(Found { item, verdict }) = &tally.found {
        return show(&format!("seed {item} (again with: sim replay {item})"), verdict);
    }
    let (runs, lines, took) = (tally.runs, tally.lines, began.elapsed());
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = runs as f64 / took.as_secs_f64();
    println!("{runs} seeds passed in {:.1} s: {rate:.0} a second, {lines} events", took.as_secs_f64());
    ExitCode::SUCCESS
}

/// `sim replay`
pub fn replay(seed: u64, mutant: Option<&str>, log: bool) -> ExitCode {
    if log {
        tracing_subscriber::fmt().without_time().with_target(false).with_writer(std::io::stdout).init();
    }
    let mutant = match mutant.map(named).transpose() {
        Ok(mutant) => mutant,
        Err(error) => return usage(&error),
    };
    let verdict = seed::run(seed, Options { mutant, shown: true, ..Options::default() });
    println!("\n{} events, hash {:016x}", verdict.lines, verdict.hash);
    match verdict.broken {
        Some(broken) => {
            println!("FAILED seed {seed}: {broken}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

/// `sim crashes`
pub fn crashes(seeds: Range<u64>) -> ExitCode {
    let began = now();
    let mut places: Vec<(u64, Option<Place>)> = Vec::new();
    for seed in seeds {
        let effects = seed::run(seed, Options { place: Some(None), ..Options::default() }).effects;
        places.push((seed, None));
        let both = |effect| [Edge::Before, Edge::After].map(|edge| (seed, Some(Place { effect, edge })));
        places.extend((0..effects).flat_map(both));
    }
    let tally = pool::until_broken(&places, cores(), |(seed, place)| {
        seed::run(seed, Options { place: Some(place), ..Options::default() })
    });
    if let Some(Found { item: (seed, place), verdict }) = &tally.found {
        return show(&format!("seed {seed} with a crash at {place:?}"), verdict);
    }
    println!("{} crashes passed in {:.1} s", tally.runs, began.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}

/// `sim meta`
pub fn meta(seeds: Range<u64>) -> ExitCode {
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let (one, two) = (seed::run(seed, Options::default()), seed::run(seed, Options::default()));
        if one.hash != two.hash {
            println!("FAILED: seed {seed} gives {:016x} and then {:016x}", one.hash, two.hash);
            let differ = one.tail.iter().zip(&two.tail).find(|(one, two)| one != two);
            differ.into_iter().for_each(|(one, two)| println!("  {one}\n  {two}"));
            return ExitCode::FAILURE;
        }
    }
    println!("{count} seeds gave the same twice");
    ExitCode::SUCCESS
}

fn named(name: &str) -> Result<Mutant, String> {
    let names = || Mutant::ALL.iter().map(|mutant| mutant.name()).collect::<Vec<_>>().join(", ");
    let found = Mutant::ALL.iter().find(|mutant| mutant.name() == name);
    found.copied().ok_or_else(|| format!("there is no bug {name:?}: {}", names()))
}

fn usage(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(2)
}

/// `sim long`, `sim turns`
pub fn calm(what: &str, calm: Calm, seed: u64) -> ExitCode {
    let began = now();
    let verdict = seed::run(seed, Options { calm: Some(calm), ..Options::default() });
    if verdict.broken.is_some() {
        return show(what, &verdict);
    }
    println!("{what}: passed in {:.1} s", began.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}

/// `sim mutants --list`
pub fn names() -> ExitCode {
    Mutant::ALL.iter().for_each(|mutant| println!("{}", mutant.name()));
    ExitCode::SUCCESS
}

/// `sim mutants`
pub fn mutants(seeds: &Range<u64>, only: Option<&str>) -> ExitCode {
    let chosen = match only.map(named).transpose() {
        Ok(only) => only.map_or_else(|| Mutant::ALL.to_vec(), |only| vec![only]),
        Err(error) => return usage(&error),
    };
    let mut survivors = 0;
    for mutant in chosen {
        let began = now();
        let options = Options { mutant: Some(mutant), ..Options::default() };
        let tally = pool::seeds(seeds.clone(), cores(), options);
        let (name, took) = (mutant.name(), began.elapsed().as_secs_f64());
        match &tally.found {
            Some(Found { item, verdict }) => {
                let broken = verdict.broken.as_deref().unwrap_or_default();
                println!("caught   {name:<20} seed {item:>5} {took:>5.1} s  {broken}");
            }
            None => {
                survivors += 1;
                println!("SURVIVED {name:<20} {} seeds {took:>5.1} s", tally.runs);
            }
        }
    }
    if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
