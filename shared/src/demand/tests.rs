use super::*;
use crate::{
    job::{self, Format, JobSpec, Priority},
    record,
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

/// Two GPUs a machine, of 80 GiB.
fn pool(name: &str, min: u32, max: u32) -> (String, Pool) {
    let json = format!(
        r#"{{"labels": {{"pool": "{name}"}}, "gpu_model": "NVIDIA A100-SXM4-80GB", "gpus": 2,
            "gpu_memory": "80GiB", "cpus": 16, "memory": "128GiB", "min": {min}, "max": {max}}}"#
    );
    (name.into(), serde_json::from_str(&json).expect("valid"))
}

/// A machine of a pool with so many of its GPUs free.
fn node(name: &str, pools: &BTreeMap<String, Pool>, pool: &str, free: usize) -> NodeRecord {
    let sample = include_bytes!("../../tests/samples/v1/node.json");
    let mut node: NodeRecord = record::read(sample, NodeRecord::VERSION).expect("loads");
    node.node = NodeId::new(name).expect("valid");
    (node.mode, node.problems) = (Mode::Ready, Vec::new());
    (node.offer, node.capacity) = (pools[pool].offer(), pools[pool].capacity());
    node.offer.gpus.iter_mut().skip(free).for_each(|gpu| gpu.state = GpuState::Held);
    node
}

fn waits(id: &str, toml: &str, since: i64) -> Waiting {
    let text = format!("image = \"i\"\n[resources]\n{toml}");
    let spec: JobSpec = job::parse(&text, Format::Toml).expect("valid");
    Waiting {
        job: JobId::new(id).expect("valid"),
        needs: Needs::of(&spec),
        share: Share::of(&spec, spec.resources.memory),
        since: at(since),
    }
}

fn wanted(demands: &Demands) -> Vec<u32> {
    demands.pools.iter().map(|pool| pool.wanted).collect()
}

#[test]
fn machines_are_wanted_for_what_finds_no_room() {
    let pools = BTreeMap::from([pool("a", 0, 3)]);
    let busy = node("a1", &pools, "a", 1);
    // One goes to the GPU that is free; three others fill one machine and half of another.
    let jobs: Vec<Waiting> = (0..4)
        .map(|n| waits(&format!("j{n}"), "gpus = 1", n))
        .chain([waits("s", "gpu_share = \"8GiB\"", 0)])
        .collect();
    let found = demand(&pools, &[&busy], jobs.clone(), at(100));
    let [a] = &found.pools[..] else { panic!("{found:?}") };
    assert_eq!((a.wanted, a.present, a.jobs), (3, 1, 4));
    assert!(found.unserved.is_empty());
    assert_eq!(a.since, Some(at(0)));
    // Whoever asks again, and again, is told the same.
    assert_eq!(demand(&pools, &[&busy], jobs.clone(), at(101)), found);
    // When one has come, and its agent has not claimed yet, one less is missing and as many are wanted.
    let new = node("a2", &pools, "a", 2);
    let found = demand(&pools, &[&busy, &new], jobs, at(102));
    assert_eq!((found.pools[0].wanted, found.pools[0].present), (3, 2));
}

#[test]
fn a_job_that_agents_are_about_to_claim_wants_nothing() {
    let pools = BTreeMap::from([pool("a", 0, 3)]);
    let jobs = |since| vec![waits("j", "gpus = 1", since)];
    assert_eq!(wanted(&demand(&pools, &[], jobs(80), at(100))), [0]);
    assert_eq!(wanted(&demand(&pools, &[], jobs(70), at(100))), [1]);
    let free = node("a1", &pools, "a", 2);
    assert_eq!(wanted(&demand(&pools, &[&free], jobs(0), at(100))), [1]);
}

#[test]
fn no_more_than_the_most_and_no_less_than_the_least() {
    let pools = BTreeMap::from([pool("a", 0, 1), pool("b", 2, 2)]);
    let jobs: Vec<Waiting> = (0..9).map(|n| waits(&format!("j{n}"), "gpus = 2", n)).collect();
    let found = demand(&pools, &[], jobs, at(100));
    assert_eq!(wanted(&found), [1, 2]);
    assert_eq!(found.pools.iter().map(|pool| pool.jobs).collect::<Vec<_>>(), [1, 2]);
    assert!(
        found.pools[1].why.contains(&"6 more jobs wait, and at most 2 are allowed".to_owned()),
        "{found:?}"
    );
    let none = demand(&pools, &[], Vec::new(), at(100));
    assert_eq!(
        (wanted(&none), none.pools[1].why.join("")),
        (vec![0, 2], "at least 2 are to be there".into())
    );
}

