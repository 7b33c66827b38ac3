use proptest::prelude::*;
use shared::{
    id::{Attempt, GpuUuid, Incarnation, LaneId, NodeId, Nonce, Seq, Timestamp},
    index::Marker,
    job::JobSpec,
    log::{Author, Claimed, Ended, Entry, Event, Next, Outcome, OutputSize, Started, Submitted},
    node::Share,
};

use super::*;
use crate::{
    engine::{ContainerId, ContainerState},
    execute::Stage,
    ledger::Holding,
};

fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("valid")
}

fn id(name: &str) -> JobId {
    JobId::new(name).expect("valid")
}

/// What a job's log says.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Was {
    Queued,
    Claimed,
    Started,
    HeldElsewhere,
    Requeued,
    Done,
}

const ALL: [Was; 6] = [Was::Queued, Was::Claimed, Was::Started, Was::HeldElsewhere, Was::Requeued, Was::Done];

fn job(name: &str, was: Was) -> Job {
    job_of(name, was, "i", &[])
}

/// The same, claimed by this run of its agent, with these GPUs.
fn job_of(name: &str, was: Was, run: &str, gpus: &[GpuUuid]) -> Job {
    let claimed = |by: &str| {
        let incarnation = Incarnation::new(run).expect("valid");
        Event::Claimed(Claimed { attempt: Attempt(1), node: node(by), incarnation, gpus: gpus.to_vec() })
    };
    let started = Event::Started(Started {
        attempt: Attempt(1),
        container: "c".into(),
        image: "i".into(),
        started_at: Timestamp::UNIX_EPOCH,
    });
    let ended = |next| {
        Event::Ended(Box::new(Ended {
            attempt: Attempt(1),
            outcome: Outcome::Exited,
            exit_code: Some(1),
            message: None,
            next,
            output: OutputSize::default(),
            started_at: None,
            finished_at: None,
            usage: None,
        }))
    };
    let mut events = vec![Event::Submitted(Box::new(Submitted {
        spec: JobSpec::new("i"),
        lane: LaneId::new("l").expect("valid"),
        local: false,
    }))];
    match was {
        Was::Queued => {}
        Was::Claimed => events.push(claimed("me")),
        Was::Started => events.extend([claimed("me"), started]),
        Was::HeldElsewhere => events.push(claimed("other")),
        Was::Requeued => {
            events.extend([claimed("me"), ended(Next::Requeue { not_before: None, avoid: None })]);
        }
        Was::Done => events.extend([claimed("me"), ended(Next::Final)]),
    }
    let entry = |(seq, event)| Entry {
        v: 1,
        seq: Seq(seq),
        at: Timestamp::UNIX_EPOCH,
        author: Author::Client("me".into()),
        nonce: Nonce::new("n").expect("valid"),
        event,
    };
    let entries: Vec<Entry> = (0..).zip(events).map(entry).collect();
    Job::fold(id(name), &entries).expect("a history").expect("entries")
}

fn container(name: &str, attempt: u32, state: ContainerState) -> Container {
    let holding = Holding { attempt: Attempt(attempt), gpus: vec![], share: Share::default() };
    let on_isolation = shared::job::OnIsolation::Freeze;
    let owner = Owner { job: id(name), attempt: Attempt(attempt), holding, on_isolation };
    Container {
        id: ContainerId::new(format!("{name}-{attempt}")),
        name: format!("haul-{name}-{attempt}"),
        labels: owner.labels("file:///f", &node("me"), "i", "sha256:1"),
        state,
        started_at: None,
        exit: None,
    }
}

/// A marker of a job's first attempt on this node's shelf.
fn marker(job: &str) -> Marker {
    Marker::held(&id(job), &node("me"), Attempt(1))
}

