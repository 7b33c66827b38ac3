//! The containers of one host. They outlive the agent; they end with the host's power, and with
//! their engine's restart.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use agent::{
    engine::{Container, ContainerId, ContainerState, EngineError, Exit, Frame, Plan},
    execute::Owner,
};
use shared::{clock::Clock, id::Timestamp, output::Stream};

use crate::{
    bell::Bell,
    script::Script,
    world::{World, lock},
};

/// Why a container's first process ended.
const KILLED: i64 = 137;
const TERMINATED: i64 = 143;

/// A container as it stands.
pub struct Held {
    id: String,
    name: String,
    labels: BTreeMap<String, String>,
    owner: Owner,
    script: Script,
    state: ContainerState,
    started_at: Option<Timestamp>,
    exit: Option<Exit>,
    /// What it has printed.
    pub frames: Vec<Frame>,
    /// Time that it has run unfrozen, up to `since`.
    ran: Duration,
    since: Option<Duration>,
    /// Counts the stretches of its run; a timer of an older one does nothing.
    stretch: u64,
}

/// A host's containers and their engine.
pub struct Machine {
    /// The host's name.
    pub host: String,
    world: World,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Tells of every change.
    pub changed: Bell,
}

#[derive(Default)]
struct State {
    containers: BTreeMap<String, Held>,
    made: u64,
    down: bool,
    going: bool,
    still: bool,
    /// Whatever runs here fails after two seconds.
    broken: bool,
    /// It has no power: what was asked of its engine and is under way does not happen.
    dark: bool,
}

impl Machine {
    /// A host without containers.
    pub fn new(host: &str, world: &World, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (world, state, changed) = (world.clone(), Mutex::default(), Bell::default());
        Arc::new(Self { host: host.into(), world, clock, state, changed })
    }

    /// Whether the engine takes new connections.
    pub fn is_up(&self) -> bool {
        let state = lock(&self.state);
        !state.down && !state.going
    }

    /// From now on whatever runs here fails after two seconds.
    pub fn break_down(&self) {
        lock(&self.state).broken = true;
    }

    /// How many containers were made here.
    pub fn made(&self) -> u64 {
        lock(&self.state).made
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> Result<T, EngineError>) -> Result<T, EngineError> {
        let mut state = lock(&self.state);
        if state.down || state.dark {
            return Err(EngineError::Unreachable { address: "sim".into(), detail: "it is down".into() });
        }
        act(&mut state)
    }

    fn tell(&self) {
        self.changed.ring();
    }

    /// Does something with one container.
    pub fn on<T>(
        &self,
        id: &ContainerId,
        act: impl FnOnce(&mut Held) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        self.with(|state| act(state.find(id)?))
    }

    /// Makes a container.
    pub fn create(&self, plan: &Plan) -> Result<ContainerId, EngineError> {
        self.with(|state| {
            if state.containers.contains_key(&plan.name) {
                return Err(EngineError::NameTaken { name: plan.name.clone() });
            }
            state.made += 1;
            let id = format!("{}-{}", self.host, state.made);
            let mut shown = Container {
                id: ContainerId::new(&id),
                name: plan.name.clone(),
                labels: plan.labels.clone(),
                state: ContainerState::Created,
                started_at: None,
                exit: None,
            };
            let owner = Owner::of(&shown).expect("haul labels its containers");
            let mut script = plan.command.as_deref().and_then(Script::read).expect("a script");
            if state.broken {
                (script.runs, script.exit) = (Duration::from_secs(2), 1);
            }
            let held = Held {
                id: id.clone(),
                name: std::mem::take(&mut shown.name),
                labels: shown.labels,
                owner,
                script,
                state: ContainerState::Created,
                started_at: None,
                exit: None,
                frames: Vec::new(),
                ran: Duration::ZERO,
                since: None,
                stretch: 0,
            };
            state.containers.insert(plan.name.clone(), held);
            Ok(ContainerId::new(id))
        })
    }

