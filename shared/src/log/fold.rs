//! What a job is after all that happened to it.

use serde::{Deserialize, Serialize};

use super::{
    event::{
        Blame, Claimed, Ended, Entry, Event, Next, Outcome, OutputSize, Rejected, Resumed, Started, Submitted,
    },
    phase::Phase,
    policy::is_again,
};
use crate::{
    id::{Attempt, GpuUuid, Incarnation, JobId, LaneId, NodeId, Seq, Timestamp},
    job::JobSpec,
    units::Size,
};

/// A job: the fold of its log.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What it runs and needs.
    pub spec: JobSpec,
    /// Where its messages go.
    pub lane: LaneId,
    /// Nobody but its author's own process runs it.
    pub local: bool,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// What its ended attempts were charged to.
    pub tally: Tally,
    /// The last attempt that was begun, or given up before anybody began it.
    pub attempt: Option<Attempt>,
    /// The digest of the image that its first container was made of.
    pub image: Option<String>,
    /// Whether it waits, runs, or is finished.
    pub state: State,
    /// Somebody wants it to stop, since then.
    pub cancel_requested: Option<Timestamp>,
    /// The position that the next entry gets.
    pub next: Seq,
}

/// How many attempts ended in which way since the job was submitted or last retried by hand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// By the job's own doing; limited by its `retries`.
    pub charged: u32,
    /// Of those, out of memory; each may raise the memory of the next attempt.
    #[serde(default)]
    pub out_of_memory: u32,
    /// By the platform's doing; limited by the fleet.
    pub platform: u32,
    /// With exit code 75, asking to be run again; limited by the fleet.
    #[serde(default)]
    pub again: u32,
    /// Failures within seconds that did not count until another node had tried it.
    #[serde(default)]
    pub elsewhere: u32,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// It waits for a node.
    Queued {
        /// Since then.
        since: Timestamp,
        /// Not before this time.
        not_before: Option<Timestamp>,
        /// The node on which the last attempt met a platform outcome.
        avoid: Option<NodeId>,
        /// How the last attempt ended, where there was one.
        last: Option<Outcome>,
    },
    /// A node has it.
    Held(Claim),
    /// It is over.
    Done {
        /// In which way.
        phase: Phase,
        /// When.
        at: Timestamp,
        /// How its last attempt ended, where it had one that ended.
        outcome: Option<Outcome>,
        /// The exit code of its last attempt.
        exit_code: Option<i64>,
        /// What went wrong.
        message: Option<String>,
        /// The output of its last attempt.
        output: OutputSize,
    },
}

/// A node's hold on a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which try.
    pub attempt: Attempt,
    /// Who.
    pub node: NodeId,
    /// Which run of its agent.
    pub incarnation: Incarnation,
    /// Which GPUs.
    pub gpus: Vec<GpuUuid>,
    /// When it claimed.
    pub at: Timestamp,
    /// The container, once it runs.
    pub started: Option<Started>,
}

/// A log that no run of the protocol can have written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The log does not begin with `submitted`.
    #[error("the log of job {job} begins with {event:?}, not with \"submitted\"")]
    NoBeginning {
        /// The job.
        job: JobId,
        /// What stands there instead.
        event: &'static str,
    },
    /// Entries are missing or out of order.
    #[error("the log of job {job} has entry {found} where {expected} belongs")]
    Gap {
        /// The job.
        job: JobId,
        /// The position that comes next.
        expected: Seq,
        /// The position found.
        found: Seq,
    },
    /// An entry that cannot follow what stands before it.
    #[error("the log of job {job} has {event:?} at {seq}, which cannot happen to a job that is {phase}")]
    Impossible {
        /// The job.
        job: JobId,
        /// Where.
        seq: Seq,
        /// What.
        event: &'static str,
        /// What the job was.
        phase: Phase,
    },
}

