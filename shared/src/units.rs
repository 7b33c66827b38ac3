//! Sizes and durations as people write them: `16GiB`, `12h30m`.
//!
//! Both keep their value exactly through a round trip of text.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use bytesize::ByteSize;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is neither a size nor a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {expected}")]
pub struct UnitError {
    /// The text as given.
    pub text: String,
    /// What it should look like, with an example.
    pub expected: &'static str,
}

/// A number of bytes. As text: a whole number with a unit (`512MiB`, `16GiB`, `1.5TB`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

impl Size {
    /// One binary megabyte.
    pub const MIB: Self = Self(1 << 20);
    /// One binary gigabyte.
    pub const GIB: Self = Self(1 << 30);

    /// The number of bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// For people: three significant digits at most (`15.9 GiB`).
    pub fn human(self) -> String {
        ByteSize(self.0).display().iec().to_string()
    }
}

impl fmt::Display for Size {
    /// The largest unit that gives a whole number, so that nothing is rounded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 10] = [
            (1 << 50, "PiB"),
            (1_000_000_000_000_000, "PB"),
            (1 << 40, "TiB"),
            (1_000_000_000_000, "TB"),
            (1 << 30, "GiB"),
            (1_000_000_000, "GB"),
            (1 << 20, "MiB"),
            (1_000_000, "MB"),
            (1 << 10, "KiB"),
            (1_000, "kB"),
        ];
        let text = UNITS
            .iter()
            .find(|(unit, _)| self.0 != 0 && self.0.is_multiple_of(*unit))
            .map_or_else(|| format!("{}B", self.0), |(unit, name)| format!("{}{name}", self.0 / unit));
        f.pad(&text)
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError { text: text.into(), expected: "size such as 512MiB or 16GiB" };
        if !text.ends_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(error()); // a bare number: of what?
        }
        text.parse::<ByteSize>().map(|size| Self(size.as_u64())).map_err(|_| error())
    }
}

/// A length of time. As text: numbers with units (`90s`, `12h30m`, `2d`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

impl Span {
    /// So many seconds.
    pub const fn secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&humantime::format_duration(self.0).to_string().replace(' ', ""))
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        humantime::parse_duration(text)
            .map(Self)
            .map_err(|_| UnitError { text: text.into(), expected: "duration such as 90s or 12h30m" })
    }
}

/// Serde and schema through the text form.
macro_rules! as_text {
    ($type:ident, $what:literal, $pattern:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $what, "pattern": $pattern })
            }
        }
    };
}

as_text!(
    Size,
    "A number of bytes with a unit, such as 512MiB or 16GiB",
    r"^[0-9.]+ ?([KMGTPkmgtp]i?)?[Bb]?$"
);
as_text!(Span, "A duration with units, such as 90s or 12h30m", r"^([0-9]+ ?[a-z]+ ?)+$");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("16GiB", 16 << 30)]
    #[case("512MiB", 512 << 20)]
    #[case("1.5GiB", 3 << 29)]
    #[case("1GB", 1_000_000_000)]
    #[case("100B", 100)]
    fn sizes_are_read(#[case] text: &str, #[case] bytes: u64) {
        assert_eq!(text.parse(), Ok(Size(bytes)));
    }

    #[rstest]
    #[case("80GiB")]
    #[case("141GB")]
    #[case("1500MB")]
    #[case("143771MiB")]
    #[case("1025B")]
    fn sizes_are_written_in_the_unit_that_gives_a_whole_number(#[case] text: &str) {
        assert_eq!(text.parse::<Size>().expect("a size").to_string(), text);
    }

    #[rstest]
    #[case("16")]
    #[case("")]
    #[case("lots")]
    #[case("-1GiB")]
    #[case("16 GiB of memory")]
    fn what_is_no_size_is_refused(#[case] text: &str) {
        let error = text.parse::<Size>().expect_err("no size");
        assert_eq!(error.to_string(), format!("{text:?} is not a size such as 512MiB or 16GiB"));
    }

    #[rstest]
    #[case("12h30m", 45_000)]
    #[case("90s", 90)]
    #[case("2d", 172_800)]
    fn durations_are_read(#[case] text: &str, #[case] seconds: u64) {
        assert_eq!(text.parse(), Ok(Span::secs(seconds)));
    }

    proptest! {
        #[test]
        fn sizes_survive_text(bytes in 0..u64::MAX) {
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }

        #[test]
        fn durations_survive_text(millis in 0..u64::from(u32::MAX)) {
            let span = Span(Duration::from_millis(millis));
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }
    }
}
