//! Made-up work with the distributions of the real cluster's ([`super::openb`]): for where its files are
//! not at hand.
//!
//! Four sizes of tasks; of each, how often it comes, how urgent it is, on which models it may run, what it
//! needs besides, and quantiles of how long it runs, between which the logarithm is taken as evenly spread.
//! The pauses between arrivals are hyperexponential of two phases with balanced means (Whitt, "Approximating a
//! Point Process by a Renewal Process", 1982), fitted to their mean and variance.

use std::time::Duration;

use rand::{Rng, SeedableRng, distr::weighted::WeightedIndex, rngs::SmallRng};
use shared::job::Priority;

use super::workload::{Host, Need, Size, Task, Workload};

/// How many tasks the trace has that ran.
const TASKS: usize = 7228;

/// Mean pause between two arrivals, in seconds, and its squared coefficient of variation.
const PAUSE: f64 = 409.6;
const VARIATION: f64 = 2.5;

/// At these shares of all runs [`Runs::at`] is given.
const SHARES: [f64; 10] = [0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.8, 0.9, 0.95, 1.0];

/// How many hosts of each kind: model, GPUs, thousandths of CPUs, MiB.
const HOSTS: [(usize, &str, usize, u32, u32); 15] = [
    (549, "G2", 8, 96_000, 393_216),
    (387, "T4", 2, 104_000, 524_288),
    (107, "P100", 2, 16_000, 122_880),
    (39, "G3", 8, 128_000, 786_432),
    (28, "V100M16", 4, 32_000, 131_072),
    (22, "P100", 2, 64_000, 262_144),
    (21, "V100M32", 8, 96_000, 786_432),
    (19, "V100M16", 1, 8000, 32_768),
    (17, "T4", 4, 96_000, 393_216),
    (9, "V100M32", 4, 48_000, 376_832),
    (7, "V100M16", 8, 64_000, 262_144),
    (3, "P100", 1, 8000, 61_440),
    (2, "P100", 2, 8000, 61_440),
    (2, "A10", 1, 128_000, 1_048_576),
    (1, "V100M16", 8, 82_000, 344_064),
];

/// How long tasks of one priority run, and how often it occurs among its size.
struct Runs {
    weight: f64,
    priority: Priority,
    /// Seconds, at each of [`SHARES`]; the longest 1 % are beyond all measures of a bench.
    at: [f64; 10],
}

/// Tasks of one size.
struct Kind {
    weight: f64,
    size: Size,
    /// GPUs and thousandths of each.
    amounts: &'static [(f64, usize, u32)],
    /// Which models, parted by `|`.
    models: &'static [(f64, &'static str)],
    /// Thousandths of CPUs, and MiB.
    rest: &'static [(f64, u32, u32)],
    runs: &'static [Runs],
}

