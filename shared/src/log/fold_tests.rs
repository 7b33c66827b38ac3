use proptest::prelude::*;

use super::*;
use crate::{
    id::{JobName, Nonce, Team},
    lane::Needs,
    log::{Author, CancelRequested, Policy, Resumed, next_step, second_opinion},
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_700_000_000 + seconds, 0).expect("in range")
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("valid")
}

fn entry(seq: u64, event: Event) -> Entry {
    let author = Author::Client("me@here".into());
    let at = at(i64::try_from(seq).expect("small"));
    Entry { v: 1, seq: Seq(seq), at, author, nonce: Nonce::new("n").expect("valid"), event }
}

fn submitted(spec: JobSpec) -> Event {
    let lane = Needs::of(&spec).lane_id();
    Event::Submitted(Box::new(Submitted { spec, lane, local: false }))
}

fn claimed(attempt: u32) -> Event {
    let incarnation = Incarnation::new("i").expect("valid");
    Event::Claimed(Claimed { attempt: Attempt(attempt), node: node("a"), incarnation, gpus: vec![] })
}

fn started(attempt: u32) -> Event {
    let (container, image) = ("c".to_owned(), "sha256:1".to_owned());
    Event::Started(Started { attempt: Attempt(attempt), container, image, started_at: at(0) })
}

fn resumed(attempt: u32) -> Event {
    let incarnation = Incarnation::new("later").expect("valid");
    Event::Resumed(Resumed { attempt: Attempt(attempt), incarnation })
}

fn ended(attempt: u32, outcome: Outcome, exit_code: Option<i64>, next: Next) -> Event {
    Event::Ended(Box::new(Ended {
        attempt: Attempt(attempt),
        outcome,
        exit_code,
        message: None,
        next,
        output: OutputSize::default(),
        started_at: None,
        finished_at: None,
        usage: None,
    }))
}

fn again() -> Next {
    Next::Requeue { not_before: None, avoid: None }
}

fn fold(events: &[Event]) -> Result<Job, FoldError> {
    let entries: Vec<Entry> = events.iter().cloned().enumerate().map(|(i, e)| entry(i as u64, e)).collect();
    Job::fold(JobId::new("j").expect("valid"), &entries).map(|job| job.expect("entries"))
}

fn spec() -> JobSpec {
    JobSpec { name: Some(JobName::new("n").expect("valid")), team: Team::default(), ..JobSpec::new("i") }
}

#[test]
fn a_job_runs_from_submitted_to_succeeded() {
    let events =
        [submitted(spec()), claimed(1), started(1), ended(1, Outcome::Succeeded, Some(0), Next::Final)];
    let phases: Vec<Phase> = (1..=4).map(|n| fold(&events[..n]).expect("valid").phase()).collect();
    assert_eq!(phases, [Phase::Queued, Phase::Starting, Phase::Running, Phase::Succeeded]);
    assert_eq!(fold(&events).expect("valid").exit_status(), Some(0));
}

#[test]
fn a_second_claim_of_a_held_job_is_no_history() {
    let error = fold(&[submitted(spec()), claimed(1), claimed(2)]).expect_err("impossible");
    assert_eq!(
        error.to_string(),
        "the log of job j has \"claimed\" at 0000000002, which cannot happen to a job that is starting"
    );
}

#[test]
fn an_end_of_another_attempt_is_no_history() {
    let events = [
        submitted(spec()),
        claimed(1),
        ended(1, Outcome::NodeLost, None, again()),
        claimed(2),
        ended(1, Outcome::Succeeded, Some(0), Next::Final),
    ];
    assert!(matches!(fold(&events), Err(FoldError::Impossible { seq: Seq(4), .. })));
}

#[test]
fn what_the_platform_did_is_not_charged() {
    let events = [
        submitted(spec()),
        claimed(1),
        ended(1, Outcome::EngineFault, None, again()),
        claimed(2),
        ended(2, Outcome::Exited, Some(75), again()),
        claimed(3),
        ended(3, Outcome::OutOfMemory, Some(137), again()),
    ];
    let tally = fold(&events).expect("valid").tally;
    assert_eq!(tally, Tally { charged: 1, out_of_memory: 1, platform: 1, again: 1, elsewhere: 0 });
}

