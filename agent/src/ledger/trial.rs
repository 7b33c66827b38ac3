//! What the ends of attempts say of this host, and what follows for the next jobs: see [`super::breaker`].

use shared::{
    id::{JobId, Timestamp},
    job::JobSpec,
};

use super::{Ledger, SOON, Strike};

/// What the end of an attempt says of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It does what it should.
    Well,
    /// The job failed within seconds.
    Soon(Strike),
    /// The job fails wherever it runs.
    JobsOwn,
    /// Nothing.
    Nothing,
}

impl Ledger {
    /// Notes what the end of a job's attempt says of the host.
    pub fn found(&self, job: &JobId, spec: &JobSpec, finding: Finding, now: Timestamp) {
        let mut state = self.state();
        let before = state.breaker.why_closed();
        // It was tried here again, so what comes of it says nothing of other hosts.
        state.breaker.decided(job);
        match finding {
            Finding::Well => state.breaker.well(job),
            Finding::Soon(strike) => state.breaker.strike(strike, now),
            Finding::JobsOwn => {
                state.breaker.acquit(&spec.image, now);
                state.breaker.over(job);
            }
            Finding::Nothing => state.breaker.over(job),
        }
        let after = state.breaker.why_closed();
        if let (None, Some(why)) = (&before, &after) {
            tracing::warn!("this host {why}");
        }
        self.tell_if(before != after);
    }

    /// Lets the time do its part.
    pub fn tick(&self, now: Timestamp) {
        let state = &mut *self.state();
        let before = state.breaker.why_closed();
        let terms = &state.terms;
        let ran_long = |job: &JobId| {
            let since = terms.get(job).filter(|terms| terms.runs).map(|terms| terms.since);
            since.is_some_and(|since| (now - since).to_std().unwrap_or_default() >= SOON)
        };
        state.breaker.tick(now, ran_long);
        self.tell_if(state.breaker.why_closed() != before);
    }

    /// Whether a failure of this image within seconds may be the host's doing.
    pub fn is_in_doubt(&self, image: &str, now: Timestamp) -> bool {
        self.state().breaker.is_in_doubt(image, now)
    }

    /// Whether this job has failed here within seconds before.
    pub fn has_struck(&self, job: &JobId) -> bool {
        self.state().breaker.knows(job)
    }

    /// Jobs that failed here within seconds, of which it may yet be seen how they do elsewhere.
    pub fn undecided(&self) -> Vec<Strike> {
        self.state().breaker.undecided()
    }

    /// Notes how a job that failed here does elsewhere: whether it runs, or fails as well, or nobody will know.
    pub fn seen_elsewhere(&self, strike: &Strike, runs: Option<bool>, now: Timestamp) {
        let mut state = self.state();
        let before = state.breaker.why_closed();
        match runs {
            Some(true) => state.breaker.convict(&strike.job),
            Some(false) => state.breaker.acquit(&strike.image, now),
            None => state.breaker.decided(&strike.job),
        }
        self.tell_if(state.breaker.why_closed() != before);
    }
}
