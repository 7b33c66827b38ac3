//! What an event says. Pure: an entry of a log and whose it is, and nothing else, give the event,
//! so that whoever tells it again tells the same.

use serde::{Deserialize, Serialize};

use super::EventType;
use crate::{
    id::{Attempt, JobId, LaneId, NodeId, Seq, Team, Timestamp},
    log::{Author, Entry, Event, Job, Next, Outcome, Phase},
};

/// Whose events they are: what does not change in a job's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The job.
    pub job: JobId,
    /// Its name.
    pub name: String,
    /// Its team.
    pub team: Team,
    /// Its lane.
    pub lane: LaneId,
}

impl Subject {
    /// Of this job.
    pub fn of(job: &Job) -> Self {
        let name = job.spec.display_name().to_owned();
        Self { job: job.id.clone(), name, team: job.spec.team.clone(), lane: job.lane.clone() }
    }
}

/// An event, in the form that Standard Webhooks recommends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusEvent {
    /// The version of this record's form.
    pub v: u32,
    /// The same whenever the same event is told: doubles have equal ids.
    pub id: String,
    /// What happened.
    #[serde(rename = "type")]
    pub event: EventType,
    /// When, by the clock of whoever did it.
    pub timestamp: Timestamp,
    /// The details.
    pub data: Data,
}

/// The details of an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Data {
    /// Of a job's.
    Job(Box<JobData>),
    /// Of something that came to the inbox and is no job.
    Refused {
        /// The queue's name for the message.
        message: String,
        /// Why.
        reason: String,
    },
}

/// The details of a job's event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobData {
    /// Whose.
    #[serde(flatten)]
    pub subject: Subject,
    /// The position of the entry in the job's log; events of a job come in this order.
    pub seq: Seq,
    /// Where the job stands after it.
    pub state: Phase,
    /// Who wrote the entry.
    pub by: Author,
    /// The attempt that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// The node of that attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// How the attempt ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Its exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// What went wrong, or why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl StatusEvent {
    /// The form that this program writes.
    pub const VERSION: u32 = 1;

    /// The id of the event of an entry.
    pub fn id_of(job: &JobId, seq: Seq) -> String {
        format!("{job}-{}", seq.0)
    }

    /// The event of an entry of a job's log.
    pub fn of(subject: &Subject, entry: &Entry) -> Self {
        let mut data = JobData {
            subject: subject.clone(),
            seq: entry.seq,
            state: state_after(&entry.event),
            by: entry.author.clone(),
            attempt: None,
            node: None,
            outcome: None,
            exit_code: None,
            message: None,
        };
        let writer = match &entry.author {
            Author::Node { name, .. } => Some(name.clone()),
            Author::Client(_) => None,
        };
        match &entry.event {
            Event::Claimed(claimed) => {
                data.attempt = Some(claimed.attempt);
                data.node = Some(claimed.node.clone());
            }
            Event::Resumed(resumed) => (data.attempt, data.node) = (Some(resumed.attempt), writer),
            Event::Started(started) => (data.attempt, data.node) = (Some(started.attempt), writer),
            Event::Ended(ended) => {
                data.attempt = Some(ended.attempt);
                // A lost node's end is written by another.
                data.node = writer.filter(|_| ended.outcome != Outcome::NodeLost);
                data.outcome = Some(ended.outcome);
                data.exit_code = ended.exit_code;
                data.message.clone_from(&ended.message);
            }
            Event::CancelRequested(request) => data.message.clone_from(&request.reason),
            Event::Rejected(rejected) => data.message = Some(rejected.reason.clone()),
            Event::Submitted(_) | Event::Cancelled | Event::Retried => {}
        }
        Self {
            v: Self::VERSION,
            id: Self::id_of(&subject.job, entry.seq),
            event: EventType::of(entry.event.name()),
            timestamp: entry.at,
            data: Data::Job(Box::new(data)),
        }
    }

    /// That a message of the inbox was put aside because it is no job.
    pub fn refused(message: &str, reason: &str, at: Timestamp) -> Self {
        Self {
            v: Self::VERSION,
            id: format!("inbox-{message}"),
            event: EventType::REFUSED,
            timestamp: at,
            data: Data::Refused { message: message.into(), reason: reason.into() },
        }
    }

    /// The text that is sent.
    pub fn to_body(&self) -> String {
        serde_json::to_string(self).expect("events have only text keys")
    }
}

