//! The claim loop: from a lane's queue to an attempt that runs here.
//!
//! Whenever something is free, the lanes that fit are swept with short polls, in order
//! ([`order`]); when none has anything, each is parked on a long poll, and the first answer wakes
//! the loop. A long poll in flight is never dropped: a queue service may hand its message to the
//! dead connection and hide it. What such a poll brings when nothing is free any more is made
//! visible again at once. Lanes say nothing of CPU and memory: what needs more of these than is free is held
//! while its lane is looked through, then put back, and the lane is left alone for seconds ([`aside`]).
//!
//! A host with nothing free does not poll, but for a look now and then at the lanes that would fit
//! were it empty: a job that has waited there past the fleet's `patience` is kept room for ([`keep`]), so
//! that small jobs do not starve it. What runs to an end before it starts may use the room meanwhile. And
//! where jobs run that give way, the lanes that go before them are looked at each beat.

mod aside;
mod defer;
mod keep;
mod opinion;
mod order;
pub(crate) mod others;
mod take;
mod warm;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use shared::{
    client,
    id::LaneId,
    lane::Lane,
    queue::{MAX_BATCH, Queue, QueueError, Received},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::{aside::Aside, order::Order, take::Taken};
use crate::{changes::Watcher, node::Node, pace::Pace, patience::Chain};

/// How long a long poll waits: the most that SQS allows.
const LONG_POLL: Duration = Duration::from_secs(20);

/// How long a received message stays hidden. A claim takes milliseconds; what takes longer is
/// seen again by another agent, and loses nothing. A receive whose answer is lost costs as much.
const VISIBILITY: Duration = Duration::from_secs(30);

/// How many messages that do not fit are held while their lane is looked through.
const MOST_MISFITS: usize = 30;

/// How many lanes are looked at in one `patience` for jobs that wait for more than is free.
const LOOKS: usize = 4;

type Polled = (LaneId, Result<Vec<Received>, QueueError>);

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
enum Woken {
    /// Something was received, or may now be.
    Sweep,
    /// No lane has anything; those without a long poll get one.
    Park,
    /// A long poll on this lane brought nothing.
    Empty(LaneId),
    /// Nothing more is to be taken.
    Close,
}

/// What a receive brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Got {
    /// Nothing.
    Nothing,
    /// Nothing but jobs that need more CPU or memory than is free.
    Misfits,
    /// Something that was dealt with.
    Job,
}

/// The loop's own state.
struct Claims {
    node: Arc<Node>,
    lanes: BTreeMap<LaneId, Lane>,
    polls: JoinSet<Polled>,
    polling: BTreeMap<LaneId, ()>,
    aside: Aside,
    /// What was received and did not fit, until its lane has been looked through.
    misfits: BTreeMap<LaneId, Vec<Received>>,
    refresh: Pace,
    /// When jobs are looked for that wait for more than is free.
    look: Pace,
    /// When jobs are looked for that others would give way to, and short ones that may use what is kept for
    /// another.
    beat: Pace,
    changes: Watcher,
    closing: CancellationToken,
}

/// Claims jobs and runs them, until it is dropped, or closing and no long poll is under way.
pub async fn run(node: Arc<Node>, closing: CancellationToken) {
    let refresh = Pace::at_once(node.fleet.clone(), |settings| settings.lane_refresh);
    let changes = node.ledger.changes();
    let look = Pace::after(node.fleet.clone(), |settings| settings.patience);
    let beat = Pace::after(node.fleet.clone(), |settings| settings.beat);
    let (lanes, polls, polling) = (BTreeMap::new(), JoinSet::new(), BTreeMap::new());
    let (aside, misfits) = (Aside::default(), BTreeMap::new());
    Claims { node, lanes, polls, polling, aside, misfits, refresh, look, beat, changes, closing }.run().await;
}

impl Claims {
    async fn run(&mut self) {
        self.find_lanes().await;
        loop {
            self.changes.catch_up();
            self.aside.now_has(self.node.ledger.capacity());
            self.sweep().await;
            self.put_all_back().await;
            self.park();
            // A lane that a long poll found empty is parked again at once, without a short poll.
            loop {
                match self.wake().await {
                    Woken::Sweep => break,
                    Woken::Park => self.park(),
                    Woken::Empty(lane) => {
                        let fits =
                            self.lanes.get(&lane).is_some_and(|lane| self.node.ledger.room(&lane.needs) > 0);
                        if fits {
                            self.watch(lane);
                        }
                    }
                    Woken::Close => return self.see_out().await,
                }
            }
        }
    }

