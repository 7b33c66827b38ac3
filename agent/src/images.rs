//! Which images jobs used here lately: a node that has a job's image goes before one that must pull it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How many are told of.
const KEPT: usize = 16;

/// Names of images as jobs wrote them, the last used first. What is removed from the host meanwhile stays
/// listed; then another waits for this node in vain, for the head start that it gives.
#[derive(Debug, Default)]
pub struct Images(Mutex<VecDeque<String>>);

impl Images {
    fn all(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job's image is there.
    pub fn used(&self, name: &str) {
        let mut all = self.all();
        all.retain(|known| known != name);
        all.push_front(name.to_owned());
        all.truncate(KEPT);
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
        let images = Images::default();
        (0..KEPT).for_each(|n| images.used(&n.to_string()));
        images.used("0");
        images.used("new");
        assert!(images.has("0") && images.has("new") && !images.has("1"));
        assert_eq!((images.names().len(), images.names()[0].as_str()), (KEPT, "new"));
    }
}
