//! Where an attempt stands.

use std::fmt;

use crate::engine::Container;

/// Where an attempt is taken up.
#[derive(Debug)]
pub enum Stage {
    /// It is claimed; there is no container yet.
    Claimed,
    /// There is a container that was never started.
    Made(Container),
    /// There is a container that runs or ran.
    Started(Container),
    /// Its container was started and is gone.
    Gone,
    /// Its container was started, and is gone since the machine went down.
    Lost,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Claimed => "claimed",
            Self::Made(_) => "made",
            Self::Started(_) => "started",
            Self::Gone => "gone",
            Self::Lost => "lost",
        })
    }
}
