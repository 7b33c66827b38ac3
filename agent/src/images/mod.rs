//! The images on this host: which jobs used lately, so that a node that has a job's image goes before one that
//! must pull it; fetching them ([`fetch`]); and which are removed when the disk fills ([`clean`]).

pub mod clean;
pub mod fetch;
mod pulled;

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use fetch::Turns;
use pulled::Pulled;
use shared::id::{JobId, Timestamp};

use crate::engine::ImageInfo;

/// How many are told of.
const KEPT: usize = 16;

/// The images of a host.
#[derive(Debug)]
pub struct Images {
    /// As jobs named them, the last used first. What is removed from the host meanwhile stays listed; then another
    /// waits for this node in vain, for the head start that it gives.
    recent: Mutex<VecDeque<String>>,
    pulled: Pulled,
    turns: Turns,
    /// The job that room is kept for, and its image.
    expected: Mutex<Option<(JobId, String)>>,
}

impl Images {
    /// Those of the agent with this state directory.
    pub fn new(state_dir: &Path) -> Self {
        let pulled = Pulled::open(state_dir.join("images.json"));
        Self { recent: Mutex::default(), pulled, turns: Turns::default(), expected: Mutex::default() }
    }

    fn all(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job's image is there.
    pub fn used(&self, name: &str, image: &ImageInfo, now: Timestamp) {
        self.note(name);
        self.pulled.used(&image.id, now);
    }

    fn note(&self, name: &str) {
        let mut all = self.all();
        all.retain(|known| known != name);
        all.push_front(name.to_owned());
        all.truncate(KEPT);
    }

    /// A job that room is kept for will need it.
    pub fn expect(&self, job: &JobId, name: &str) {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        *expected = Some((job.clone(), name.to_owned()));
    }

    /// The image of the last job that room was kept for.
    fn expected(&self) -> Option<(JobId, String)> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a job used it lately.
    pub fn has(&self, name: &str) -> bool {
        self.all().iter().any(|known| known == name)
    }

    /// All of them.
    pub fn names(&self) -> Vec<String> {
        self.all().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_used_last_are_known() {
        let images = Images::new(Path::new("/nowhere"));
        (0..KEPT).for_each(|n| images.note(&n.to_string()));
        images.note("0");
        images.note("new");
        assert!(images.has("0") && images.has("new") && !images.has("1"));
        assert_eq!((images.names().len(), images.names()[0].as_str()), (KEPT, "new"));
    }
}
