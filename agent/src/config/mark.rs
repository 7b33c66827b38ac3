//! How full a disk may be.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use shared::units::Size;

/// So much free room on a disk. As text: a size (`20GiB`), or a part of the disk (`15%`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// So many bytes.
    Room(Size),
    /// So many hundredths of the disk.
    Percent(u8),
}

impl Mark {
    /// As bytes, of a disk of this size.
    pub fn of(self, disk: Size) -> Size {
        match self {
            Self::Room(size) => size,
            Self::Percent(part) => Size(disk.bytes() / 100 * u64::from(part)),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Room(size) => size.fmt(f),
            Self::Percent(part) => write!(f, "{part}%"),
        }
    }
}

impl FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed =
            || format!("{text:?} is neither a size such as 20GiB nor a part of the disk such as 15%");
        match text.strip_suffix('%') {
            Some(part) => match part.trim().parse() {
                Ok(part) if part <= 100 => Ok(Self::Percent(part)),
                _ => Err(allowed()),
            },
            None => text.parse().map(Self::Room).map_err(|_| allowed()),
        }
    }
}

impl Serialize for Mark {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("15%", 150)]
    #[case("0%", 0)]
    #[case("20B", 20)]
    fn a_mark_is_a_size_or_a_part(#[case] text: &str, #[case] bytes: u64) {
        let mark: Mark = text.parse().expect("valid");
        assert_eq!((mark.of(Size(1000)), mark.to_string().as_str()), (Size(bytes), text));
    }

    #[rstest]
    #[case("101%")]
    #[case("-1%")]
    #[case("15")]
    #[case("%")]
    fn what_is_no_mark_is_refused(#[case] text: &str) {
        let error = text.parse::<Mark>().expect_err("refused");
        assert!(error.contains(text) && error.contains("15%"), "{error}");
    }
}