    /// Waits for the long polls that are under way. What they bring is given back at once, since a node
    /// that closes has room for nothing.
    async fn see_out(&mut self) {
        if self.node.fleet.settings().queue.is_embedded() {
            return;
        }
        while let Some(polled) = self.polls.join_next().await {
            if let Ok((lane, received)) = polled {
                self.received(&lane, received).await;
            }
        }
        self.put_all_back().await;
    }

    /// Polls shortly each lane that fits and that no long poll watches, in order, until it has nothing more
    /// that fits. Those that were looked through are not looked at again when a later one has a job: a
    /// host may have hundreds, and what comes there meanwhile is found by their long polls.
    async fn sweep(&mut self) {
        let (order, mut looked) = (self.order(), BTreeSet::new());
        'fitting: loop {
            for (lane, room) in order.fitting(self.lanes.values(), &self.node.ledger) {
                if looked.contains(&lane) || self.polling.contains_key(&lane) || !self.aside.is_open(&lane) {
                    continue;
                }
                if self.comes_later() && !self.has_waited(&lane).await {
                    continue;
                }
                if self.look_through(&lane, room).await {
                    continue 'fitting;
                }
                looked.insert(lane);
            }
            return;
        }
    }

    /// A new draw.
    fn order(&self) -> Order {
        Order { draw: self.node.chance.bits() }
    }

    /// Polls a lane shortly until a message comes that fits, in which case it is true, or no more do.
    async fn look_through(&mut self, lane: &LaneId, room: usize) -> bool {
        loop {
            let most = if self.aside.has_misfits(lane) { MAX_BATCH } else { room };
            let queue = self.node.fleet.queue.clone();
            let received = queue.receive(&lane.into(), most, Duration::ZERO, VISIBILITY).await;
            match self.received(lane, received).await {
                Got::Job => return true,
                Got::Misfits if self.misfits.get(lane).is_some_and(|all| all.len() < MOST_MISFITS) => {}
                Got::Misfits | Got::Nothing => break,
            }
        }
        self.put_back(lane).await;
        if self.comes_later() {
            self.aside.leave(lane, self.node.config.claim_after.0 / 2);
        }
        false
    }

    /// Puts back what did not fit of a lane that has been looked through.
    async fn put_back(&mut self, lane: &LaneId) {
        let Some(misfits) = self.misfits.remove(lane) else {
            self.aside.fits(lane);
            return;
        };
        let back = misfits.iter().map(|received| take::put_back(&self.node, lane, received, Duration::ZERO));
        futures::future::join_all(back).await;
        self.aside.misfit(lane);
    }

    async fn put_all_back(&mut self) {
        for lane in self.misfits.keys().cloned().collect::<Vec<_>>() {
            self.put_back(&lane).await;
        }
    }

    /// Whether this node leaves all jobs to others for a while.
    fn comes_later(&self) -> bool {
        !self.node.config.claim_after.0.is_zero()
    }

    /// Whether a job in the lane has waited for `claim_after`. It is looked without hiding anything from the
    /// others; where none has, the lane is left to them until one may have.
    async fn has_waited(&mut self, lane: &LaneId) -> bool {
        let claim_after = self.node.config.claim_after.0;
        let seen =
            self.node.fleet.queue.receive(&lane.into(), MAX_BATCH, Duration::ZERO, Duration::ZERO).await;
        let oldest = seen
            .as_ref()
            .ok()
            .and_then(|seen| seen.iter().map(|message| defer::since(&self.node, message.sent_at)).max());
        if let Err(error) = seen {
            self.failed(lane, error).await;
        }
        let rest = match oldest {
            // What comes after an empty look has waited for at most half as long again when it is seen.
            None => Some(claim_after / 2),
            Some(waited) => defer::rest(claim_after, waited),
        };
        let Some(rest) = rest else { return true };
        self.aside.leave(lane, rest);
        false
    }

    /// Polls these lanes once, shortly, each for so many messages.
    async fn look_at(&mut self, lanes: Vec<LaneId>, max: usize) {
        for lane in lanes.into_iter().filter(|lane| !self.polling.contains_key(lane)).collect::<Vec<_>>() {
            let queue = (&lane).into();
            let received = self.node.fleet.queue.receive(&queue, max, Duration::ZERO, VISIBILITY).await;
            self.received(&lane, received).await;
        }
        self.put_all_back().await;
    }

    /// Starts a long poll on each lane that fits and has none.
    fn park(&mut self) {
        if self.comes_later() {
            return;
        }
        for (lane, _) in self.order().fitting(self.lanes.values(), &self.node.ledger) {
            self.watch(lane);
        }
    }

    /// Starts a long poll on a lane, unless it has one or is left to others.
    fn watch(&mut self, lane: LaneId) {
        if !self.aside.is_open(&lane) {
            return;
        }
        if self.polling.insert(lane.clone(), ()).is_some() {
            return;
        }
        let queue = self.node.fleet.queue.clone();
        self.polls.spawn(async move {
            let received = queue.receive(&(&lane).into(), 1, LONG_POLL, VISIBILITY).await;
            (lane, received)
        });
    }

    /// Waits until there is something to do.
    async fn wake(&mut self) -> Woken {
        tokio::select! {
            // The end first, then a message in hand. A poll that is parked anew is never answered at
            // once, so the others get their turn.
            biased;
            () = self.closing.cancelled() => Woken::Close,
            Some(polled) = self.polls.join_next() => {
                let Ok((lane, received)) = polled else { return Woken::Park };
                self.polling.remove(&lane);
                match self.received(&lane, received).await {
                    Got::Nothing => Woken::Empty(lane),
                    Got::Misfits | Got::Job => Woken::Sweep,
                }
            }
            () = self.changes.changed() => Woken::Sweep,
            () = self.aside.over() => Woken::Sweep,
            () = self.look.tick() => {
                let waiting = self.order().waiting(self.lanes.values(), &self.node.ledger);
                self.look_at(self.node.chance.some(waiting, LOOKS), 1).await;
                Woken::Park
            }
            () = self.beat.tick() => {
                self.node.ledger.tick(self.node.clock.now());
                opinion::look(&self.node).await;
                self.look_at(self.order().over_others(self.lanes.values(), &self.node.ledger), 1).await;
                // The short ones may be behind others.
                self.look_at(self.order().for_a_while(self.lanes.values(), &self.node.ledger), 10).await;
                Woken::Park
            }
            () = self.node.gossip.lanes.due(&self.node, &mut self.refresh) => {
                if self.find_lanes().await { Woken::Sweep } else { Woken::Park }
            }
        }
    }

    /// Takes what came, or makes it visible again.
    async fn received(&mut self, lane: &LaneId, received: Result<Vec<Received>, QueueError>) -> Got {
        let messages = match received {
            Ok(messages) => messages,
            Err(error) => {
                self.failed(lane, error).await;
                return Got::Nothing;
            }
        };
        let mut got = Got::Nothing;
        for message in messages {
            got = got.max(match take::take(&self.node, lane, message).await {
                Taken::Done => Got::Job,
                Taken::Left(rest) => {
                    self.aside.leave(lane, rest);
                    Got::Job
                }
                Taken::Misfit(message) => {
                    self.misfits.entry(lane.clone()).or_default().push(message);
                    Got::Misfits
                }
            });
        }
        got
    }

    /// A lane's queue could not be asked.
    async fn failed(&self, lane: &LaneId, error: QueueError) {
        // The lane's first message is yet to come.
        if let QueueError::NoSuchQueue { .. } = error {
            if let Err(error) = self.node.fleet.queue.ensure(&lane.into()).await {
                tracing::warn!(error = %Chain(&error), %lane, "the lane's queue cannot be made");
            }
        } else {
            tracing::warn!(error = %Chain(&error), %lane, "the lane's queue does not answer");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Learns of lanes that are new. True if there are any.
    async fn find_lanes(&mut self) -> bool {
        let known: Vec<LaneId> = self.lanes.keys().cloned().collect();
        match client::lanes(&self.node.fleet.store, &known).await {
            Ok(found) => {
                self.node.gossip.lanes.read(found.edition);
                let any = !found.new.is_empty();
                self.lanes.extend(found.new.into_iter().map(|lane| (lane.id.clone(), lane)));
                any
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot look for new lanes");
                false
            }
        }
    }
}