/// What is done with one job and its one container, in a word.
fn fate(was: Was, container: Option<Container>, on_shelf: bool) -> String {
    let markers = if on_shelf { vec![marker("j")] } else { vec![] };
    let jobs = BTreeMap::from([(id("j"), job("j", was))]);
    let plan = plan::plan(&node("me"), None, container.into_iter().collect(), markers, jobs);
    let mut fate = Vec::new();
    fate.extend(plan.resume.iter().map(|(_, _, stage)| stage.to_string()));
    fate.extend(plan.settle.iter().map(|_| "settle".to_owned()));
    fate.extend(plan.remove.iter().map(|_| "remove".to_owned()));
    fate.join(", ")
}

#[test]
fn what_is_gone_after_the_machine_went_down_was_lost_with_it() {
    let jobs = BTreeMap::from([(id("j"), job("j", Was::Started))]);
    let stage = |booted: i64| {
        let booted = Timestamp::from_timestamp(booted, 0);
        let plan = plan::plan(&node("me"), booted, Vec::new(), vec![marker("j")], jobs.clone());
        plan.resume[0].2.to_string()
    };
    // It was started at 0.
    assert_eq!([1, -1].map(stage), ["lost", "gone"]);
}

#[test]
fn what_the_engine_calls_unstarted_after_the_machine_went_down_was_lost_with_it() {
    let jobs = BTreeMap::from([(id("j"), job("j", Was::Claimed))]);
    let stage = |booted: i64| {
        let booted = Timestamp::from_timestamp(booted, 0);
        let made = vec![container("j", 1, ContainerState::Created)];
        plan::plan(&node("me"), booted, made, vec![marker("j")], jobs.clone()).resume[0].2.to_string()
    };
    assert_eq!([1, -1].map(stage), ["lost", "made"]);
}

#[test]
fn what_is_ours_is_taken_up_where_it_stands() {
    let of = |state| Some(container("j", 1, state));
    assert_eq!(fate(Was::Claimed, None, true), "claimed");
    assert_eq!(fate(Was::Claimed, of(ContainerState::Created), true), "made");
    assert_eq!(fate(Was::Claimed, of(ContainerState::Running), true), "started");
    assert_eq!(fate(Was::Started, of(ContainerState::Running), true), "started");
    assert_eq!(fate(Was::Started, of(ContainerState::Exited), true), "started");
    assert_eq!(fate(Was::Started, None, true), "gone");
}

#[test]
fn what_is_not_ours_is_removed_and_tidied() {
    let running = || Some(container("j", 1, ContainerState::Running));
    assert_eq!(fate(Was::Done, running(), true), "settle, remove");
    assert_eq!(fate(Was::Done, None, true), "settle");
    assert_eq!(fate(Was::Requeued, running(), true), "settle, remove");
    assert_eq!(fate(Was::HeldElsewhere, running(), true), "settle, remove");
    assert_eq!(fate(Was::Done, running(), false), "remove");
    // Of an attempt that is not the one that is held.
    assert_eq!(fate(Was::Started, Some(container("j", 2, ContainerState::Running)), true), "gone, remove");
}

#[test]
fn a_claim_that_may_still_come_keeps_its_marker() {
    let jobs = BTreeMap::from([(id("j"), job("j", Was::Queued))]);
    let plan = plan::plan(&node("me"), None, Vec::new(), vec![marker("j")], jobs);
    assert!(plan.over.is_empty() && plan.settle.is_empty(), "{plan:?}");
    let of_the_next = Marker::held(&id("j"), &node("me"), Attempt(2));
    let jobs = BTreeMap::from([(id("j"), job("j", Was::Requeued))]);
    let plan = plan::plan(&node("me"), None, Vec::new(), vec![marker("j"), of_the_next], jobs);
    assert_eq!((plan.over, plan.settle.len()), (vec![marker("j")], 1));
}