#[test]
fn a_job_that_ran_out_of_memory_gets_more() {
    let mut spec = spec();
    spec.resources.memory = Some(Size(100));
    spec.retry_memory = Some(1.5);
    let events = [submitted(spec), claimed(1), ended(1, Outcome::OutOfMemory, Some(137), again())];
    assert_eq!(fold(&events[..2]).expect("valid").memory(), Some(Size(100)));
    assert_eq!(fold(&events).expect("valid").memory(), Some(Size(150)));
}

#[test]
fn a_retry_by_hand_begins_the_count_anew() {
    let events = [
        submitted(spec()),
        claimed(1),
        ended(1, Outcome::Exited, Some(3), Next::Final),
        Event::Retried,
        claimed(2),
    ];
    assert_eq!(fold(&events[..3]).expect("valid").exit_status(), Some(3));
    let job = fold(&events).expect("valid");
    assert_eq!((job.tally, job.attempt), (Tally::default(), Some(Attempt(2))));
}

#[test]
fn a_job_that_nobody_claimed_waits_for_another_attempt_after_a_retry() {
    let events = [submitted(spec()), Event::Cancelled, Event::Retried, claimed(2)];
    let job = fold(&events[..3]).expect("valid");
    assert_eq!((job.next_attempt(), job.tally), (Attempt(2), Tally::default()));
    assert_eq!(fold(&events).expect("valid").attempt, Some(Attempt(2)));
    assert!(fold(&[events[0].clone(), Event::Cancelled, Event::Retried, claimed(1)]).is_err());
}

#[rstest::rstest]
#[case(Outcome::Succeeded, Some(0), 0)]
#[case(Outcome::Exited, Some(7), 7)]
#[case(Outcome::OutOfMemory, Some(137), 137)]
#[case(Outcome::TimedOut, Some(143), 124)]
#[case(Outcome::ImageUnavailable, None, 125)]
#[case(Outcome::EngineFault, None, 125)]
fn the_exit_code_says_whose_doing_it_was(
    #[case] outcome: Outcome,
    #[case] code: Option<i64>,
    #[case] expected: i64,
) {
    let job = fold(&[submitted(spec()), claimed(1), ended(1, outcome, code, Next::Final)]).expect("valid");
    assert_eq!(job.exit_status(), Some(expected));
}

#[test]
fn retries_are_for_the_job_and_platform_retries_for_the_platform() {
    let policy = Policy { platform_retries: 2, again: 3 };
    let step = |charged, platform, retries, outcome, code| {
        let mut job = fold(&[submitted(spec()), claimed(1)]).expect("valid");
        job.tally = Tally { charged, platform, ..Tally::default() };
        job.spec.retries = retries;
        next_step(&job, outcome, code, &node("a"), at(0), &policy)
    };
    assert_eq!(step(0, 9, 0, Outcome::Exited, Some(1)), Next::Final);
    assert_eq!(step(0, 9, 1, Outcome::Exited, Some(1)), again());
    assert_eq!(step(1, 9, 1, Outcome::Exited, Some(1)), Next::Final);
    let away = |seconds: Option<i64>| Next::Requeue { not_before: seconds.map(at), avoid: Some(node("a")) };
    assert_eq!(step(5, 0, 0, Outcome::EngineFault, None), away(None));
    assert_eq!(step(5, 1, 0, Outcome::EngineFault, None), away(Some(2)));
    assert_eq!(step(5, 2, 0, Outcome::EngineFault, None), Next::Final);
    assert_eq!(step(0, 99, 0, Outcome::Preempted, None), again());
    assert_eq!(step(0, 0, 0, Outcome::Exited, Some(75)), again());
}

