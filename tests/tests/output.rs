//! A job's output, whatever is written where it goes: each line once, or an end that says why not.

use bytes::Bytes;
use shared::{
    id::{Attempt, JobId},
    output::{Chunks, OutputError},
    store::{Created, Key, Store},
};
use tests::{Agent, World, eventually};

/// A line every 100 ms.
const COUNTING: &str = "i=1; while [ $i -le 60 ]; do echo line $i; i=$((i + 1)); sleep 0.1; done";

fn store(world: &World) -> Store {
    Store::open(&world.fleet().parse().expect("a URL")).expect("opens")
}

/// A job of which some output is in the store.
fn printing(world: &World, script: &str) -> (String, JobId) {
    let id = world.submit(&[], script);
    eventually("it prints", || world.run(["logs", &id]).stdout.contains("line 3\n").then_some(()));
    let job = JobId::new(&id).expect("an id");
    (id, job)
}

#[test]
fn a_late_chunk_of_an_earlier_run_of_the_agent_is_written_on() {
    let world = World::new();
    let _agent = Agent::start(&world, "a", &[]);
    let (id, job) = printing(&world, COUNTING);
    // As a request of an agent that was killed may still arrive: it ends where the chunk before it does.
    let chunks = Chunks::new(store(&world), job, Attempt::FIRST);
    world.wait_for(async {
        loop {
            let (next, end) = chunks.resume().await.expect("read");
            match chunks.create(next, b"", &end).await {
                Ok(()) => break,
                Err(OutputError::Taken { .. }) => {} // The agent was faster.
                Err(error) => panic!("{error}"),
            }
        }
    });
    world.until(&id, "succeeded");
    let whole: String = (1..=60).map(|i| format!("line {i}\n")).collect();
    assert_eq!(world.run(["logs", &id]).ok(), whole, "each line once, in order");
    assert_eq!(world.events(&id, "claimed").len(), 1, "it is the agent's still");
}

#[test]
fn a_job_whose_output_cannot_be_kept_is_tried_again_and_says_so() {
    let world = World::new();
    let _agent = Agent::start(&world, "a", &[]);
    let (id, job) = printing(&world, &format!("if [ $HAUL_ATTEMPT = 2 ]; then exit 0; fi; {COUNTING}"));
    let (store, chunks) = (store(&world), Chunks::new(store(&world), job, Attempt::FIRST));
    world.wait_for(async {
        loop {
            let next = chunks.count().await.expect("counted");
            let key = Key::new(format!("jobs/{id}/attempts/1/log/{next:010}"));
            match store.create(&key, Bytes::from_static(b"no gzip")).await.expect("written") {
                Created::New => break,
                Created::Exists(_) => {} // The agent was faster.
            }
        }
    });
    world.until(&id, "succeeded");
    let ends = world.events(&id, "ended");
    assert_eq!(ends.len(), 2, "{ends:#?}");
    assert_eq!((&ends[0]["outcome"], &ends[1]["outcome"]), (&"engine_fault".into(), &"succeeded".into()));
    let message = ends[0]["message"].as_str().unwrap_or_default();
    assert!(message.contains("its output cannot be kept") && message.contains("is damaged"), "{message}");
}
