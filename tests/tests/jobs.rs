//! Jobs on an agent: GPUs, cancel, why a job waits, draining.

use std::collections::BTreeMap;

use serde_json::Value;
use tests::{Agent, World, eventually, world::BUSYBOX};

const TWO_GPUS: &[&str] = &["--simulate-gpus", "2xP100:16GiB"];

fn time(entry: &Value) -> chrono::DateTime<chrono::Utc> {
    entry["at"].as_str().expect("a time").parse().expect("a time")
}

#[test]
fn two_gpus_run_five_jobs_two_at_a_time_each_on_a_gpu_of_its_own() {
    let world = World::new();
    let _agent = Agent::start(&world, "a", TWO_GPUS);
    let script = "echo $NVIDIA_VISIBLE_DEVICES; sleep 0.5";
    let ids: Vec<String> = (0..5).map(|_| world.submit(&["--gpus", "1"], script)).collect();
    world.run(["wait"].into_iter().chain(ids.iter().map(String::as_str))).ok();
    let mut spans: BTreeMap<String, Vec<_>> = BTreeMap::new();
    let mut edges = Vec::new();
    for id in &ids {
        let history = world.history(id);
        let of = |kind: &str| history.iter().find(|entry| entry["event"]["kind"] == kind).expect("there");
        let (claimed, ended) = (of("claimed"), of("ended"));
        assert_eq!(ended["event"]["outcome"], "succeeded");
        let gpus: Vec<&str> =
            claimed["event"]["gpus"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        assert_eq!(gpus.len(), 1);
        assert_eq!(world.run(["logs", id]).ok().trim(), gpus[0], "the job saw exactly its own GPU");
        spans.entry(gpus[0].to_owned()).or_default().push((time(claimed), time(ended)));
        edges.extend([(time(claimed), 1), (time(ended), -1)]);
    }
    assert_eq!(spans.len(), 2, "both GPUs were used");
    for spans in spans.values_mut() {
        spans.sort();
        assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0), "a GPU was in use twice: {spans:?}");
    }
    edges.sort();
    let most = edges
        .iter()
        .scan(0, |running, (_, step)| {
            *running += step;
            Some(*running)
        })
        .max();
    assert_eq!(most, Some(2), "two ran at once, never more");
    assert_eq!(world.containers(), [""; 0]);
}

#[test]
fn a_waiting_job_is_cancelled_at_once_and_never_runs() {
    let world = World::new();
    let id = world.submit(&["--gpus", "1"], "echo ran");
    assert_eq!(world.state(&id), "queued");
    assert_eq!(world.run(["cancel", &id]).ok(), format!("{id} cancelled\n"));
    assert_eq!(world.state(&id), "cancelled");
    let _agent = Agent::start(&world, "a", TWO_GPUS);
    // The next job of the lane runs, and so the cancelled one's message has been seen.
    let next = world.submit(&["--gpus", "1"], "true");
    world.until(&next, "succeeded");
    assert_eq!(world.state(&id), "cancelled");
    assert!(world.events(&id, "claimed").is_empty());
}

#[test]
fn a_running_job_is_cancelled_by_sigterm_first() {
    let world = World::new();
    let _agent = Agent::start(&world, "a", TWO_GPUS);
    let id = world.submit(&[], "trap 'echo got TERM; exit 3' TERM; echo ready; while :; do sleep 0.1; done");
    eventually("it prints", || world.run(["logs", &id]).stdout.contains("ready").then_some(()));
    world.run(["cancel", &id, "--reason", "enough"]).ok();
    world.until(&id, "cancelled");
    assert_eq!(world.run(["logs", &id]).ok(), "ready\ngot TERM\n");
    let ended = world.events(&id, "ended");
    assert_eq!((ended[0]["outcome"].as_str(), ended[0]["exit_code"].as_i64()), (Some("cancelled"), Some(3)));
    assert_eq!(world.containers(), [""; 0]);
}

#[test]
fn a_job_that_ignores_sigterm_is_killed_after_its_grace() {
    let world = World::new();
    let _agent = Agent::start(&world, "a", &[]);
    let job = world.file(
        "job.toml",
        "image = \"haul/busybox:1\"\ngrace = \"1s\"\ncommand = [\"sh\", \"-c\", \"trap '' TERM; echo ready; while :; do sleep 0.1; done\"]\n",
    );
    let id = world.run(["submit".as_ref(), job.as_os_str()]).ok().trim().to_owned();
    eventually("it prints", || world.run(["logs", &id]).stdout.contains("ready").then_some(()));
    world.run(["cancel", &id]).ok();
    world.until(&id, "cancelled");
    assert_eq!(world.events(&id, "ended")[0]["exit_code"], 137);
}

#[test]
fn a_job_is_warned_before_its_time_is_up() {
    let world = World::new();
    let _agent = Agent::start(&world, "a", &[]);
    let job = world.file(
        "job.toml",
        "image = \"haul/busybox:1\"\ntimeout = \"3s\"\nwarn = \"2s\"\ngrace = \"1s\"\n\
         command = [\"sh\", \"-c\", \"trap 'echo warned' USR1; trap 'echo term; exit 0' TERM; while :; do sleep 0.1; done\"]\n",
    );
    let id = world.run(["submit".as_ref(), job.as_os_str()]).ok().trim().to_owned();
    world.until(&id, "failed");
    assert_eq!(world.run(["logs", &id]).ok(), "warned\nterm\n");
    assert_eq!(world.run(["wait", &id]).code, 124);
}

