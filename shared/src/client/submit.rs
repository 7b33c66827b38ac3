//! Submitting a job.

use super::{Client, ClientError, lane_key};
use crate::{
    id::{JobId, Seq},
    index::{Shelf, Summary},
    job::JobSpec,
    lane::{Lane, LaneError, Needs},
    log::{Event, Job, OutputSize, Phase, Put, Submitted},
    record,
    store::Created,
};

/// What became of a submission.
#[derive(Debug, Clone)]
pub struct Submission {
    /// The job.
    pub job: Job,
    /// Whether it is new; `false` where the same job had been submitted under the same id.
    pub new: bool,
}

impl Client {
    /// Submits a job, under a random id or under a given one. When this returns, the job is in
    /// the store and outlives the loss of any node and of the queue. Submitting the same job
    /// twice under one id changes nothing.
    ///
    /// # Errors
    /// [`ClientError::IdInUse`] where another job has the id; [`ClientError`] otherwise. After an
    /// error other than that the job may exist, and submitting again under the same id is safe.
    pub async fn submit(&self, spec: JobSpec, id: Option<JobId>) -> Result<Submission, ClientError> {
        let given = id.is_some();
        let id = id.unwrap_or_else(|| self.chance.job_id());
        if given && let Some(job) = self.log.read(&id).await? {
            return self.again(job, &spec).await;
        }
        let lane = self.ensure_lane(&spec).await?;
        let shelf = Shelf::Sent { lane: lane.id.clone(), team: spec.team.clone() };
        self.index.add_to(&shelf, &self.first_summary(&id, &spec, &lane)).await?;
        let submitted = Submitted { spec: spec.clone(), lane: lane.id.clone() };
        let entry = self.log.draft(Seq::FIRST, Event::Submitted(Box::new(submitted)));
        match self.log.create(&id, &entry).await? {
            Put::Won => {
                let job = Job::begin(id, &entry).map_err(crate::log::LogError::from)?;
                self.send(&job).await?;
                Ok(Submission { job, new: true })
            }
            Put::Lost => {
                let job = self.job(&id).await?;
                if Shelf::of(&job) != shelf {
                    self.index.remove(&shelf, &id).await?;
                }
                self.again(job, &spec).await
            }
        }
    }

    /// The same job once more: the message may have been what was missing.
    async fn again(&self, job: Job, spec: &JobSpec) -> Result<Submission, ClientError> {
        if job.spec != *spec {
            return Err(ClientError::IdInUse(job.id));
        }
        if job.attempt.is_none() {
            self.send(&job).await?;
        }
        Ok(Submission { job, new: false })
    }

    /// The lane of a job's needs, made if it is the first.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn ensure_lane(&self, spec: &JobSpec) -> Result<Lane, ClientError> {
        let lane = Lane::new(Needs::of(spec));
        let found = match self.lane(&lane.id).await? {
            Some(found) => found,
            None => match self.fleet.store.create(&lane_key(&lane.id), record::write(&lane)).await? {
                Created::New => lane.clone(),
                Created::Exists(body) => Lane::read(lane.id.as_str(), &body)?,
            },
        };
        if found.needs != lane.needs {
            return Err(LaneError::Collision(lane.id).into());
        }
        Ok(found)
    }

    fn first_summary(&self, id: &JobId, spec: &JobSpec, lane: &Lane) -> Summary {
        let now = self.now();
        Summary {
            v: Summary::VERSION,
            id: id.clone(),
            name: spec.display_name().to_owned(),
            team: spec.team.clone(),
            priority: spec.priority,
            lane: lane.id.clone(),
            state: Phase::Queued,
            submitted_at: now,
            since: now,
            attempt: None,
            node: None,
            gpus: Vec::new(),
            outcome: None,
            exit_code: None,
            output: OutputSize::default(),
        }
    }
}
