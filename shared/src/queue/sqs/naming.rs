//! What a fleet's queues are called at SQS: `<prefix>-<name>`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::queue::QueueName;

/// What the names of a fleet's queues begin with. A queue's name at SQS has at most 80 characters
/// (Amazon SQS Developer Guide, "Queue quotas") and a lane's id at most 60, so a prefix has at most
/// 19. The prefix of one fleet must not be the beginning of another's in the same account and
/// region, up to a `-`: `team` and `team-a` would list each other's queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Prefix(String);

/// A text that cannot be a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot begin the names of queues: use 1 to 19 of A-Z, a-z, 0-9, '-' and '_'")]
pub struct PrefixError(String);

impl Prefix {
    /// Characters that a prefix may have.
    pub const LONGEST: usize = 80 - "-".len() - 60;

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A queue's name at SQS.
    pub fn name(&self, queue: &QueueName) -> String {
        format!("{}-{queue}", self.0)
    }

    /// The queue of a name at SQS or of its URL, if it is one of this fleet's.
    pub fn queue(&self, name_or_url: &str) -> Option<QueueName> {
        let name = name_or_url.rsplit('/').next()?;
        name.strip_prefix(&self.0)?.strip_prefix('-')?.parse().ok()
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = (1..=Self::LONGEST).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if valid { Ok(Self(text.into())) } else { Err(PrefixError(text.chars().take(100).collect())) }
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::LaneId;

    #[test]
    fn the_longest_name_fits_sqs() {
        let prefix: Prefix = "p".repeat(Prefix::LONGEST).parse().expect("valid");
        let lane = QueueName::from(LaneId::new("l".repeat(60)).expect("valid"));
        assert_eq!(prefix.name(&lane).len(), 80);
        assert_eq!(prefix.queue(&prefix.name(&lane)), Some(lane));
    }

    #[test]
    fn what_sqs_would_not_take_is_refused() {
        for text in ["", "a b", "a/b", "a.fifo", &"p".repeat(Prefix::LONGEST + 1)] {
            let error = text.parse::<Prefix>().expect_err("not valid");
            assert!(error.to_string().contains("use 1 to 19 of A-Z"), "{error}");
        }
    }

    #[test]
    fn queues_of_others_are_not_ours() {
        let prefix: Prefix = "haul".parse().expect("valid");
        let url = |name: &str| format!("https://sqs.eu-central-1.amazonaws.com/123456789012/{name}");
        assert_eq!(prefix.queue(&url("haul-inbox")), Some(QueueName::Inbox));
        assert_eq!(prefix.queue(&url("haulage-inbox")), None);
        assert_eq!(prefix.queue(&url("other-inbox")), None);
        assert_eq!(prefix.queue(&url("haul-NOT_a_lane")), None);
    }
}
