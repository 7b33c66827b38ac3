//! A fleet in calm weather: many jobs from many producers, each of which ends once, at the price that
//! the design allows.

use std::{collections::BTreeMap, time::Duration};

use tests::{
    Cloud, Histories, Host, Load, Recorder,
    emulator::Kind,
    load::{OF_A_TEAM, OF_THE_INBOX, TEAMS},
    now,
    proxy::{Counted, Service},
    within,
};

const JOBS: usize = TEAMS.len() * OF_A_TEAM + OF_THE_INBOX;

/// What a job may cost, by the design: writes and lists of the store, output aside, and requests to
/// the queue.
const STORE: f64 = 10.0;
const QUEUE: f64 = 4.0;

/// What is a node's own, whether it has jobs or not; sweeps are as well.
const OWN: [&str; 3] = ["nodes", "lanes", "fleet"];

/// Requests of all these doors.
fn requests<'d>(doors: impl IntoIterator<Item = &'d tests::proxy::Door>) -> BTreeMap<Counted, u64> {
    let mut sum = BTreeMap::new();
    for (kind, count) in doors.into_iter().flat_map(tests::proxy::Door::topics) {
        *sum.entry(kind).or_default() += count;
    }
    sum
}

/// What has been asked since then.
fn since(before: &BTreeMap<Counted, u64>, mut after: BTreeMap<Counted, u64>) -> BTreeMap<Counted, u64> {
    for (kind, count) in &mut after {
        *count -= before.get(kind).unwrap_or(&0);
    }
    after
}

/// Writes and lists of the store that are a job's.
fn is_store(kind: &Counted) -> bool {
    let (service, operation, topic) = kind;
    *service == Service::S3
        && matches!(operation.as_str(), "PutObject" | "ListObjectsV2")
        && topic != "jobs/output"
        && !OWN.contains(&topic.as_str())
        && !topic.ends_with(" swept")
}

fn is_queue(kind: &Counted) -> bool {
    kind.0 == Service::Sqs
}

fn sum(counts: &BTreeMap<Counted, u64>, of: impl Fn(&Counted) -> bool) -> f64 {
    let sum: u64 = counts.iter().filter(|(kind, _)| of(kind)).map(|(_, count)| count).sum();
    f64::from(u32::try_from(sum).expect("not that many"))
}

fn per_job(requests: f64) -> f64 {
    requests / f64::from(u32::try_from(JOBS).expect("not that many"))
}

#[test]
fn every_job_of_a_calm_fleet_ends_once_within_its_budget() {
    let cloud = Cloud::start(Kind::Ministack);
    let recorder = Recorder::start(cloud.world());
    let hosts = ["a", "b", "c"].map(|name| Host::start(&cloud, name));
    let doors = || hosts.iter().map(|host| &host.door).chain([cloud.door()]);
    let (before, began) = (requests(doors()), now());
    let load = Load::submit(&cloud, |_| {});
    let (bucket, queues) = (cloud.bucket(), cloud.queues());
    within(Duration::from_secs(240), "all jobs are done", || (bucket.done() == JOBS).then_some(()));
    within(Duration::from_secs(60), "nothing is left to tidy", || {
        let shelves = ["index/parked", "index/sent", "index/held"];
        let tidy = shelves.iter().all(|shelf| bucket.list(shelf).is_empty()) && queues.are_empty();
        tidy.then_some(())
    });
    let took = began.elapsed();
    let spent = since(&before, requests(doors().chain([&load.producer])));

    let histories = Histories::read(&bucket);
    assert_eq!(histories.broken(), Vec::<String>::new());
    assert_eq!(Load::missing(&histories), Vec::<String>::new());
    assert_eq!((histories.jobs().len(), histories.attempts()), (JOBS, JOBS));
    for id in Load::long() {
        assert_eq!(cloud.world().run(["logs", &id]).ok(), Load::output(), "{id}");
    }
    assert_eq!(recorder.finish().broken(), Vec::<String>::new());
    for door in doors().chain([&load.producer]) {
        assert_eq!(door.denied(), []);
    }

    for ((service, operation, topic), count) in &spent {
        eprintln!("{service:?} {operation} {topic}: {count}");
    }
    let (store, queue) = (per_job(sum(&spent, is_store)), per_job(sum(&spent, is_queue)));
    eprintln!("{JOBS} jobs in {took:?}: {store:.2} writes and lists, {queue:.2} queue requests a job");
    assert!(store <= STORE, "{store:.2} writes and lists a job");
    assert!(queue <= QUEUE, "{queue:.2} queue requests a job");
}