#[test]
fn a_claim_that_came_late_gets_no_gpu_that_was_given_out_since() {
    let gpu = |name: &str| vec![GpuUuid::new(format!("GPU-{name}")).expect("valid")];
    let resumed = |since: (&str, Was, &str), late: (&str, Was, &str)| {
        let jobs = [since, late].map(|(name, was, run)| (id(name), job_of(name, was, run, &gpu("1"))));
        let plan =
            plan::plan(&node("me"), None, Vec::new(), vec![marker("since"), marker("late")], jobs.into());
        assert!(plan.over.is_empty(), "its marker is what the sweep finds it by");
        plan.resume.into_iter().map(|(job, ..)| job.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(resumed(("since", Was::Started, "two"), ("late", Was::Claimed, "one")), ["since"]);
    // Of one run, which gave out shares.
    assert_eq!(resumed(("since", Was::Started, "two"), ("late", Was::Claimed, "two")).len(), 2);
    // Neither was begun, so either may be tried again.
    assert!(resumed(("since", Was::Claimed, "two"), ("late", Was::Claimed, "one")).is_empty());
    let jobs =
        [("a", "1"), ("b", "2")].map(|(name, on)| (id(name), job_of(name, Was::Claimed, name, &gpu(on))));
    assert_eq!(plan::plan(&node("me"), None, Vec::new(), Vec::new(), jobs.into()).resume.len(), 2);
}

#[test]
fn what_nobody_knows_is_forgotten() {
    let mut stranger = container("x", 1, ContainerState::Running);
    stranger.labels.clear();
    let plan = plan::plan(&node("me"), None, vec![stranger], vec![marker("ghost")], BTreeMap::new());
    assert_eq!((plan.remove.len(), plan.over), (1, vec![marker("ghost")]));
    assert!(plan.resume.is_empty() && plan.settle.is_empty());
}

proptest! {
    /// Whatever is found: each job gets one fate at most, each container is either taken up or
    /// removed, and nothing that another node holds is taken up.
    #[test]
    fn everything_found_has_one_fate(
        found in prop::collection::vec((0..6usize, any::<bool>(), prop::option::of((1..3u32, 0..3usize))), 0..8),
    ) {
        let states = [ContainerState::Created, ContainerState::Running, ContainerState::Exited];
        let (mut jobs, mut containers, mut markers) = (BTreeMap::new(), Vec::new(), Vec::new());
        for (i, (was, on_shelf, made)) in found.iter().enumerate() {
            let name = format!("j{i}");
            jobs.insert(id(&name), job(&name, ALL[*was]));
            if *on_shelf {
                markers.push(marker(&name));
            }
            containers.extend(made.map(|(attempt, state)| container(&name, attempt, states[state])));
        }
        let count = containers.len();
        let plan = plan::plan(&node("me"), None, containers, markers.clone(), jobs.clone());
        let resumed: BTreeSet<JobId> = plan.resume.iter().map(|(job, ..)| job.id.clone()).collect();
        let settled: BTreeSet<JobId> = plan.settle.iter().map(|(job, _)| job.id.clone()).collect();
        prop_assert_eq!(resumed.len(), plan.resume.len());
        prop_assert!(resumed.is_disjoint(&settled));
        for job in &resumed {
            prop_assert!(jobs[job].held().is_some_and(|claim| claim.node == node("me")));
        }
        for marker in &markers {
            let job = &jobs[&marker.job];
            let held = job.is_held_by(&node("me"), marker.round);
            let may_come = job.is_waiting() && job.next_attempt() == marker.round;
            prop_assert_eq!(!held && !may_come, plan.over.contains(marker));
        }
        for (job, held) in &jobs {
            if held.held().is_some_and(|claim| claim.node == node("me")) {
                prop_assert!(resumed.contains(job), "{} is held here and left lying", job);
            }
        }
        let taken = plan.resume.iter().filter(|(.., stage)| matches!(stage, Stage::Made(_) | Stage::Started(_))).count();
        prop_assert_eq!(taken + plan.remove.len(), count);
    }
}
