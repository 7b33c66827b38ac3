//! Kinds of MIG instances, by NVIDIA's names for them.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::{Size, UnitError};

/// A kind of MIG instance: `1g.10gb` is one slice of the GPU's multiprocessors with about 10 GB of its
/// memory, `1g.10gb+me` the same with the media engines (NVIDIA Multi-Instance GPU User Guide,
/// "Supported MIG Profiles").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MigProfile {
    slices: u8,
    gigabytes: u16,
    media: bool,
}

impl MigProfile {
    /// What its name says of its memory; the driver gives somewhat less.
    pub fn memory(self) -> Size {
        Size(u64::from(self.gigabytes) << 30)
    }
}

impl fmt::Display for MigProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let media = if self.media { "+me" } else { "" };
        f.pad(&format!("{}g.{}gb{media}", self.slices, self.gigabytes))
    }
}

impl FromStr for MigProfile {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (name, media) = text.strip_suffix("+me").map_or((text, false), |name| (name, true));
        let parts = || {
            let (slices, gigabytes) = name.strip_suffix("gb")?.split_once("g.")?;
            let plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
            let (true, true) = (plain(slices), plain(gigabytes)) else { return None };
            Some(Self { slices: slices.parse().ok()?, gigabytes: gigabytes.parse().ok()?, media })
        };
        let some = parts().filter(|profile| profile.slices > 0 && profile.gigabytes > 0);
        some.ok_or_else(|| UnitError { text: text.into(), expected: "MIG profile such as 1g.10gb" })
    }
}

impl Serialize for MigProfile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MigProfile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for MigProfile {
    fn schema_name() -> Cow<'static, str> {
        "MigProfile".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A kind of MIG instance such as \"1g.10gb\"",
            "pattern": r"^[0-9]{1,3}g\.[0-9]{1,5}gb(\+me)?$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_keep_their_names() {
        for name in ["1g.10gb", "7g.80gb", "1g.5gb+me", "4g.71gb"] {
            assert_eq!(name.parse::<MigProfile>().expect("valid").to_string(), name);
        }
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for text in ["", "1g", "10gb", "0g.10gb", "+1g.10gb", "1g.10gb+gfx", "1c.3g.20gb", "300g.1gb"] {
            let error = text.parse::<MigProfile>().expect_err(text).to_string();
            assert!(error.contains("1g.10gb"), "{error}");
        }
    }
}
