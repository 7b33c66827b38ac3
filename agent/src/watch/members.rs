//! Who is in the fleet, as far as this node knows: for drawing others at random, and for sharing out
//! what the whole fleet does once.
//!
//! The view is renewed page by page, a thousand names in one request once a minute, round and round:
//! what a node spends on it does not grow with the fleet. It may be minutes old, which does no harm.

use std::{
    collections::BTreeSet,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shared::{
    clock::Chance,
    id::NodeId,
    node::NodeRecord,
    store::{Key, Listed, PAGE},
};

use crate::{node::Node, patience::Chain};

/// How often a page is read.
const EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct View {
    names: BTreeSet<NodeId>,
    /// Where the next page begins: after this name, or at the beginning.
    after: Option<NodeId>,
    read: Option<Duration>,
}

/// The membership as one node sees it.
#[derive(Debug, Default)]
pub struct Members(Mutex<View>);

impl Members {
    fn view(&self) -> MutexGuard<'_, View> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many nodes there are, this one included: at least one.
    pub fn count(&self) -> usize {
        self.view().names.len().max(1)
    }

    /// Some others, drawn at random; fewer where there are fewer.
    pub fn draw(&self, count: usize, own: &NodeId, chance: &Chance) -> Vec<NodeId> {
        let view = self.view();
        let mut others: Vec<&NodeId> = view.names.iter().filter(|name| *name != own).collect();
        let mut drawn = Vec::new();
        while drawn.len() < count && !others.is_empty() {
            drawn.push(others.swap_remove(chance.below(others.len())).clone());
        }
        drawn
    }

    /// Takes in a listing of all records that was made anyway, or the next page where it is time.
    pub(super) async fn refresh(&self, node: &Node, all: Option<Vec<Listed>>) {
        let now = node.clock.elapsed();
        if let Some(all) = all {
            self.take(None, &all, true, now);
            return;
        }
        let after = {
            let view = self.view();
            if view.read.is_some_and(|read| now.saturating_sub(read) < EVERY) {
                return;
            }
            view.after.clone()
        };
        let key: Option<Key> = after.as_ref().map(NodeRecord::key);
        match node.fleet.store.list_page("nodes", key.as_ref()).await {
            Ok(page) => self.take(after.as_ref(), &page, page.len() < PAGE, now),
            Err(error) => tracing::debug!(error = %Chain(&error), "cannot list the nodes"),
        }
    }

    /// What a listing that began after a name says, and whether it reached the end.
    fn take(&self, after: Option<&NodeId>, page: &[Listed], to_the_end: bool, now: Duration) {
        let listed: BTreeSet<NodeId> =
            page.iter().filter_map(|object| NodeRecord::name_of(&object.key)).collect();
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        let last = page.last().and_then(|object| NodeRecord::name_of(&object.key)).filter(|_| !to_the_end);
        let to = last.clone().map_or(Bound::Unbounded, Bound::Included);
        let mut view = self.view();
        let seen: Vec<NodeId> = view.names.range((from, to)).cloned().collect();
        for gone in seen.iter().filter(|name| !listed.contains(name)) {
            view.names.remove(gone);
        }
        view.names.extend(listed);
        view.after = last;
        view.read = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: usize) -> NodeId {
        NodeId::new(format!("n{n:05}")).expect("valid")
    }

    fn listed(names: impl Iterator<Item = usize>) -> Vec<Listed> {
        let modified = shared::id::Timestamp::UNIX_EPOCH;
        names.map(|n| Listed { key: NodeRecord::key(&node(n)), modified, tag: None }).collect()
    }

    #[test]
    fn pages_round_and_round_give_the_whole_membership() {
        let members = Members::default();
        let now = Duration::ZERO;
        members.take(None, &listed(0..1000), false, now);
        assert_eq!(members.view().after, Some(node(999)));
        members.take(Some(&node(999)), &listed(1000..1500), true, now);
        assert_eq!((members.count(), members.view().after.clone()), (1500, None));
        // On the next round the first page has lost ten and the second begins elsewhere.
        members.take(None, &listed((0..1010).filter(|n| !(5..15).contains(n))), false, now);
        assert_eq!(members.count(), 1490);
        members.take(Some(&node(1009)), &listed(1010..1100), true, now);
        assert_eq!(members.count(), 1090);
    }

    #[test]
    fn others_are_drawn_once_each() {
        let (members, chance) = (Members::default(), Chance::from_seed(1));
        members.take(None, &listed(0..3), true, Duration::ZERO);
        let mut drawn = members.draw(5, &node(1), &chance);
        drawn.sort();
        assert_eq!(drawn, [node(0), node(2)]);
        assert!(Members::default().draw(2, &node(1), &chance).is_empty());
    }
}
