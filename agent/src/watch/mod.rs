//! Watching the other nodes: whoever is silent for a lease loses its jobs to whoever noticed.
//!
//! Each beat this node looks at two others, drawn at random from the membership ([`members`]), and
//! again at those that it looked at before ([`shared::lease::Watch`] decides). So each node is
//! looked at twice a beat on average, whatever the fleet's size, and each look costs one read. What
//! a lost node held is taken over by [`takeover`].
//!
//! A node that has just started calls the roll first: for one lease it lists all records again and
//! again, a thousand in one request, so that a fleet of which nobody else is left is taken over as fast as
//! any other.

mod members;
pub mod takeover;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use shared::{
    id::NodeId,
    lease::{self, Lost, Sight, Watch},
    node::{Mode, NodeError, NodeRecord},
    store::Listed,
};

pub use members::Members;

use crate::{node::Node, pace::Pace, patience::Chain};

/// How many others are looked at anew in each beat.
const LOOKS: usize = 2;

/// How many listings a roll call takes.
const LISTINGS: u32 = 12;

/// How many records are read at once.
const PARALLEL: usize = 8;

/// One look at a node: when, and what it saw.
type Look = (NodeId, Range<Duration>, Result<Option<(NodeRecord, Sight)>, NodeError>);

/// What the watching node remembers.
struct Watcher {
    node: Arc<Node>,
    watch: Watch,
    roll: Option<RollCall>,
}

/// The first look at everybody.
struct RollCall {
    watch: Watch,
    /// The next listing is not before this.
    due: Duration,
    ends: Duration,
    /// The nodes that have a shelf, once that was asked.
    holders: Option<BTreeSet<NodeId>>,
}

impl RollCall {
    fn begin(node: &Node) -> Self {
        let (now, settings) = (node.clock.elapsed(), node.fleet.settings());
        let ends = now + settings.lease.0 + settings.lease.0 / LISTINGS * 2;
        Self { watch: Watch::default(), due: now, ends, holders: None }
    }

    /// Whether there are jobs on a node's shelf; if that cannot be told, there may be.
    async fn holds(&mut self, node: &Node, name: &NodeId) -> bool {
        if self.holders.is_none() {
            self.holders = node.index.holders().await.ok().map(BTreeSet::from_iter);
        }
        self.holders.as_ref().is_none_or(|holders| holders.contains(name))
    }
}

/// Watches until it is dropped.
pub async fn run(node: Arc<Node>) {
    let roll = Some(RollCall::begin(&node));
    let mut watcher = Watcher { node: node.clone(), watch: Watch::default(), roll };
    let mut every = Pace::at_once(node.fleet.clone(), |settings| settings.beat);
    loop {
        every.tick().await;
        watcher.beat().await;
    }
}

impl Watcher {
    async fn beat(&mut self) {
        // Whoever may be replaced replaces nobody.
        if self.node.fence.epoch().is_none() {
            return;
        }
        let listed = self.call_the_roll().await;
        self.node.members.refresh(&self.node, listed).await;
        self.look_around().await;
    }

    /// While the roll is called: all records by one listing, which is given back.
    async fn call_the_roll(&mut self) -> Option<Vec<Listed>> {
        let mut roll = self.roll.take()?;
        let lease = self.node.fleet.settings().lease.0;
        let began = self.node.clock.elapsed();
        if began < roll.due {
            self.roll = Some(roll);
            return None;
        }
        roll.due = began + lease / LISTINGS;
        let listed = match self.node.fleet.store.list_objects("nodes").await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot call the roll of the nodes; beginning anew");
                self.roll = Some(RollCall::begin(&self.node));
                return None;
            }
        };
        let look = began..self.node.clock.elapsed();
        let newest = listed.iter().map(|object| object.modified).max();
        for object in &listed {
            let (Some(name), Some(sight)) = (NodeRecord::name_of(&object.key), Sight::of_listed(object))
            else {
                continue;
            };
            if name != self.node.id && roll.watch.saw(&name, sight, look.clone(), lease).is_some() {
                // Of a machine that came and went long ago nothing is left but its record, or its shelf
                // tells of it.
                if !members::is_gone(object, newest) || roll.holds(&self.node, &name).await {
                    self.found_silent(&name, object).await;
                }
            }
        }
        if look.end < roll.ends {
            self.roll = Some(roll);
        }
        Some(listed)
    }

    /// The roll found that a record has not been written for a lease: what it says is the node's
    /// last sign of life, if that is still what was listed.
    async fn found_silent(&mut self, name: &NodeId, listed: &Listed) {
        let store = &self.node.fleet.store;
        let Ok(Some((record, sight))) = lease::look(store, name).await else { return };
        let unchanged = store.head(&listed.key).await.is_ok_and(|now| now.as_ref() == Some(listed));
        // One that goes by a longer lease than ours is left to the looks that come.
        let long_enough = record.lease.0 <= self.node.fleet.settings().lease.0;
        if unchanged && long_enough && has_anything(&record) {
            let lost = Lost { node: name.clone(), sight };
            self.take_over(lost).await;
        }
    }

    /// The looks of one beat.
    async fn look_around(&mut self) {
        let mut names: BTreeSet<NodeId> = self.watch.followed().into_iter().collect();
        if self.watch.has_room() {
            names.extend(self.node.members.draw(LOOKS, &self.node.id, &self.node.chance));
        }
        let looks: Vec<Look> = stream::iter(names)
            .map(|name| {
                let node = self.node.clone();
                async move {
                    let began = node.clock.elapsed();
                    let record = lease::look(&node.fleet.store, &name).await;
                    (name, began..node.clock.elapsed(), record)
                }
            })
            .buffered(PARALLEL)
            .collect()
            .await;
        let mut lost = BTreeMap::new();
        for (name, look, record) in looks {
            if let Ok(Some((record, _))) = &record {
                self.node.gossip.hear(record);
            }
            match record {
                Ok(Some((record, sight))) if has_anything(&record) => {
                    if let Some(found) = self.watch.saw(&name, sight, look, record.lease.0) {
                        lost.insert(name, found);
                    }
                }
                Ok(_) => self.watch.forget(&name),
                Err(error) => {
                    tracing::debug!(node = %name, error = %Chain(&error), "cannot look at a node");
                    self.watch.failed(&name);
                }
            }
        }
        for lost in lost.into_values() {
            self.take_over(lost).await;
        }
    }

    async fn take_over(&mut self, lost: Lost) {
        tracing::warn!(node = %lost.node, "the node is lost: silent for its whole lease");
        match takeover::all(&self.node, &lost).await {
            Ok(()) => {}
            Err(takeover::Stopped::Alive) => {
                tracing::info!(node = %lost.node, "the node is alive after all");
                self.watch.exhume(&lost.node);
            }
            Err(takeover::Stopped::Failed(error)) => {
                tracing::warn!(node = %lost.node, error, "the node's jobs cannot be taken over; looking again");
                self.watch.exhume(&lost.node);
            }
        }
    }
}

/// Whether there may be anything to take over from a node that says this.
fn has_anything(record: &NodeRecord) -> bool {
    record.mode != Mode::Stopped || !record.jobs.is_empty()
}
