use std::sync::Mutex;

use futures::future::join_all;

use super::*;
use crate::{
    clock::SystemClock,
    id::{Attempt, Incarnation, NodeId},
    job::JobSpec,
    lane::Needs,
    log::{Claimed, Phase, Submitted},
};

fn store() -> Store {
    Store::open(&"memory:///".parse().expect("url")).expect("opens")
}

fn log(store: &Store, who: &str) -> Log {
    let chance = Chance::from_seed(who.bytes().map(u64::from).sum());
    Log::new(store.clone(), Arc::new(SystemClock), chance, Author::Client(who.into()))
}

async fn submit(log: &Log) -> JobId {
    let id = JobId::new("j").expect("valid");
    let spec = JobSpec::new("i");
    let lane = Needs::of(&spec).lane_id();
    let entry = log.draft(Seq::FIRST, Event::Submitted(Box::new(Submitted { spec, lane, local: false })));
    assert_eq!(log.create(&id, &entry).await.expect("answered"), Put::Won);
    id
}

fn claim(job: &Job, node: &str) -> Event {
    Event::Claimed(Claimed {
        attempt: job.next_attempt(),
        node: NodeId::new(node).expect("valid"),
        incarnation: Incarnation::new("i").expect("valid"),
        gpus: vec![],
    })
}

#[tokio::test]
async fn of_many_claims_one_wins_and_the_others_see_it() {
    let store = store();
    let id = submit(&log(&store, "client")).await;
    let winners = Mutex::new(Vec::new());
    join_all((0..20).map(|n| {
        let (log, id, winners) = (log(&store, &format!("node{n}")), id.clone(), &winners);
        async move {
            let mut job = log.read(&id).await.expect("read").expect("known");
            let name = format!("node{n}");
            let won = log
                .append(&mut job, |job| (job.phase() == Phase::Queued).then(|| claim(job, &name)))
                .await
                .expect("answered");
            if won.is_some() {
                winners.lock().expect("no panic").push(name);
            } else {
                assert_eq!(job.phase(), Phase::Starting);
            }
        }
    }))
    .await;
    let job = log(&store, "client").read(&id).await.expect("read").expect("known");
    let winner = job.held().expect("held").node.to_string();
    assert_eq!(*winners.lock().expect("no panic"), [winner]);
    assert_eq!(job.attempt, Some(Attempt::FIRST));
}

#[tokio::test]
async fn a_put_that_happened_though_its_answer_was_lost_is_a_win() {
    let store = store();
    let log = log(&store, "a");
    let id = submit(&log).await;
    let ours = log.draft(Seq(1), Event::Cancelled);
    let theirs = log.draft(Seq(1), Event::Cancelled);
    assert_eq!(log.create(&id, &ours).await.expect("answered"), Put::Won);
    assert_eq!(log.create(&id, &ours).await.expect("answered"), Put::Won, "the answer was lost, so again");
    assert_eq!(log.create(&id, &theirs).await.expect("answered"), Put::Lost, "alike but for its nonce");
}

#[tokio::test]
async fn an_entry_of_a_newer_haul_is_refused() {
    let store = store();
    let log = log(&store, "a");
    let id = submit(&log).await;
    let body = r#"{"v":2,"seq":1,"event":{"kind":"teleported"}}"#;
    store.put(&Log::key(&id, Seq(1)), body.into()).await.expect("put");
    let error = log.read(&id).await.expect_err("newer");
    assert_eq!(error.to_string(), "entry 0000000001 of job j cannot be used");
    let cause = std::error::Error::source(&error).expect("has a cause").to_string();
    assert_eq!(
        cause,
        "it was written by a newer haul (version 2, this one reads up to 1); upgrade this host"
    );
}

#[tokio::test]
async fn an_unknown_job_is_none() {
    let log = log(&store(), "a");
    assert!(log.read(&JobId::new("nobody").expect("valid")).await.expect("read").is_none());
}