#[test]
fn another_node_tries_it_once_at_nobodys_charge() {
    let mut job = fold(&[submitted(spec()), claimed(1)]).expect("valid");
    let opinion = second_opinion(&job, Outcome::Exited, &node("a")).expect("the first time");
    assert_eq!(opinion, Next::Requeue { not_before: None, avoid: Some(node("a")) });
    assert_eq!(second_opinion(&job, Outcome::Succeeded, &node("a")), None);
    let tried = fold(&[submitted(spec()), claimed(1), ended(1, Outcome::Exited, Some(1), opinion)]);
    job = fold(&[submitted(spec()), claimed(1)]).expect("valid");
    job.tally = tried.expect("valid").tally;
    assert_eq!(job.tally, Tally { elsewhere: 1, ..Tally::default() });
    assert_eq!(second_opinion(&job, Outcome::Exited, &node("b")), None);
    job.tally = Tally::default();
    job.local = true;
    assert_eq!(
        second_opinion(&job, Outcome::Exited, &node("a")),
        None,
        "whoever waits for it is told at once"
    );
}

#[test]
fn a_job_goes_on_under_a_later_run_of_its_node() {
    let job = fold(&[submitted(spec()), claimed(1), started(1), resumed(1)]).expect("valid");
    let claim = job.held().expect("held");
    assert_eq!((claim.incarnation.as_str(), claim.started.is_some()), ("later", true));
    assert!(fold(&[submitted(spec()), claimed(1), resumed(2)]).is_err(), "of another attempt");
    assert!(fold(&[submitted(spec()), resumed(1)]).is_err(), "of nobody");
}

#[test]
fn a_local_job_is_given_to_nobody_else() {
    let Event::Submitted(mut local) = submitted(spec()) else { unreachable!() };
    local.local = true;
    let job = fold(&[Event::Submitted(local), claimed(1)]).expect("valid");
    let next = next_step(&job, Outcome::NodeLost, None, &node("a"), at(0), &Policy::default());
    assert_eq!(next, Next::Final);
}

#[test]
fn a_job_that_was_asked_to_stop_is_not_tried_again() {
    let events = [submitted(spec()), claimed(1), Event::CancelRequested(CancelRequested::default())];
    let mut job = fold(&events).expect("valid");
    job.spec.retries = 5;
    let next = next_step(&job, Outcome::Exited, Some(143), &node("a"), at(0), &Policy::default());
    assert_eq!(next, Next::Final);
}

/// Any event, possible or not.
fn any_event() -> impl Strategy<Value = Event> {
    let outcome = prop::sample::select(vec![
        Outcome::Succeeded,
        Outcome::Exited,
        Outcome::EngineFault,
        Outcome::Cancelled,
        Outcome::OutOfMemory,
    ]);
    prop_oneof![
        (1..4u32).prop_map(claimed),
        (1..4u32).prop_map(started),
        (1..4u32, outcome, any::<bool>()).prop_map(|(attempt, outcome, last)| {
            ended(attempt, outcome, Some(1), if last { Next::Final } else { again() })
        }),
        Just(Event::CancelRequested(CancelRequested::default())),
        Just(Event::Cancelled),
        (1..4u32).prop_map(resumed),
        Just(Event::Retried),
    ]
}

proptest! {
    /// Whatever is offered, the fold takes only what can follow, and what it takes keeps the
    /// order: attempts count up, by one where none was given up, and nothing but a retry follows an end.
    #[test]
    fn no_sequence_of_events_makes_an_impossible_job(events in prop::collection::vec(any_event(), 0..60)) {
        let mut job = fold(&[submitted(spec())]).expect("valid");
        let (mut last, mut given_up) = (0, 0);
        for event in events {
            let before = job.clone();
            let taken = job.apply(&entry(job.next.0, event.clone()));
            if taken.is_err() {
                prop_assert_eq!(&job, &before);
                continue;
            }
            prop_assert_eq!(job.next, before.next.next());
            if let Event::Claimed(claim) = &event {
                prop_assert_eq!(claim.attempt, Attempt(last + 1 + std::mem::take(&mut given_up)));
                last = claim.attempt.0;
                prop_assert_eq!(before.phase(), Phase::Queued);
            }
            if before.phase().is_final() {
                prop_assert_eq!(&event, &Event::Retried);
                given_up += u32::from(matches!(before.state, State::Done { outcome: None, .. }));
            }
        }
    }
}
