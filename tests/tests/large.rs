//! Large jobs beside a stream of small ones.

use serde_json::Value;
use shared::{fleet::Settings, id::Timestamp, units::Span};
use tests::{Agent, World, eventually, world::BUSYBOX};

/// How long a job waits before room is kept for it.
const PATIENCE: u64 = 3;

fn world() -> World {
    World::with_settings(Settings { patience: Span::secs(PATIENCE), ..Settings::embedded(None) })
}

/// When an entry of this kind was written first.
fn time_of(world: &World, id: &str, kind: &str) -> Timestamp {
    let history = world.history(id);
    let entry = history.iter().find(|entry| entry["event"]["kind"] == kind);
    let at = entry.unwrap_or_else(|| panic!("{id} has no {kind}: {history:?}"))["at"].clone();
    serde_json::from_value(at).expect("a time")
}

/// Submits an array of jobs that are stopped after so many seconds, with no notice, and gives their ids.
fn timed(world: &World, flags: &[&str], seconds: u32, script: &str) -> Vec<String> {
    let command = ["sh", "-c", script];
    let job = serde_json::json!({
        "image": BUSYBOX, "command": command, "timeout": format!("{seconds}s"), "grace": "0s",
    });
    let file = world.file("timed.json", &job.to_string());
    let args = ["submit"].iter().chain(flags).copied().chain([file.to_str().expect("text")]);
    world.run(args).ok().lines().map(str::to_owned).collect()
}

fn reserved(world: &World, id: &str) -> Option<Value> {
    let waiting = world.json(["status", id, "--json"])["waiting"].clone();
    (waiting["verdict"] == "reserved").then(|| waiting["reserved"].clone())
}

#[test]
fn a_large_job_starts_beside_a_stream_of_small_ones() {
    const LONGEST: u32 = 15;
    let world = world();
    let _agent = Agent::start(&world, "a", &["--simulate-gpus", "2xP100:16GiB"]);
    // The longest has one GPU, and a stream of jobs that may run for ever the other.
    timed(&world, &["--gpus", "1"], LONGEST, "sleep 13");
    let script = ["--array", "0-19", "--gpus", "1", "--", BUSYBOX, "sleep", "2"];
    let stream = world.run(["submit"].iter().chain(&script)).ok();
    let stream: Vec<String> = stream.lines().map(str::to_owned).collect();
    world.until(&stream[0], "running");
    let large = world.submit(&["--gpus", "2"], "true");
    // Once the stream's job on the other GPU has ended, it is the longest that is waited for.
    let starts_at = |kept: &Value| kept["start"]["at"].is_string();
    let kept = eventually("room is kept", || reserved(&world, &large).filter(starts_at));
    assert_eq!(kept["node"], "a");
    assert_eq!(world.state(&large), "reserved");
    let said = world.run(["status", &large]).stdout;
    assert!(!said.contains("waits") || said.contains("a has kept room for it since"), "{said}");
    // In a lane of their own, and short enough to end before the large one starts.
    let short = timed(&world, &["--gpus", "1", "--gpu-model", "P100", "--array", "0-3"], 1, "true");
    world.until(&large, "succeeded");
    let started = time_of(&world, &large, "claimed");
    let waited = (started - time_of(&world, &large, "submitted")).num_seconds();
    // One look in as long as the patience, and what a claim takes.
    let most = 2 * i64::try_from(PATIENCE).expect("small") + i64::from(LONGEST) + 3;
    assert!(waited <= most, "it waited {waited} s, more than {most}");
    let claimed = |id: &&String| !world.events(id, "claimed").is_empty();
    let before = stream.iter().filter(|id| claimed(id) && time_of(&world, id, "claimed") < started).count();
    assert!(before < stream.len() / 2, "{before} of the stream went before it");
    let meanwhile = short.iter().filter(|id| claimed(id) && time_of(&world, id, "claimed") < started).count();
    assert!(meanwhile > 0, "short jobs use the room meanwhile");
    for id in &stream {
        world.until(id, "succeeded");
    }
}

#[test]
fn a_job_that_is_cancelled_is_kept_no_room_for() {
    let world = world();
    let _agent = Agent::start(&world, "a", &["--simulate-gpus", "2xP100:16GiB"]);
    let small = world.submit(&["--gpus", "1"], "sleep 1000");
    world.until(&small, "running");
    let large = world.submit(&["--gpus", "2"], "true");
    let kept = eventually("room is kept", || reserved(&world, &large));
    assert_eq!(kept["start"], "unknown", "what runs has no time limit");
    let next = world.submit(&["--gpus", "1"], "true");
    let why = "needs 1 GPU, 0 free now, 1 kept for a larger job";
    eventually(why, || world.run(["status", &next]).ok().contains(why).then_some(()));
    assert!(world.run(["nodes"]).ok().contains(&format!("kept for job {large}")));
    world.run(["cancel", &large]).ok();
    world.until(&next, "succeeded");
    world.run(["cancel", &small]).ok();
}

#[test]
fn an_agent_that_drains_gives_the_job_to_another() {
    let world = world();
    let first = Agent::start(&world, "a", &["--simulate-gpus", "2xP100:16GiB"]);
    let small = world.submit(&["--gpus", "1"], "sleep 1000");
    world.until(&small, "running");
    let large = world.submit(&["--gpus", "2"], "true");
    eventually("room is kept", || reserved(&world, &large));
    let dir = first.state_dir().display().to_string();
    world.run(["drain", "--state-dir", &dir]).ok();
    let _second = Agent::start(&world, "b", &["--simulate-gpus", "2xP100:16GiB"]);
    world.until(&large, "succeeded");
    assert_eq!(world.events(&large, "claimed")[0]["node"], "b");
    world.run(["cancel", &small]).ok();
}

#[test]
fn a_node_that_comes_with_room_gets_the_job() {
    let world = world();
    let _first = Agent::start(&world, "a", &["--simulate-gpus", "2xP100:16GiB"]);
    let small = world.submit(&["--gpus", "1"], "sleep 1000");
    world.until(&small, "running");
    let large = world.submit(&["--gpus", "2"], "true");
    eventually("room is kept", || reserved(&world, &large));
    let _second = Agent::start(&world, "b", &["--simulate-gpus", "2xP100:16GiB"]);
    world.until(&large, "succeeded");
    assert_eq!(world.events(&large, "claimed")[0]["node"], "b");
    world.run(["cancel", &small]).ok();
}
