//! One look at a node's record.

use crate::{
    id::{NodeId, Timestamp},
    node::{NodeError, NodeRecord},
    record,
    store::{Listed, Store},
};

/// What one look at a node's record saw: something else after each write of the record.
///
/// The counter alone would not do. A write that its node gave up on can arrive after later ones and
/// set the counter back, and whoever looked before and after would believe that the node stood still
/// meanwhile. So the store's own time of the write is part of it; that time may be in whole seconds,
/// of which the two beats between fence and lease are more than one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// The incarnation and the counter, or the tag in a listing.
    says: String,
    written: Timestamp,
}

impl Sight {
    /// Of a record that was only listed; `None` where the store gives no tags. Not to be compared with
    /// one of a record that was read.
    pub fn of_listed(record: &Listed) -> Option<Self> {
        Some(Self { says: record.tag.clone()?, written: record.modified })
    }

    #[cfg(test)]
    pub(super) fn made_up(counter: u64) -> Self {
        Self { says: counter.to_string(), written: Timestamp::UNIX_EPOCH }
    }
}

/// Looks at a node's record; `None` where it has none.
///
/// # Errors
/// [`NodeError`]
pub async fn look(store: &Store, node: &NodeId) -> Result<Option<(NodeRecord, Sight)>, NodeError> {
    let Some((body, written)) = store.get_dated(&NodeRecord::key(node)).await? else { return Ok(None) };
    let record: NodeRecord = record::read(&body, NodeRecord::VERSION)
        .map_err(|source| NodeError::Record { node: node.clone(), source })?;
    let says = format!("{}/{}", record.incarnation, record.counter);
    Ok(Some((record, Sight { says, written })))
}