    /// Starts it, as Docker does: also one that has ended, anew.
    pub fn start(self: &Arc<Self>, id: &ContainerId) -> Result<(), EngineError> {
        let now = self.clock.now();
        let started = self.with(|state| {
            let held = state.find(id)?;
            match held.state {
                ContainerState::Running => return Ok(None),
                ContainerState::Paused => return Err(refused("start")),
                _ => {}
            }
            (held.started_at, held.exit, held.ran) = (Some(now), None, Duration::ZERO);
            self.world.watch().started(&self.world, &self.host, &held.name, &held.owner);
            Ok(Some(held.name.clone()))
        })?;
        started.into_iter().for_each(|name| self.run_on(&name));
        Ok(())
    }

    /// Freezes it.
    pub fn pause(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.on(id, |held| {
            if held.state == ContainerState::Running {
                held.halt(self.world.elapsed());
                held.state = ContainerState::Paused;
                self.world.watch().froze(&self.host, &held.name);
            }
            Ok(())
        })
    }

    /// Thaws it.
    pub fn unpause(self: &Arc<Self>, id: &ContainerId) -> Result<(), EngineError> {
        let name =
            self.on(id, |held| Ok((held.state == ContainerState::Paused).then(|| held.name.clone())))?;
        name.into_iter().for_each(|name| self.run_on(&name));
        Ok(())
    }

    /// Lets it run from where it stands.
    fn run_on(self: &Arc<Self>, name: &str) {
        let mut state = lock(&self.state);
        let still = state.still;
        let Some(held) = state.containers.get_mut(name) else { return };
        held.state = ContainerState::Running;
        held.stretch += 1;
        if !still {
            held.since = Some(self.world.elapsed());
        }
        self.world.watch().runs(&self.world, &self.host, name, &held.owner);
        let (machine, name, stretch) = (self.clone(), name.to_owned(), held.stretch);
        drop(state);
        self.tell();
        if !still {
            self.world.spawn(async move { machine.drive(&name, stretch).await });
        }
    }

    /// Prints its lines and ends it, when it is time.
    async fn drive(&self, name: &str, stretch: u64) {
        loop {
            let pause = {
                let mut state = lock(&self.state);
                let Some(held) = state.containers.get_mut(name) else { return };
                if held.stretch != stretch || held.state != ContainerState::Running {
                    return;
                }
                match held.advance(self.world.elapsed(), self.clock.now()) {
                    Some(pause) => pause,
                    None => {
                        let code = held.script.exit;
                        self.end(held, code);
                        drop(state);
                        self.tell();
                        return;
                    }
                }
            };
            self.tell();
            tokio::time::sleep(pause).await;
        }
    }

    fn end(&self, held: &mut Held, code: i64) {
        if !matches!(held.state, ContainerState::Running | ContainerState::Paused) {
            return;
        }
        held.halt(self.world.elapsed());
        held.state = ContainerState::Exited;
        let (started_at, finished_at) = (held.started_at, Some(self.clock.now()));
        held.exit = Some(Exit { code, oom: false, error: None, started_at, finished_at });
        self.world.note(&self.host, format_args!("{} exits with {code}", held.name));
        self.world.watch().ended(&self.host, &held.name, code, &held.frames);
    }

    /// SIGTERM, and SIGKILL later if need be; it ends by itself after this.
    pub fn stop(self: &Arc<Self>, id: &ContainerId, grace: Duration) -> Result<(), EngineError> {
        self.unpause(id)?;
        let (name, deaf) = self.on(id, |held| Ok((held.name.clone(), held.script.deaf)))?;
        let heard = self.world.span(Duration::from_millis(50), Duration::from_secs(5));
        let (after, code) = if deaf || heard >= grace { (grace, KILLED) } else { (heard, TERMINATED) };
        let machine = self.clone();
        self.world.spawn(async move {
            tokio::time::sleep(after).await;
            machine.kill(&name, code);
        });
        Ok(())
    }

    fn kill(&self, name: &str, code: i64) {
        let mut state = lock(&self.state);
        if let Some(held) = state.containers.get_mut(name) {
            self.end(held, code);
        }
        drop(state);
        self.tell();
    }

    /// Removes it, also while it runs.
    pub fn remove(&self, id: &ContainerId) -> Result<(), EngineError> {
        self.with(|state| {
            if let Ok(held) = state.find(id) {
                self.end(held, KILLED);
                let name = held.name.clone();
                state.containers.remove(&name);
            }
            Ok(())
        })?;
        self.tell();
        Ok(())
    }

