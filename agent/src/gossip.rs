//! What every node has to know and no node may be told: of lanes that are new, of settings that are.
//!
//! Only a look at the store finds out. Were every node to look at each turn, the requests for that one
//! key would grow with the fleet. So in each turn about as many look as are in a fleet of
//! [`LOOKERS`], drawn at random, and the others hear of it: each node's record says how new what
//! it has read is, the watch reads some records each beat, and whoever hears of anything later than its
//! own looks at once.
//!
//! Demers et al., "Epidemic algorithms for replicated database maintenance" (PODC 1987), call this
//! anti-entropy by pull.

use std::sync::{Mutex, PoisonError};

use shared::{id::Seq, lane::Edition, node::NodeRecord};
use tokio::sync::watch;

use crate::{node::Node, pace::Pace};

/// How many nodes look in one turn without having heard anything, on average: all in a fleet
/// that is no larger.
const LOOKERS: f64 = 100.0;

/// All that is passed on.
#[derive(Debug, Default)]
pub struct Gossip {
    /// The list of the fleet's lanes.
    pub lanes: Rumour<Edition>,
    /// The fleet's settings.
    pub settings: Rumour<Seq>,
}

impl Gossip {
    /// Takes in what another node's record says.
    pub fn hear(&self, record: &NodeRecord) {
        self.lanes.hear(record.lanes);
        self.settings.hear(record.settings);
    }
}

/// How new one thing is, as far as this node knows.
#[derive(Debug)]
pub struct Rumour<T> {
    read: Mutex<Option<T>>,
    /// The latest that others have read, as heard since this node looked.
    heard: watch::Sender<Option<T>>,
}

impl<T> Default for Rumour<T> {
    fn default() -> Self {
        Self { read: Mutex::default(), heard: watch::Sender::new(None) }
    }
}

impl<T: Copy + Ord> Rumour<T> {
    /// What this node has read.
    pub fn known(&self) -> Option<T> {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what this node has read.
    pub fn read(&self, read: Option<T>) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = read;
    }

    /// Notes what another has read.
    fn hear(&self, told: Option<T>) {
        self.heard.send_if_modified(|heard| {
            let later = told > *heard;
            *heard = told.max(*heard);
            later
        });
    }

    /// Waits until this node is to look: in its turn, if it is drawn, or when others have read what is
    /// later. That counts once: if the look fails, they will tell again. Safe to drop.
    pub async fn due(&self, node: &Node, turns: &mut Pace) {
        tokio::select! {
            biased;
            () = self.drawn(node, turns) => {}
            () = self.news() => {}
        }
        self.heard.send_replace(None);
    }

    async fn news(&self) {
        let mut heard = self.heard.subscribe();
        // The sender is this node's own.
        _ = heard.wait_for(|heard| *heard > self.known()).await;
    }

    async fn drawn(&self, node: &Node, turns: &mut Pace) {
        loop {
            turns.tick().await;
            if node.chance.happens(share(node.members.count())) {
                return;
            }
        }
    }
}

/// The part of a fleet of so many nodes that looks in one turn.
fn share(nodes: usize) -> f64 {
    (LOOKERS / nodes as f64).min(1.0)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn whoever_hears_of_something_later_looks_once() {
        let rumour = Rumour::<Seq>::default();
        let has_news = || rumour.news().now_or_never().is_some();
        assert!(!has_news());
        rumour.hear(None);
        assert!(!has_news());
        rumour.hear(Some(Seq(2)));
        rumour.hear(None);
        rumour.hear(Some(Seq(1)));
        assert!(has_news());
        rumour.read(Some(Seq(2)));
        assert_eq!(rumour.known(), Some(Seq(2)));
        for known in [1, 2] {
            rumour.hear(Some(Seq(known)));
            assert!(!has_news(), "{known}");
        }
        rumour.hear(Some(Seq(3)));
        assert!(has_news());
    }

    #[test]
    fn a_hundred_look_at_each_turn_whatever_the_fleet() {
        for nodes in [1_usize, 7, 100] {
            assert!((share(nodes) - 1.0).abs() < 1e-9, "all of {nodes}");
        }
        for nodes in [101_usize, 1_000, 10_000] {
            assert!((share(nodes) * nodes as f64 - LOOKERS).abs() < 1e-9, "of {nodes}");
        }
    }
}
