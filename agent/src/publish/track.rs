//! A job whose events are told, and a receiver who is told. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use shared::{
    event::{StatusEvent, Subject},
    id::{JobId, Seq},
    log::Event,
};

use super::note::{Note, Position, Receiver};

/// Deliveries at once to a receiver that is well.
const AT_ONCE: usize = 8;

/// Where a receiver's next event of a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Not in the log yet, as far as is known.
    Absent,
    /// It can be told from then on.
    Due(Duration),
    /// Its entry is being read.
    Reading,
    /// It is being told.
    Flying,
}

/// How far a receiver is with a job.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub(super) next: Seq,
    pub(super) step: Step,
    pub(super) failures: u32,
    pub(super) failing_since: Option<Duration>,
}

impl Progress {
    pub(super) fn at(next: Seq, step: Step) -> Self {
        Self { next, step, failures: 0, failing_since: None }
    }
}

/// A job whose events are told.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) subject: Subject,
    pub(super) mark: Seq,
    /// The first position that is not this node's to tell, once that is known.
    pub(super) over: Option<Seq>,
    pub(super) progress: BTreeMap<Receiver, Progress>,
    pub(super) events: BTreeMap<Seq, StatusEvent>,
    pub(super) dirty: bool,
}

/// A receiver.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub(super) due: BTreeSet<(Duration, JobId)>,
    pub(super) gate: Duration,
    pub(super) failures: u32,
    pub(super) flying: usize,
    pub(super) gone: bool,
}

impl Line {
    /// Whether it can be told one thing more.
    pub(super) fn has_room(&self) -> bool {
        self.flying < if self.failures > 0 { 1 } else { AT_ONCE }
    }
}

impl Track {
    /// What the spool holds of it.
    pub(super) fn note(&self) -> Note {
        let told =
            self.progress.iter().map(|(to, progress)| Position { to: to.clone(), next: progress.next });
        Note {
            v: Note::VERSION,
            subject: self.subject.clone(),
            mark: self.mark,
            over: self.over,
            told: told.collect(),
        }
    }
}

/// Whether nobody holds the job after this.
pub(super) fn leaves(event: &Event) -> bool {
    match event {
        Event::Ended(_) | Event::Cancelled | Event::Rejected(_) => true,
        Event::Submitted(_)
        | Event::Claimed(_)
        | Event::Started(_)
        | Event::Resumed(_)
        | Event::CancelRequested(_)
        | Event::Retried => false,
    }
}
