//! What can go wrong, one thing each.

use std::{sync::Arc, time::Duration};

use crate::{
    fleet::Fleet,
    host::Edge,
    node::Server,
    toxics::{Peer, Post, Race, Toxic},
    world::World,
};

/// One thing that goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// An agent crashes at one of its next effects and is started again later.
    Crash { node: usize, effects: u64, edge: Edge, down: Duration },
    /// A host loses its power and is started again later.
    Reboot { node: usize, down: Duration },
    /// A host is gone for good.
    Death { node: usize },
    /// An agent's process is stopped, and goes on later.
    Pause { node: usize, time: Duration },
    /// A whole machine stands still, its clocks too.
    StandStill { node: usize, time: Duration },
    /// A host is cut off.
    Cut { node: usize, peers: Vec<Peer>, time: Duration },
    /// A host is cut off from the store and comes back while the write of one that takes over from it
    /// is on its way, or after this time.
    Race { node: usize, time: Duration },
    /// A service misbehaves.
    Storm { peer: Peer, toxic: Toxic, time: Duration },
    /// The queue's messages come as they like.
    Post { post: Post, time: Duration },
    /// An engine restarts.
    Engine { node: usize, away: Duration },
    /// All messages are deleted.
    Purge,
}

/// How long an agent that was stopped may run a container that is another's by now: whether a lease
/// holds and acting on it are two moments, between which a process can be stopped. Its guard ends it.
const GUARD: Duration = Duration::from_secs(15);

impl Fault {
    /// Draws one.
    pub fn draw(world: &World, nodes: usize, lease: Duration) -> Self {
        let node = usize::try_from(world.number(0..=nodes as u64 - 1)).expect("an index");
        // Short ones that nobody need notice, some around the lease and some beyond it.
        let time = if world.odds(0.4) { world.seconds(1, 30) } else { world.span(lease / 2, lease * 2) };
        match world.number(0..=19) {
            0..=4 => {
                let edge = *world.pick(&[Edge::Before, Edge::After]);
                let down = if world.odds(0.3) { time } else { world.seconds(0, 40) };
                Self::Crash { node, effects: world.number(0..=25), edge, down }
            }
            5 => Self::Reboot { node, down: time },
            6 => Self::Death { node },
            7 | 8 => Self::Pause { node, time },
            9 => Self::StandStill { node, time },
            10 => Self::Cut { node, peers: vec![Peer::Store, Peer::Queue], time },
            11 => Self::Cut { node, peers: vec![Peer::Store], time },
            12 => Self::Cut { node, peers: vec![Peer::Queue], time },
            13 => Self::Storm { peer: Peer::Store, toxic: Toxic { out: true, ..Toxic::default() }, time },
            14 | 15 => {
                Self::Storm { peer: *world.pick(&[Peer::Store, Peer::Queue]), toxic: toxic(world), time }
            }
            16 => Self::Storm { peer: Peer::Engine, toxic: toxic(world), time },
            17 => Self::Engine { node, away: world.seconds(1, 20) },
            18 => Self::Purge,
            _ => {
                let post = Post { twice: 0.2, shuffled: 0.5, delayed: 0.3, lost: 0.1 };
                Self::Post { post, time }
            }
        }
    }

    /// Lets it happen, and end.
    pub async fn strike(self, fleet: Arc<Fleet>) {
        let world = fleet.world().clone();
        world.note("fault", format_args!("{self:?}"));
        match self {
            Self::Crash { node, effects, edge, down } => {
                let server = fleet.server(node);
                server.host.crash_after(effects, edge);
                fleet.revive(server, down).await;
            }
            Self::Reboot { node, down } => {
                let server = fleet.server(node);
                if server.host.is_up() {
                    server.lose_power();
                    fleet.revive(server, down).await;
                }
            }
            Self::Death { node } => fleet.kill(node),
            Self::Pause { node, time } => {
                let server = fleet.server(node);
                server.host.pause(true);
                tokio::time::sleep(time).await;
                world.watch().excuse(&world, &server.host.name, GUARD);
                server.host.pause(false);
            }
            Self::StandStill { node, time } => still(&fleet.server(node), time).await,
            Self::Cut { node, peers, time } => {
                let server = fleet.server(node);
                peers.iter().for_each(|peer| server.host.cut(*peer, true));
                tokio::time::sleep(time).await;
                peers.iter().for_each(|peer| server.host.cut(*peer, false));
            }
            Self::Race { node, time } => race(&world, &fleet.server(node), time).await,
            Self::Storm { peer, toxic, time } => {
                world.toxics().set(peer, toxic);
                tokio::time::sleep(time).await;
                world.toxics().set(peer, Toxic::default());
                fleet.disturbed();
                if peer == Peer::Engine {
                    world.watch().engine_troubled(&world);
                }
            }
            Self::Post { post, time } => {
                world.toxics().post = post;
                tokio::time::sleep(time).await;
                world.toxics().post = Post::default();
            }
            Self::Engine { node, away } => {
                fleet.server(node).restart_engine(away).await;
                world.watch().engine_troubled(&world);
            }
            Self::Purge => fleet.services.queues.purge_all(),
        }
    }
}

async fn race(world: &World, server: &Server, time: Duration) {
    let until = world.elapsed() + time;
    world.toxics().race = Some(Race { away: server.host.name.clone(), met: false });
    server.host.cut(Peer::Store, true);
    let met = || world.toxics().race.as_ref().is_none_or(|race| race.met);
    while world.elapsed() < until && !met() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.toxics().race = None;
    server.host.cut(Peer::Store, false);
}

async fn still(server: &Server, time: Duration) {
    server.stand_still(true);
    tokio::time::sleep(time).await;
    server.stand_still(false);
}

fn toxic(world: &World) -> Toxic {
    let odds = |most: u64| {
        #[expect(clippy::cast_precision_loss, reason = "a number of hundredths")]
        if world.odds(0.5) { 0.0 } else { world.number(1..=most) as f64 / 100.0 }
    };
    Toxic { slow: odds(30), before: odds(30), after: odds(30), late: odds(20), out: false }
}
