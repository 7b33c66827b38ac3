//! The URLs of queues, which SQS must be asked for.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::queue::QueueName;

/// What has been learned, until it proves wrong.
#[derive(Default)]
pub(super) struct Urls(Mutex<BTreeMap<QueueName, String>>);

impl Urls {
    fn known<T>(&self, look: impl FnOnce(&mut BTreeMap<QueueName, String>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn get(&self, queue: &QueueName) -> Option<String> {
        self.known(|urls| urls.get(queue).cloned())
    }

    pub(super) fn put(&self, queue: &QueueName, url: &str) {
        self.known(|urls| urls.insert(queue.clone(), url.to_owned()));
    }

    pub(super) fn forget(&self, queue: &QueueName) {
        self.known(|urls| urls.remove(queue));
    }
}
