//! The others' side of a node's lease. Pure: who looks, and when, is the caller's matter.
//!
//! A node that was looked at is looked at again at the next beat. One that moved meanwhile is let
//! go; one that stands still is followed, beat for beat, until it moves or its lease is over. So a
//! node that is well costs two reads, and what a watcher spends does not depend on the fleet's size.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use super::Sight;
use crate::{
    id::NodeId,
    mutant::{self, Mutant},
};

/// A node that is reckoned lost, and what all looks at it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The node.
    pub node: NodeId,
    /// Its last sign of life. Whoever acts on this looks once more and finds the same.
    pub sight: Sight,
}

#[derive(Debug, Clone)]
struct Follow {
    sight: Sight,
    /// When that was first seen, by the watcher's own clock.
    since: Duration,
}

/// What a watcher remembers.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    follows: BTreeMap<NodeId, Follow>,
    /// Nodes that were called lost, and their last sign of life: of no interest until they move.
    buried: BTreeMap<NodeId, Sight>,
}

impl Watch {
    /// Most nodes that are followed at once, so that the loss of half a fleet does not make the
    /// other half spend without bound; those that do not fit are found again by later looks.
    pub const MOST: usize = 32;

    /// The nodes to look at now besides new ones.
    pub fn followed(&self) -> Vec<NodeId> {
        self.follows.keys().cloned().collect()
    }

    /// Whether another may be followed.
    pub fn has_room(&self) -> bool {
        self.follows.len() < Self::MOST
    }

    /// A look saw this. When it began and ended is by the watcher's own clock; that it may have
    /// taken long is held in the node's favour. Says so when the node is lost; it is then followed
    /// no more.
    pub fn saw(
        &mut self,
        node: &NodeId,
        sight: Sight,
        look: Range<Duration>,
        lease: Duration,
    ) -> Option<Lost> {
        if self.buried.get(node).is_some_and(|last| *last == sight) {
            return None;
        }
        self.buried.remove(node);
        match self.follows.get(node) {
            Some(follow) if follow.sight == sight => {
                let lease = if mutant::is_on(Mutant::HalfLease) { lease / 2 } else { lease };
                if look.start.saturating_sub(follow.since) < lease {
                    return None;
                }
                self.follows.remove(node);
                self.buried.insert(node.clone(), sight.clone());
                Some(Lost { node: node.clone(), sight })
            }
            // It has moved: alive.
            Some(_) => {
                self.follows.remove(node);
                None
            }
            None => {
                self.follows.insert(node.clone(), Follow { sight, since: look.end });
                None
            }
        }
    }

    /// A look that failed: what was seen before counts no more, since nobody can tell whether the
    /// node could have renewed its lease meanwhile.
    pub fn failed(&mut self, node: &NodeId) {
        self.follows.remove(node);
    }

    /// The node is of no interest: it has no record any more, or nothing that could be taken over.
    pub fn forget(&mut self, node: &NodeId) {
        self.follows.remove(node);
        self.buried.remove(node);
    }

    /// What was called lost could not be taken over to the end; it is followed anew.
    pub fn exhume(&mut self, node: &NodeId) {
        self.buried.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(180);
    const BEAT: Duration = Duration::from_secs(15);

    fn node(name: &str) -> NodeId {
        NodeId::new(name).expect("valid")
    }

    fn at(time: Duration) -> Range<Duration> {
        time..time
    }

    #[test]
    fn a_node_that_stands_still_for_the_lease_is_lost_once() {
        let (mut watch, n) = (Watch::default(), node("n"));
        for beat in 0..12u32 {
            assert_eq!(watch.saw(&n, Sight::made_up(7), at(BEAT * beat), LEASE), None);
            assert_eq!(watch.followed(), std::slice::from_ref(&n));
        }
        let lost = watch.saw(&n, Sight::made_up(7), at(BEAT * 12), LEASE).expect("lost");
        assert_eq!((lost.node, lost.sight), (n.clone(), Sight::made_up(7)));
        assert_eq!(watch.saw(&n, Sight::made_up(7), at(BEAT * 13), LEASE), None);
        assert!(watch.followed().is_empty());
        // It came back, and is watched like any other.
        assert_eq!(watch.saw(&n, Sight::made_up(8), at(BEAT * 14), LEASE), None);
        assert_eq!(watch.followed(), [n]);
    }

    #[test]
    fn a_failed_look_begins_the_wait_anew() {
        let (mut watch, n) = (Watch::default(), node("n"));
        watch.saw(&n, Sight::made_up(7), at(BEAT), LEASE);
        watch.failed(&n);
        assert_eq!(watch.saw(&n, Sight::made_up(7), at(BEAT * 20), LEASE), None);
        assert_eq!(watch.saw(&n, Sight::made_up(7), at(BEAT * 31), LEASE), None);
        assert!(watch.saw(&n, Sight::made_up(7), at(BEAT * 32), LEASE).is_some());
    }

    #[test]
    fn looks_that_take_long_count_for_the_node() {
        let (mut watch, n) = (Watch::default(), node("n"));
        assert_eq!(watch.saw(&n, Sight::made_up(7), Duration::ZERO..BEAT, LEASE), None);
        assert_eq!(watch.saw(&n, Sight::made_up(7), BEAT * 12..BEAT * 20, LEASE), None);
        assert!(watch.saw(&n, Sight::made_up(7), BEAT * 13..BEAT * 14, LEASE).is_some());
    }

    proptest! {
        /// Whatever is seen: a node is called lost only if all looks of at least one lease, none of
        /// which failed, saw the same.
        #[test]
        fn nobody_is_called_lost_who_moved_or_could_not_be_seen(
            looks in prop::collection::vec((prop::option::of(0..3u64), 1..100u64), 1..80),
        ) {
            let (mut watch, n) = (Watch::default(), node("n"));
            let (mut now, mut same) = (Duration::ZERO, None::<(u64, Duration)>);
            for (seen, pause) in looks {
                now += Duration::from_secs(pause);
                let Some(counter) = seen else {
                    watch.failed(&n);
                    same = None;
                    continue;
                };
                let since = same.filter(|(before, _)| *before == counter).map_or(now, |(_, since)| since);
                same = Some((counter, since));
                if watch.saw(&n, Sight::made_up(counter), at(now), LEASE).is_some() {
                    prop_assert!(now - since >= LEASE);
                }
            }
        }
    }
}
