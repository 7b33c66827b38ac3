//! What a lane's queue carries: a hint that a job waits, with all that claiming it takes.
//!
//! The message names the position at which the `claimed` entry goes. If anything has happened to
//! the job since, that position is taken and the claim fails; so the message may be old, doubled
//! or lost, and nobody need read the log before claiming.

use serde::{Deserialize, Serialize};

use crate::{
    event::Told,
    id::{Attempt, JobId, LaneId, NodeId, Seq, Timestamp},
    job::JobSpec,
    log::{Job, Outcome, State, Tally},
    record::{self, RecordError},
};

/// A waiting job, as its message tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The version of this record's form.
    pub v: u32,
    /// The job.
    pub job: JobId,
    /// Where the next entry of its log goes.
    pub seq: Seq,
    /// What it runs; left out where it makes the message too large, and then read from the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Box<JobSpec>>,
    /// Nobody but its author's own process runs it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// Since when it waits.
    pub since: Timestamp,
    /// Its last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// How its attempts ended.
    #[serde(default)]
    pub tally: Tally,
    /// The digest of the image that its first container was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How the last one ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Outcome>,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// Rather not on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avoid: Option<NodeId>,
    /// How far its events have been told; from the beginning where the sender does not know.
    #[serde(default, skip_serializing_if = "Told::is_none")]
    pub told: Told,
}

/// Specs up to this many bytes of JSON travel with their message.
const INLINE: usize = 64 << 10;

impl Message {
    /// The form that this program writes, and the newest that it reads.
    pub const VERSION: u32 = 1;

    /// The message of a job, or `None` if it does not wait.
    pub fn of(job: &Job) -> Option<Self> {
        let State::Queued { since, not_before, avoid, last } = &job.state else { return None };
        let fits = record::write(&job.spec).len() <= INLINE;
        Some(Self {
            v: Self::VERSION,
            job: job.id.clone(),
            seq: job.next,
            spec: fits.then(|| Box::new(job.spec.clone())),
            local: job.local,
            submitted_at: job.submitted_at,
            since: *since,
            attempt: job.attempt,
            tally: job.tally,
            image: job.image.clone(),
            last: *last,
            not_before: *not_before,
            avoid: avoid.clone(),
            told: Told::default(),
        })
    }

    /// The message, with how far the job's events have been told.
    #[must_use]
    pub fn told(mut self, told: Told) -> Self {
        self.told = told;
        self
    }

    /// The text that is sent.
    pub fn to_body(&self) -> String {
        serde_json::to_string(self).expect("messages have only text keys")
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn read(body: &str) -> Result<Self, RecordError> {
        record::read(body.as_bytes(), Self::VERSION)
    }

    /// The job as it stood when the message was sent, without its history; `None` where the spec
    /// did not fit and the log must be read.
    pub fn into_job(self, lane: &LaneId) -> Option<Job> {
        Some(Job {
            id: self.job,
            spec: *self.spec?,
            lane: lane.clone(),
            local: self.local,
            submitted_at: self.submitted_at,
            tally: self.tally,
            attempt: self.attempt,
            image: self.image,
            state: State::Queued {
                since: self.since,
                not_before: self.not_before,
                avoid: self.avoid,
                last: self.last,
            },
            cancel_requested: None,
            next: self.seq,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::Needs;

    fn job(spec: JobSpec) -> Job {
        let now = Timestamp::UNIX_EPOCH;
        Job {
            id: JobId::new("j").expect("valid"),
            lane: Needs::of(&spec).lane_id(),
            spec,
            local: false,
            submitted_at: now,
            tally: Tally { charged: 1, ..Tally::default() },
            attempt: Some(Attempt(3)),
            image: Some("sha256:1".into()),
            state: State::Queued {
                since: now,
                not_before: Some(now),
                avoid: None,
                last: Some(Outcome::Exited),
            },
            cancel_requested: None,
            next: Seq(9),
        }
    }

    #[test]
    fn a_job_comes_back_from_its_message_as_it_was() {
        let job = job(JobSpec::new("i"));
        let message = Message::of(&job).expect("waits");
        let read = Message::read(&message.to_body()).expect("valid");
        assert_eq!(read.into_job(&job.lane), Some(job));
    }

    #[test]
    fn a_large_spec_is_left_to_the_log() {
        let mut spec = JobSpec::new("i");
        spec.command = Some(vec!["x".repeat(INLINE)]);
        let message = Message::of(&job(spec)).expect("waits");
        assert!(message.spec.is_none() && message.to_body().len() < 1000);
    }
}
