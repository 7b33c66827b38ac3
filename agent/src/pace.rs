//! What is done again and again, as often as the fleet's settings say while it is done.

use shared::{
    fleet::{Fleet, Settings},
    units::Span,
};
use tokio::time::Instant;

/// Ticks so far apart as the settings say at the time. After a long step it does not catch up.
pub struct Pace {
    fleet: Fleet,
    of: fn(&Settings) -> Span,
    last: Option<Instant>,
}

impl Pace {
    /// The first tick is at once.
    pub fn at_once(fleet: Fleet, of: fn(&Settings) -> Span) -> Self {
        Self { fleet, of, last: None }
    }

    /// The first tick is after one period.
    pub fn after(fleet: Fleet, of: fn(&Settings) -> Span) -> Self {
        Self { fleet, of, last: Some(Instant::now()) }
    }

    /// Waits for the next tick. Safe to drop.
    pub async fn tick(&mut self) {
        if let Some(last) = self.last {
            tokio::time::sleep_until(last + (self.of)(&self.fleet.settings()).0).await;
        }
        self.last = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use shared::{
        clock::SystemClock,
        id::Seq,
        queue::{Counted, SqliteQueue},
        store::Store,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_follows_the_settings() {
        let store = Store::open(&"memory:///".parse().expect("url")).expect("opens");
        let queue = SqliteQueue::in_memory(Arc::new(SystemClock)).expect("opens");
        let settings = Settings { beat: Span::secs(10), ..Settings::embedded(None) };
        let fleet = Fleet::assemble(store, Arc::new(Counted::new(Arc::new(queue))), Seq::FIRST, settings);
        let began = Instant::now();
        let mut pace = Pace::at_once(fleet.clone(), |settings| settings.beat);
        pace.tick().await;
        assert_eq!(began.elapsed().as_secs(), 0);
        pace.tick().await;
        assert_eq!(began.elapsed().as_secs(), 10);
    }
}
