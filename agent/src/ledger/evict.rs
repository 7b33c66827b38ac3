//! Which jobs give way to one that goes before them. Pure.

use std::{cmp::Reverse, collections::BTreeSet};

use shared::{
    id::{JobId, Timestamp},
    job::{JobSpec, Priority},
    lane::When,
};

/// On which terms a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What goes before it.
    pub priority: Priority,
    /// Whether it gives way.
    pub preemptible: bool,
    /// Since when it runs, or else was claimed.
    pub since: Timestamp,
    /// Whether its container runs.
    pub runs: bool,
    /// When it ends at the latest.
    pub until: When,
}

impl Terms {
    /// Of a job that was claimed then.
    pub fn of(spec: &JobSpec, since: Timestamp) -> Self {
        let until = spec.timeout.map_or(When::Unknown, |timeout| When::At(since + timeout.0 + spec.grace.0));
        Self { priority: spec.priority, preemptible: spec.preemptible, since, runs: false, until }
    }

    /// Of a job whose container runs since then.
    pub fn running(spec: &JobSpec, since: Timestamp) -> Self {
        Self { runs: true, ..Self::of(spec, since) }
    }

    /// Whether it gives way to a job of this priority.
    pub(super) fn gives_way_to(&self, priority: Priority) -> bool {
        self.preemptible && self.priority < priority
    }
}

/// A job that may give way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'j> {
    pub(super) job: &'j JobId,
    pub(super) terms: Terms,
    pub(super) gpus: usize,
}

/// Those that must give way, and none more: without any one of them there would not be room. Jobs of a
/// higher priority are spared first. Of such choices the one that frees the fewest GPUs is taken, then the one of
/// the fewest jobs, and of those that are alike the jobs that have run longest are spared. `None` where it would not
/// help.
pub(super) fn choose<'j>(
    candidates: &[Candidate<'j>],
    has_room_without: impl Fn(&BTreeSet<&'j JobId>) -> bool,
) -> Option<BTreeSet<JobId>> {
    let all: BTreeSet<&JobId> = candidates.iter().map(|one| one.job).collect();
    if !has_room_without(&all) {
        return None;
    }
    // Spared in this order, where there is room without them.
    let spare = |order: &[Candidate<'j>]| {
        let mut left = all.clone();
        for one in order {
            left.remove(one.job);
            if !has_room_without(&left) {
                left.insert(one.job);
            }
        }
        left
    };
    let mut large_first = candidates.to_vec();
    large_first.sort_by_key(|one| (Reverse(one.terms.priority), Reverse(one.gpus), one.terms.since));
    let mut small_first = candidates.to_vec();
    small_first.sort_by_key(|one| (Reverse(one.terms.priority), one.gpus, one.terms.since));
    let cost = |left: &BTreeSet<&JobId>| {
        let freed: usize = candidates.iter().filter(|one| left.contains(one.job)).map(|one| one.gpus).sum();
        (freed, left.len())
    };
    let chosen = [spare(&large_first), spare(&small_first)].into_iter().min_by_key(cost)?;
    Some(chosen.into_iter().cloned().collect())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Candidates as `name:priority:gpus:age`, and which of them leave `wanted` GPUs free.
    fn chosen(running: &str, wanted: usize) -> Option<String> {
        let jobs: Vec<(JobId, Terms, usize)> = running
            .split(' ')
            .map(|text| {
                let words: Vec<&str> = text.split(':').collect();
                let [name, priority, gpus, age] = words[..] else { panic!("{text}") };
                let since = Timestamp::from_timestamp(1000 - age.parse::<i64>().expect("a number"), 0);
                let terms = Terms {
                    priority: if *priority == *"low" { Priority::Low } else { Priority::Normal },
                    preemptible: true,
                    since: since.expect("valid"),
                    runs: true,
                    until: When::Unknown,
                };
                (JobId::new(name).expect("valid"), terms, gpus.parse().expect("a number"))
            })
            .collect();
        let candidates: Vec<Candidate<'_>> =
            jobs.iter().map(|(job, terms, gpus)| Candidate { job, terms: *terms, gpus: *gpus }).collect();
        let gpus = |left: &BTreeSet<&JobId>| -> usize {
            candidates.iter().filter(|one| left.contains(one.job)).map(|one| one.gpus).sum()
        };
        let names = choose(&candidates, |left| gpus(left) >= wanted)?;
        Some(names.iter().map(JobId::as_str).collect::<Vec<_>>().join(" "))
    }

    #[rstest]
    // Nobody gives way in vain.
    #[case("a:low:1:1 b:low:1:1", 3, None)]
    // Only one of two, the one that has lost the least.
    #[case("a:low:1:9 b:low:1:5", 1, Some("b"))]
    // The lowest priority, though it has run longer.
    #[case("a:low:1:9 b:normal:1:5", 1, Some("a"))]
    // Not more GPUs than needed.
    #[case("a:low:8:1 b:low:1:9", 1, Some("b"))]
    #[case("a:low:2:5 b:low:1:5 c:low:1:5", 3, Some("a c"))]
    // One job rather than many of the same size together.
    #[case("a:low:2:9 b:low:1:1 c:low:1:1", 2, Some("a"))]
    fn no_more_give_way_than_needed(
        #[case] running: &str,
        #[case] wanted: usize,
        #[case] expected: Option<&str>,
    ) {
        assert_eq!(chosen(running, wanted).as_deref(), expected);
    }
}
