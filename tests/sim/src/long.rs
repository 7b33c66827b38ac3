//! `sim long`: jobs that run and wait for longer than the queue's limits allow a message to be hidden
//! (12 hours) or kept (14 days), and nothing else. No attempt may be lost, no job twice.

use std::{sync::Arc, time::Duration};

use shared::{
    fleet::Settings,
    id::{Attempt, JobId, Team},
    units::Span,
};

use crate::{
    client::{Desk, Wish},
    fleet::Fleet,
    node::{Server, Services},
    rest,
    script::Script,
    world::World,
};

/// How many jobs run at once, which is all that the hosts' GPUs allow, and how many wait meanwhile: in
/// the queue, and parked behind the window.
const RUNNING: usize = 4;
const WAITING: usize = 6;

/// Runs jobs of this length before others, to their end.
pub async fn run(world: &World, runs: Duration) {
    let settings = Settings {
        beat: Span::secs(15),
        lane_refresh: Span::secs(15),
        window: 2,
        inbox: true,
        ..Settings::embedded(None)
    };
    let services = Services::new(world, settings);
    let server = |at| Server::new(&format!("node{at}"), &services, 2, chrono::TimeDelta::zero(), 0.0);
    let nodes: Vec<Arc<Server>> = (0..2).map(server).collect();
    let fleet = Fleet::new(services.clone(), nodes);
    let desk = Desk::new("desk", &services);
    for number in 0..RUNNING + WAITING {
        let runs = if number < RUNNING { runs } else { Duration::from_secs(10) };
        let mut spec = Script { runs, exit: 0, lines: 3, deaf: false }.job();
        spec.resources.gpus = 1;
        spec.team = Team::new("a").expect("a team");
        let id = JobId::new(format!("job{number}")).expect("an id");
        desk.fulfil(Wish::Submit(id, Box::new(spec))).await;
        // In this order, so that the long ones come first.
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let until = runs + Duration::from_secs(3600);
    while world.watch().broken().is_none() {
        let Some(why) = rest::unrest(&fleet) else { break };
        if world.elapsed() > until {
            return world.watch().breaks(world, format!("(1) not at rest after {until:?}: {why}"));
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        fleet.check();
    }
    rest::check(&fleet, &desk.client()).await;
    let mut watch = world.watch();
    let again = watch
        .jobs
        .iter()
        .find(|(_, seen)| seen.job.as_ref().is_none_or(|job| job.attempt != Some(Attempt::FIRST)));
    if let Some(what) = again.map(|(id, _)| format!("(1) {id} has not ended in its first attempt")) {
        watch.breaks(world, what);
    }
    drop(watch);
    world.end();
}
