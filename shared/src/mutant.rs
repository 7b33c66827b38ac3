//! Bugs on purpose, so that the simulation can show that it would have found them.
//!
//! Each stands in the shipped code as `if mutant::is_on(Mutant::X)`, at the place where the bug
//! would be made. Without the feature `mutants`, which only the simulation has, [`is_on`] is a
//! constant and nothing is left of it.

/// One bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// The message is deleted before the claim is written.
    DeleteBeforeClaim,
    /// An entry is known by its place alone: whoever finds one there takes it for its own.
    NoNonce,
    /// A node that could not renew its lease goes on, and so does its guard.
    NoFence,
    /// A silent node is lost after half of its lease.
    HalfLease,
    /// The sweep touches markers whose log entry may be on its way, and ends claims without a second look.
    SweepFresh,
    /// A marker says who holds a job, whatever its log says.
    TrustIndex,
    /// A take-over that finds its place taken reads on and ends the attempt all the same.
    TakeOverAppends,
    /// A node that is back reads its jobs' logs and thaws, and does not say so there.
    ThawBlind,
    /// The old marker is deleted before the new one is there.
    MarkerGap,
    /// A container that was started before is started again.
    StartTwice,
    /// GPUs are given out again before the log says that the attempt has ended.
    EarlyGpus,
}

impl Mutant {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::DeleteBeforeClaim,
        Self::NoNonce,
        Self::NoFence,
        Self::HalfLease,
        Self::SweepFresh,
        Self::TrustIndex,
        Self::TakeOverAppends,
        Self::ThawBlind,
        Self::MarkerGap,
        Self::StartTwice,
        Self::EarlyGpus,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeleteBeforeClaim => "delete-before-claim",
            Self::NoNonce => "no-nonce",
            Self::NoFence => "no-fence",
            Self::HalfLease => "half-lease",
            Self::SweepFresh => "sweep-fresh",
            Self::TrustIndex => "trust-index",
            Self::TakeOverAppends => "take-over-appends",
            Self::ThawBlind => "thaw-blind",
            Self::MarkerGap => "marker-gap",
            Self::StartTwice => "start-twice",
            Self::EarlyGpus => "early-gpus",
        }
    }
}

#[cfg(feature = "mutants")]
thread_local! {
    static ON: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Switches one on, or all off, on this thread.
#[cfg(feature = "mutants")]
pub fn switch(mutant: Option<Mutant>) {
    ON.set(mutant);
}

/// Whether the bug is to be made here and now.
#[cfg(feature = "mutants")]
pub fn is_on(mutant: Mutant) -> bool {
    ON.get() == Some(mutant)
}

/// Whether the bug is to be made here and now: never.
#[cfg(not(feature = "mutants"))]
pub const fn is_on(_: Mutant) -> bool {
    false
}
