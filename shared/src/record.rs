//! Stored records carry the version of their form, and one from a newer haul is refused, never
//! misread.

use serde::{Deserialize, de::DeserializeOwned};

/// A record that this program cannot use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer haul.
    #[error("it was written by a newer haul (version {v}, this one reads up to {reads}); upgrade this host")]
    Newer {
        /// The record's version.
        v: u64,
        /// The newest that this program reads.
        reads: u32,
    },
    /// Not what it should be.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

/// Reads a JSON record whose field `v` is its version, looking at that field first.
///
/// # Errors
/// [`RecordError`].
pub fn read<T: DeserializeOwned>(body: &[u8], reads: u32) -> Result<T, RecordError> {
    #[derive(Deserialize)]
    struct Version {
        v: u64,
    }
    let damaged = |e: serde_json::Error| RecordError::Damaged(e.to_string());
    let Version { v } = serde_json::from_slice(body).map_err(damaged)?;
    if v > u64::from(reads) {
        return Err(RecordError::Newer { v, reads });
    }
    serde_json::from_slice(body).map_err(damaged)
}

/// The JSON of a record.
pub fn write<T: serde::Serialize>(record: &T) -> bytes::Bytes {
    serde_json::to_vec(record).expect("records have only text keys and no failing serialisers").into()
}
