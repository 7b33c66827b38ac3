//! Nodes that are cut off from the store and that nobody replaces: their jobs are frozen meanwhile, and
//! go on where they were, in their first attempt.

use std::time::Duration;

use serde_json::json;
use tests::{
    Cloud, Histories, Host, Recorder,
    emulator::Kind,
    eventually, last,
    proxy::{Faults, Service},
    timeline::Change,
};

const LEASE: Duration = Duration::from_secs(6);

const SETTINGS: [&str; 4] = ["beat=1s", "lease=6s", "sweep=2s", "lane_refresh=2s"];

/// Counts for some seconds: what is frozen does not.
const JOB: &str = "i=0; while [ $i -lt 10 ]; do i=$((i + 1)); echo $i; sleep 1; done";

/// What it prints.
fn output() -> String {
    (1..=10).map(|step| format!("{step}\n")).collect()
}

fn cloud() -> Cloud {
    let cloud = Cloud::start(Kind::Ministack);
    cloud.world().run(["fleet", "set"].iter().chain(&SETTINGS)).ok();
    cloud
}

/// Has a job run on each of these nodes while the store is away from all of them, for two leases, and
/// then until it has ended.
fn isolate(names: &[&str], faults: Faults) {
    let cloud = cloud();
    let recorder = Recorder::start(cloud.world());
    let hosts: Vec<Host> = names.iter().map(|name| Host::start(&cloud, name)).collect();
    // Two GPUs each: one job for each node.
    let ids: Vec<String> = names.iter().map(|_| cloud.world().submit(&["--gpus", "2"], JOB)).collect();
    for host in &hosts {
        eventually("the node runs a job", || {
            (!recorder.so_far().running_on(&host.name).is_empty()).then_some(())
        });
    }
    for id in &ids {
        cloud.world().until(id, "running");
    }
    hosts.iter().for_each(|host| host.door.set(Service::S3, faults));
    for host in &hosts {
        eventually("the container is frozen", || {
            (recorder.so_far().count(&host.name, Change::Pause) > 0).then_some(())
        });
    }
    for id in &ids {
        eventually("it is shown as frozen", || (cloud.world().state(id) == "frozen").then_some(()));
    }
    last(LEASE * 2);
    for host in &hosts {
        assert!(recorder.so_far().running_on(&host.name).is_empty(), "it runs though it is cut off");
        host.door.set(Service::S3, Faults::default());
    }
    for id in &ids {
        cloud.world().until(id, "succeeded");
        assert_eq!(cloud.world().run(["logs", id]).ok(), output());
    }
    let histories = Histories::read(&cloud.bucket());
    assert_eq!(histories.broken(), Vec::<String>::new());
    for id in &ids {
        assert_eq!(histories.events(id, "claimed").len(), 1, "another attempt");
        assert!(!histories.events(id, "resumed").is_empty(), "it was thawed without a word in its log");
    }
    assert_eq!(histories.ended("node_lost"), 0);
    let timeline = recorder.finish();
    assert_eq!(timeline.broken(), Vec::<String>::new());
    for name in names {
        assert_eq!(timeline.count(name, Change::Start), 1);
        assert!(timeline.count(name, Change::Unpause) > 0);
    }
}

#[test]
fn a_job_of_a_node_that_nobody_replaced_is_frozen_and_goes_on() {
    isolate(&["a"], Faults { cut: true, ..Faults::default() });
}

#[test]
fn a_store_that_is_silent_freezes_as_one_that_is_cut_off() {
    isolate(&["a"], Faults { black_hole: true, ..Faults::default() });
}

#[test]
fn while_the_store_is_away_from_everybody_nobody_is_lost() {
    isolate(&["a", "b"], Faults { answer: Some(503), ..Faults::default() });
}

#[test]
fn a_job_that_is_to_be_stopped_has_ended_before_its_node_may_be_replaced() {
    let cloud = cloud();
    let recorder = Recorder::start(cloud.world());
    let host = Host::start(&cloud, "a");
    let script = "trap 'echo saved; exit 0' TERM; while true; do sleep 0.1; done";
    let spec = json!({ "image": "haul/busybox:1", "command": ["sh", "-c", script], "on_isolation": "stop" });
    let file = cloud.world().file("job.json", &spec.to_string());
    let id = cloud.world().run(["submit".as_ref(), file.as_os_str()]).ok().trim().to_owned();
    cloud.world().until(&id, "running");
    host.door.set(Service::S3, Faults { cut: true, ..Faults::default() });
    eventually("it has stopped", || (recorder.so_far().count("a", Change::Die) > 0).then_some(()));
    host.door.set(Service::S3, Faults::default());
    eventually("it runs again", || (recorder.so_far().count("a", Change::Start) > 1).then_some(()));
    cloud.world().run(["cancel", &id]).ok();
    cloud.world().until(&id, "cancelled");
    assert_eq!(cloud.world().run(["logs", &id, "--attempt", "1"]).ok(), "saved\n");
    let ended = cloud.world().events(&id, "ended");
    assert_eq!(ended[0]["outcome"], "preempted", "{ended:?}");
    let timeline = recorder.finish();
    assert_eq!((timeline.broken(), timeline.count("a", Change::Pause)), (Vec::new(), 0));
}
