//! Hosts that come and go: what their cloud says of them, drains from afar, notices, and their end when idle.

use serde_json::Value;
use tests::{Agent, Metadata, World, eventually, world::COUNTS};

/// Where the count of a job's last attempt began.
fn began(world: &World, id: &str) -> Option<u32> {
    let output = world.run(["logs", id]).stdout;
    let mut begun = output.lines().filter_map(|line| line.strip_prefix("counts from "));
    begun.next().map(|text| text.parse().expect("a number"))
}

#[test]
fn each_cloud_says_what_its_machine_is() {
    let world = World::new();
    let check = |cloud: &str, metadata: &Metadata, more: &[&str]| {
        let mut command = world.command([&["agent", "--check", "--cloud", cloud], more].concat());
        let done: tests::Done =
            command.env("HAUL_METADATA_URL", metadata.url()).output().expect("starts").into();
        let lines = done.ok();
        let values = lines.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        values.filter(|line| line.starts_with("labels") || line.starts_with("node")).collect::<Vec<_>>()
    };
    assert_eq!(
        check("aws", &Metadata::aws(), &[]),
        [
            "node i-0123456789abcdef0 aws metadata",
            "labels machine_type=p5.48xlarge aws metadata",
            "labels provider=aws aws metadata",
            "labels region=eu-central-1 aws metadata",
            "labels spot=true aws metadata",
            "labels zone=eu-central-1a aws metadata",
        ]
    );
    let gcp = check("gcp", &Metadata::gcp(), &["--label", "zone=here", "--label", "tier=burst"]);
    assert_eq!(gcp[0], "node train-1-4567890123456789012 gcp metadata");
    assert_eq!(
        gcp[1..3],
        ["labels machine_type=a3-highgpu-8g gcp metadata", "labels provider=gcp gcp metadata"]
    );
    assert_eq!(gcp[3..5], ["labels region=europe-west4 gcp metadata", "labels spot=false gcp metadata"]);
    assert_eq!(gcp[5..], ["labels tier=burst flag", "labels zone=here flag"], "what is said by hand holds");
    let azure = check("azure", &Metadata::azure(), &["--node", "mine"]);
    assert_eq!((&*azure[0], &*azure[4]), ("node mine flag", "labels spot=true azure metadata"));
    assert!(azure.contains(&"labels zone=westeurope-1 azure metadata".to_owned()), "{azure:?}");
}

#[test]
fn a_cloud_that_does_not_answer_is_named_with_the_way_out() {
    let world = World::new();
    let gone = Metadata::gcp().url();
    let mut command = world.command(["doctor", "--cloud", "gcp", "--json"]);
    let done: tests::Done = command.env("HAUL_METADATA_URL", gone).output().expect("starts").into();
    let checks: Value = serde_json::from_str(&done.stdout).expect("JSON");
    let cloud = checks.as_array().expect("checks").iter().find(|check| check["name"] == "cloud");
    let cloud = cloud.expect("a check of the cloud");
    let found = cloud["found"].as_str().expect("a text");
    assert_eq!((done.code, &cloud["ok"]), (1, &Value::Bool(false)));
    assert!(found.contains("gcp") && found.contains("cloud = \"none\""), "{found}");
}

#[test]
fn a_notice_hands_the_job_to_another_host_with_its_checkpoint() {
    let world = World::new();
    let clouds: [(&str, Metadata, &str, &str); 3] = [
        (
            "aws",
            Metadata::aws(),
            "/latest/meta-data/spot/instance-action",
            r#"{"action": "terminate", "time": "2026-01-01T00:00:00Z"}"#,
        ),
        ("gcp", Metadata::gcp(), "/computeMetadata/v1/instance/preempted", "TRUE"),
        (
            "azure",
            Metadata::azure(),
            "/metadata/scheduledevents?api-version=2020-07-01",
            r#"{"Events": [{"EventId": "1", "EventType": "Preempt", "Resources": ["train-1"], "NotBefore": ""}]}"#,
        ),
    ];
    let outputs = world.path("outputs");
    let flags = ["--outputs-dir", outputs.to_str().expect("text"), "--cloud"];
    for (cloud, metadata, path, notice) in &clouds {
        let url = metadata.url();
        let mut spot = Agent::start_with(
            &world,
            cloud,
            &[&flags[..], &[cloud]].concat(),
            &[("HAUL_METADATA_URL", &url)],
        );
        let id = world.submit(&[], COUNTS);
        eventually("it counts", || began(&world, &id).filter(|from| *from == 0));
        if *cloud == "azure" {
            // Of another machine of its set, and one that only freezes it.
            let others = r#"{"Events": [{"EventType": "Preempt", "Resources": ["train-2"], "NotBefore": ""},
                {"EventType": "Freeze", "Resources": ["train-1"], "NotBefore": ""}]}"#;
            metadata.heard(path, others);
        }
        metadata.set(path, notice);
        assert_eq!(spot.ended(), 0, "in order, so that it is not started again");
        let ended = world.events(&id, "ended")[0].clone();
        assert_eq!(ended["outcome"], "preempted", "{ended}");
        assert!(spot.said().contains("the machine is about to go"), "{}", spot.said());
        let mut other = Agent::start(&world, &format!("after-{cloud}"), &[&flags[..], &["none"]].concat());
        world.until(&id, "succeeded");
        assert!(began(&world, &id).is_some_and(|from| from > 0), "it goes on from its checkpoint");
        other.stop();
    }
}