#[test]
fn a_machine_without_jobs_is_kept_for_a_while() {
    let pools = BTreeMap::from([pool("a", 0, 3)]);
    let mut idle = node("a1", &pools, "a", 2);
    let mut other = node("a2", &pools, "a", 2);
    (idle.idle_since, other.idle_since) = (Some(at(10)), Some(at(0)));
    let found = |now| demand(&pools, &[&idle, &other], Vec::new(), at(now));
    assert_eq!(wanted(&found(599)), [2]);
    let half = found(600);
    assert_eq!((half.pools[0].wanted, half.pools[0].since), (1, Some(at(600))));
    assert_eq!(half.pools[0].idle, std::slice::from_ref(&other.node), "the one without jobs the longest");
    assert_eq!(wanted(&found(610)), [0]);
    // A job that is about to be claimed keeps one.
    let jobs = vec![waits("j", "gpus = 2", 609)];
    let kept = demand(&pools, &[&idle, &other], jobs, at(610));
    assert_eq!((kept.pools[0].wanted, &kept.pools[0].idle[..]), (1, std::slice::from_ref(&other.node)));
}

#[test]
fn what_nothing_serves_is_named_and_wants_nothing() {
    let pools = BTreeMap::from([pool("a", 0, 3)]);
    let mut jobs = vec![waits("model", "gpus = 1\ngpu_model = \"H100\"", 0), waits("cpus", "cpus = 17", 0)];
    jobs.push(waits("many", "gpus = 3", 0));
    let found = demand(&pools, &[], jobs, at(100));
    assert_eq!(wanted(&found), [0]);
    let mut unserved: Vec<&str> = found.unserved.iter().map(JobId::as_str).collect();
    unserved.sort_unstable();
    assert_eq!(unserved, ["cpus", "many", "model"]);
}

#[test]
fn a_node_that_takes_no_jobs_is_no_room() {
    let pools = BTreeMap::from([pool("a", 0, 3)]);
    let mut draining = node("a1", &pools, "a", 2);
    draining.mode = Mode::Draining;
    let found = demand(&pools, &[&draining], vec![waits("j", "gpus = 1", 0)], at(100));
    assert_eq!((found.pools[0].wanted, found.pools[0].present), (2, 1));
}

#[test]
fn a_machine_that_takes_no_jobs_makes_way_for_one_that_does() {
    let pools = BTreeMap::from([pool("a", 0, 1)]);
    let mut draining = node("a1", &pools, "a", 2);
    draining.mode = Mode::Draining;
    draining.idle_since = Some(at(0));
    let job = || vec![waits("j", "gpus = 1", 0)];
    let keep = i64::try_from(pools["a"].keep_idle.0.as_secs()).expect("short");
    let soon = demand(&pools, &[&draining], job(), at(keep - 1));
    assert_eq!((wanted(&soon), soon.pools[0].idle.len()), (vec![1], 0), "it may be resumed");
    let found = demand(&pools, &[&draining], job(), at(keep));
    assert_eq!((wanted(&found), found.pools[0].idle.len(), found.pools[0].jobs), (vec![1], 1, 1));
    assert!(found.pools[0].why.iter().any(|why| why.contains("take no jobs")), "{found:?}");
    // Once it is gone.
    assert_eq!(wanted(&demand(&pools, &[], job(), at(keep))), [1]);
}

#[test]
fn who_goes_first_gets_the_room_that_there_is() {
    let pools = BTreeMap::from([pool("a", 0, 1)]);
    let (low, mut high) = (waits("low", "gpus = 2", 0), waits("high", "gpus = 2", 50));
    high.needs.priority = Priority::High;
    let found = demand(&pools, &[], vec![low, high], at(100));
    assert_eq!((found.pools[0].jobs, found.pools[0].since), (1, Some(at(50))));
}
