//! Who is in the fleet, as far as this node knows: for drawing others at random, and for sharing out
//! what the whole fleet does once.
//!
//! The view is renewed page by page, a thousand names in one request once a minute, round and round:
//! what a node spends on it does not grow with the fleet. It may be minutes old, which does no harm.
//! Records that nobody has written for long are left out: machines that come and go leave them, and a
//! fleet of thousands of such would hardly look at those that live.

use std::{
    cmp::Ordering,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;
use shared::{
    clock::Chance,
    id::{NodeId, Timestamp},
    node::NodeRecord,
    store::{Key, Listed, PAGE},
};

use crate::{node::Node, patience::Chain};

/// How often a page is read.
const EVERY: Duration = Duration::from_secs(60);

/// How much older than the newest a record may be. A node is found to be lost long before that, at the
/// longest lease that there is.
const GONE: TimeDelta = TimeDelta::hours(3);

#[derive(Debug, Default)]
struct View {
    /// In the order of their keys.
    names: Vec<NodeId>,
    /// Where the next page begins: after this name, or at the beginning.
    after: Option<NodeId>,
    read: Option<Duration>,
    /// When the newest record was written, by the store's clock.
    newest: Option<Timestamp>,
}

/// The membership as one node sees it.
#[derive(Debug, Default)]
pub struct Members(Mutex<View>);

/// How pages are ordered: by the records' keys, in which `a-b` comes before `a`, since `.` is after `-`.
fn by_key(a: &NodeId, b: &NodeId) -> Ordering {
    NodeRecord::key(a).cmp(&NodeRecord::key(b))
}

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
        let others =
            view.names.len() - usize::from(view.names.binary_search_by(|name| by_key(name, own)).is_ok());
        let mut drawn = Vec::new();
        while drawn.len() < count.min(others) {
            let name = &view.names[chance.below(view.names.len())];
            if name != own && !drawn.contains(name) {
                drawn.push(name.clone());
            }
        }
        drawn
    }

    /// Takes in a listing of all records that was made anyway, or the next page where it is time.
    pub(crate) async fn refresh(&self, node: &Node, all: Option<Vec<Listed>>) {
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
        let mut view = self.view();
        view.newest = view.newest.max(page.iter().map(|object| object.modified).max());
        let newest = view.newest;
        let mut listed: Vec<(NodeId, bool)> = page
            .iter()
            .filter_map(|object| Some((NodeRecord::name_of(&object.key)?, !is_gone(object, newest))))
            .collect();
        listed.sort_by(|(a, _), (b, _)| by_key(a, b));
        let last = listed.last().filter(|_| !to_the_end).map(|(name, _)| name.clone());
        let from = after.map_or(0, |after| view.names.partition_point(|name| by_key(name, after).is_le()));
        let to = last
            .as_ref()
            .map_or(view.names.len(), |last| view.names.partition_point(|name| by_key(name, last).is_le()));
        let names = listed.into_iter().filter_map(|(name, is_here)| is_here.then_some(name));
        view.names.splice(from..to, names);
        view.after = last;
        view.read = Some(now);
    }
}

/// Whether a record has not been written for so long that its node is none of the fleet any more.
pub(super) fn is_gone(record: &Listed, newest: Option<Timestamp>) -> bool {
    newest.is_some_and(|newest| newest - record.modified > GONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: usize) -> NodeId {
        NodeId::new(format!("n{n:05}")).expect("valid")
    }

    fn listed(names: impl Iterator<Item = usize>) -> Vec<Listed> {
        let modified = Timestamp::UNIX_EPOCH;
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
    fn machines_that_came_and_went_are_none_of_the_fleet() {
        let members = Members::default();
        let mut page = listed(0..1000);
        for object in page.iter_mut().step_by(100) {
            object.modified += GONE + TimeDelta::seconds(1);
        }
        members.take(None, &page, false, Duration::ZERO);
        assert_eq!((members.count(), members.view().after.clone()), (10, Some(node(999))));
        // By the newest of all pages, not of this one.
        members.take(Some(&node(999)), &listed(1000..1010), true, Duration::ZERO);
        assert_eq!(members.count(), 10);
        page.iter_mut().for_each(|object| object.modified = Timestamp::UNIX_EPOCH + GONE * 2);
        members.take(None, &page, true, Duration::ZERO);
        assert_eq!(members.count(), 1000, "who is back is one of it again");
    }

    #[test]
    fn pages_are_in_the_order_of_keys() {
        let names = ["a", "a-b", "a.b", "ab"].map(|name| NodeId::new(name).expect("valid"));
        let modified = Timestamp::UNIX_EPOCH;
        let mut objects: Vec<Listed> =
            names.iter().map(|name| Listed { key: NodeRecord::key(name), modified, tag: None }).collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        let members = Members::default();
        for _ in 0..2 {
            let mut after = None;
            for (at, object) in objects.iter().enumerate() {
                let page = std::slice::from_ref(object);
                members.take(after.as_ref(), page, at + 1 == objects.len(), Duration::ZERO);
                after = members.view().after.clone();
            }
            assert_eq!(members.count(), names.len());
        }
        let drawn = members.draw(9, &names[0], &Chance::from_seed(1));
        assert_eq!(drawn.len(), names.len() - 1);
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