const KINDS: [Kind; 4] = [
    Kind {
        weight: 0.1453,
        size: Size::Cpu,
        amounts: &[(1.0, 0, 1000)],
        models: &[(1.0, "")],
        rest: &[
            (0.33, 12_500, 57_344),
            (0.268, 32_000, 49_152),
            (0.155, 8_000, 30_517),
            (0.109, 15_400, 51_200),
            (0.086, 16_500, 51_200),
        ],
        runs: &[
            Runs {
                weight: 0.572,
                priority: Priority::High,
                at: [33.0, 76.0, 100.0, 250.0, 602.0, 1408.0, 1768.0, 3551.0, 5300.0, 21_600.0],
            },
            Runs {
                weight: 0.428,
                priority: Priority::Low,
                at: [138.0, 142.0, 144.0, 147.0, 177.0, 3757.0, 13_259.0, 19_967.0, 21_600.0, 21_600.0],
            },
        ],
    },
    Kind {
        weight: 0.3547,
        size: Size::Share,
        amounts: &[
            (0.397, 1, 810),
            (0.177, 1, 470),
            (0.112, 1, 320),
            (0.085, 1, 650),
            (0.048, 1, 460),
            (0.037, 1, 230),
            (0.028, 1, 550),
            (0.027, 1, 160),
            (0.024, 1, 590),
            (0.023, 1, 220),
            (0.018, 1, 370),
            (0.01, 1, 110),
        ],
        models: &[(0.715, ""), (0.194, "T4"), (0.087, "P100"), (0.004, "G2|P100|T4|V100M16|V100M32")],
        rest: &[
            (0.41, 3_152, 5_600),
            (0.178, 11_908, 47_104),
            (0.12, 8_000, 30_517),
            (0.061, 4_000, 15_258),
            (0.061, 4_000, 22_888),
            (0.058, 4_152, 10_600),
            (0.041, 4_000, 30_517),
        ],
        runs: &[
            Runs {
                weight: 0.227,
                priority: Priority::High,
                at: [16.0, 51.0, 66.0, 409.0, 899.0, 2252.0, 2708.0, 5467.0, 10_823.0, 21_600.0],
            },
            Runs {
                weight: 0.773,
                priority: Priority::Low,
                at: [4.0, 30.0, 53.0, 131.0, 367.0, 1475.0, 2848.0, 9896.0, 20_827.0, 21_600.0],
            },
        ],
    },
    Kind {
        weight: 0.4899,
        size: Size::One,
        amounts: &[(1.0, 1, 1000)],
        models: &[
            (0.625, ""),
            (0.179, "T4"),
            (0.082, "G2"),
            (0.039, "V100M16|V100M32"),
            (0.026, "P100|V100M16|V100M32"),
            (0.02, "G3"),
            (0.015, "P100|T4|V100M16|V100M32"),
        ],
        rest: &[
            (0.226, 11_300, 49_152),
            (0.139, 11_400, 48_128),
            (0.131, 3_152, 5_600),
            (0.058, 18_708, 64_512),
            (0.045, 9_810, 41_560),
            (0.043, 12_000, 24_576),
            (0.038, 15_700, 58_368),
            (0.03, 16_000, 32_768),
            (0.029, 4_000, 24_576),
        ],
        runs: &[
            Runs {
                weight: 0.829,
                priority: Priority::High,
                at: [13.0, 57.0, 77.0, 311.0, 1013.0, 2903.0, 3739.0, 6333.0, 12_499.0, 21_600.0],
            },
            Runs {
                weight: 0.023,
                priority: Priority::Normal,
                at: [12.0, 29.0, 42.0, 243.0, 3660.0, 21_600.0, 21_600.0, 21_600.0, 21_600.0, 21_600.0],
            },
            Runs {
                weight: 0.148,
                priority: Priority::Low,
                at: [5.0, 54.0, 117.0, 152.0, 199.0, 232.0, 259.0, 342.0, 1022.0, 12_786.0],
            },
        ],
    },
    Kind {
        weight: 0.0101,
        size: Size::Several,
        amounts: &[(0.589, 8, 1000), (0.205, 2, 1000), (0.206, 4, 1000)],
        models: &[(0.63, ""), (0.15, "G2"), (0.11, "V100M16|V100M32"), (0.08, "G3"), (0.03, "V100M32")],
        rest: &[
            (0.34, 64_200, 263_168),
            (0.233, 88_000, 327_680),
            (0.123, 32_200, 132_096),
            (0.082, 16_200, 66_560),
        ],
        runs: &[
            Runs {
                weight: 0.7,
                priority: Priority::High,
                at: [22.0, 35.0, 37.0, 155.0, 542.0, 2933.0, 4319.0, 21_600.0, 21_600.0, 21_600.0],
            },
            Runs {
                weight: 0.3,
                priority: Priority::Normal,
                at: [58.0, 114.0, 117.0, 171.0, 3566.0, 21_600.0, 21_600.0, 21_600.0, 21_600.0, 21_600.0],
            },
        ],
    },
];

/// Hosts and tasks like those of the trace.
pub fn make(seed: u64) -> Workload {
    let mut dice = SmallRng::seed_from_u64(seed);
    let hosts = HOSTS
        .iter()
        .flat_map(|(count, model, gpus, cpus, memory)| {
            let host = Host { model: (*model).into(), gpus: *gpus, cpus: *cpus, memory: *memory };
            vec![host; *count]
        })
        .collect();
    let mut now = Duration::ZERO;
    let tasks = (0..TASKS)
        .map(|_| {
            now += Duration::from_secs_f64(pause(&mut dice));
            task(&mut dice, now)
        })
        .collect();
    Workload { hosts, tasks }
}

fn draw<'t, T>(dice: &mut SmallRng, of: &'t [T], weight: impl Fn(&T) -> f64) -> &'t T {
    let weights = WeightedIndex::new(of.iter().map(weight)).expect("weights above zero");
    &of[dice.sample(weights)]
}

fn pause(dice: &mut SmallRng) -> f64 {
    let often = 0.5 * (1.0 + ((VARIATION - 1.0) / (VARIATION + 1.0)).sqrt());
    let phase = if dice.random_bool(often) { often } else { 1.0 - often };
    -(1.0 - dice.random::<f64>()).ln() * PAUSE / (2.0 * phase)
}

fn task(dice: &mut SmallRng, arrives: Duration) -> Task {
    let kind = draw(dice, &KINDS, |kind| kind.weight);
    let (_, gpus, milli) = *draw(dice, kind.amounts, |amount| amount.0);
    let (_, models) = *draw(dice, kind.models, |models| models.0);
    let (_, cpus, memory) = *draw(dice, kind.rest, |rest| rest.0);
    let runs = draw(dice, kind.runs, |runs| runs.weight);
    let models = models.split('|').filter(|model| !model.is_empty()).map(str::to_owned).collect();
    let need = Need { gpus, milli, models, cpus, memory };
    debug_assert_eq!(need.size(), kind.size);
    let (priority, runs) = (runs.priority, quantile(&runs.at, dice.random()));
    Task { need, priority, arrives, runs, at_most: runs }
}

