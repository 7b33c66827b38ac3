//! The message queue: SQS's promises, and no more than those, with its limits enforced.
//!
//! A message may come twice, late, in any order, or never; it is hidden for at most twelve hours
//! from its first receipt and gone after fourteen days; a long poll that is dropped may take one
//! with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use shared::queue::{
    Depth, MAX_BATCH, MAX_MESSAGE, MAX_WAIT, Outgoing, Queue, QueueError, QueueName, Receipt, Received,
};

use crate::{
    bell::Bell,
    clock::epoch,
    host::{Broken, Link},
    meter::For,
    world::{World, lock},
};

const RETENTION: Duration = Duration::from_secs(14 * 24 * 3600);
const LONGEST_VISIBILITY: Duration = Duration::from_secs(12 * 3600);
const LONGEST_DELAY: Duration = Duration::from_secs(900);

#[derive(Debug, Clone)]
struct Message {
    id: u64,
    copy: u64,
    body: Outgoing,
    sent: Duration,
    visible: Duration,
    first_received: Option<Duration>,
    receives: u32,
}

/// All queues.
pub struct Queues {
    world: World,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queues: BTreeMap<QueueName, Vec<Message>>,
    /// Rung for one long poll when there may be a message for it.
    bells: BTreeMap<QueueName, Arc<Bell>>,
    next: u64,
}

type Taken = (Vec<Received>, Option<Duration>);

impl Queues {
    /// None yet.
    pub fn new(world: &World) -> Arc<Self> {
        Arc::new(Self { world: world.clone(), state: Mutex::default() })
    }

    fn with<T>(
        &self,
        name: &QueueName,
        act: impl FnOnce(&mut Vec<Message>, &mut u64) -> T,
    ) -> Result<T, QueueError> {
        let now = self.world.elapsed();
        let mut state = lock(&self.state);
        let State { queues, next, .. } = &mut *state;
        let Some(messages) = queues.get_mut(name) else {
            return Err(QueueError::NoSuchQueue { queue: name.clone() });
        };
        messages.retain(|message| now - message.sent < RETENTION);
        Ok(act(messages, next))
    }

    fn send(&self, name: &QueueName, body: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        let (world, now) = (&self.world, self.world.elapsed());
        let post = world.toxics().post;
        if world.odds(post.lost) {
            world.note("queue", "loses a message");
            return self.with(name, |_, _| ());
        }
        let shown = if world.odds(post.delayed) { world.seconds(1, 20) } else { Duration::ZERO };
        let copies = if world.odds(post.twice) { 2 } else { 1 };
        let sent = self.with(name, |messages, next| {
            let id = *next;
            for _ in 0..copies {
                *next += 1;
                messages.push(Message {
                    id,
                    copy: *next,
                    body: body.clone(),
                    sent: now,
                    visible: now + delay + shown,
                    first_received: None,
                    receives: 0,
                });
            }
        });
        let bell = self.bell(name);
        (0..copies).for_each(|_| bell.ring_one());
        sent
    }

    fn bell(&self, name: &QueueName) -> Arc<Bell> {
        lock(&self.state).bells.entry(name.clone()).or_default().clone()
    }

    /// The answer to a receive: the first messages that can be had until then.
    async fn await_any(
        &self,
        name: &QueueName,
        max: usize,
        until: Duration,
        hidden: Duration,
    ) -> Result<Vec<Received>, QueueError> {
        let bell = self.bell(name);
        let look = || {
            let (taken, next) = match self.take(name, max, hidden) {
                Ok(found) => found,
                Err(error) => return Ok(Err(error)),
            };
            let now = self.world.elapsed();
            if !taken.is_empty() {
                return Ok(Ok(taken));
            }
            if now >= until {
                // Somebody else waits for what is hidden still.
                bell.ring_one();
                return Ok(Ok(taken));
            }
            Err(next.map_or(until, |next| next.min(until)) - now)
        };
        bell.until_or(look).await
    }

