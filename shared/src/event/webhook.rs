//! Where events are posted.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

use crate::job::SecretName;

/// An address to which events are posted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where: `https://…`, or `http://…` within a site.
    #[schemars(with = "String")]
    pub url: Url,
    /// The name of the secret on the nodes with which events are signed; its value is
    /// `whsec_` and the base64 of 24 to 64 random bytes.
    pub secret: SecretName,
    /// Only events of these types; all of them without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventType>,
}

impl Webhook {
    /// Whether it wants to hear of this.
    pub fn takes(&self, event: &EventType) -> bool {
        self.events.is_empty() || self.events.contains(event)
    }

    /// What is wrong with it; `None` if nothing is.
    pub fn fault(&self) -> Option<&'static str> {
        let web = matches!(self.url.scheme(), "http" | "https") && self.url.host().is_some();
        (!web).then_some("an address that begins with https:// or http://")
    }
}

/// What an event is about: `job.` and the kind of the log's entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct EventType(Cow<'static, str>);

/// All that there are.
const TYPES: [&str; 10] = [
    "job.submitted",
    "job.claimed",
    "job.started",
    "job.resumed",
    "job.ended",
    "job.cancel_requested",
    "job.cancelled",
    "job.rejected",
    "job.retried",
    "inbox.refused",
];

impl EventType {
    /// A spec from the inbox that is none.
    pub const REFUSED: Self = Self(Cow::Borrowed("inbox.refused"));

    /// The type of an entry of a job's log, by its [name](crate::log::Event::name).
    pub(super) fn of(name: &str) -> Self {
        Self(format!("job.{}", name.replace(' ', "_")).into())
    }

    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for EventType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = TYPES.into_iter().find(|known| *known == text);
        let unknown = || format!("{text:?} is no type of event; there are {}", TYPES.join(", "));
        found.map(|known| Self(known.into())).ok_or_else(unknown)
    }
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for EventType {
    fn schema_name() -> Cow<'static, str> {
        "EventType".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": TYPES })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_type_is_refused_with_those_there_are() {
        let error = "job.exploded".parse::<EventType>().expect_err("unknown");
        assert!(error.contains("job.exploded") && error.contains("job.claimed"), "{error}");
    }

    #[test]
    fn a_webhook_without_a_filter_takes_everything() {
        let hook = |events: &[&str]| Webhook {
            url: "https://hooks.example/haul".parse().expect("url"),
            secret: "HOOK".parse().expect("valid"),
            events: events.iter().map(|event| event.parse().expect("known")).collect(),
        };
        let claimed = EventType::of("claimed");
        assert!(hook(&[]).takes(&claimed) && hook(&["job.claimed"]).takes(&claimed));
        assert!(!hook(&["job.ended"]).takes(&claimed));
    }
}
