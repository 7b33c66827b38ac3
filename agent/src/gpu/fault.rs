//! What can be wrong with a GPU, and which of the driver's reports mean it.

use std::fmt;

use serde::Serialize;

/// Why a GPU must not be given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum GpuFault {
    /// Its memory had errors that could not be corrected since the driver was loaded.
    UncorrectableEcc {
        /// How many.
        errors: u64,
    },
    /// The driver reported an error after which the GPU is to be reset.
    Xid(Xid),
    /// The driver cannot reach it any more.
    Lost {
        /// The driver's words.
        why: String,
    },
    /// The driver cannot tell how it is.
    Unreadable {
        /// The driver's words.
        why: String,
    },
    /// It slows itself down for its own protection.
    Slowed {
        /// From what.
        from: Slowdown,
        /// How warm it is, in °C.
        temperature: Option<u32>,
    },
}

impl GpuFault {
    /// Whether what runs on the GPU is lost with it.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::UncorrectableEcc { .. } | Self::Xid(_) | Self::Lost { .. } => true,
            Self::Unreadable { .. } | Self::Slowed { .. } => false,
        }
    }
}

impl fmt::Display for GpuFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UncorrectableEcc { errors } => write!(f, "{errors} uncorrectable ECC errors; reset it"),
            Self::Xid(xid) => write!(f, "{xid}; reset it"),
            Self::Lost { why } => write!(f, "lost ({why}); restart the host"),
            Self::Unreadable { why } => write!(f, "cannot be read ({why})"),
            Self::Slowed { from, temperature } => {
                write!(f, "slowed down by {from}")?;
                temperature.map_or(Ok(()), |celsius| write!(f, " at {celsius} °C"))
            }
        }
    }
}

/// An error that the driver reports by number (NVIDIA Xid Errors), of those after which a GPU is to be
/// reset or its host restarted. What a program can bring about by itself is not among them: 13, 31, 43, 45,
/// 109 and the like end it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "u64")]
pub struct Xid {
    number: u64,
    meaning: &'static str,
}

/// By the immediate action that NVIDIA's catalog asks for, and 48, for which it asks for a reset unless
/// 63 or 64 follow (<https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html>).
const FATAL: [(u64, &str); 14] = [
    (46, "the GPU stopped processing"),
    (48, "a double bit ECC error"),
    (62, "its microcontroller halted"),
    (64, "a bad memory row could not be recorded"),
    (79, "it has fallen off the bus"),
    (95, "an uncontained memory error"),
    (110, "a security fault"),
    (119, "its system processor did not answer"),
    (120, "its system processor failed"),
    (136, "a link training failed"),
    (140, "an unrecovered ECC error"),
    (143, "it could not be initialised"),
    (155, "an NVLink failed"),
    (158, "a fatal timeout"),
];

impl Xid {
    /// The error of this number, if it is one after which the GPU is to be reset.
    pub fn fatal(number: u64) -> Option<Self> {
        let (number, meaning) = FATAL.into_iter().find(|(fatal, _)| *fatal == number)?;
        Some(Self { number, meaning })
    }
}

impl From<Xid> for u64 {
    fn from(xid: Xid) -> Self {
        xid.number
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XID {}: {}", self.number, self.meaning)
    }
}

/// Why a GPU slows itself down (`nvmlClocksEventReasons`). What a power limit or the driver's own care for
/// the temperature asks for is daily life, and not among it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Slowdown {
    /// It is too hot.
    Heat,
    /// The power supply asked for it.
    PowerBrake,
    /// One of both, by a card that does not tell which.
    Hardware,
}

impl fmt::Display for Slowdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Heat => "heat",
            Self::PowerBrake => "the power supply",
            Self::Hardware => "heat or the power supply",
        })
    }
}