fn state_after(event: &Event) -> Phase {
    match event {
        Event::Submitted(_) | Event::Retried => Phase::Queued,
        Event::Claimed(_) => Phase::Starting,
        // One whose container was not made yet goes on with making it; the next event says so.
        Event::Started(_) | Event::Resumed(_) => Phase::Running,
        Event::CancelRequested(_) => Phase::Stopping,
        Event::Cancelled => Phase::Cancelled,
        Event::Rejected(_) => Phase::Rejected,
        Event::Ended(ended) => match (&ended.next, ended.outcome) {
            (Next::Requeue { .. }, _) => Phase::Queued,
            (Next::Final, Outcome::Succeeded) => Phase::Succeeded,
            (Next::Final, Outcome::Cancelled) => Phase::Cancelled,
            (Next::Final, _) => Phase::Failed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{job::JobSpec, lane::Needs, log::Submitted, record};

    fn sample(name: &str) -> Entry {
        let path = format!("{}/tests/samples/v1/entry-{name}.json", env!("CARGO_MANIFEST_DIR"));
        record::read(&std::fs::read(path).expect("a sample"), Entry::VERSION).expect("loads")
    }

    fn subject() -> Subject {
        let spec = JobSpec::new("haul/busybox:1");
        let lane = Needs::of(&spec).lane_id();
        let name = spec.display_name().to_owned();
        Subject { job: "j".parse().expect("valid"), name, team: spec.team, lane }
    }

    #[test]
    fn an_event_says_what_a_receiver_needs() {
        let mut entry = sample("ended-final");
        entry.seq = Seq(3);
        let event = StatusEvent::of(&subject(), &entry);
        let json: serde_json::Value = serde_json::from_str(&event.to_body()).expect("JSON");
        assert_eq!((&json["id"], &json["type"]), (&"j-3".into(), &"job.ended".into()));
        for field in ["job", "name", "team", "lane", "seq", "state", "attempt", "outcome", "by"] {
            assert!(!json["data"][field].is_null(), "{field} is missing: {json:#}");
        }
        assert_eq!(serde_json::from_value::<StatusEvent>(json).expect("reads back"), event);
    }

    /// The state is derived from one entry; the fold derives it from all. They must agree.
    #[test]
    fn the_state_is_the_one_that_the_fold_would_give() {
        let begin = Entry { seq: Seq::FIRST, ..sample("submitted") };
        let Event::Submitted(submitted) = &begin.event else { panic!("a submitted one") };
        let Submitted { spec, .. } = submitted.as_ref();
        assert!(!spec.image.is_empty());
        let histories: [&[&str]; 5] = [
            &["claimed", "started", "ended-final"],
            &["claimed", "started", "ended-requeue"],
            &["claimed", "cancel_requested"],
            &["cancelled", "retried"],
            &["rejected"],
        ];
        for history in histories {
            let mut job = Job::begin("j".parse().expect("valid"), &begin).expect("begins");
            for name in history {
                let mut entry = Entry { seq: job.next, ..sample(name) };
                if let Event::Claimed(claimed) = &mut entry.event {
                    claimed.attempt = job.next_attempt();
                }
                let attempt = job.attempt.unwrap_or(Attempt::FIRST);
                match &mut entry.event {
                    Event::Started(started) => started.attempt = attempt,
                    Event::Ended(ended) => ended.attempt = attempt,
                    _ => {}
                }
                job.apply(&entry).expect("applies");
                assert_eq!(state_after(&entry.event), job.phase(), "{name}");
            }
        }
    }

    #[test]
    fn every_event_of_a_log_has_a_type_that_can_be_filtered_by() {
        for name in [
            "submitted",
            "claimed",
            "started",
            "ended-final",
            "cancel_requested",
            "cancelled",
            "rejected",
            "retried",
        ] {
            let event = StatusEvent::of(&subject(), &sample(name)).event;
            assert_eq!(event.as_str().parse(), Ok(event.clone()));
        }
    }
}
