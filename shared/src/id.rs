//! The names of things: jobs, nodes, lanes, teams, volumes, GPUs.
//!
//! Each is a type of its own, so that a node's name cannot stand where a job's is meant, and
//! each can only be made from text that is safe as one segment of an object key, a queue's name
//! and an engine label. What is not a valid name is refused with the rule it broke.

use std::{borrow::Cow, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use rand::Rng;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

/// A text that is no valid name, and the rule it broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {kind}: {rule}")]
pub struct NameError {
    /// What the text should have named.
    pub kind: &'static str,
    /// The text as given, cut to 80 characters.
    pub text: String,
    /// What a valid name looks like.
    pub rule: &'static str,
}

/// Makes a newtype around text that passes `$valid`.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $pattern:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the text if it is a valid name.
            ///
            /// # Errors
            /// [`NameError`] with the rule that the text broke.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) {
                    Ok(Self(text))
                } else {
                    Err(NameError { kind: $kind, text: text.chars().take(80).collect(), rule: $rule })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $rule, "pattern": $pattern })
            }
        }
    };
}

/// Letters, digits, `-`, `_` and `.`, beginning with a letter or digit, at most `max` long.
fn is_name(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && text.as_bytes()[0].is_ascii_alphanumeric()
}

/// Lower-case letters, digits and inner `-`, at most `max` long.
fn is_slug(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

name_type!(
    /// A job's id: given by the client, or drawn at random by [`JobId::random`].
    JobId, "job id",
    "1 to 63 lower-case letters, digits and inner '-'",
    "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    |text| is_slug(text, 63)
);
name_type!(
    /// A job's name, for people; several jobs may have the same.
    JobName, "job name",
    "1 to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit",
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
    |text| is_name(text, 63)
);
name_type!(
    /// A host's identity; the same at each start of its agent.
    NodeId, "node name",
    "1 to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit",
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
    |text| is_name(text, 63)
);
name_type!(
    /// A lane's id: its needs in words, then a hash (`high-2x-p100-3f9a1c`).
    LaneId, "lane id",
    "1 to 60 lower-case letters, digits and inner '-'",
    "^[a-z0-9]([a-z0-9-]{0,58}[a-z0-9])?$",
    |text| is_slug(text, 60)
);
name_type!(
    /// A team: whose turn it is within a lane.
    Team, "team name",
    "1 to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit",
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
    |text| is_name(text, 63)
);
name_type!(
    /// A host directory that jobs may mount, by the name that nodes offer it under.
    VolumeName, "volume name",
    "1 to 63 letters, digits, '-', '_' and '.', beginning with a letter or digit",
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
    |text| is_name(text, 63)
);
name_type!(
    /// A GPU or MIG instance by its full UUID, as NVML gives it (`GPU-8f2c…`, `MIG-…`).
    GpuUuid, "GPU UUID",
    "a full UUID as nvidia-smi -L prints it, such as GPU-5ecf1a1e-0000-0000-0000-000000000001",
    "^(GPU|MIG)-[A-Za-z0-9/-]{1,80}$",
    |text| (text.starts_with("GPU-") || text.starts_with("MIG-"))
        && (5..=84).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'/'))
);
name_type!(
    /// One run of an agent: drawn afresh at each start.
    Incarnation, "incarnation",
    "1 to 63 lower-case letters, digits and inner '-'",
    "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    |text| is_slug(text, 63)
);
name_type!(
    /// What makes one log entry different from any other: drawn afresh for each append.
    Nonce, "nonce",
    "1 to 63 lower-case letters, digits and inner '-'",
    "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
    |text| is_slug(text, 63)
);

/// Digits and lower-case letters without those that are misread (Crockford's base 32).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// `len` characters of 5 random bits each.
fn random_text(chance: &mut impl Rng, len: usize) -> String {
    (0..len).map(|_| char::from(ALPHABET[chance.random_range(0..ALPHABET.len())])).collect()
}

impl JobId {
    /// 60 random bits: short enough to say, random from the first character so that a prefix of
    /// four finds the job and so that keys spread over the store's partitions. Should two clients
    /// draw the same id, creating log entry 0 tells the second one.
    pub fn random(chance: &mut impl Rng) -> Self {
        Self(random_text(chance, 12))
    }
}

impl JobId {
    /// The id of the job that a message of another program's asks for: 60 bits of the hash of the
    /// message's own id, so that a message that is received twice is one job.
    pub fn of_message(message: &str) -> Self {
        let hash = Sha256::digest(format!("haul:message:{message}"));
        Self(hash.iter().take(12).map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
    }
}

impl Incarnation {
    /// 80 random bits.
    pub fn random(chance: &mut impl Rng) -> Self {
        Self(random_text(chance, 16))
    }
}

impl Nonce {
    /// 80 random bits.
    pub fn random(chance: &mut impl Rng) -> Self {
        Self(random_text(chance, 16))
    }
}

impl Default for Team {
    /// The team of jobs that name none.
    fn default() -> Self {
        Self("default".into())
    }
}

/// A position in a job's log, from 0.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The position of `submitted`.
    pub const FIRST: Self = Self(0);

    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    /// Ten digits, so that keys sort as numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}", self.0)
    }
}

/// Which try of a job, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The first try.
    pub const FIRST: Self = Self(1);

    /// The try after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A wall-clock instant in UTC. For people and for bounds on a service's own time stamps; no
/// decision compares two hosts' clocks.
pub type Timestamp = DateTime<Utc>;

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a", true)]
    #[case("resnet50-a1", true)]
    #[case("", false)]
    #[case("-a", false)]
    #[case("a-", false)]
    #[case("A", false)]
    #[case("a/b", false)]
    #[case("..", false)]
    fn a_job_id_is_one_safe_key_segment(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(JobId::new(text).is_ok(), valid);
    }

    #[test]
    fn a_refused_name_says_which_rule_it_broke() {
        let error = VolumeName::new("../etc").expect_err("escapes");
        assert_eq!(
            error.to_string(),
            "\"../etc\" is not a valid volume name: 1 to 63 letters, digits, '-', '_' and '.', \
             beginning with a letter or digit"
        );
        assert!(serde_json::from_str::<VolumeName>("\"../etc\"").is_err());
    }

    #[test]
    fn random_ids_are_valid_and_differ() {
        let mut chance = SmallRng::seed_from_u64(1);
        let ids: std::collections::BTreeSet<_> = (0..1000).map(|_| JobId::random(&mut chance)).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| JobId::new(id.as_str()).is_ok()));
    }

    #[test]
    fn sequence_numbers_sort_as_text() {
        assert!(Seq(9).to_string() < Seq(10).to_string());
        assert_eq!(Seq(3).to_string(), "0000000003");
    }
}
