//! Many runs at once: one thread a core, each with one runtime after another.

use std::{
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use crate::{
    seed::{self, Options, Verdict},
    world::lock,
};

/// The first run of an item that is broken, in the items' order.
pub struct Found<T> {
    /// Which.
    pub item: T,
    /// How it ended.
    pub verdict: Verdict,
}

/// What many runs have shown.
pub struct Tally<T> {
    /// How many were made.
    pub runs: u64,
    /// How much happened in them.
    pub lines: u64,
    /// The first that is broken.
    pub found: Option<Found<T>>,
}

/// Runs all items on this many threads until one is broken.
pub fn until_broken<T: Copy + Send + Sync>(
    items: &[T],
    threads: usize,
    run: impl Fn(T) -> Verdict + Sync,
) -> Tally<T> {
    let (next, lines, runs) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (stop, found) = (AtomicBool::new(false), Mutex::new(None::<(usize, Verdict)>));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let at = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).expect("few items");
                    let Some(item) = items.get(at) else { return };
                    let verdict = run(*item);
                    runs.fetch_add(1, Ordering::Relaxed);
                    lines.fetch_add(verdict.lines, Ordering::Relaxed);
                    if verdict.broken.is_some() {
                        stop.store(true, Ordering::Relaxed);
                        let mut found = lock(&found);
                        if found.as_ref().is_none_or(|(first, _)| at < *first) {
                            *found = Some((at, verdict));
                        }
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let found = found.map(|(at, verdict)| Found { item: items[at], verdict });
    Tally { runs: runs.into_inner(), lines: lines.into_inner(), found }
}

/// One thread for each core.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs seeds until one is broken.
pub fn seeds(seeds: Range<u64>, threads: usize, options: Options) -> Tally<u64> {
    let seeds: Vec<u64> = seeds.collect();
    until_broken(&seeds, threads, |seed| seed::run(seed, options))
}
