//! Settings while a program runs: they change in the store, and agents notice.

use std::sync::{Arc, RwLock};

use super::{FleetError, Settings, key, read};
use crate::{id::Seq, store::Store};

/// The settings that hold, and where they lie.
#[derive(Debug)]
struct Held {
    seq: Seq,
    settings: Arc<Settings>,
}

/// The settings that hold; all clones see the same.
#[derive(Debug, Clone)]
pub(super) struct Live(Arc<RwLock<Held>>);

/// New settings, with those before them.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The position of the new ones.
    pub seq: Seq,
    /// What held until now.
    pub before: Arc<Settings>,
    /// What holds from now on.
    pub after: Arc<Settings>,
}

impl Live {
    pub fn new(seq: Seq, settings: Settings) -> Self {
        Self(Arc::new(RwLock::new(Held { seq, settings: Arc::new(settings) })))
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).settings.clone()
    }

    pub fn seq(&self) -> Seq {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).seq
    }

    /// Looks whether there are newer settings: one request where there are none.
    pub async fn refresh(&self, store: &Store) -> Result<Option<Change>, FleetError> {
        let before = self.settings();
        let mut change = None;
        loop {
            let seq = self.seq().next();
            let Some(body) = store.get(&key(seq)).await? else { return Ok(change) };
            let after = Arc::new(read(store, &key(seq), &body)?);
            let mut held = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            if held.seq.next() == seq {
                *held = Held { seq, settings: after.clone() };
            }
            change = Some(Change { seq, before: before.clone(), after });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{record, store::Kind};

    #[tokio::test]
    async fn new_settings_are_noticed_with_one_request_a_look() {
        let store = Store::open(&"memory:///".parse().expect("url")).expect("opens");
        let live = Live::new(Seq::FIRST, Settings::embedded(None));
        assert_eq!(live.refresh(&store).await.expect("looks"), None);
        assert_eq!((store.counts().get(Kind::Get), store.counts().get(Kind::List)), (1, 0));
        for window in [3, 4] {
            let settings = Settings { window, ..Settings::embedded(None) };
            store.create(&key(Seq(u64::from(window) - 2)), record::write(&settings)).await.expect("created");
        }
        let change = live.clone().refresh(&store).await.expect("looks").expect("new");
        assert_eq!((change.seq, change.before.window, change.after.window), (Seq(2), 8, 4));
        assert_eq!(live.settings().window, 4, "all clones see them");
    }

    #[tokio::test]
    async fn settings_of_a_newer_haul_leave_the_old_ones_in_force() {
        let store = Store::open(&"memory:///".parse().expect("url")).expect("opens");
        let live = Live::new(Seq::FIRST, Settings::embedded(None));
        store.create(&key(Seq(1)), r#"{"v":99}"#.into()).await.expect("created");
        assert!(matches!(live.refresh(&store).await, Err(FleetError::Record { .. })));
        assert_eq!(*live.settings(), Settings::embedded(None));
    }
}
