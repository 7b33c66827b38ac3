//! Submitting a job.

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
};

use super::{Client, ClientError, lane_key};
use crate::{
    event::Told,
    id::{Attempt, JobId, LaneId, Seq, Team},
    index::{GRACE, Marker, Shelf, Summary},
    job::JobSpec,
    lane::{Lane, LaneError, Needs},
    log::{Event, Job, LogError, OutputSize, Phase, Put, State, Submitted},
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

/// How a job is submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// By itself.
    Alone,
    /// With others that have its needs and its team: one look at the window is enough for all.
    OneOfMany,
    /// For this process alone.
    Local,
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
        self.submit_as(spec, id, Kind::Alone).await
    }

    /// Submits one of several jobs with the same needs and team. [`Client::submitted`] must follow, after
    /// a few of them at the latest: until then those that are parked may wait beside an empty queue.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn submit_one_of_many(
        &self,
        spec: JobSpec,
        id: Option<JobId>,
    ) -> Result<Submission, ClientError> {
        self.submit_as(spec, id, Kind::OneOfMany).await
    }

    /// Sends what is parked beside this job, and for which there is room by now.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn submitted(&self, job: &Job) -> Result<(), ClientError> {
        let (lane, team, window) = (&job.lane, &job.spec.team, self.window());
        let room = window.spare_room(lane, team).await?;
        self.note_full(lane, team, room == 0);
        if room > 0 {
            window.release(lane, team, room).await?;
        }
        Ok(())
    }

    /// Submits a job that nobody but this process runs, for as long as it lives.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub async fn submit_local(&self, spec: JobSpec, id: JobId) -> Result<Submission, ClientError> {
        self.submit_as(spec, Some(id), Kind::Local).await
    }

    async fn submit_as(
        &self,
        spec: JobSpec,
        id: Option<JobId>,
        kind: Kind,
    ) -> Result<Submission, ClientError> {
        let local = kind == Kind::Local;
        let given = id.is_some();
        let id = id.unwrap_or_else(|| self.chance.job_id());
        // Almost always there is none: one read then, where a listing is paid for as a write.
        if given && let Some(job) = self.log.read_on(&id).await? {
            return self.again(job, &spec).await;
        }
        let lane = self.ensure_lane(&spec).await?;
        let (lane_id, team) = (lane.id.clone(), spec.team.clone());
        let window = self.window();
        let sent = Shelf::Sent { lane: lane_id.clone(), team: team.clone() };
        let shelf = if local || (!self.was_full(&lane_id, &team) && window.has_room(&lane_id, &team).await?) {
            sent.clone()
        } else {
            Shelf::Parked { lane: lane_id.clone(), team: team.clone() }
        };
        let marker = Marker { shelf: shelf.clone(), job: id.clone(), round: Attempt::FIRST };
        let began = self.clock.elapsed();
        let summary = self.first_summary(&id, &spec, &lane);
        self.index.put(&marker, &summary).await?;
        let submitted = Submitted { spec: spec.clone(), lane: lane_id.clone(), local };
        let entry = self.log.draft(Seq::FIRST, Event::Submitted(Box::new(submitted)));
        match self.log.create(&id, &entry).await? {
            Put::Won => {
                let job = Job::begin(id, &entry).map_err(LogError::from)?;
                if self.clock.elapsed().saturating_sub(began) > GRACE / 2 {
                    // A sweep may have taken it for one that leads nowhere.
                    self.index.put(&marker, &summary).await?;
                }
                let told = self.tell(&job, &entry).await;
                if shelf == sent {
                    self.send(&job, told).await?;
                } else if kind == Kind::Alone {
                    self.submitted(&job).await?;
                }
                Ok(Submission { job, new: true })
            }
            Put::Lost => {
                let job = self.job(&id).await?;
                // Where it waits, the marker may be what an earlier submission of it put there.
                if !matches!(job.state, State::Queued { .. }) {
                    self.index.remove(&marker).await?;
                }
                self.again(job, &spec).await
            }
        }
    }

    /// Whether the team's window was full when a job was last parked behind it. Then the next one is
    /// parked without a look before: the look after it, which must be made anyway, is enough.
    fn was_full(&self, lane: &LaneId, team: &Team) -> bool {
        let full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        full.contains(&(lane.clone(), team.clone()))
    }

    fn note_full(&self, lane: &LaneId, team: &Team, is_full: bool) {
        let mut full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
        let window = (lane.clone(), team.clone());
        if is_full {
            full.insert(window)
        } else {
            full.remove(&window)
        };
    }

    /// The same job once more: the message may have been what was missing.
    async fn again(&self, job: Job, spec: &JobSpec) -> Result<Submission, ClientError> {
        if job.spec != *spec {
            return Err(ClientError::IdInUse(job.id));
        }
        if job.attempt.is_none() {
            self.send(&job, Told::default()).await?;
        }
        Ok(Submission { job, new: false })
    }

    /// The lane of a job's needs, made if it is the first.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn ensure_lane(&self, spec: &JobSpec) -> Result<Lane, ClientError> {
        let lane = Lane::new(Needs::of(spec));
        let known = self.known_lanes().get(&lane.id).cloned();
        let found = match known {
            Some(known) => known,
            None => self.find_or_make(&lane).await?,
        };
        if found.needs != lane.needs {
            return Err(LaneError::Collision(lane.id).into());
        }
        Ok(found)
    }

    fn known_lanes(&self) -> MutexGuard<'_, BTreeMap<LaneId, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn find_or_make(&self, lane: &Lane) -> Result<Lane, ClientError> {
        let found = match self.lane(&lane.id).await? {
            Some(found) => found,
            None => match self.fleet.store.create(&lane_key(&lane.id), record::write(lane)).await? {
                Created::New => lane.clone(),
                Created::Exists(body) => Lane::read(lane.id.as_str(), &body)?,
            },
        };
        self.known_lanes().insert(found.id.clone(), found.clone());
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
