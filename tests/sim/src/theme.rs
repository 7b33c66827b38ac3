//! What a seed is mostly about. Drawn evenly, some of the places where things can go wrong would be
//! met once in ten thousand seeds: each theme but the first keeps to one of them.

use std::time::Duration;

use shared::{fleet::Settings, id::JobId, units::Span};

use crate::{
    client::Wish,
    fault::Fault,
    host::Edge,
    script::Script,
    toxics::{Peer, Toxic},
    world::World,
};

/// A seed's theme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// Anything.
    Anything,
    /// Nodes with long jobs are cut off for about a lease, and the store is slow: who is back meets
    /// those who are just about to take over.
    AroundTheLease,
    /// Long jobs that fail and are run again; agents crash at such moments and stay away until they
    /// are reckoned lost.
    Relapses,
    /// The sweep never rests, and the store is slow: it sees everything half done.
    Sweeping,
    /// People cancel jobs that wait and want them back, the store is slow, and messages are lost.
    SecondThoughts,
}

impl Theme {
    /// Draws one.
    pub fn draw(world: &World) -> Self {
        match world.number(0..=7) {
            0..=2 => Self::Anything,
            3..=4 => Self::AroundTheLease,
            5 => Self::Relapses,
            6 => Self::Sweeping,
            _ => Self::SecondThoughts,
        }
    }

    /// The settings of its fleet.
    pub fn settings(self, world: &World) -> Settings {
        let mut settings = Settings::embedded(None);
        let beat = *world.pick(&[5, 15]);
        settings.beat = Span::secs(beat);
        settings.lease = Span::secs(beat * 12);
        settings.window = *world.pick(&[1, 2, 8]);
        settings.lane_refresh = Span::secs(10);
        // A container does the same each time, so this is how often it runs.
        settings.policy.again = 2;
        if self == Self::Sweeping {
            settings.sweep = settings.beat;
        }
        settings
    }

    /// What a job's container does.
    pub fn script(self, world: &World) -> Script {
        let long = matches!(self, Self::AroundTheLease | Self::Relapses) && world.odds(0.7);
        let runs = match world.number(0..=9) {
            _ if long => world.seconds(100, 900),
            0..=5 => world.seconds(0, 20),
            6..=8 => world.seconds(20, 200),
            _ => world.seconds(200, 900),
        };
        let exits: &[i64] = if self == Self::Relapses { &[0, 1, 75] } else { &[0, 0, 0, 0, 0, 0, 1, 75] };
        let lines = u32::try_from(world.number(0..=6)).expect("few");
        Script { runs, exit: *world.pick(exits), lines, deaf: world.odds(0.1) }
    }

    /// What people want of a job after they have submitted it, and how much later.
    pub fn wishes(self, world: &World, id: &JobId) -> Vec<(Duration, Wish)> {
        let mut wishes = Vec::new();
        if self == Self::SecondThoughts && world.odds(0.5) {
            // Each soon after the one before it.
            let mut later = world.seconds(0, 20);
            for _ in 0..world.number(1..=2) {
                wishes.push((later, Wish::Cancel(id.clone())));
                wishes.push((later + world.seconds(0, 20), Wish::Retry(id.clone())));
                later += world.seconds(0, 40);
            }
            return wishes;
        }
        if world.odds(0.1) {
            wishes.push((world.seconds(0, 60), Wish::Cancel(id.clone())));
        }
        if world.odds(0.1) {
            wishes.push((world.seconds(30, 300), Wish::Retry(id.clone())));
        }
        wishes
    }

    /// What goes wrong all the time.
    pub fn weather(self, busy: Duration) -> Option<Fault> {
        (self == Self::AroundTheLease).then(|| slow(busy))
    }

    /// One thing that goes wrong.
    pub fn fault(self, world: &World, nodes: usize, settings: &Settings) -> Fault {
        let (lease, beat) = (settings.lease.0, settings.beat.0);
        let node = usize::try_from(world.number(0..=nodes as u64 - 1)).expect("an index");
        let usual = self == Self::Anything || world.odds(0.2);
        match self {
            _ if usual => Fault::draw(world, nodes, lease),
            Self::AroundTheLease if world.odds(0.5) => Fault::Race { node, time: lease * 3 },
            Self::AroundTheLease => {
                let time = world.span(lease, lease + beat * 5);
                Fault::Cut { node, peers: vec![Peer::Store], time }
            }
            Self::Relapses => {
                let edge = *world.pick(&[Edge::Before, Edge::After]);
                let down = world.span(lease, lease * 3);
                Fault::Crash { node, effects: world.number(0..=40), edge, down }
            }
            Self::SecondThoughts if world.odds(0.3) => Fault::Purge,
            Self::Sweeping if world.odds(0.3) => {
                let time = world.seconds(1, 30);
                Fault::Cut { node, peers: vec![Peer::Store], time }
            }
            Self::Anything | Self::Sweeping | Self::SecondThoughts => slow(world.span(lease / 2, lease * 2)),
        }
    }
}

/// The store takes its time.
fn slow(time: Duration) -> Fault {
    let toxic = Toxic { slow: 0.3, ..Toxic::default() };
    Fault::Storm { peer: Peer::Store, toxic, time }
}
