//! How many machines are wanted: gathers what [`demand`] decides by.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};

use super::{Client, ClientError, explain::alive};
use crate::{
    demand::{Demands, Waiting, demand},
    id::LaneId,
    index::{Marker, Shelf},
    lane::Needs,
    log::{Job, State},
    node::Share,
};

/// How many logs are read at once.
const PARALLEL: usize = 64;

/// How many jobs of a lane are read; the rest are taken to be like these.
const READ: usize = 256;

impl Client {
    /// How many machines of each pool of the fleet's settings are wanted.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn demands(&self) -> Result<Demands, ClientError> {
        let pools = self.fleet.settings().pools.clone();
        let (nodes, markers) = futures::join!(self.nodes(), self.index.waiting());
        let (nodes, mut markers) = (nodes?, markers?);
        markers.sort_by(|a, b| (a.modified, &a.marker).cmp(&(b.modified, &b.marker)));
        let mut lanes: BTreeMap<LaneId, Vec<Marker>> = BTreeMap::new();
        for aged in markers {
            if let Shelf::Parked { lane, .. } | Shelf::Sent { lane, .. } = &aged.marker.shelf {
                lanes.entry(lane.clone()).or_default().push(aged.marker);
            }
        }
        let now = self.now();
        let mut waiting = Vec::new();
        for markers in lanes.into_values() {
            let read: Vec<_> = stream::iter(markers.iter().take(READ))
                .map(|marker| self.log.read_on(&marker.job))
                .buffered(PARALLEL)
                .collect()
                .await;
            let mut like = None;
            for job in read {
                // One that was claimed or forgotten meanwhile waits no more.
                if let Some(job) = job?.as_ref().and_then(waits) {
                    like = Some(job.clone());
                    waiting.push(job);
                }
            }
            let rest = markers.iter().skip(READ).zip(like.iter().cycle());
            waiting.extend(rest.map(|(marker, like)| Waiting { job: marker.job.clone(), ..like.clone() }));
        }
        let nodes: Vec<_> = alive(&nodes).collect();
        Ok(demand(&pools, &nodes, waiting, now))
    }
}

fn waits(job: &Job) -> Option<Waiting> {
    let State::Queued { since, not_before, .. } = &job.state else { return None };
    // One that pauses asks for nothing yet.
    let since = not_before.map_or(*since, |not_before| not_before.max(*since));
    let is_for_agents = !job.local;
    is_for_agents.then(|| Waiting {
        job: job.id.clone(),
        needs: Needs::of(&job.spec),
        share: Share::of(&job.spec, job.memory()),
        since,
    })
}
