//! One seed's run: a runtime of its own with paused time, which moves on only when nothing else
//! can, and a verdict.

use std::{cell::RefCell, sync::Once};

use shared::mutant::{self, Mutant};

use crate::{
    calm::{self, Calm},
    scenario::{self, Place},
    world::World,
};

/// How a run ended.
#[derive(Debug)]
pub struct Verdict {
    /// What was broken.
    pub broken: Option<String>,
    /// A number for all that happened.
    pub hash: u64,
    /// How much happened.
    pub lines: u64,
    /// The end of the trace.
    pub tail: Vec<String>,
    /// Effects of the first agent.
    pub effects: u64,
}

/// What a run is to be like.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The bug that is switched on.
    pub mutant: Option<Mutant>,
    /// `Some` for a run in which nothing goes wrong, but a crash at this place if one is given.
    pub place: Option<Option<Place>>,
    /// `Some` for a run in which nothing goes wrong at all.
    pub calm: Option<Calm>,
    /// Print the trace as it comes.
    pub shown: bool,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps a panic's text for the verdict: shipped tasks catch panics, and here each is a bug.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            PANIC.with(|panic| *panic.borrow_mut() = Some(info.to_string()));
        }));
    });
}

/// Runs a seed.
pub fn run(seed: u64, options: Options) -> Verdict {
    catch_panics();
    PANIC.with(|panic| panic.borrow_mut().take());
    // The pauses between tries are drawn from this thread's own generator.
    fastrand::seed(seed);
    mutant::switch(options.mutant);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O");
    let (world, effects) = runtime.block_on(async {
        let world = World::new(seed, options.shown);
        let effects = match options.calm {
            Some(calm) => {
                calm::run(&world, calm).await;
                0
            }
            None => scenario::run(&world, options.place).await,
        };
        (world, effects)
    });
    world.end();
    drop(runtime);
    mutant::switch(None);
    let broken = world.watch().broken().map(str::to_owned);
    let broken = PANIC.with(|panic| panic.borrow_mut().take()).or(broken);
    let trace = world.trace().expect("kept");
    Verdict { broken, hash: trace.hash(), lines: trace.lines(), tail: trace.tail(), effects }
}
