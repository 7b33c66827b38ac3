//! What must be true once a fleet has come to rest.

use shared::{
    client::Client,
    log::{Job, Outcome, Phase, State},
    output::Chunks,
};

use crate::fleet::Fleet;

/// Why the fleet is not at rest yet, or nothing.
pub fn unrest(fleet: &Fleet) -> Option<String> {
    let watch = fleet.world().watch();
    for (id, seen) in &watch.jobs {
        // Without a log there is no job, and a marker of none waits an hour for the sweep.
        let Some(job) = &seen.job else { continue };
        if !job.phase().is_final() {
            return Some(format!("{id} is {}", job.phase()));
        }
        let others = seen.markers.iter().filter(|key| !key.starts_with("index/done/")).count();
        if job.phase().is_final() && others > 0 {
            return Some(format!("{id} is done and has markers {:?}", seen.markers));
        }
    }
    drop(watch);
    let left = fleet.containers();
    (!left.is_empty()).then(|| format!("containers are left: {left:?}"))
}

/// Checks all that can be checked only now.
pub async fn check(fleet: &Fleet, client: &Client) {
    let jobs: Vec<(Job, bool)> = {
        let watch = fleet.world().watch();
        let mut lost = watch.jobs.iter().filter(|(_, seen)| seen.acknowledged && seen.job.is_none());
        if let Some((id, _)) = lost.next() {
            let what = format!("(6) {id} was acknowledged and is not there");
            drop(watch);
            return fleet.world().watch().breaks(fleet.world(), what);
        }
        watch.jobs.values().filter_map(|seen| Some((seen.job.clone()?, seen.acknowledged))).collect()
    };
    for (job, _) in jobs {
        if let Some(what) = wrong(fleet, client, &job).await {
            fleet.world().watch().breaks(fleet.world(), what);
        }
    }
}

async fn wrong(fleet: &Fleet, client: &Client, job: &Job) -> Option<String> {
    let id = &job.id;
    let State::Done { phase, outcome, output, .. } = &job.state else { return None };
    if !fleet.world().watch().jobs[id].markers.iter().any(|key| key.starts_with("index/done/")) {
        return Some(format!("(6) {id} is done and not on the shelf of what is done"));
    }
    let (Phase::Succeeded | Phase::Failed, Some(attempt)) = (phase, job.attempt) else { return None };
    let over = fleet.world().watch().over.get(&(id.clone(), attempt)).cloned();
    if *phase == Phase::Succeeded && over.as_ref().is_none_or(|over| over.code != 0) {
        return Some(format!("(1) {id} has succeeded, and its container has not"));
    }
    if !matches!(outcome, Some(Outcome::Succeeded | Outcome::Exited)) {
        return None;
    }
    let Some(over) = over else { return Some(format!("(1) {id} has exited without a container")) };
    let chunks = Chunks::new(client.fleet().store.clone(), id.clone(), attempt);
    let mut stored = Vec::new();
    for chunk in 0..output.chunks {
        match chunks.read(chunk).await {
            Ok(Some(records)) => stored.extend(records),
            other => return Some(format!("(4) chunk {chunk} of {id} is {other:?}")),
        }
    }
    let printed = over.frames.iter().map(|frame| (frame.at, frame.bytes.to_vec()));
    let same = printed.eq(stored.iter().map(|record| (record.at, record.bytes.clone())));
    (!same).then(|| {
        let (printed, stored) = (over.frames.len(), stored.len());
        format!("(4) the output of {id} attempt {attempt} differs: {printed} lines printed, {stored} stored")
    })
}
