//! How jobs come to the queue: teams take turns by windows, and other programs use the inbox.

use serde_json::Value;
use shared::{fleet::Settings, id::LaneId, queue::QueueName};
use tests::{Agent, World, eventually, world::newer};

fn states(world: &World) -> Vec<(String, String)> {
    let jobs = world.json(["ps", "--json"]);
    let jobs = jobs.as_array().expect("a list").clone();
    let text = |job: &Value, field: &str| job[field].as_str().unwrap_or_default().to_owned();
    jobs.iter().map(|job| (text(job, "team"), text(job, "state"))).collect()
}

#[test]
fn a_team_with_one_job_waits_behind_no_more_than_a_window_of_another() {
    const WINDOW: usize = 3;
    let world = World::with_settings(Settings { window: 3, ..Settings::embedded(None) });
    let crowd: Vec<String> =
        (0..12).map(|i| world.submit(&["--team", "crowd"], &format!("echo {i}"))).collect();
    let parked = states(&world).iter().filter(|(_, state)| state == "parked").count();
    assert_eq!(parked, 12 - WINDOW, "{:?}", states(&world));
    assert_eq!(world.state(&crowd[11]), "parked");
    let single = world.submit(&["--team", "single"], "true");
    // One at a time, so that the order of claims is that of the queue.
    let _agent = Agent::start(&world, "a", &["--max-jobs", "1"]);
    for id in crowd.iter().chain([&single]) {
        world.until(id, "succeeded");
    }
    let claimed = |id: &String| {
        let history = world.history(id);
        let claim = history.iter().find(|entry| entry["event"]["kind"] == "claimed").expect("claimed");
        claim["at"].as_str().expect("a time").to_owned()
    };
    let single = claimed(&single);
    let before = crowd.iter().filter(|id| claimed(id) < single).count();
    assert!(before <= WINDOW, "{before} of the other team's jobs went first");
}

/// The lane in which jobs wait.
fn only_lane(world: &World) -> LaneId {
    let lanes = std::fs::read_dir(world.path("fleet/index/sent")).expect("the lanes'");
    let lanes = lanes.map(|lane| lane.expect("read").file_name().into_string().expect("UTF-8"));
    let [lane] = lanes.collect::<Vec<_>>().try_into().expect("one lane");
    lane.parse().expect("a lane's id")
}

#[test]
fn a_stale_message_takes_its_place_in_the_window_with_it() {
    let world = World::new();
    let id = world.submit(&[], "true");
    let lane = only_lane(&world);
    let queue: QueueName = (&lane).into();
    let message = world.receive(&queue).pop().expect("its message");
    let sent = world.path(&format!("fleet/index/sent/{lane}/default/{id}.1"));
    let marker = std::fs::read(&sent).expect("its marker");
    let _agent = Agent::start(&world, "a", &[]);
    world.send(&queue, &message.body);
    world.until(&id, "succeeded");
    eventually("its claim has taken the marker away", || (!sent.exists()).then_some(()));
    // As by one who releases it, and has read its log before the claim.
    std::fs::create_dir_all(sent.parent().expect("a folder")).expect("made");
    std::fs::write(&sent, marker).expect("written");
    world.send(&queue, &message.body);
    eventually("it is gone with the message", || (!sent.exists()).then_some(()));
}

#[test]
fn a_message_that_only_a_newer_haul_can_read_is_left_to_a_newer_agent() {
    let world = World::new();
    let id = world.submit(&[], "true");
    let queue: QueueName = (&only_lane(&world)).into();
    let message = world.receive(&queue).pop().expect("its message");
    world.make_newer(&id);
    world.purge();
    world.send(&queue, &newer(&message.body));

    let agent = Agent::start(&world, "a", &[]);
    let why = "newer haul (unknown field `flavour`)";
    eventually("it says why", || agent.said().contains(why).then_some(()));
    let other = world.submit(&[], "echo done");
    world.until(&other, "succeeded");
    let queues = world.json(["queue", "list", "--json"]);
    assert_eq!(queues.as_array().map(Vec::len), Some(1), "the lane's own: {queues}");
    let depth = |field: &str| queues[0]["depth"][field].as_u64().expect("a number");
    assert_eq!(depth("waiting") + depth("in_flight"), 1, "{queues}");
    let done = world.run(["status", &id]);
    assert!(done.code == 1 && done.stderr.contains(why), "{done:?}");
}

#[test]
fn a_bare_spec_in_the_inbox_becomes_a_job_and_anything_else_a_dead_letter() {
    let world = World::with_settings(Settings { inbox: true, ..Settings::embedded(None) });
    let spec = r#"{"name": "from-afar", "image": "haul/busybox:1", "command": ["echo", "hello"]}"#;
    world.send(&QueueName::Inbox, spec);
    world.send(&QueueName::Inbox, r#"{"image": "x", "gpus": "two"}"#);
    let _agent = Agent::start(&world, "a", &[]);
    let id = eventually("it has become a job", || {
        let jobs = world.json(["ps", "--json"]);
        Some(jobs.as_array()?.first()?["id"].as_str()?.to_owned())
    });
    world.until(&id, "succeeded");
    assert_eq!(world.run(["logs", "from-afar"]).ok(), "hello\n");
    let letter = eventually("the other one is dead", || world.receive(&QueueName::Dead).pop());
    assert_eq!(letter.body, r#"{"image": "x", "gpus": "two"}"#);
    assert!(letter.attributes["reason"].contains("gpus"), "{:?}", letter.attributes);
    assert!(world.receive(&QueueName::Inbox).is_empty());
}