impl Job {
    /// The job after the first entry of its log.
    ///
    /// # Errors
    /// [`FoldError`] where that is not `submitted`.
    pub fn begin(id: JobId, entry: &Entry) -> Result<Self, FoldError> {
        if entry.seq != Seq::FIRST {
            return Err(FoldError::Gap { job: id, expected: Seq::FIRST, found: entry.seq });
        }
        let Event::Submitted(submitted) = &entry.event else {
            return Err(FoldError::NoBeginning { job: id, event: entry.event.name() });
        };
        let Submitted { spec, lane, local } = submitted.as_ref();
        Ok(Self {
            id,
            spec: spec.clone(),
            lane: lane.clone(),
            local: *local,
            submitted_at: entry.at,
            tally: Tally::default(),
            image: None,
            attempt: None,
            state: State::Queued { since: entry.at, not_before: None, avoid: None, last: None },
            cancel_requested: None,
            next: Seq::FIRST.next(),
        })
    }

    /// The job after its whole log.
    ///
    /// # Errors
    /// [`FoldError`] where the log is none; `None` where there is no entry at all.
    pub fn fold(id: JobId, entries: &[Entry]) -> Result<Option<Self>, FoldError> {
        let Some((first, rest)) = entries.split_first() else { return Ok(None) };
        let mut job = Self::begin(id, first)?;
        for entry in rest {
            job.apply(entry)?;
        }
        Ok(Some(job))
    }