#[test]
fn a_job_that_nobody_can_run_waits_and_says_why() {
    let world = World::new();
    let _agent = Agent::start(&world, "a", TWO_GPUS);
    let id = world.submit(&["--gpus", "3"], "true");
    eventually("the node has said what it has", || {
        let said = world.run(["status", &id]).ok();
        said.contains("a  does not fit: needs 3 GPUs, the host has 2").then_some(())
    });
    assert_eq!(world.state(&id), "queued");
    let waiting = &world.json(["status", &id, "--json"])["waiting"];
    assert_eq!(waiting["verdict"], "no_host");
    let unknown = world
        .file("job.toml", "image = \"haul/busybox:1\"\n[[mounts]]\nvolume = \"nope\"\ntarget = \"/d\"\n");
    let done = world.run(["submit".as_ref(), unknown.as_os_str()]);
    assert!(done.stderr.contains("no node of the fleet can run this job"), "{done:?}");
    let id = done.ok().trim().to_owned();
    assert!(world.run(["status", &id]).ok().contains("the host does not offer volume nope"));
}

#[test]
fn a_drained_agent_takes_nothing_until_it_is_resumed() {
    let world = World::new();
    let agent = Agent::start(&world, "a", &[]);
    let dir = agent.state_dir();
    let drain = |flags: &[&str]| {
        let args =
            ["drain".as_ref(), "--state-dir".as_ref(), dir.as_os_str()].into_iter().map(ToOwned::to_owned);
        world.run(args.chain(flags.iter().map(Into::into))).ok()
    };
    drain(&[]);
    let id = world.submit(&[], "true");
    eventually("the record says that it drains", || {
        let nodes = world.json(["nodes", "--json"]);
        (nodes[0]["mode"] == "draining").then_some(())
    });
    assert_eq!(world.state(&id), "queued");
    let why = world.run(["status", &id]).ok();
    assert!(why.contains("the nodes that would fit take no jobs at present"), "{why}");
    assert!(why.contains("it is draining"), "{why}");
    drain(&["--resume"]);
    world.until(&id, "succeeded");
}

#[test]
fn a_finished_job_is_retried_under_its_id() {
    let world = World::new();
    let _agent = Agent::start(&world, "a", &[]);
    let id = world.submit(&[], "test $HAUL_ATTEMPT -ge 2");
    world.until(&id, "failed");
    assert_eq!(world.run(["wait", &id]).code, 1);
    world.run(["retry", &id]).ok();
    assert_eq!(world.run(["wait", &id]).code, 0);
    let running = world.submit(&[], "sleep 600");
    world.until(&running, "running");
    let done = world.run(["retry", &running]);
    assert!(done.code == 1 && done.stderr.contains("only a finished job can be retried"), "{done:?}");
    world.run(["cancel", &running]).ok();
}

#[test]
fn two_fleets_on_one_engine_may_have_a_job_of_the_same_id() {
    let worlds = [World::new(), World::new()];
    let agents = worlds.each_ref().map(|world| Agent::start(world, "a", &[]));
    let script = "until [ -e $HAUL_CHECKPOINT_DIR/go ]; do sleep 0.1; done; echo $0";
    for (world, word) in worlds.iter().zip(["first", "second"]) {
        world.run(["submit", "--id", "same", "--", BUSYBOX, "sh", "-c", script, word]).ok();
        world.until("same", "running");
    }
    agents.iter().for_each(|agent| agent.go("same"));
    for (world, word) in worlds.iter().zip(["first", "second"]) {
        world.until("same", "succeeded");
        assert_eq!(world.run(["logs", "same"]).ok(), format!("{word}\n"));
        assert_eq!(world.events("same", "claimed").len(), 1);
    }
}

#[test]
fn an_array_runs_each_index_once() {
    let world = World::new();
    let _agent = Agent::start(&world, "a", &[]);
    let args = [
        "submit",
        "--array",
        "1-3",
        "--id",
        "sweep",
        "--",
        "haul/busybox:1",
        "sh",
        "-c",
        "echo $HAUL_ARRAY_INDEX",
    ];
    assert_eq!(world.run(args).ok(), "sweep-1\nsweep-2\nsweep-3\n");
    world.run(["wait", "sweep-1", "sweep-2", "sweep-3"]).ok();
    assert_eq!(world.run(["logs", "sweep-2"]).ok(), "2\n");
    // The same again changes nothing.
    assert_eq!(world.run(args).ok(), "sweep-1\nsweep-2\nsweep-3\n");
    assert_eq!(world.events("sweep-2", "claimed").len(), 1);
}

#[test]
fn an_agent_told_to_wait_leaves_when_its_jobs_have_ended() {
    let world = World::new();
    let mut agent = Agent::start(&world, "a", &["--on-stop", "wait"]);
    let id = world.submit(&[], "sleep 2; echo done");
    world.until(&id, "running");
    assert_eq!(agent.stop(), 0);
    assert_eq!(world.state(&id), "succeeded");
}

#[test]
fn an_agent_told_to_hand_back_stops_its_jobs_with_notice_and_queues_them() {
    let world = World::new();
    let mut agent = Agent::start(&world, "a", &["--on-stop", "requeue"]);
    let id = world.submit(&[], "trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.1; done");
    eventually("it prints", || world.run(["logs", &id]).stdout.contains("up").then_some(()));
    assert_eq!(agent.stop(), 0);
    assert_eq!(world.state(&id), "queued");
    assert_eq!(world.events(&id, "ended")[0]["outcome"], "preempted");
    assert_eq!(world.run(["logs", &id]).ok(), "up\nsaved\n");
    assert_eq!(world.containers(), [""; 0]);
}
