//! Runs in which nothing goes wrong, and what haul promises for them.

use std::{sync::Arc, time::Duration};

use shared::{
    fleet::Settings,
    id::{Attempt, JobId, Team},
    log::Phase,
    units::Span,
};

use crate::{
    client::{Desk, Wish},
    fleet::Fleet,
    node::{Server, Services},
    rest,
    script::Script,
    watch::Seen,
    world::World,
};

/// What is to be seen.
#[derive(Debug, Clone, Copy)]
pub enum Calm {
    /// Jobs that run and wait for longer than the queue's limits allow a message to be hidden (12 hours)
    /// or kept (14 days). No attempt may be lost, no job run twice.
    Long(Duration),
    /// One team's job behind a thousand of another: it is claimed within the next `window` claims.
    Turns,
    /// A host on which whatever runs fails within seconds, beside five that are well: it gets few of the jobs,
    /// and each of them ends well elsewhere. Or jobs that fail wherever they run: no host stops for them.
    BlackHole,
}

/// Where long jobs run.
const HOSTS: usize = 2;
const GPUS: u32 = 2;

/// How many run at once, which is all that the hosts' GPUs allow, and how many wait meanwhile: in the
/// queue, and parked behind the window.
const RUNNING: usize = HOSTS * GPUS as usize;
const WAITING: usize = 6;

/// How many jobs the other team has.
const CROWD: usize = 1000;

/// How many jobs meet the host that fails them, and how many fail anywhere.
const MANY: usize = 500;
const FAILING: usize = 100;

struct Site {
    world: World,
    fleet: Arc<Fleet>,
    desk: Arc<Desk>,
}

/// Runs it to its end.
pub async fn run(world: &World, calm: Calm) {
    match calm {
        Calm::Long(runs) => Site::new(world, HOSTS, GPUS, 2).long(runs).await,
        // One GPU, so that one claim comes after the other.
        Calm::Turns => Site::new(world, 1, 1, 8).turns().await,
        Calm::BlackHole => Site::new(world, 6, 1, 8).black_hole().await,
    }
    world.end();
}

impl Site {
    /// Hosts with so many GPUs each, and a window of that size.
    fn new(world: &World, hosts: usize, gpus: u32, window: u32) -> Self {
        let settings = Settings {
            beat: Span::secs(15),
            lane_refresh: Span::secs(15),
            window,
            inbox: true,
            ..Settings::embedded(None)
        };
        let services = Services::new(world, settings);
        let server = |at| Server::new(&format!("node{at}"), &services, gpus, chrono::TimeDelta::zero(), 0.0);
        let nodes: Vec<Arc<Server>> = (0..hosts).map(server).collect();
        let fleet = Fleet::new(services.clone(), nodes);
        Self { world: world.clone(), fleet, desk: Desk::new("desk", &services) }
    }

    async fn submit(&self, id: &str, team: &str, runs: Duration) {
        self.submit_failing(id, team, runs, 0).await;
    }

    async fn submit_failing(&self, id: &str, team: &str, runs: Duration, exit: i64) {
        let mut spec = Script { runs, exit, lines: 3, deaf: false }.job();
        spec.resources.gpus = 1;
        spec.team = Team::new(team).expect("a team");
        let id = JobId::new(id).expect("an id");
        self.desk.fulfil(Wish::Submit(id, Box::new(spec))).await;
    }

    /// How many jobs have been claimed.
    fn begun(&self) -> usize {
        self.world.watch().jobs.values().filter(|seen| has_begun(seen)).count()
    }