    /// What can be received now; and if there is nothing, when there may be.
    fn take(&self, name: &QueueName, max: usize, hidden: Duration) -> Result<Taken, QueueError> {
        let (world, now) = (&self.world, self.world.elapsed());
        let post = world.toxics().post;
        let shuffled = world.odds(post.shuffled);
        let turn = world.number(0..=1000);
        self.with(name, |messages, _| {
            if shuffled && !messages.is_empty() {
                let by = usize::try_from(turn).unwrap_or(0) % messages.len();
                messages.rotate_left(by);
            }
            let mut taken = Vec::new();
            for message in messages.iter_mut().filter(|message| message.visible <= now).take(max) {
                message.first_received.get_or_insert(now);
                message.receives += 1;
                message.visible = now + hidden;
                let receipt = Receipt::new(format!("{}:{}", message.copy, message.receives));
                taken.push(Received {
                    id: message.id.to_string(),
                    body: message.body.body.clone(),
                    attributes: message.body.attributes.clone(),
                    receipt,
                    receives: message.receives,
                    sent_at: epoch() + message.sent,
                });
            }
            let next = messages.iter().map(|message| message.visible).filter(|at| *at > now).min();
            (taken, next)
        })
    }

    fn delete(&self, name: &QueueName, receipt: &Receipt) -> Result<(), QueueError> {
        let last = self.with(name, |messages, _| {
            let at = messages.iter().position(|message| is_of(receipt, message))?;
            let gone = messages.remove(at);
            // Another copy of it is as good.
            (!messages.iter().any(|message| message.id == gone.id)).then_some(gone.body.body)
        })?;
        if let Some(body) = last {
            self.world.watch().message_deleted(&self.world, &body);
        }
        Ok(())
    }

    fn change(&self, name: &QueueName, receipt: &Receipt, hidden: Duration) -> Result<(), QueueError> {
        let now = self.world.elapsed();
        let done = self.with(name, |messages, _| {
            let Some(message) = messages.iter_mut().find(|message| is_of(receipt, message)) else {
                return true;
            };
            let first = message.first_received.unwrap_or(now);
            let allowed = now + hidden <= first + LONGEST_VISIBILITY;
            if allowed {
                message.visible = now + hidden;
            }
            allowed
        })?;
        self.bell(name).ring_one();
        if done { Ok(()) } else { Err(unusable(name, "hidden for more than 12 hours in all")) }
    }

    /// Deletes everything, as an operator's mistake would.
    pub fn purge_all(&self) {
        self.world.note("queue", "PURGED");
        lock(&self.state).queues.values_mut().for_each(Vec::clear);
    }
}

fn is_of(receipt: &Receipt, message: &Message) -> bool {
    receipt.as_str() == format!("{}:{}", message.copy, message.receives)
}

fn unusable(name: &QueueName, detail: &str) -> QueueError {
    QueueError::Unusable { queue: name.to_string(), detail: detail.into() }
}

/// One process's connection to the queues.
#[derive(Clone)]
pub struct SimQueue {
    queues: Arc<Queues>,
    link: Link,
}

/// A long poll that waits. One that is dropped may take the next message with it.
struct Parked {
    queue: SimQueue,
    name: QueueName,
    until: Duration,
    hidden: Duration,
    answered: bool,
}

impl Drop for Parked {
    fn drop(&mut self) {
        let world = self.queue.queues.world.clone();
        if self.answered || world.is_over() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (queues, name, until, hidden) =
            (self.queue.queues.clone(), self.name.clone(), self.until, self.hidden);
        world.clone().spawn(async move {
            if queues.await_any(&name, 1, until, hidden).await.is_ok_and(|taken| !taken.is_empty()) {
                world.note("queue", "a dropped long poll takes a message");
            }
        });
    }
}

impl SimQueue {
    /// A connection.
    pub fn new(queues: &Arc<Queues>, link: Link) -> Self {
        Self { queues: queues.clone(), link }
    }

    fn counts(&self, whom: For) {
        self.queues.world.meter().queue(whom);
    }

    async fn write<T: Send + 'static>(
        &self,
        what: String,
        name: &QueueName,
        effect: impl FnOnce(&Queues) -> T + Send + 'static,
    ) -> Result<T, QueueError> {
        self.counts(For::Job);
        let queues = self.queues.clone();
        let done = self.link.write(what, move || effect(&queues)).await;
        done.map_err(|Broken| away(name))
    }
}

