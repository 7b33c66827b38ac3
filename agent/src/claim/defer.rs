//! Leaving a job to others that are better for it, for a while: to hosts that are paid for anyway
//! (`claim_after`), and for a short head start to one with room that has more of the labels that it prefers,
//! or its image, which for deep learning is 10 GB.

use std::{collections::BTreeMap, time::Duration};

use shared::{id::Timestamp, lane::Misfit, log::Job, node::NodeRecord};

use super::{others, take};
use crate::node::Node;

/// How long a job is left to another that is better for it.
const HEAD_START: Duration = Duration::from_secs(10);

/// How good a host is for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Suit {
    /// How many of the labels that it prefers the host has.
    preferred: usize,
    /// Whether it has the image.
    image: bool,
}

impl Suit {
    fn of(job: &Job, labels: &BTreeMap<String, String>, image: bool) -> Self {
        let prefer = &job.spec.placement.prefer;
        Self {
            preferred: prefer.iter().filter(|(key, value)| labels.get(*key) == Some(value)).count(),
            image,
        }
    }
}

/// For how long yet a job is left to others; `None` where this node may take it.
pub(super) async fn left(node: &Node, job: &Job, sent_at: Timestamp) -> Option<Duration> {
    if job.local {
        return None;
    }
    let (waited, claim_after) = (since(node, sent_at), node.config.claim_after.0);
    if let Some(rest) = rest(claim_after, waited) {
        return Some(rest);
    }
    let rest = rest(claim_after + HEAD_START, waited)?;
    let own = Suit::of(job, &node.config.labels, has_image(node, job).await);
    let best = Suit { preferred: job.spec.placement.prefer.len(), image: true };
    if own == best {
        return None;
    }
    let better = |other: &NodeRecord| {
        let image = other.images.contains(&job.spec.image);
        other.claim_after.0 <= waited && Suit::of(job, &other.offer.labels, image) > own
    };
    if !others::have_room(node, job, better).await {
        return None;
    }
    take::refuse(node, &job.lane, &job.id, vec![Misfit::LeftToOthers]);
    Some(rest)
}

/// How long a message has been in its queue.
pub(super) fn since(node: &Node, sent_at: Timestamp) -> Duration {
    (node.clock.now() - sent_at).to_std().unwrap_or_default()
}

/// What is left of this time.
pub(super) fn rest(of: Duration, waited: Duration) -> Option<Duration> {
    of.checked_sub(waited).filter(|rest| !rest.is_zero())
}

/// Whether the host has the job's image; one whose engine does not say so counts as having it.
async fn has_image(node: &Node, job: &Job) -> bool {
    let image = &job.spec.image;
    node.images.has(image) || !matches!(node.engine.image(image).await, Ok(None))
}
