//! What is wrong with the services, and what becomes of a request then.

use std::time::Duration;

use crate::world::World;

/// Which service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// The object store.
    Store,
    /// The message queue.
    Queue,
    /// The host's container engine.
    Engine,
}

/// How a service misbehaves, as probabilities of each request.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Toxic {
    /// Takes seconds rather than milliseconds.
    pub slow: f64,
    /// Fails and has no effect.
    pub before: f64,
    /// Has its effect and fails: the answer is lost.
    pub after: f64,
    /// Fails, and has its effect later, after the caller was told.
    pub late: f64,
    /// Nobody is answered.
    pub out: bool,
}

/// How the queue deals with messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Post {
    /// Delivers one twice.
    pub twice: f64,
    /// Delivers them in any order.
    pub shuffled: f64,
    /// Shows one only some seconds after it was sent.
    pub delayed: f64,
    /// Loses one.
    pub lost: f64,
}

/// A host that is away, and the others, one of which will be about to end its claims.
#[derive(Debug, Clone)]
pub struct Race {
    /// The host that is away.
    pub away: String,
    /// Somebody's write that ends one of its claims is on its way.
    pub met: bool,
}

/// All that is wrong at present.
#[derive(Debug, Clone, Default)]
pub struct Toxics {
    /// With the store.
    pub store: Toxic,
    /// With the queue's answers.
    pub queue: Toxic,
    /// With the engines.
    pub engine: Toxic,
    /// With the messages.
    pub post: Post,
    /// Between a host that comes back and those who take over from it.
    pub race: Option<Race>,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fate {
    /// How long until it is there.
    pub there: Duration,
    /// How long until its answer is back.
    pub back: Duration,
    /// What happens on the way.
    pub mishap: Mishap,
}

/// What happens to a request on its way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mishap {
    /// Nothing.
    None,
    /// It does not get there.
    Before,
    /// Its answer does not get back.
    After,
    /// It gets there so much later, and the caller has given up.
    Late(Duration),
}

impl Toxics {
    /// Something is wrong with a service, or not any more.
    pub fn set(&mut self, peer: Peer, toxic: Toxic) {
        match peer {
            Peer::Store => self.store = toxic,
            Peer::Queue => self.queue = toxic,
            Peer::Engine => self.engine = toxic,
        }
    }

    /// Whether anything is wrong with any service.
    pub fn any(&self) -> bool {
        [self.store, self.queue, self.engine].iter().any(|toxic| *toxic != Toxic::default())
    }

    /// What is wrong with a service.
    pub fn of(&self, peer: Peer) -> Toxic {
        match peer {
            Peer::Store => self.store,
            Peer::Queue => self.queue,
            Peer::Engine => self.engine,
        }
    }
}

impl Fate {
    /// Draws it.
    pub fn draw(world: &World, peer: Peer) -> Self {
        let toxic = world.toxics().of(peer);
        let millis = Duration::from_millis;
        let (low, high) = if peer == Peer::Engine { (1, 40) } else { (2, 30) };
        let leg = || {
            if world.odds(toxic.slow) { world.seconds(1, 20) } else { world.span(millis(low), millis(high)) }
        };
        let (there, back) = (leg(), leg());
        let mishap = if toxic.out || world.odds(toxic.before) {
            Mishap::Before
        } else if world.odds(toxic.after) {
            Mishap::After
        } else if world.odds(toxic.late) {
            Mishap::Late(world.seconds(1, 60))
        } else {
            Mishap::None
        };
        Self { there, back, mishap }
    }
}
