//! Who goes first: hosts that are paid for anyway, that a job prefers, or that have its image.

use chrono::{DateTime, TimeDelta};
use serde_json::{Value, json};
use tests::{
    Agent, World,
    engine::{Engine, ask},
    eventually,
    world::BUSYBOX,
};

const GPU: [&str; 2] = ["--simulate-gpus", "1xP100:16GiB"];

/// Where a job's last attempt was claimed.
fn node(world: &World, id: &str) -> String {
    world.events(id, "claimed").last().expect("claimed")["node"].as_str().expect("text").to_owned()
}

/// Waits until it is so by all nodes' own records.
fn until_known(world: &World, is: impl Fn(&Value) -> bool) {
    eventually("the nodes say so", || {
        let nodes = world.json(["nodes", "--json"]);
        nodes.as_array().is_some_and(|nodes| nodes.iter().all(&is)).then_some(())
    });
}

/// How long a job waited for its first claim.
fn waited(world: &World, id: &str) -> TimeDelta {
    let history = world.history(id);
    let at = |kind: &str| {
        let entry = history.iter().find(|entry| entry["event"]["kind"] == kind).expect("an entry");
        DateTime::parse_from_rfc3339(entry["at"].as_str().expect("text")).expect("a time")
    };
    at("claimed") - at("submitted")
}

#[test]
fn a_host_that_comes_later_takes_what_the_others_leave() {
    let world = World::new();
    let _burst = Agent::start(&world, "burst", &[&GPU[..], &["--claim-after", "4s"]].concat());
    let _metal = Agent::start(&world, "metal", &GPU);
    let first = world.submit(&["--gpus", "1"], "sleep 12");
    world.until(&first, "running");
    assert_eq!(node(&world, &first), "metal");
    let second = world.submit(&["--gpus", "1"], "true");
    eventually("it is said", || {
        world.run(["status", &second]).stdout.contains("waited for 4s (claim_after)").then_some(())
    });
    world.until(&second, "succeeded");
    assert_eq!(node(&world, &second), "burst");
    let wait = waited(&world, &second);
    assert!(wait > TimeDelta::seconds(3) && wait < TimeDelta::seconds(8), "{wait}");
    world.until(&first, "succeeded");
    for _ in 0..3 {
        until_known(&world, |node| node["jobs"] == json!([]));
        let next = world.submit(&["--gpus", "1"], "true");
        world.until(&next, "succeeded");
        assert_eq!(node(&world, &next), "metal");
    }
}

#[test]
fn the_host_that_a_job_prefers_goes_first() {
    let world = World::new();
    let _fast = Agent::start(&world, "fast", &[&GPU[..], &["--label", "disk=nvme"]].concat());
    let _slow = Agent::start(&world, "slow", &GPU);
    let submit = |script: &str| {
        let job = format!(
            "image = \"{BUSYBOX}\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\n[resources]\ngpus = 1\n\
             [placement]\nprefer = {{ disk = \"nvme\" }}\n"
        );
        let file = world.file("job.toml", &job).display().to_string();
        world.run(["submit", &file]).ok().trim().to_owned()
    };
    for _ in 0..5 {
        let id = submit("true");
        world.until(&id, "succeeded");
        assert_eq!(node(&world, &id), "fast");
        until_known(&world, |node| node["jobs"] == json!([]));
    }
    let (first, second) = (submit("sleep 30"), submit("true"));
    world.until(&second, "succeeded");
    assert_eq!((node(&world, &first).as_str(), node(&world, &second).as_str()), ("fast", "slow"));
    world.run(["cancel", &first]).ok();
}

#[test]
fn a_host_that_has_the_image_goes_first() {
    let engine = Engine::start(&[BUSYBOX]);
    let address = engine.address();
    let image = "haul-test/only-there:1";
    ask(Some(&address), &["tag", BUSYBOX, image]);
    let world = World::new();
    let _has = Agent::start(&world, "has", &[&GPU[..], &["--engine", &address]].concat());
    let submit = || {
        let id = world.run(["submit", "--gpus", "1", "--", image, "true"]).ok().trim().to_owned();
        world.until(&id, "succeeded");
        assert_eq!(world.events(&id, "claimed").len(), 1);
        assert_eq!(node(&world, &id), "has");
    };
    submit();
    let _lacks = Agent::start(&world, "lacks", &GPU);
    for _ in 0..5 {
        let is_there = |node: &Value| node["node"] == "lacks" || node["images"] == json!([image]);
        until_known(&world, |node| node["jobs"] == json!([]) && is_there(node));
        submit();
    }
}
