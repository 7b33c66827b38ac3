//! What everything in a run shares: virtual time, one source of chance, the trace, and what has
//! gone wrong. One seed decides all of it.

use std::{
    fmt::Display,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::SmallRng};
use shared::clock::Chance;
use tokio::time::Instant;

use crate::{meter::Meter, toxics::Toxics, trace::Trace, watch::Watch};

/// Locks; a panic elsewhere is reported there.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One run's surroundings; a handle.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    began: Instant,
    dice: Mutex<SmallRng>,
    trace: Option<Mutex<Trace>>,
    toxics: Mutex<Toxics>,
    watch: Mutex<Watch>,
    meter: Mutex<Meter>,
    over: AtomicBool,
}

impl World {
    /// A world of this seed, which begins now. `shown` prints the trace as it comes.
    pub fn new(seed: u64, shown: bool) -> Self {
        Self::with(seed, Some(Trace::new(shown)), Watch::default(), Meter::default())
    }

    /// A world in which everything is counted, and nothing watched or noted.
    pub fn metered(seed: u64) -> Self {
        Self::with(seed, None, Watch::blind(), Meter::running())
    }

    fn with(seed: u64, trace: Option<Trace>, watch: Watch, meter: Meter) -> Self {
        Self(Arc::new(Inner {
            began: Instant::now(),
            dice: Mutex::new(SmallRng::seed_from_u64(seed)),
            trace: trace.map(Mutex::new),
            toxics: Mutex::default(),
            watch: Mutex::new(watch),
            meter: Mutex::new(meter),
            over: AtomicBool::new(false),
        }))
    }

    /// Virtual time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// Notes what happened.
    pub fn note(&self, who: &str, what: impl Display) {
        if let Some(trace) = self.0.trace.as_ref().filter(|_| !self.is_over()) {
            lock(trace).note(self.elapsed(), who, &what);
        }
    }

    /// The trace so far.
    pub fn trace(&self) -> Option<MutexGuard<'_, Trace>> {
        self.0.trace.as_ref().map(lock)
    }

    /// Whoever counts.
    pub fn meter(&self) -> MutexGuard<'_, Meter> {
        lock(&self.0.meter)
    }

    /// Whoever looks at everything.
    pub fn watch(&self) -> MutexGuard<'_, Watch> {
        lock(&self.0.watch)
    }

    /// What is wrong with the services at present.
    pub fn toxics(&self) -> MutexGuard<'_, Toxics> {
        lock(&self.0.toxics)
    }

    /// Nothing that happens from now on counts.
    pub fn end(&self) {
        self.0.over.store(true, Ordering::Relaxed);
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Relaxed)
    }

    /// True this often.
    pub fn odds(&self, probability: f64) -> bool {
        probability > 0.0 && lock(&self.0.dice).random_bool(probability.min(1.0))
    }

    /// One of the numbers of a range.
    pub fn number(&self, range: RangeInclusive<u64>) -> u64 {
        lock(&self.0.dice).random_range(range)
    }

    /// A time between two, to the millisecond.
    pub fn span(&self, from: Duration, to: Duration) -> Duration {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.number(millis(from)..=millis(to)))
    }

    /// A time between two numbers of seconds.
    pub fn seconds(&self, from: u64, to: u64) -> Duration {
        self.span(Duration::from_secs(from), Duration::from_secs(to))
    }

    /// One of these.
    pub fn pick<'t, T>(&self, of: &'t [T]) -> &'t T {
        let last = of.len().checked_sub(1).expect("something to pick from");
        &of[usize::try_from(self.number(0..=last as u64)).expect("an index")]
    }

    /// A source of chance of its own for shipped code.
    pub fn chance(&self) -> Chance {
        Chance::from_seed(self.number(0..=u64::MAX))
    }

    /// Lets something happen beside everything else.
    #[expect(clippy::disallowed_methods, reason = "this is the one place; the run's runtime is the owner")]
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }
}
