//! What operators do to a fleet, on a store and a queue in memory.

use std::{sync::Arc, time::Duration};

use shared::{
    client::{Client, ClientError, Verdict},
    clock::{Chance, Clock, SystemClock},
    fleet::{Fleet, Settings},
    id::{JobId, NodeId, Seq, Team},
    job::JobSpec,
    lease,
    log::Author,
    node::{Mode, NodeRecord},
    queue::{Counted, Outgoing, Queue, QueueName, SqliteQueue},
    record,
    store::Store,
};

fn client() -> Client {
    let clock = Arc::new(SystemClock);
    let store = Store::open(&"memory:///".parse().expect("url")).expect("opens");
    let queue = Arc::new(Counted::new(Arc::new(SqliteQueue::in_memory(clock.clone()).expect("opens"))));
    let settings = Settings { inbox: true, status: true, ..Settings::embedded(None) };
    let fleet = Fleet::assemble(store, queue, Seq::FIRST, settings);
    Client::new(fleet, Author::Client("ann@desk".into()), clock, Chance::from_seed(1))
}

fn node() -> NodeRecord {
    let sample = include_bytes!("samples/v1/node.json");
    record::read(sample, NodeRecord::VERSION).expect("loads")
}

#[tokio::test]
async fn purged_messages_are_sent_again_for_jobs_that_still_wait() {
    let client = client();
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(client.submit(JobSpec::new("i"), None).await.expect("submitted").job);
    }
    let queue = QueueName::from(&jobs[0].lane);
    client.purge(&queue).await.expect("purged");
    client.cancel(&jobs[0].id, None).await.expect("cancelled");
    assert_eq!(client.resend(None).await.expect("sent"), 2);
    assert_eq!(client.resend(Some(&jobs[1].lane)).await.expect("sent"), 2, "again, if one wants so");
    let queues = client.queues().await.expect("lists");
    let depth = |name: &QueueName| queues.iter().find(|found| found.queue == *name).map(|found| found.depth);
    assert_eq!(depth(&queue).expect("listed").waiting, 4);
    assert!(depth(&QueueName::Inbox).is_some() && depth(&QueueName::Dead).is_some());
}

#[tokio::test]
async fn a_job_that_waits_says_for_what() {
    let client = client();
    let window = client.fleet().settings().window as usize;
    let mut jobs = Vec::new();
    for _ in 0..=window {
        jobs.push(client.submit(JobSpec::new("i"), None).await.expect("submitted").job.id);
    }
    let verdict =
        async |id: &JobId| client.status(id).await.expect("known").waiting.expect("it waits").verdict;
    let (first, last) = (&jobs[0], &jobs[window]);
    assert_eq!((verdict(first).await, verdict(last).await), (Verdict::NoNodes, Verdict::NoNodes));
    let ready = NodeRecord { at: SystemClock.now(), mode: Mode::Ready, problems: Vec::new(), ..node() };
    let store = &client.fleet().store;
    ready.write(store).await.expect("written");
    assert_eq!((verdict(first).await, verdict(last).await), (Verdict::Soon, Verdict::Parked));
    NodeRecord { mode: Mode::Draining, ..ready }.write(store).await.expect("written");
    assert_eq!(verdict(last).await, Verdict::Closed);
    let lanes = client.lanes().await.expect("lists");
    assert_eq!((lanes[0].when_empty.len(), lanes[0].never.len()), (0, 1));
    assert!(lanes[0].never[0].why.iter().any(|why| why.to_string().contains("draining")), "{lanes:?}");
}

#[tokio::test]
async fn dead_letters_are_shown_and_stay() {
    let client = client();
    assert_eq!(client.dead_letters().await.expect("none"), []);
    client.fleet().queue.ensure(&QueueName::Dead).await.expect("made");
    for i in 0..25 {
        let mut letter = Outgoing::new(Team::default(), format!("no job {i}"));
        letter.attributes.insert("reason".into(), "image: required, and missing".into());
        client.fleet().queue.send(&QueueName::Dead, &letter, Duration::ZERO).await.expect("sent");
    }
    for _ in 0..2 {
        let letters = client.dead_letters().await.expect("reads");
        assert_eq!(letters.len(), 25);
        assert_eq!(letters[0].attributes["reason"], "image: required, and missing");
    }
    let depth = client.fleet().queue.depth(&QueueName::Dead).await.expect("asked");
    assert_eq!((depth.waiting, depth.in_flight), (25, 0));
}

#[tokio::test(start_paused = true)]
async fn a_node_is_forgotten_only_when_it_is_gone() {
    let client = client();
    let store = &client.fleet().store;
    let unknown = NodeId::new("nobody").expect("valid");
    assert!(matches!(client.forget(&unknown).await, Err(ClientError::NoSuchNode(_))));
    let now = shared::clock::Clock::now(&SystemClock);
    let fresh = NodeRecord { at: now, mode: Mode::Ready, ..node() };
    fresh.write(store).await.expect("written");
    assert!(matches!(client.forget(&fresh.node).await, Err(ClientError::Alive(_))));
    // Its clock is an hour late, and yet it beats.
    let late = NodeRecord { at: now - Duration::from_secs(3600), ..fresh };
    late.write(store).await.expect("written");
    let beat = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        NodeRecord { counter: late.counter + 1, ..late.clone() }.write(store).await.expect("written");
    };
    let (forgotten, ()) = futures::join!(client.forget(&late.node), beat);
    assert!(matches!(forgotten, Err(ClientError::Alive(_))));
    client.forget(&late.node).await.expect("it stands still");
    assert_eq!(client.nodes().await.expect("lists"), []);
}

#[tokio::test]
async fn a_late_write_of_an_old_record_is_a_sign_of_life() {
    let client = client();
    let store = &client.fleet().store;
    let old = node();
    let new = NodeRecord { counter: old.counter + 1, ..old.clone() };
    let look = async || lease::look(store, &old.node).await.expect("read").expect("there");
    old.write(store).await.expect("written");
    let first = look().await;
    assert_eq!(look().await, first);
    new.write(store).await.expect("written");
    old.write(store).await.expect("a request that was given up arrives");
    let late = look().await;
    assert_eq!((&late.0, &first.0), (&old, &old), "the counter is as it was");
    assert_ne!(late.1, first.1);
    assert!(lease::look(store, &NodeId::new("nobody").expect("valid")).await.expect("read").is_none());
}
