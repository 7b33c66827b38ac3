//! Drains: the host takes no more jobs. Those that it has run to their end, or are handed back at a deadline.
//!
//! It is drained by its own control socket, until the agent's end; by the fleet's settings, from anywhere and until
//! they say otherwise; and by its cloud, while maintenance is near.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shared::{fleet::Drain, id::Timestamp};

use crate::{
    changes::{Changes, Watcher},
    cloud::Notice,
    node::Node,
};

/// The longest that a deadline is waited for at once: the machine's clock may be set.
const LOOK: Duration = Duration::from_secs(10);

/// Who has drained this host.
#[derive(Debug, Default)]
pub struct Drains {
    own: Mutex<Option<Drain>>,
    /// What the cloud is about to do to the machine.
    maintenance: Mutex<Option<Notice>>,
    changes: Changes,
}

impl Drains {
    /// Somebody on this host drains it, or no longer does.
    pub fn order(&self, drain: Option<Drain>) {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = drain;
        self.changes.tell();
    }

    /// The cloud is about to do this to the machine, or no longer is.
    pub fn maintain(&self, notice: Option<&Notice>) {
        let mut known = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() == notice {
            return;
        }
        match notice {
            Some(notice) => tracing::warn!(%notice, "jobs are handed back before the machine's maintenance"),
            None => tracing::info!("the machine's maintenance is over"),
        }
        *known = notice.cloned();
        drop(known);
        self.changes.tell();
    }

    /// The fleet's settings are others.
    pub fn settings_changed(&self) {
        self.changes.tell();
    }

    fn own(&self) -> Option<Drain> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// At once: it is told of when it is near.
    fn maintenance(&self) -> Option<Drain> {
        let known = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map(|_| Drain { deadline: Some(Timestamp::UNIX_EPOCH) })
    }

    fn watch(&self) -> Watcher {
        self.changes.watch()
    }
}

/// What holds where both drain it: the earlier deadline.
fn both(own: Option<Drain>, fleet: Option<Drain>) -> Option<Drain> {
    let (Some(own), Some(fleet)) = (&own, &fleet) else { return own.or(fleet) };
    Some(Drain { deadline: own.deadline.into_iter().chain(fleet.deadline).min() })
}

/// Whether it is drained, by order of whomever. Returns when what still runs is handed back.
pub fn apply(node: &Node) -> Option<Timestamp> {
    let fleet = node.fleet.settings().drained.get(&node.id).cloned();
    let drain = both(both(node.drains.own(), fleet), node.drains.maintenance());
    let deadline = drain.as_ref().and_then(|drain| drain.deadline);
    let is_over = deadline.is_some_and(|deadline| deadline <= node.clock.now());
    if node.ledger.drain(drain.is_some(), is_over) && !node.ledger.holdings().is_empty() {
        tracing::warn!("jobs are handed back: stopped with notice and queued again");
    }
    deadline.filter(|_| !is_over)
}

/// Goes by what is ordered, until it is dropped.
pub async fn watch(node: Arc<Node>) {
    let mut changes = node.drains.watch();
    let mut was = false;
    loop {
        let deadline = apply(&node);
        let now = node.ledger.is_drained();
        if was != now {
            tracing::info!(drained = now, ?deadline, "whether new jobs are taken has changed");
            was = now;
        }
        let left = deadline.map(|deadline| (deadline - node.clock.now()).to_std().unwrap_or_default());
        tokio::select! {
            biased;
            () = changes.changed() => {}
            () = tokio::time::sleep(left.unwrap_or_default().min(LOOK)), if left.is_some() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(None, None, None)]
    #[case(Some(None), None, Some(None))]
    #[case(None, Some(Some(3)), Some(Some(3)))]
    #[case(Some(None), Some(Some(3)), Some(Some(3)))]
    #[case(Some(Some(2)), Some(Some(3)), Some(Some(2)))]
    fn the_earlier_deadline_holds(
        #[case] own: Option<Option<i64>>,
        #[case] fleet: Option<Option<i64>>,
        #[case] holds: Option<Option<i64>>,
    ) {
        let drain = |deadline: Option<i64>| Drain {
            deadline: deadline.map(|second| Timestamp::from_timestamp(second, 0).expect("a time")),
        };
        assert_eq!(both(own.map(drain), fleet.map(drain)), holds.map(drain));
    }
}
