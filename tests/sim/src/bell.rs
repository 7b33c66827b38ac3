//! Tells several waiters of a change, in the order in which they began to wait. (The waiters of
//! tokio's `watch` are woken in random order, which no seed decides.)

use std::{pin::pin, time::Duration};

use tokio::sync::Notify;

/// Tells of changes.
#[derive(Debug, Default)]
pub struct Bell(Notify);

impl Bell {
    /// Something has changed.
    pub fn ring(&self) {
        self.0.notify_waiters();
    }

    /// There is something for one of those who wait, or for the next one who does.
    pub fn ring_one(&self) {
        self.0.notify_one();
    }

    /// Looks now, and again after each change, until there is something.
    pub async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            let mut rung = pin!(self.0.notified());
            rung.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            rung.await;
        }
    }

    /// Looks now, and again after each change or when this much time has passed, as `look` says.
    pub async fn until_or<T>(&self, mut look: impl FnMut() -> Result<T, Duration>) -> T {
        loop {
            let mut rung = pin!(self.0.notified());
            rung.as_mut().enable();
            let pause = match look() {
                Ok(found) => return found,
                Err(pause) => pause,
            };
            // Whether it was the bell or the time, it is looked at again.
            let _ = tokio::time::timeout(pause, rung).await;
        }
    }
}
