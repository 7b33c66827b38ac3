//! A computer in the simulation, and its connections: what can happen to it, and to a request
//! that it makes.
//!
//! A crash takes effect where a request is: the connections of that life go dead, and whoever
//! waits on one waits for ever, which is as good as being gone. A paused process makes no request
//! and hears no answer until it goes on; what was under way meanwhile happens all the same.

use std::{
    collections::BTreeSet,
    fmt::Display,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    bell::Bell,
    toxics::{Fate, Mishap, Peer},
    world::{World, lock},
};

/// On which side of an effect a crash comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// The effect does not happen.
    Before,
    /// It has happened, and nobody knows.
    After,
}

/// A computer: an agent's host, or a client's.
pub struct Host {
    /// What it is called.
    pub name: String,
    /// Where it is.
    pub world: World,
    state: Mutex<State>,
    changed: Bell,
}

#[derive(Debug, Default)]
struct State {
    /// Counts the lives of its process; connections of older ones are dead.
    life: u64,
    up: bool,
    paused: bool,
    cut: BTreeSet<Peer>,
    effects: u64,
    crash_at: Option<(u64, Edge)>,
    /// How long its clocks have stood still, and since when they do.
    lost: Duration,
    still_since: Option<Duration>,
    /// When something was last done to it.
    troubled: Duration,
}

/// The request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

impl Host {
    /// A computer whose process does not run yet.
    pub fn new(name: &str, world: &World) -> Arc<Self> {
        let (state, changed) = (Mutex::default(), Bell::default());
        Arc::new(Self { name: name.into(), world: world.clone(), state, changed })
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        change(&mut state);
        state.troubled = self.world.elapsed();
        drop(state);
        self.changed.ring();
    }

    /// A new life of its process.
    pub fn start(&self) -> u64 {
        self.change(|state| (state.life, state.up) = (state.life + 1, true));
        self.world.note(&self.name, "starts");
        lock(&self.state).life
    }

    /// The end of its process, at once.
    pub fn crash(&self) {
        self.change(|state| (state.up, state.paused, state.crash_at) = (false, false, None));
        self.world.note(&self.name, "CRASHES");
    }

    /// Lets it crash at the effect after so many more.
    pub fn crash_after(&self, effects: u64, edge: Edge) {
        self.change(|state| state.crash_at = Some((state.effects + effects, edge)));
    }

    /// Whether its process runs.
    pub fn is_up(&self) -> bool {
        lock(&self.state).up
    }

    /// Effects so far.
    pub fn effects(&self) -> u64 {
        lock(&self.state).effects
    }

    /// Since when nothing was done to it.
    pub fn troubled(&self) -> Duration {
        let state = lock(&self.state);
        let now = state.paused || !state.cut.is_empty() || !state.up;
        if now { self.world.elapsed() } else { state.troubled }
    }

    /// Stops its process (SIGSTOP), or lets it go on.
    pub fn pause(&self, paused: bool) {
        self.change(|state| state.paused = paused);
        self.world.note(&self.name, if paused { "PAUSED" } else { "goes on" });
    }

    /// Stops the whole machine, its clocks too, or lets it go on.
    pub fn stand_still(&self, still: bool) {
        let now = self.world.elapsed();
        self.change(|state| {
            state.paused = still;
            match (still, state.still_since) {
                (true, None) => state.still_since = Some(now),
                (false, Some(since)) => (state.lost, state.still_since) = (state.lost + (now - since), None),
                _ => {}
            }
        });
        self.world.note(&self.name, if still { "STANDS STILL" } else { "moves again" });
    }

    /// Whether it stands still.
    pub fn is_still(&self) -> bool {
        lock(&self.state).still_since.is_some()
    }

    /// Virtual time as its clocks count it.
    pub fn elapsed(&self) -> Duration {
        let now = self.world.elapsed();
        let state = lock(&self.state);
        state.still_since.unwrap_or(now) - state.lost
    }

    /// Cuts it off from a service, or joins it again.
    pub fn cut(&self, peer: Peer, cut: bool) {
        self.change(|state| {
            if cut {
                state.cut.insert(peer)
            } else {
                state.cut.remove(&peer)
            };
        });
        self.world
            .note(&self.name, format_args!("{} {peer:?}", if cut { "CUT OFF from" } else { "joined to" }));
    }

    /// Undoes all but a crash.
    pub fn heal(&self) {
        self.change(|state| {
            state.cut.clear();
            (state.paused, state.crash_at) = (false, None);
        });
    }
}

/// A connection of one life of a process to one service.
#[derive(Clone)]
pub struct Link {
    /// Whose.
    pub host: Arc<Host>,
    life: u64,
    peer: Peer,
}