    /// Removes it if it was never started.
    pub fn remove_unstarted(&self, id: &ContainerId) -> Result<bool, EngineError> {
        self.with(|state| {
            let Ok(held) = state.find(id) else { return Ok(true) };
            if held.state != ContainerState::Created {
                return Ok(false);
            }
            let name = held.name.clone();
            state.containers.remove(&name);
            Ok(true)
        })
    }

    /// Those that carry these labels.
    pub fn list(&self, labels: &[(String, String)]) -> Result<Vec<Container>, EngineError> {
        self.with(|state| {
            let all = state.containers.values().map(Held::shown);
            let carries =
                |found: &Container| labels.iter().all(|(key, value)| found.labels.get(key) == Some(value));
            let bare = |found: Container| Container { started_at: None, exit: None, ..found };
            Ok(all.filter(carries).map(bare).collect())
        })
    }

    /// Ends all containers, as a restart of the engine or of the host does.
    pub fn end_all(&self) {
        let mut state = lock(&self.state);
        state.containers.values_mut().for_each(|held| self.end(held, KILLED));
        drop(state);
        self.tell();
    }

    /// The machine loses its power, and all containers end, or has it again.
    pub fn set_power(&self, on: bool) {
        lock(&self.state).dark = !on;
        if !on {
            self.end_all();
        }
    }

    /// The engine is going away, is away, or is back.
    pub fn set_engine(&self, going: bool, down: bool) {
        let mut state = lock(&self.state);
        (state.going, state.down) = (going, down);
        drop(state);
        self.world.note(&self.host, format_args!("engine going {going}, down {down}"));
        self.tell();
    }

    /// The machine stands still, or moves again.
    pub fn stand_still(self: &Arc<Self>, still: bool, excuse: Duration) {
        let now = self.world.elapsed();
        let mut state = lock(&self.state);
        state.still = still;
        let mut moving = Vec::new();
        for held in state.containers.values_mut().filter(|held| held.state == ContainerState::Running) {
            held.halt(now);
            moving.push(held.name.clone());
        }
        drop(state);
        self.world.watch().stands_still(&self.world, &self.host, still, excuse);
        if !still {
            moving.iter().for_each(|name| self.run_on(name));
        }
    }

    /// The names of all its containers.
    pub fn names(&self) -> Vec<String> {
        lock(&self.state).containers.keys().cloned().collect()
    }
}

impl State {
    fn find(&mut self, id: &ContainerId) -> Result<&mut Held, EngineError> {
        let found =
            self.containers.values_mut().find(|held| held.id == id.as_str() || held.name == id.as_str());
        found.ok_or_else(|| EngineError::NoSuchContainer { id: id.to_string() })
    }
}

impl Held {
    fn halt(&mut self, now: Duration) {
        if let Some(since) = self.since.take() {
            self.ran += now - since;
        }
        self.stretch += 1;
    }

    /// Prints what is due; says how long until there is more to do, nothing when it is over.
    fn advance(&mut self, now: Duration, at: Timestamp) -> Option<Duration> {
        let ran = self.ran + self.since.map_or(Duration::ZERO, |since| now - since);
        loop {
            let line = u32::try_from(self.frames.len()).unwrap_or(u32::MAX) + 1;
            if line > self.script.lines || self.script.line_at(line) > ran {
                break;
            }
            let stream = if line.is_multiple_of(3) { Stream::Stderr } else { Stream::Stdout };
            let bytes = format!("line {line} of {}", self.name).into();
            let at = at + chrono::TimeDelta::nanoseconds(i64::from(line));
            self.frames.push(Frame { at, stream, bytes, complete: true });
        }
        let line = u32::try_from(self.frames.len()).unwrap_or(u32::MAX) + 1;
        let next = if line > self.script.lines { self.script.runs } else { self.script.line_at(line) };
        (ran < self.script.runs).then(|| next - ran)
    }

    /// As the engine tells it.
    pub fn shown(&self) -> Container {
        Container {
            id: ContainerId::new(&self.id),
            name: self.name.clone(),
            labels: self.labels.clone(),
            state: self.state,
            started_at: self.started_at,
            exit: self.exit.clone(),
        }
    }
}

/// Docker's way of saying that it is the wrong moment.
pub fn refused(call: &'static str) -> EngineError {
    EngineError::Other { call, detail: "not in this state".into() }
}
