//! How jobs that failed here within seconds do elsewhere.

use shared::log::{Claim, Job, Outcome, Phase, State};

use crate::{
    ledger::{SOON, Strike},
    node::Node,
};

/// Looks at the logs of those of which it may yet be seen. Nobody waits for it: what cannot be read is read at the
/// next look.
pub(super) async fn look(node: &Node) {
    for strike in node.ledger.undecided() {
        let Ok(Some(job)) = node.log.read(&strike.job).await else { continue };
        match elsewhere(node, &job, &strike) {
            Seen::NotYet => {}
            Seen::Never => node.ledger.seen_elsewhere(&strike, None, node.clock.now()),
            Seen::Runs => {
                tracing::warn!(job = %job.id, "it failed here within seconds, and runs elsewhere");
                node.ledger.seen_elsewhere(&strike, Some(true), node.clock.now());
            }
            Seen::Fails => {
                tracing::info!(job = %job.id, "it fails elsewhere as well, so it is not this host");
                node.ledger.seen_elsewhere(&strike, Some(false), node.clock.now());
            }
        }
    }
}

/// How a job does elsewhere.
enum Seen {
    Runs,
    Fails,
    NotYet,
    Never,
}

fn elsewhere(node: &Node, job: &Job, strike: &Strike) -> Seen {
    let later = job.attempt.is_some_and(|attempt| attempt > strike.attempt);
    match &job.state {
        State::Held(Claim { started: Some(started), node: other, .. }) if later && *other != node.id => {
            let runs = node.clock.now() - started.started_at;
            if runs.to_std().unwrap_or_default() >= SOON { Seen::Runs } else { Seen::NotYet }
        }
        State::Done { phase: Phase::Succeeded, .. } if later => Seen::Runs,
        State::Done { outcome: Some(Outcome::Exited), .. }
        | State::Queued { last: Some(Outcome::Exited), .. }
            if later =>
        {
            Seen::Fails
        }
        State::Done { .. } => Seen::Never,
        State::Held(_) | State::Queued { .. } => Seen::NotYet,
    }
}
