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
    /// Of a version that this program reads, with a field, or a word of a fixed list, that it does not know: by a
    /// newer haul too, then.
    #[error("it was written by a newer haul ({0}); upgrade this host")]
    Unknown(String),
    /// Not what it should be.
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl RecordError {
    /// Whether a newer haul can read the record.
    pub fn is_newer(&self) -> bool {
        matches!(self, Self::Newer { .. } | Self::Unknown(_))
    }
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
    serde_json::from_slice(body).map_err(|e| match unknown(&e.to_string()) {
        Some(what) => RecordError::Unknown(what),
        None => damaged(e),
    })
}

/// What serde does not know, by its words (`serde::de::Error::unknown_field` and `unknown_variant`), without the long
/// list of what it does.
fn unknown(said: &str) -> Option<String> {
    let is_told = ["unknown field ", "unknown variant "].iter().any(|words| said.starts_with(words));
    is_told.then(|| said.split(", expected").next().unwrap_or(said).to_owned())
}

/// The JSON of a record.
pub fn write<T: serde::Serialize>(record: &T) -> bytes::Bytes {
    serde_json::to_vec(record).expect("records have only text keys and no failing serialisers").into()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, rename_all = "snake_case")]
    enum Word {
        One,
        Two { count: u32 },
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Record {
        word: Word,
    }

    #[rstest]
    #[case(r#"{"v":2,"word":"later"}"#, "by a newer haul (version 2, this one reads up to 1)")]
    #[case(r#"{"v":1,"word":"later"}"#, "by a newer haul (unknown variant `later`); upgrade")]
    #[case(
        r#"{"v":1,"word":{"two":{"count":1,"more":2}}}"#,
        "by a newer haul (unknown field `more`); upgrade"
    )]
    #[case(r#"{"v":1,"word":{"two":{"count":"1"}}}"#, "damaged: invalid type")]
    #[case(r#"{"v":1}"#, "damaged: missing field `word`")]
    #[case(r#"{"word":"one"}"#, "damaged: missing field `v`")]
    #[case("none", "damaged")]
    fn what_a_newer_haul_wrote_is_told_from_what_is_damaged(#[case] body: &str, #[case] why: &str) {
        let error = read::<Record>(body.as_bytes(), 1).expect_err("refused").to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn more_fields_than_are_known_are_read_where_the_form_allows_them() {
        let read = read::<Record>(br#"{"v":1,"word":"one","more":2}"#, 1);
        assert_eq!(read, Ok(Record { word: Word::One }));
    }
}
