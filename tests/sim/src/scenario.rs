//! One run, drawn from its seed: a fleet, jobs, people, and what goes wrong when. After the faults
//! have stopped, the fleet must come to rest within a bound, and everything must be as promised.

use std::{sync::Arc, time::Duration};

use shared::{
    id::{JobId, Team},
    job::{JobSpec, Priority},
    units::Span,
};

use crate::{
    client::{Desk, Wish},
    fault::Fault,
    fleet::Fleet,
    host::Edge,
    node::{Server, Services},
    rest,
    theme::Theme,
    world::World,
};

/// How long the fleet may take to come to rest, in virtual time.
const REST: Duration = Duration::from_secs(3 * 3600);

/// A crash at one exact place, and no other fault.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The effect, counted from the agent's start.
    pub effect: u64,
    /// The side of it.
    pub edge: Edge,
}

/// What happens when.
struct Scenario {
    nodes: Vec<Arc<Server>>,
    wishes: Vec<(Duration, Wish)>,
    faults: Vec<(Duration, Fault)>,
}

fn job(world: &World, theme: Theme) -> JobSpec {
    let mut spec = theme.script(world).job();
    spec.team = Team::new(*world.pick(&["a", "b"])).expect("a team");
    spec.priority = *world.pick(&[Priority::Normal, Priority::Normal, Priority::High]);
    spec.preemptible = world.odds(0.3);
    spec.retries = u32::try_from(world.number(0..=2)).expect("few");
    spec.resources.gpus = *world.pick(&[0, 1, 1, 2]);
    if world.odds(0.1) {
        spec.timeout = Some(Span(world.seconds(5, 100)));
    }
    spec
}

impl Scenario {
    fn draw(world: &World, theme: Theme, services: &Services) -> Self {
        let skew = || {
            let millis = i64::try_from(world.number(0..=600_000)).expect("small") - 300_000;
            chrono::TimeDelta::milliseconds(millis)
        };
        let count = world.number(2..=4);
        let server = |at| {
            #[expect(clippy::cast_precision_loss, reason = "a small number")]
            let drift = (world.number(0..=200) as f64 - 100.0) / 10_000.0;
            Server::new(&format!("node{at}"), services, 2, skew(), drift)
        };
        let nodes: Vec<Arc<Server>> = (0..count).map(server).collect();
        let busy = world.seconds(60, 900);
        let at = || world.span(Duration::ZERO, busy);
        let mut wishes = Vec::new();
        for number in 0..world.number(4..=16) {
            let id = JobId::new(format!("job{number}")).expect("an id");
            let first = at();
            wishes.push((first, Wish::Submit(id.clone(), Box::new(job(world, theme)))));
            wishes.extend(theme.wishes(world, &id).into_iter().map(|(later, wish)| (first + later, wish)));
        }
        let fault = |_| (at(), theme.fault(world, nodes.len(), &services.settings));
        let mut faults: Vec<(Duration, Fault)> = (0..world.number(0..=8)).map(fault).collect();
        faults.extend(theme.weather(busy).map(|weather| (Duration::ZERO, weather)));
        wishes.sort_by_key(|(at, _)| *at);
        faults.sort_by_key(|(at, _)| *at);
        Self { nodes, wishes, faults }
    }
}

/// Runs one seed to its end. With a `place`, the first agent crashes there and nothing else goes
/// wrong; tells how many effects that agent had.
pub async fn run(world: &World, place: Option<Option<Place>>) -> u64 {
    let theme = Theme::draw(world);
    let services = Services::new(world, theme.settings(world));
    let mut scenario = Scenario::draw(world, theme, &services);
    if place.is_some() {
        scenario.faults.clear();
    }
    let first = scenario.nodes[0].clone();
    let fleet = Fleet::new(services.clone(), scenario.nodes);
    if let Some(Some(Place { effect, edge })) = place {
        let fleet = fleet.clone();
        let fault = Fault::Crash { node: 0, effects: effect, edge, down: Duration::from_secs(3) };
        world.spawn(fault.strike(fleet));
    }
    let busy = scenario.wishes.iter().map(|(at, _)| *at).max().unwrap_or_default();
    let mut desks = Vec::new();
    for (number, (at, wish)) in scenario.wishes.into_iter().enumerate() {
        let desk = Desk::new(&format!("desk{number}"), &services);
        desks.push(desk.clone());
        let crashes = (place.is_none() && world.odds(0.1)).then(|| world.number(0..=6));
        world.spawn(async move {
            tokio::time::sleep(at).await;
            if let Some(effects) = crashes {
                desk.host.crash_after(effects, Edge::After);
            }
            desk.fulfil(wish).await;
        });
    }
    let mut last = busy + Duration::from_secs(10);
    for (at, fault) in scenario.faults {
        let fleet = fleet.clone();
        last = last.max(at + Duration::from_secs(60));
        world.spawn(async move {
            tokio::time::sleep(at).await;
            fault.strike(fleet).await;
        });
    }
    live(&fleet, last).await;
    fleet.heal();
    settle(&fleet, &desks).await;
    let observer = Desk::new("observer", &services);
    rest::check(&fleet, &observer.client()).await;
    world.end();
    first.host.effects()
}

/// Goes on until the faults are over, or something is broken.
async fn live(fleet: &Fleet, until: Duration) {
    while fleet.world().elapsed() < until && fleet.world().watch().broken().is_none() {
        tokio::time::sleep(Duration::from_secs(10)).await;
        fleet.check();
    }
}

/// Waits for rest.
async fn settle(fleet: &Fleet, desks: &[Arc<Desk>]) {
    let world = fleet.world();
    let until = world.elapsed() + REST;
    while world.watch().broken().is_none() {
        let busy = desks.iter().any(|desk| desk.is_busy()).then(|| "people are at work".to_owned());
        let Some(why) = busy.or_else(|| rest::unrest(fleet)) else { return };
        if world.elapsed() > until {
            let what = format!("(1) the fleet does not come to rest within {REST:?}: {why}");
            return world.watch().breaks(world, what);
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        fleet.check();
    }
}