    /// Looks every virtual millisecond, so that the moment is exact; not beyond a break.
    async fn until(&self, reached: impl Fn() -> bool) {
        while !reached() && self.world.watch().broken().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn breaks(&self, what: String) {
        self.world.watch().breaks(&self.world, what);
    }

    /// Waits until everything is done, and looks at it.
    async fn rest(&self, until: Duration) {
        while self.world.watch().broken().is_none() {
            let Some(why) = rest::unrest(&self.fleet) else { break };
            if self.world.elapsed() > until {
                return self.breaks(format!("(1) not at rest after {until:?}: {why}"));
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
            self.fleet.check();
        }
        rest::check(&self.fleet, &self.desk.client()).await;
    }

    async fn long(&self, runs: Duration) {
        for number in 0..RUNNING {
            self.submit(&format!("long{number}"), "a", runs).await;
        }
        self.until(|| self.begun() == RUNNING).await;
        for number in 0..WAITING {
            self.submit(&format!("short{number}"), "a", Duration::from_secs(10)).await;
        }
        self.rest(runs + Duration::from_secs(3600)).await;
        let again = {
            let watch = self.world.watch();
            let first =
                |seen: &Seen| seen.job.as_ref().is_some_and(|job| job.attempt == Some(Attempt::FIRST));
            watch.jobs.iter().find(|(_, seen)| !first(seen)).map(|(id, _)| id.clone())
        };
        if let Some(id) = again {
            self.breaks(format!("(1) {id} has not ended in its first attempt"));
        }
    }

    async fn turns(&self) {
        let runs = Duration::from_secs(10);
        for number in 0..CROWD {
            self.submit(&format!("crowd{number}"), "crowd", runs).await;
        }
        self.submit("single", "single", runs).await;
        let before = self.begun();
        let single = JobId::new("single").expect("an id");
        self.until(|| self.world.watch().jobs.get(&single).is_some_and(has_begun)).await;
        let others = (self.begun() - before).saturating_sub(1);
        let window = self.fleet.services.settings.window as usize;
        self.world.note("turns", format!("{before} were claimed before, {others} while it waited"));
        if before > CROWD / 2 || others > window {
            self.breaks(format!("(1) {others} of the other team's jobs went before, {before} even earlier"));
        }
        self.rest(self.world.elapsed() + runs * 2 * CROWD as u32).await;
    }

    async fn black_hole(&self) {
        let broken = self.fleet.server(0);
        broken.machine.break_down();
        // Until the hosts know of each other.
        tokio::time::sleep(Duration::from_secs(60)).await;
        for number in 0..MANY {
            self.submit(&format!("good{number}"), "good", Duration::from_secs(30)).await;
        }
        self.rest(Duration::from_secs(30 * MANY as u64)).await;
        let taken = broken.machine.made();
        let phases = |wanted: Phase| {
            let watch = self.world.watch();
            watch
                .jobs
                .values()
                .filter(|seen| seen.job.as_ref().is_some_and(|job| job.phase() == wanted))
                .count()
        };
        let well = phases(Phase::Succeeded);
        self.world.note("black hole", format!("it took {taken} of {MANY} jobs, {well} ended well"));
        if taken >= 10 || well < MANY {
            return self.breaks(format!("(1) it took {taken} of {MANY} jobs, and {well} ended well"));
        }
        // Jobs that fail by their own doing: at most twice each, and the other hosts go on at their pace.
        let (before, at) = (self.containers_made(), self.world.elapsed());
        for number in 0..FAILING {
            self.submit_failing(&format!("bad{number}"), "bad", Duration::from_secs(2), 1).await;
        }
        self.rest(at + Duration::from_secs(30 * FAILING as u64)).await;
        let (ran, took) = (self.containers_made() - before, self.world.elapsed() - at);
        self.world.note("black hole", format!("{FAILING} that fail anywhere ran {ran} times in {took:?}"));
        if phases(Phase::Failed) < FAILING || ran > FAILING as u64 * 5 / 4 || took > Duration::from_secs(600)
        {
            self.breaks(format!("(1) {FAILING} that fail anywhere ran {ran} times in {took:?}"));
        }
    }

    fn containers_made(&self) -> u64 {
        (0..6).map(|at| self.fleet.server(at).machine.made()).sum()
    }
}

fn has_begun(seen: &Seen) -> bool {
    seen.job.as_ref().is_some_and(|job| job.attempt.is_some())
}
