//! The claim loop: from a lane's queue to an attempt that runs here.
//!
//! Whenever something is free, the lanes that fit are swept with short polls, in order
//! ([`order`]); when none has anything, each is parked on a long poll, and the first answer wakes
//! the loop. A long poll in flight is never dropped: a queue service may hand its message to the
//! dead connection and hide it. What such a poll brings when nothing is free any more is made
//! visible again at once.
//!
//! A host with nothing free does not poll, but for a look now and then at the lanes that would fit
//! were it empty: a job that has waited there past the fleet's `patience` is kept room for ([`keep`]), so
//! that small jobs do not starve it. What runs to an end before it starts may use the room meanwhile. And
//! where jobs run that give way, the lanes that go before them are looked at each beat.

mod defer;
mod keep;
mod opinion;
mod order;
pub(crate) mod others;
mod take;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use shared::{
    client,
    id::LaneId,
    lane::Lane,
    queue::{MAX_BATCH, Queue, QueueError, Received},
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{changes::Watcher, node::Node, pace::Pace, patience::Chain};

/// How long a long poll waits: the most that SQS allows.
const LONG_POLL: Duration = Duration::from_secs(20);

/// How long a received message stays hidden. A claim takes milliseconds; what takes longer is
/// seen again by another agent, and loses nothing. A receive whose answer is lost costs as much.
const VISIBILITY: Duration = Duration::from_secs(30);

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

/// The loop's own state.
struct Claims {
    node: Arc<Node>,
    lanes: BTreeMap<LaneId, Lane>,
    polls: JoinSet<Polled>,
    polling: BTreeMap<LaneId, ()>,
    /// Lanes that are left to others, and until when.
    left: BTreeMap<LaneId, Instant>,
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
    let (lanes, polls, polling, left) = (BTreeMap::new(), JoinSet::new(), BTreeMap::new(), BTreeMap::new());
    Claims { node, lanes, polls, polling, left, refresh, look, beat, changes, closing }.run().await;
}

impl Claims {
    async fn run(&mut self) {
        self.find_lanes().await;
        loop {
            self.changes.catch_up();
            while self.sweep().await {}
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
    }

    /// Polls once, shortly, each lane that fits and that no long poll watches. True if anything
    /// was received: then a lane before it in the order may have a job by now.
    async fn sweep(&mut self) -> bool {
        for (lane, room) in order::fitting(self.lanes.values(), &self.node.ledger) {
            if self.polling.contains_key(&lane) || self.left.contains_key(&lane) {
                continue;
            }
            if self.comes_later() && !self.has_waited(&lane).await {
                continue;
            }
            let received =
                self.node.fleet.queue.receive(&(&lane).into(), room, Duration::ZERO, VISIBILITY).await;
            if self.received(&lane, received).await {
                return true;
            }
            if self.comes_later() {
                self.leave(&lane, self.node.config.claim_after.0 / 2);
            }
        }
        false
    }

    /// Leaves a lane to others for so long.
    fn leave(&mut self, lane: &LaneId, rest: Duration) {
        self.left.insert(lane.clone(), Instant::now() + rest);
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
        self.leave(lane, rest);
        false
    }

    /// Polls these lanes once, shortly, each for so many messages.
    async fn look_at(&mut self, lanes: Vec<LaneId>, max: usize) {
        for lane in lanes.into_iter().filter(|lane| !self.polling.contains_key(lane)).collect::<Vec<_>>() {
            let queue = (&lane).into();
            let received = self.node.fleet.queue.receive(&queue, max, Duration::ZERO, VISIBILITY).await;
            self.received(&lane, received).await;
        }
    }

    /// Starts a long poll on each lane that fits and has none.
    fn park(&mut self) {
        if self.comes_later() {
            return;
        }
        for (lane, _) in order::fitting(self.lanes.values(), &self.node.ledger) {
            self.watch(lane);
        }
    }

    /// Starts a long poll on a lane, unless it has one or is left to others.
    fn watch(&mut self, lane: LaneId) {
        if self.left.contains_key(&lane) {
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
                if self.received(&lane, received).await { Woken::Sweep } else { Woken::Empty(lane) }
            }
            () = self.changes.changed() => Woken::Sweep,
            () = until(self.left.values().min().copied()) => {
                let now = Instant::now();
                self.left.retain(|_, until| *until > now);
                Woken::Sweep
            }
            () = self.look.tick() => {
                let waiting = order::waiting(self.lanes.values(), &self.node.ledger);
                self.look_at(self.node.chance.some(waiting, LOOKS), 1).await;
                Woken::Park
            }
            () = self.beat.tick() => {
                self.node.ledger.tick(self.node.clock.now());
                opinion::look(&self.node).await;
                self.look_at(order::over_others(self.lanes.values(), &self.node.ledger), 1).await;
                // The short ones may be behind others.
                self.look_at(order::for_a_while(self.lanes.values(), &self.node.ledger), 10).await;
                Woken::Park
            }
            () = self.node.gossip.lanes.due(&self.node, &mut self.refresh) => {
                if self.find_lanes().await { Woken::Sweep } else { Woken::Park }
            }
        }
    }

    /// Takes what came, or makes it visible again. True if anything came.
    async fn received(&mut self, lane: &LaneId, received: Result<Vec<Received>, QueueError>) -> bool {
        match received {
            Ok(messages) => {
                let any = !messages.is_empty();
                for message in messages {
                    if let Some(rest) = take::take(&self.node, lane, message).await {
                        self.leave(lane, rest);
                    }
                }
                any
            }
            Err(error) => {
                self.failed(lane, error).await;
                false
            }
        }
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

/// Until then; for ever where there is no such time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
