//! A node on which every job fails, beside others that are well.

use tests::{Agent, World, eventually};

/// Fails on node a, and nowhere else.
const FAILS_ON_A: &str = "test $HAUL_NODE != a || exit 1; sleep 1";

#[test]
fn a_node_that_fails_its_jobs_stops_taking_them_and_they_end_well_elsewhere() {
    let world = World::new();
    let _agents =
        ["a", "b", "c"].map(|name| Agent::start(&world, name, &["--simulate-gpus", "1xP100:16GiB"]));
    // Each has heard of the others by then.
    let beat_of = |name: &str| {
        let nodes = world.json(["nodes", "--json"]);
        let nodes = nodes.as_array().cloned().unwrap_or_default();
        let node = nodes.into_iter().find(|node| node["node"] == name)?;
        node["counter"].as_u64().filter(|beats| *beats > 5)
    };
    for name in ["a", "b", "c"] {
        eventually("it beats", || beat_of(name));
    }
    let jobs: Vec<String> = (0..15).map(|_| world.submit(&["--gpus", "1"], FAILS_ON_A)).collect();
    let said = || world.run(["nodes"]).ok();
    eventually("a takes no more", || {
        said().contains("jobs in a row failed here within seconds").then_some(())
    });
    for id in &jobs {
        world.until(id, "succeeded");
    }
    let on_a = |id: &&String| world.events(id, "claimed").iter().any(|claim| claim["node"] == "a");
    let taken: Vec<&String> = jobs.iter().filter(on_a).collect();
    assert_eq!(taken.len(), 3, "{taken:?}");
    let status = world.run(["status", taken[0]]).ok();
    assert!(status.contains("another node tries it before that counts"), "{status}");
}

#[test]
fn what_fails_everywhere_runs_twice_at_most() {
    let world = World::new();
    let _agents = ["a", "b"].map(|name| Agent::start(&world, name, &["--simulate-gpus", "1xP100:16GiB"]));
    let jobs: Vec<String> = (0..6).map(|_| world.submit(&["--gpus", "1"], "exit 3")).collect();
    for id in &jobs {
        world.until(id, "failed");
    }
    assert!(jobs.iter().all(|id| world.events(id, "started").len() <= 2));
}