impl Link {
    /// A connection of this life.
    pub fn new(host: &Arc<Host>, life: u64, peer: Peer) -> Self {
        Self { host: host.clone(), life, peer }
    }

    fn is_dead(&self) -> bool {
        let state = lock(&self.host.state);
        state.life != self.life || !state.up
    }

    /// Whether nothing gets through.
    pub fn is_cut(&self) -> bool {
        lock(&self.host.state).cut.contains(&self.peer) || self.host.world.toxics().of(self.peer).out
    }

    /// Waits while the process is paused; for ever when it is gone.
    pub async fn gate(&self) {
        self.host.changed.until(|| (!self.is_dead() && !lock(&self.host.state).paused).then_some(())).await;
    }

    /// Counts an effect; the process ends here if this is the place.
    async fn edge(&self, edge: Edge) {
        let crashes = {
            let mut state = lock(&self.host.state);
            let at = state.effects;
            if edge == Edge::After {
                state.effects += 1;
            }
            state.crash_at == Some((at, edge))
        };
        if crashes {
            self.host.crash();
            std::future::pending::<()>().await;
        }
    }

    /// Makes a request that changes nothing.
    pub async fn read<T>(&self, what: impl Display, effect: impl FnOnce() -> T) -> Result<T, Broken> {
        self.gate().await;
        let world = &self.host.world;
        let fate = Fate::draw(world, self.peer);
        tokio::time::sleep(fate.there).await;
        if self.is_cut() || fate.mishap != Mishap::None {
            return self.fail(&what, fate).await;
        }
        let done = effect();
        tokio::time::sleep(fate.back).await;
        self.gate().await;
        Ok(done)
    }

    /// Makes a request that changes something, now, later or never.
    pub async fn write<T, F>(&self, what: impl Display + Send + 'static, effect: F) -> Result<T, Broken>
    where
        F: FnOnce() -> T + Send + 'static,
    {
        self.gate().await;
        self.edge(Edge::Before).await;
        let world = self.host.world.clone();
        let fate = Fate::draw(&world, self.peer);
        let mut flight = Flight { link: self, effect: Some(effect) };
        tokio::time::sleep(fate.there).await;
        if self.is_cut() || fate.mishap == Mishap::Before {
            flight.effect = None;
            return self.fail(&what, fate).await;
        }
        let Some(effect) = flight.effect.take() else { return Err(Broken) };
        if let Mishap::Late(delay) = fate.mishap {
            let (name, at) = (self.host.name.clone(), world.clone());
            world.note(&self.host.name, format_args!("{what} is delayed"));
            world.spawn(async move {
                tokio::time::sleep(delay).await;
                at.note(&name, format_args!("{what}, late"));
                effect();
            });
            return self.fail(&"", fate).await;
        }
        world.note(&self.host.name, &what);
        let done = effect();
        self.edge(Edge::After).await;
        if fate.mishap == Mishap::After || self.is_cut() {
            return self.fail(&what, fate).await;
        }
        tokio::time::sleep(fate.back).await;
        self.gate().await;
        Ok(done)
    }

    /// Makes a request that is answered when there is something to answer.
    pub async fn long<T>(&self, what: impl Display, answer: impl Future<Output = T>) -> Result<T, Broken> {
        self.gate().await;
        self.edge(Edge::Before).await;
        let fate = Fate::draw(&self.host.world, self.peer);
        tokio::time::sleep(fate.there).await;
        if self.is_cut() || matches!(fate.mishap, Mishap::Before | Mishap::Late(_)) {
            return self.fail(&what, fate).await;
        }
        let done = answer.await;
        self.edge(Edge::After).await;
        if self.is_cut() || fate.mishap == Mishap::After {
            return self.fail(&what, fate).await;
        }
        tokio::time::sleep(fate.back).await;
        self.gate().await;
        Ok(done)
    }

    /// The caller hears of a failure: soon, or when its patience ends.
    async fn fail<T>(&self, what: &impl Display, fate: Fate) -> Result<T, Broken> {
        let world = &self.host.world;
        world.note(&self.host.name, format_args!("{what} fails ({:?})", fate.mishap));
        let secs = *world.pick(&[0, 0, 5, 30]);
        tokio::time::sleep(Duration::from_secs(secs) + fate.back).await;
        self.gate().await;
        Err(Broken)
    }
}

/// A request under way: one that is dropped may have been sent already.
struct Flight<'l, T, F: FnOnce() -> T> {
    link: &'l Link,
    effect: Option<F>,
}

impl<T, F: FnOnce() -> T> Drop for Flight<'_, T, F> {
    fn drop(&mut self) {
        let Some(effect) = self.effect.take() else { return };
        let world = &self.link.host.world;
        if !world.is_over() && world.odds(0.5) {
            world.note(&self.link.host.name, "a request that was given up happens");
            effect();
        }
    }
}