fn away(name: &QueueName) -> QueueError {
    QueueError::Unavailable { queue: name.to_string(), source: "no answer".into() }
}

#[async_trait]
impl Queue for SimQueue {
    async fn ensure(&self, queue: &QueueName) -> Result<(), QueueError> {
        let name = queue.clone();
        let effect = move |queues: &Queues| {
            lock(&queues.state).queues.entry(name).or_default();
        };
        self.write(format!("makes queue {queue}"), queue, effect).await
    }

    async fn send(&self, queue: &QueueName, message: &Outgoing, delay: Duration) -> Result<(), QueueError> {
        if message.size() > MAX_MESSAGE {
            return Err(QueueError::TooLarge { size: message.size() });
        }
        if delay > LONGEST_DELAY {
            return Err(unusable(queue, "delayed for more than 15 minutes"));
        }
        let (name, message) = (queue.clone(), message.clone());
        let effect = move |queues: &Queues| queues.send(&name, &message, delay);
        self.write(format!("sends to {queue}"), queue, effect).await?
    }

    async fn receive(
        &self,
        queue: &QueueName,
        max: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Received>, QueueError> {
        if !(1..=MAX_BATCH).contains(&max) || wait > MAX_WAIT || visibility > LONGEST_VISIBILITY {
            return Err(unusable(queue, "a receive beyond the limits"));
        }
        let until = self.queues.world.elapsed() + wait;
        let (queue_of, name, hidden) = (self.clone(), queue.clone(), visibility);
        let answer = async move {
            let mut parked =
                Parked { queue: queue_of.clone(), name: name.clone(), until, hidden, answered: false };
            let taken = queue_of.queues.await_any(&name, max, until, hidden).await;
            parked.answered = true;
            if taken.as_ref().is_ok_and(|taken| !taken.is_empty()) {
                queue_of.queues.world.note(&queue_of.link.host.name, format_args!("receives from {name}"));
            }
            taken
        };
        let taken = self.link.long(format!("a receive from {queue}"), answer).await;
        let any = matches!(&taken, Ok(Ok(taken)) if !taken.is_empty());
        self.counts(if any { For::Job } else { For::Node });
        taken.map_err(|Broken| away(queue))?
    }

    async fn delete(&self, queue: &QueueName, receipt: &Receipt) -> Result<(), QueueError> {
        let (name, receipt) = (queue.clone(), receipt.clone());
        let effect = move |queues: &Queues| queues.delete(&name, &receipt);
        self.write(format!("deletes from {queue}"), queue, effect).await?
    }

    async fn change_visibility(
        &self,
        queue: &QueueName,
        receipt: &Receipt,
        visibility: Duration,
    ) -> Result<(), QueueError> {
        let (name, receipt) = (queue.clone(), receipt.clone());
        let effect = move |queues: &Queues| queues.change(&name, &receipt, visibility);
        self.write(format!("hides one of {queue} for {visibility:?}"), queue, effect).await?
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth, QueueError> {
        let (queues, name) = (self.queues.clone(), queue.clone());
        let count = move || {
            let now = queues.world.elapsed();
            queues.with(&name, |messages, _| {
                let mut depth = Depth::default();
                for message in messages.iter() {
                    match (message.visible <= now, message.receives) {
                        (true, _) => depth.waiting += 1,
                        (false, 0) => depth.delayed += 1,
                        (false, _) => depth.in_flight += 1,
                    }
                }
                depth
            })
        };
        self.counts(For::Node);
        self.link.read(format!("asks for the depth of {queue}"), count).await.map_err(|Broken| away(queue))?
    }

    async fn purge(&self, queue: &QueueName) -> Result<(), QueueError> {
        let name = queue.clone();
        let effect = move |queues: &Queues| queues.with(&name, |messages, _| messages.clear());
        self.write(format!("purges {queue}"), queue, effect).await?
    }

    async fn list(&self) -> Result<Vec<QueueName>, QueueError> {
        let queues = self.queues.clone();
        let names = move || {
            let names: BTreeSet<QueueName> = lock(&queues.state).queues.keys().cloned().collect();
            names.into_iter().collect()
        };
        self.counts(For::Node);
        self.link.read("lists the queues", names).await.map_err(|Broken| away(&QueueName::Inbox))
    }
}
