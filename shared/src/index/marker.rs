//! Markers: which shelf a job is on, and the key that says so.

use chrono::NaiveDate;

use crate::{
    id::{Attempt, JobId, LaneId, NodeId, Team},
    log::{Job, State},
    store::Key,
};

/// Where a job stands, as far as the index says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shelf {
    /// Waits in the store.
    Parked {
        /// Its lane.
        lane: LaneId,
        /// Its team.
        team: Team,
    },
    /// Its message is in the lane's queue.
    Sent {
        /// Its lane.
        lane: LaneId,
        /// Its team.
        team: Team,
    },
    /// A node has it.
    Held {
        /// Which.
        node: NodeId,
    },
    /// Finished.
    Done {
        /// On which day, UTC.
        day: NaiveDate,
    },
}

impl Shelf {
    /// Where the index keeps a job that stands so.
    pub fn of(job: &Job) -> Self {
        match &job.state {
            State::Queued { .. } => Self::Sent { lane: job.lane.clone(), team: job.spec.team.clone() },
            State::Held(claim) => Self::Held { node: claim.node.clone() },
            State::Done { at, .. } => Self::Done { day: at.date_naive() },
        }
    }

    pub(super) fn prefix(&self) -> String {
        match self {
            Self::Parked { lane, team } => format!("index/parked/{lane}/{team}"),
            Self::Sent { lane, team } => format!("index/sent/{lane}/{team}"),
            Self::Held { node } => format!("index/held/{node}"),
            Self::Done { day } => format!("index/done/{day}"),
        }
    }

    /// From a marker's key.
    pub(super) fn read(key: &Key) -> Option<Marker> {
        let parts: Vec<&str> = key.as_str().split('/').collect();
        let (shelf, job) = match parts.as_slice() {
            ["index", "parked", lane, team, job] => {
                (Self::Parked { lane: lane.parse().ok()?, team: team.parse().ok()? }, job)
            }
            ["index", "sent", lane, team, job] => {
                (Self::Sent { lane: lane.parse().ok()?, team: team.parse().ok()? }, job)
            }
            ["index", "held", node, job] => (Self::Held { node: node.parse().ok()? }, job),
            ["index", "done", day, job] => (Self::Done { day: day.parse().ok()? }, job),
            _ => return None,
        };
        let (job, round) = job.rsplit_once('.')?;
        Some(Marker { shelf, job: job.parse().ok()?, round: Attempt(round.parse().ok()?) })
    }
}

/// A marker's key, read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Marker {
    /// Where it lies.
    pub shelf: Shelf,
    /// Whose it is.
    pub job: JobId,
    /// The attempt that is waited for, is held, or was the last. So each time that a job comes to a
    /// shelf its marker has another key, and the deletion of an earlier one that comes late, after
    /// whoever asked for it has given up and asked again, does not take the later one away.
    pub round: Attempt,
}

impl Marker {
    /// Where a job that stands so belongs.
    pub fn of(job: &Job) -> Self {
        let round = match &job.state {
            State::Queued { .. } | State::Done { outcome: None, .. } => job.next_attempt(),
            State::Held(claim) => claim.attempt,
            State::Done { outcome: Some(_), .. } => job.attempt.unwrap_or(Attempt::FIRST),
        };
        Self { shelf: Shelf::of(job), job: job.id.clone(), round }
    }

    /// Where a job waits, or waited, for an attempt once its message is sent.
    pub fn sent(job: &Job, attempt: Attempt) -> Self {
        let shelf = Shelf::Sent { lane: job.lane.clone(), team: job.spec.team.clone() };
        Self { shelf, job: job.id.clone(), round: attempt }
    }

    /// Where a job waits, or waited, for an attempt while it is parked.
    pub fn parked(job: &Job, attempt: Attempt) -> Self {
        let shelf = Shelf::Parked { lane: job.lane.clone(), team: job.spec.team.clone() };
        Self { shelf, job: job.id.clone(), round: attempt }
    }

    /// An attempt on a node's shelf.
    pub fn held(job: &JobId, node: &NodeId, attempt: Attempt) -> Self {
        Self { shelf: Shelf::Held { node: node.clone() }, job: job.clone(), round: attempt }
    }

    pub(super) fn key(&self) -> Key {
        Key::new(format!("{}/{}.{}", self.shelf.prefix(), self.job, self.round))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_back_from_its_key() {
        let job: JobId = "j".parse().expect("valid");
        let shelves = [
            Shelf::Parked { lane: "l".parse().expect("valid"), team: Team::default() },
            Shelf::Sent { lane: "l".parse().expect("valid"), team: Team::default() },
            Shelf::Held { node: "n".parse().expect("valid") },
            Shelf::Done { day: "2026-11-24".parse().expect("valid") },
        ];
        for shelf in shelves {
            let marker = Marker { shelf, job: job.clone(), round: Attempt(12) };
            assert_eq!(Shelf::read(&marker.key()), Some(marker));
        }
        assert_eq!(Shelf::read(&Key::new("index/held/n/../j.1")), None);
    }
}
