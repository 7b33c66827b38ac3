//! Telling several tasks that something has changed. Wakes in the order of waiting, which
//! `tokio::sync::watch` does not: the simulation repeats itself.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

/// Tells of changes.
#[derive(Debug, Default)]
pub struct Changes {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    count: AtomicU64,
    notify: Notify,
}

/// Hears of changes.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    seen: u64,
}

impl Changes {
    /// Something has changed.
    pub fn tell(&self) {
        self.shared.count.fetch_add(1, Ordering::Release);
        self.shared.notify.notify_waiters();
    }

    /// Hears of what changes from now on.
    pub fn watch(&self) -> Watcher {
        Watcher { shared: self.shared.clone(), seen: self.shared.count() }
    }
}

impl Watcher {
    /// Forgets of what has changed until now.
    pub fn catch_up(&mut self) {
        self.seen = self.shared.count();
    }

    /// Waits for the next change. Safe to drop.
    pub async fn changed(&mut self) {
        loop {
            let mut told = pin!(self.shared.notify.notified());
            // From now on no change is missed.
            told.as_mut().enable();
            let count = self.shared.count();
            if count != self.seen {
                self.seen = count;
                return;
            }
            told.await;
        }
    }
}

impl Shared {
    fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn each_watcher_hears_of_each_change_once() {
        let changes = Changes::default();
        let (mut a, mut b) = (changes.watch(), changes.watch());
        assert!(a.changed().now_or_never().is_none());
        changes.tell();
        changes.tell();
        assert!(a.changed().now_or_never().is_some() && a.changed().now_or_never().is_none());
        b.catch_up();
        assert!(b.changed().now_or_never().is_none());
        let mut waits = pin!(b.changed());
        assert!(waits.as_mut().now_or_never().is_none());
        changes.tell();
        assert!(waits.now_or_never().is_some());
    }
}
