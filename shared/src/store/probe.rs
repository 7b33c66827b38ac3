//! Whether a store keeps its one promise. Some stores that speak S3 ignore `If-None-Match` and
//! let both of two creators win; on such a store every job would run twice.

use bytes::Bytes;
use futures::future::join_all;

use super::{Created, Key, Store, StoreError};
use crate::clock::Chance;

/// A store on which haul must not run.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It could not be tried.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Not exactly one of several creators won.
    #[error(
        "the store {url} let {winners} of {creators} creators of one object win: it ignores If-None-Match, \
         and jobs would run twice; use a store with conditional writes (S3, GCS, Azure Blob, MinIO of 2024 or later)"
    )]
    NotExclusive {
        /// The store.
        url: String,
        /// How many won.
        winners: usize,
        /// How many tried.
        creators: usize,
    },
    /// What was written cannot be read back.
    #[error("the store {url} does not give back what was written to it")]
    NotDurable {
        /// The store.
        url: String,
    },
}

/// Creates one object several times at once and one after the other, reads and deletes it.
///
/// # Errors
/// [`ProbeError`]; the store is then not fit for a fleet.
pub async fn probe(store: &Store, chance: &Chance) -> Result<(), ProbeError> {
    const CREATORS: usize = 4;
    let key = Key::new(format!("probe/{}", chance.nonce()));
    let bodies: Vec<Bytes> = (0..CREATORS).map(|_| chance.nonce().to_string().into()).collect();
    let created = join_all(bodies.iter().map(|body| store.create(&key, body.clone()))).await;
    let again = store.create(&key, chance.nonce().to_string().into()).await?;
    let read = store.get(&key).await?;
    let seen = store.list("probe").await?.contains(&key);
    store.delete(&key).await?;
    let mut won = Vec::new();
    for (created, body) in created.into_iter().zip(&bodies) {
        match created? {
            Created::New => won.push(body.clone()),
            // Its own put, repeated: see `Store::create`.
            Created::Exists(found) if found == *body => won.push(body.clone()),
            Created::Exists(_) => {}
        }
    }
    let url = store.url().to_string();
    let winners = won.len() + usize::from(again == Created::New);
    if winners != 1 {
        return Err(ProbeError::NotExclusive { url, winners, creators: CREATORS + 1 });
    }
    if read.as_ref() != won.first() || !seen || store.get(&key).await?.is_some() {
        return Err(ProbeError::NotDurable { url });
    }
    Ok(())
}