/// The time at this share of all, between two known ones by the logarithm.
fn quantile(at: &[f64; 10], share: f64) -> Duration {
    let above = SHARES.iter().position(|known| share < *known).unwrap_or(SHARES.len() - 1).max(1);
    let part = (share - SHARES[above - 1]) / (SHARES[above] - SHARES[above - 1]);
    Duration::from_secs_f64((at[above - 1].ln() * (1.0 - part) + at[above].ln() * part).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known of one size's tasks.
    struct Known {
        size: Size,
        /// Of all tasks.
        part: f64,
        /// Seconds, of which a quarter, half, three quarters and nine tenths run no longer, no run counted
        /// beyond [`LONGEST`].
        runs: [f64; 4],
        /// Of all GPU time, runs cut alike.
        demand: f64,
        high: f64,
        /// Bound to some models.
        bound: f64,
        /// CPUs, the mean.
        cpus: f64,
    }

    const LONGEST: f64 = 21_600.0;

    /// As in the trace.
    const TRACE: [Known; 4] = [
        known(Size::Cpu, 0.145, [151.0, 492.0, 1947.0, 12_932.0], [0.0, 0.572, 0.0, 17.7]),
        known(Size::Share, 0.355, [143.0, 536.0, 1798.0, 8818.0], [0.228, 0.227, 0.285, 5.7]),
        known(Size::One, 0.490, [207.0, 748.0, 2424.0, 5740.0], [0.606, 0.829, 0.375, 10.9]),
        known(Size::Several, 0.010, [171.0, 573.0, 4410.0, 21_600.0], [0.166, 0.699, 0.370, 58.4]),
    ];

    /// GPU seconds of a task, the mean.
    const GPU_SECONDS: f64 = 1983.0;

    const fn known(size: Size, part: f64, runs: [f64; 4], [demand, high, bound, cpus]: [f64; 4]) -> Known {
        Known { size, part, runs, demand, high, bound, cpus }
    }

    fn runs(task: &Task) -> f64 {
        task.runs.as_secs_f64().min(LONGEST)
    }

    fn gpu_seconds<'t>(tasks: impl Iterator<Item = &'t Task>) -> f64 {
        tasks.map(|task| task.need.amount() * runs(task)).sum()
    }

    /// Several draws, so that chance does not decide.
    fn tasks() -> Vec<Task> {
        (0..10).flat_map(|seed| make(seed).tasks).collect()
    }

    #[test]
    fn made_up_tasks_are_like_the_traces() {
        let tasks = tasks();
        let (all, count) = (gpu_seconds(tasks.iter()), tasks.len() as f64);
        let near = |what: &str, found: f64, known: f64, off: f64| {
            assert!((found - known).abs() <= off, "{what}: {found:.3} instead of {known:.3}");
        };
        near("GPU seconds", all / count, GPU_SECONDS, 0.1 * GPU_SECONDS);
        for known in &TRACE {
            let name = known.size.name();
            let of: Vec<&Task> = tasks.iter().filter(|task| task.need.size() == known.size).collect();
            let part = |has: &dyn Fn(&Task) -> bool| {
                of.iter().filter(|task| has(task)).count() as f64 / of.len() as f64
            };
            near(name, of.len() as f64 / count, known.part, 0.01);
            near(name, part(&|task| task.priority == Priority::High), known.high, 0.03);
            near(name, part(&|task| !task.need.models.is_empty()), known.bound, 0.05);
            near(name, gpu_seconds(of.iter().copied()) / all, known.demand, 0.04);
            let cpus =
                of.iter().map(|task| f64::from(task.need.cpus) / 1000.0).sum::<f64>() / of.len() as f64;
            near(name, cpus, known.cpus, 0.2 * known.cpus);
            let mut times: Vec<f64> = of.iter().map(|task| runs(task)).collect();
            times.sort_by(f64::total_cmp);
            for (share, known) in [0.25, 0.5, 0.75, 0.9].into_iter().zip(known.runs) {
                let found = times[((times.len() - 1) as f64 * share).round() as usize];
                near(&format!("{name}, runs at {share}"), found.ln(), known.ln(), 0.5);
            }
        }
    }

    #[test]
    fn made_up_arrivals_come_in_bursts_as_the_traces() {
        let mut dice = SmallRng::seed_from_u64(1);
        let pauses: Vec<f64> = (0..200_000).map(|_| pause(&mut dice)).collect();
        let mean = pauses.iter().sum::<f64>() / pauses.len() as f64;
        let variance = pauses.iter().map(|pause| (pause - mean).powi(2)).sum::<f64>() / pauses.len() as f64;
        assert!((mean / PAUSE - 1.0).abs() < 0.02, "{mean}");
        assert!((variance / mean.powi(2) / VARIATION - 1.0).abs() < 0.05, "{}", variance / mean.powi(2));
    }

    #[test]
    fn made_up_hosts_are_the_traces() {
        let work = make(1);
        assert_eq!((work.hosts.len(), work.gpus()), (1213, 6212));
    }
}
