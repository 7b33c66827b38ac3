//! How many requests of each kind were made.

use std::sync::atomic::{AtomicU64, Ordering};

/// Kinds of requests, as clouds price them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reading an object.
    Get,
    /// Writing an object, whether or not it must be absent.
    Put,
    /// Deleting an object; free on S3.
    Delete,
    /// Listing keys; priced as a write on S3.
    List,
}

impl Kind {
    /// What was attempted, as a verb.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Self::Get => "read",
            Self::Put => "write",
            Self::Delete => "delete",
            Self::List => "list",
        }
    }
}

/// Requests by kind.
#[derive(Debug, Default)]
pub struct Counts {
    get: AtomicU64,
    put: AtomicU64,
    delete: AtomicU64,
    list: AtomicU64,
}

impl Counts {
    fn of(&self, kind: Kind) -> &AtomicU64 {
        match kind {
            Kind::Get => &self.get,
            Kind::Put => &self.put,
            Kind::Delete => &self.delete,
            Kind::List => &self.list,
        }
    }

    pub(super) fn add(&self, kind: Kind) {
        self.of(kind).fetch_add(1, Ordering::Relaxed);
    }

    /// Notes the requests beyond the first that a listing of so many objects took.
    pub(super) fn add_pages(&self, objects: usize) {
        let more = (objects / super::PAGE) as u64;
        self.list.fetch_add(more, Ordering::Relaxed);
    }

    /// Requests of this kind so far.
    pub fn get(&self, kind: Kind) -> u64 {
        self.of(kind).load(Ordering::Relaxed)
    }
}