#[test]
fn an_agent_that_has_been_idle_ends() {
    let world = World::new();
    let mut agent = Agent::start(&world, "a", &["--exit-when-idle", "6s"]);
    // Longer than it may be idle.
    let id = world.submit(&[], "sleep 7");
    assert_eq!(agent.ended(), 0);
    assert_eq!(world.state(&id), "succeeded");
    assert_eq!(world.json(["nodes", "--json"])[0]["mode"], "stopped");
    assert!(agent.said().contains("without a job for 6s"), "{}", agent.said());
}

#[test]
fn a_node_is_drained_from_afar() {
    let world = World::new();
    let agents = ["a", "b"].map(|name| Agent::start(&world, name, &["--max-jobs", "1"]));
    let id = world.submit(&[], "until [ -e $HAUL_CHECKPOINT_DIR/go ]; do sleep 0.1; done");
    world.until(&id, "running");
    let held_by = |id: &str| world.events(id, "claimed").pop().expect("claimed")["node"].clone();
    let first = held_by(&id).as_str().expect("a name").to_owned();
    let other = if first == "a" { "b" } else { "a" };
    world.run(["drain", other]).ok();
    let mode = |name: &str| {
        let nodes = world.json(["nodes", "--json"]);
        let node = nodes.as_array().expect("nodes").iter().find(|node| node["node"] == name);
        node.expect("the node")["mode"].clone()
    };
    eventually("the other hears of it", || (mode(other) == "draining").then_some(()));
    let waits = world.submit(&[], "true");
    // At the deadline the job is handed back, and waits for a node that takes jobs.
    world.run(["drain", &first, "--deadline", "1s", "--wait"]).ok();
    let ended = world.events(&id, "ended");
    assert_eq!(ended[0]["outcome"], "preempted");
    assert_eq!((world.state(&id), world.state(&waits)), ("queued".into(), "queued".into()));
    world.run(["drain", other, "--resume"]).ok();
    world.until(&id, "running");
    assert_eq!(held_by(&id), other);
    // It stays drained, also after a restart.
    let mut drained =
        agents.into_iter().find(|agent| agent.state_dir().ends_with(format!("state-{first}"))).expect("one");
    assert_eq!(drained.stop(), 0);
    drained.launch();
    drained.until_ready();
    eventually("it is drained yet", || (mode(&first) == "draining").then_some(()));
    let unknown = world.run(["drain", "nobody"]);
    assert!(unknown.code == 3 && unknown.stderr.contains("there is no node nobody"), "{unknown:?}");
    world.run(["cancel", &id]).ok();
    world.until(&waits, "succeeded");
    drained.stop();
    world.run(["nodes", "rm", &first]).ok();
    let settings = world.run(["fleet", "show"]).ok();
    assert!(!settings.contains(&format!("\"{first}\"")), "{settings}");
}

#[test]
fn jobs_are_handed_back_before_maintenance_and_taken_again_after_it() {
    let (world, metadata) = (World::new(), Metadata::aws());
    let url = metadata.url();
    let agent = Agent::start_with(&world, "a", &["--cloud", "aws"], &[("HAUL_METADATA_URL", &url)]);
    let id = world.submit(&[], "until [ -e $HAUL_CHECKPOINT_DIR/go ]; do sleep 0.1; done");
    world.until(&id, "running");
    let events = |at: chrono::DateTime<chrono::Utc>| {
        let at = at.format("%d %b %Y %H:%M:%S GMT");
        format!(r#"[{{"Code": "system-reboot", "State": "active", "NotBefore": "{at}"}}]"#)
    };
    let path = "/latest/meta-data/events/maintenance/scheduled";
    let now = tests::wall_clock();
    metadata.heard(path, &events(now + chrono::TimeDelta::days(2)));
    assert_eq!(world.state(&id), "running", "it is days ahead");
    metadata.set(path, &events(now + chrono::TimeDelta::minutes(9)));
    let ended = eventually("it is handed back", || world.events(&id, "ended").pop());
    assert_eq!(ended["outcome"], "preempted");
    assert!(agent.said().contains("before the machine's maintenance"), "{}", agent.said());
    assert_eq!(world.state(&id), "queued");
    metadata.set(path, "[]");
    world.until(&id, "running");
    agent.go(&id);
    world.until(&id, "succeeded");
}