    /// Takes one more entry.
    ///
    /// # Errors
    /// [`FoldError`] where it cannot follow; the job is then unchanged.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), FoldError> {
        if entry.seq != self.next {
            return Err(FoldError::Gap { job: self.id.clone(), expected: self.next, found: entry.seq });
        }
        let impossible = FoldError::Impossible {
            job: self.id.clone(),
            seq: entry.seq,
            event: entry.event.name(),
            phase: self.phase(),
        };
        let next_attempt = self.next_attempt();
        match (&entry.event, &mut self.state) {
            (Event::Claimed(claimed), State::Queued { .. }) if claimed.attempt == next_attempt => {
                self.claim(claimed, entry.at);
            }
            (Event::Started(started), State::Held(claim))
                if claim.started.is_none() && claim.attempt == started.attempt =>
            {
                claim.started = Some(started.clone());
                self.image.get_or_insert_with(|| started.image.clone());
            }
            (Event::Resumed(Resumed { attempt, incarnation }), State::Held(claim))
                if claim.attempt == *attempt =>
            {
                claim.incarnation.clone_from(incarnation);
            }
            (Event::Ended(ended), State::Held(claim)) if claim.attempt == ended.attempt => {
                self.end(ended, entry.at);
            }
            (Event::CancelRequested(_), State::Held(_)) => {
                self.cancel_requested.get_or_insert(entry.at);
            }
            (Event::Cancelled, State::Queued { .. }) => self.finish(Phase::Cancelled, entry.at, None),
            (Event::Rejected(Rejected { reason }), State::Queued { .. }) => {
                self.finish(Phase::Rejected, entry.at, Some(reason.clone()));
            }
            (Event::Retried, State::Done { .. }) => {
                self.retry(entry.at);
            }
            (
                Event::Submitted(_)
                | Event::Claimed(_)
                | Event::Started(_)
                | Event::Resumed(_)
                | Event::Ended(_)
                | Event::CancelRequested(_)
                | Event::Cancelled
                | Event::Rejected(_)
                | Event::Retried,
                State::Queued { .. } | State::Held(_) | State::Done { .. },
            ) => return Err(impossible),
        }
        self.next = self.next.next();
        Ok(())
    }

    /// Lets a finished job wait again, as if it was new. One that nobody claimed waits for another
    /// attempt than before: what was meant for the earlier wait, and comes late, does not touch this one.
    pub(crate) fn retry(&mut self, at: Timestamp) {
        if matches!(self.state, State::Done { outcome: None, .. }) {
            self.attempt = Some(self.next_attempt());
        }
        self.tally = Tally::default();
        self.cancel_requested = None;
        self.local = false;
        self.state = State::Queued { since: at, not_before: None, avoid: None, last: None };
    }

    fn claim(&mut self, claimed: &Claimed, at: Timestamp) {
        self.attempt = Some(claimed.attempt);
        self.state = State::Held(Claim {
            attempt: claimed.attempt,
            node: claimed.node.clone(),
            incarnation: claimed.incarnation.clone(),
            gpus: claimed.gpus.clone(),
            at,
            started: None,
        });
    }

    fn end(&mut self, ended: &Ended, at: Timestamp) {
        match ended.outcome.blame() {
            Blame::Nobody => {}
            Blame::Job if is_again(ended.outcome, ended.exit_code) => self.tally.again += 1,
            // What is the job's own doing keeps it from no node.
            Blame::Job if matches!(ended.next, Next::Requeue { avoid: Some(_), .. }) => {
                self.tally.elsewhere += 1;
            }
            Blame::Job => {
                self.tally.charged += 1;
                self.tally.out_of_memory += u32::from(ended.outcome == Outcome::OutOfMemory);
            }
            Blame::Platform => self.tally.platform += 1,
        }
        self.state = match &ended.next {
            Next::Requeue { not_before, avoid } => State::Queued {
                since: at,
                not_before: *not_before,
                avoid: avoid.clone(),
                last: Some(ended.outcome),
            },
            Next::Final => State::Done {
                phase: match ended.outcome {
                    Outcome::Succeeded => Phase::Succeeded,
                    Outcome::Cancelled => Phase::Cancelled,
                    _ => Phase::Failed,
                },
                at,
                outcome: Some(ended.outcome),
                exit_code: ended.exit_code,
                message: ended.message.clone(),
                output: ended.output,
            },
        };
    }

    fn finish(&mut self, phase: Phase, at: Timestamp, message: Option<String>) {
        let (outcome, exit_code, output) = (None, None, OutputSize::default());
        self.state = State::Done { phase, at, outcome, exit_code, message, output };
    }

    /// The number of the try that comes next.
    pub fn next_attempt(&self) -> Attempt {
        self.attempt.map_or(Attempt::FIRST, Attempt::next)
    }

    /// The node's hold on it, while it is held.
    pub fn held(&self) -> Option<&Claim> {
        match &self.state {
            State::Held(claim) => Some(claim),
            State::Queued { .. } | State::Done { .. } => None,
        }
    }

    /// Whether it is held by this try of this node.
    pub fn is_held_by(&self, node: &NodeId, attempt: Attempt) -> bool {
        self.held().is_some_and(|claim| claim.node == *node && claim.attempt == attempt)
    }

    /// Whether it waits for a node.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Queued { .. })
    }

    /// Whether it waits for whichever node takes it; what waits for its author's own process alone has
    /// no message in its lane's queue.
    pub fn is_for_anybody(&self) -> bool {
        self.is_waiting() && !self.local
    }

    /// What listings say of it, as far as the log tells: a parked job is `Queued` here.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Queued { .. } => Phase::Queued,
            State::Held(_) if self.cancel_requested.is_some() => Phase::Stopping,
            State::Held(Claim { started: None, .. }) => Phase::Starting,
            State::Held(Claim { started: Some(_), .. }) => Phase::Running,
            State::Done { phase, .. } => *phase,
        }
    }

    /// The memory limit of the next attempt: what the job asks for, times `retry_memory` for each
    /// attempt that ran out of it.
    pub fn memory(&self) -> Option<Size> {
        let asked = self.spec.resources.memory?;
        let factor = self.spec.retry_memory.unwrap_or(1.0);
        let times = i32::try_from(self.tally.out_of_memory).unwrap_or(i32::MAX);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a limit rounded to some bytes is the same limit, and the cast saturates"
        )]
        Some(Size((asked.bytes() as f64 * factor.powi(times)) as u64))
    }

    /// The exit code for whoever waited for the job: its own, 124 for a timeout, 125 for the
    /// platform's doing, as coreutils' `timeout` and `docker run` have it. `None` while it is not
    /// finished.
    pub fn exit_status(&self) -> Option<i64> {
        let State::Done { phase, outcome, exit_code, .. } = &self.state else { return None };
        Some(match (phase, outcome) {
            (Phase::Succeeded, _) => 0,
            (_, Some(Outcome::TimedOut)) => 124,
            (_, Some(outcome)) if outcome.is_platform() => 125,
            (Phase::Cancelled, _) => exit_code.filter(|code| *code != 0).unwrap_or(130),
            (Phase::Rejected, _) => 125,
            _ => exit_code.filter(|code| *code != 0).unwrap_or(1),
        })
    }
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
