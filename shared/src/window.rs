//! The window: how teams share a lane.
//!
//! A team has at most `window` messages in a lane's queue; its further jobs are parked in the store,
//! and each claim of one of its jobs sends its oldest parked one. So a team with one job waits behind
//! a window of another's at most, never behind its thousand. (Claims that are under way at the same
//! moment may make it a few more; every eighth claim looks, and leaves the place free then.)
//!
//! The count is of the markers on the sent shelf. A submit that finds the window full parks the job
//! *and then* looks once more; a claim takes its job from the sent shelf *and then* looks for parked
//! ones. Of a submit and the last claim before it, at least one therefore sees the other, and no job
//! stays parked beside an empty queue. Several that release at once take different jobs: the sent
//! marker is created by put-if-absent, and whoever finds it taken goes on to the next. What a crash
//! leaves between two of these steps, the sweep releases.

use std::time::Duration;

use crate::{
    clock::Chance,
    fleet::Fleet,
    id::{LaneId, Team},
    index::{Index, Marker, Summary, Waits},
    log::{Log, LogError},
    message::Message,
    queue::{Outgoing, Queue, QueueError, QueueName},
    store::StoreError,
};

/// Why nothing was released.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A job's log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The queue did not answer.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// How often a claim looks whether the window is full: a listing, which is paid for as a write.
const LOOK: f64 = 0.125;

/// The windows of a fleet.
pub struct Window {
    fleet: Fleet,
    index: Index,
    log: Log,
    chance: Chance,
}

impl Window {
    /// Of this fleet; `log` reads the jobs.
    pub fn new(fleet: Fleet, log: Log, chance: Chance) -> Self {
        let index = Index::new(fleet.store.clone());
        Self { fleet, index, log, chance }
    }

    /// How many more of a team's jobs may be sent to a lane.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn room(&self, lane: &LaneId, team: &Team) -> Result<usize, StoreError> {
        let sent = self.index.shelf(Waits::Sent, lane, Some(team)).await?.len();
        Ok((self.fleet.settings().window as usize).saturating_sub(sent))
    }

    /// Whether one more job of a team is to be sent. The last place is a claim's that is under way, if any
    /// job is parked which that claim is about to send there.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn has_room(&self, lane: &LaneId, team: &Team) -> Result<bool, StoreError> {
        Ok(match self.room(lane, team).await? {
            0 => false,
            1 => self.index.sample(Waits::Parked, lane, team, &self.chance).await?.is_empty(),
            _ => true,
        })
    }

    /// How many more of a team's jobs are to be sent beside a claim that is under way, which is about to
    /// send one. So one place is left, where there is more than one: what is sent already will be claimed,
    /// and that claim looks for what was parked meanwhile.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn spare_room(&self, lane: &LaneId, team: &Team) -> Result<usize, StoreError> {
        let room = self.room(lane, team).await?;
        Ok(if self.fleet.settings().window > 1 { room.saturating_sub(1) } else { room })
    }

    /// The place that a claim has left is taken by the team's next parked job. Now and then it is left
    /// free if the window is full all the same: several that send at once may have sent too many.
    ///
    /// # Errors
    /// [`WindowError`]
    pub async fn follow(&self, lane: &LaneId, team: &Team) -> Result<usize, WindowError> {
        if self.chance.happens(LOOK) && self.room(lane, team).await? == 0 {
            return Ok(0);
        }
        self.release(lane, team, 1).await
    }

    /// Sends up to so many of a team's parked jobs, the oldest first; of more than a thousand, the
    /// oldest of those that one look sees. Returns how many.
    ///
    /// # Errors
    /// [`WindowError`]; some may have been sent then.
    pub async fn release(&self, lane: &LaneId, team: &Team, most: usize) -> Result<usize, WindowError> {
        let mut released = 0;
        // Others release as well, about as many as the window is wide, and the list is old the moment it is
        // read. Whoever comes too late goes on somewhere else, the further the more often; and who passed
        // jobs over looks again, for nobody else may come by.
        let mut stride = self.fleet.settings().window as usize;
        let mut late = false;
        let mut passed_over = true;
        while passed_over && released < most {
            passed_over = false;
            let parked = self.index.sample(Waits::Parked, lane, team, &self.chance).await?;
            let mut next = 0;
            while released < most
                && let Some(aged) = parked.get(next)
            {
                next += 1;
                match self.release_one(&aged.marker, late).await? {
                    Found::Sent => released += 1,
                    Found::Astray => {}
                    Found::Taken => {
                        let left = (parked.len() - next).max(1);
                        let skip = self.chance.below(stride.min(left));
                        passed_over |= skip > 0;
                        next += skip;
                        stride = stride.saturating_mul(2);
                        late = true;
                    }
                }
            }
        }
        Ok(released)
    }

    /// `late`: that others are ahead is known already, so that a look at the marker is cheaper.
    async fn release_one(&self, parked: &Marker, late: bool) -> Result<Found, WindowError> {
        if late && !self.index.has(parked).await? {
            return Ok(Found::Taken);
        }
        let Some(job) = self.log.read_on(&parked.job).await? else { return Ok(Found::Astray) };
        let Some(message) = Message::of(&job) else {
            if !late && !self.index.has(parked).await? {
                return Ok(Found::Taken);
            }
            // It was cancelled while it was parked, say: it belongs elsewhere.
            self.index.add(&job).await?;
            self.index.remove(parked).await?;
            return Ok(Found::Astray);
        };
        let found = if self.index.create(&Marker::of(&job), &Summary::of(&job)).await? {
            let outgoing = Outgoing::new(job.spec.team.clone(), message.to_body());
            self.fleet.queue.deliver(&QueueName::from(&job.lane), &outgoing, Duration::ZERO).await?;
            Found::Sent
        } else {
            Found::Taken
        };
        self.index.remove(parked).await?;
        Ok(found)
    }
}

/// What a parked job turned out to be.
enum Found {
    /// Waiting; it has been sent.
    Sent,
    /// Sent by somebody else since it was listed.
    Taken,
    /// Nothing that waits: not submitted yet, or at its end.
    Astray,
}
