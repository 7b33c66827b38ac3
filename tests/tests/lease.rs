//! Nodes that die, stop and come back: their jobs go on, once, and no two copies run at a time.

use rustix::process::Signal;
use serde_json::{Value, json};
use shared::{fleet::Settings, units::Span};
use tests::{
    Agent, World,
    agent::Guard,
    engine::{ask, signal},
    eventually, wall_clock,
    world::BUSYBOX,
};

/// Beats and a lease short enough to wait for.
fn world() -> World {
    let settings = Settings {
        beat: Span(std::time::Duration::from_millis(500)),
        lease: Span::secs(5),
        ..Settings::embedded(None)
    };
    World::with_settings(settings)
}

/// The state of a job's container by the engine's own word, by attempt.
fn containers(job: &str) -> Vec<(String, String)> {
    let filter = format!("label=haul.job={job}");
    let format = "{{.Names}} {{.State}}";
    let text = ask(None, &["ps", "--all", "--filter", &filter, "--format", format]);
    let rows = text.lines().filter_map(|line| line.split_once(' '));
    rows.map(|(name, state)| (name.to_owned(), state.to_owned())).collect()
}

/// That the job has a container that is paused.
fn until_paused(job: &str) {
    eventually("its container is frozen", || {
        containers(job).iter().any(|(_, state)| state == "paused").then_some(())
    });
}

/// A node whose agent was stopped while it ran a job, which its guard has frozen.
fn stopped(world: &World) -> (Agent<'_>, Guard, String) {
    let a = Agent::start(world, "a", &[]);
    let guard = a.guard();
    let id = world.submit(&[], JOB);
    world.until(&id, "running");
    signal(a.pid(), Signal::STOP);
    until_paused(&id);
    (a, guard, id)
}

/// Runs until its agent lets it go; a later attempt, for two seconds.
const JOB: &str = "if [ $HAUL_ATTEMPT = 1 ]; then until [ -e $HAUL_CHECKPOINT_DIR/go ]; do sleep 0.1; done; \
                   else sleep 2; fi; echo done";

#[test]
fn a_dead_nodes_job_is_frozen_by_its_guard_and_runs_elsewhere() {
    let world = world();
    let mut a = Agent::start(&world, "a", &[]);
    let guard = a.guard();
    let id = world.submit(&[], JOB);
    world.until(&id, "running");
    let b = Agent::start(&world, "b", &[]);
    a.kill();
    until_paused(&id);
    eventually("the other node has it", || (world.events(&id, "claimed").len() == 2).then_some(()));
    for (name, state) in containers(&id) {
        assert!(!name.starts_with(&format!("haul-{id}-1-")) || state == "paused", "{name} is {state}");
    }
    world.until(&id, "succeeded");
    let ended: Vec<String> =
        world.events(&id, "ended").iter().map(|end| end["outcome"].to_string()).collect();
    assert_eq!(ended, ["\"node_lost\"", "\"succeeded\""]);
    assert_eq!(world.run(["logs", &id]).ok(), "done\n");
    // When it comes back it removes what it lost.
    a.launch();
    eventually("no container is left", || world.containers().is_empty().then_some(()));
    drop((guard, b));
}

#[test]
fn a_stopped_agent_that_was_replaced_removes_its_container_and_says_so() {
    let world = world();
    let a = Agent::start(&world, "a", &[]);
    let guard = a.guard();
    let id = world.submit(&[], JOB);
    world.until(&id, "running");
    let b = Agent::start(&world, "b", &[]);
    signal(a.pid(), Signal::STOP);
    until_paused(&id);
    eventually("the other node has it", || (world.events(&id, "claimed").len() == 2).then_some(()));
    signal(a.pid(), Signal::CONT);
    world.until(&id, "succeeded");
    eventually("no container is left", || world.containers().is_empty().then_some(()));
    assert!(a.said().contains("taken over by another node"), "{}", a.said());
    assert_eq!(world.events(&id, "ended").len(), 2);
    drop((guard, b));
}

#[test]
fn a_stopped_agent_that_was_not_replaced_thaws_and_loses_nothing() {
    let world = world();
    let (a, guard, id) = stopped(&world);
    eventually("it is shown as frozen", || (world.state(&id) == "frozen").then_some(()));
    signal(a.pid(), Signal::CONT);
    a.go(&id);
    world.until(&id, "succeeded");
    assert_eq!(world.events(&id, "resumed").len(), 1);
    assert_eq!(world.events(&id, "claimed").len(), 1);
    assert_eq!(world.run(["logs", &id]).ok(), "done\n");
    drop(guard);
}

/// Writes into a job's log that another node has taken it over, and does nothing else: that node dies then.
fn take_over_and_die(world: &World, id: &str) {
    let seq = world.history(id).len();
    let entry = json!({
        "v": 1, "seq": seq, "at": wall_clock(), "nonce": "takenoverthen",
        "author": { "node": { "name": "b", "incarnation": "diedafterwards" } },
        "event": { "kind": "ended", "attempt": 1, "outcome": "node_lost", "next": { "requeue": {} } },
    });
    let log = world.path("fleet/jobs").join(id).join("log");
    std::fs::write(log.join(format!("{seq:010}.json")), entry.to_string()).expect("written");
}

#[test]
fn a_job_whose_new_node_died_half_way_is_put_back_by_the_old_one() {
    let world = world();
    let (a, guard, id) = stopped(&world);
    take_over_and_die(&world, &id);
    signal(a.pid(), Signal::CONT);
    world.until(&id, "succeeded");
    assert_eq!(world.events(&id, "claimed").len(), 2);
    assert_eq!(world.run(["logs", &id]).ok(), "done\n");
    drop(guard);
}

#[test]
fn a_job_that_may_go_on_is_not_frozen() {
    let world = world();
    let a = Agent::start(&world, "a", &[]);
    let guard = a.guard();
    let file = world.file(
        "job.json",
        &format!(
            r#"{{"image": "haul/busybox:1", "command": ["sh", "-c", "{JOB}"], "on_isolation": "continue"}}"#
        ),
    );
    let id = world.run(["submit".as_ref(), file.as_os_str()]).ok().trim().to_owned();
    let frozen = world.submit(&[], JOB);
    for id in [&id, &frozen] {
        world.until(id, "running");
    }
    signal(a.pid(), Signal::STOP);
    until_paused(&frozen);
    assert_eq!(containers(&id)[0].1, "running");
    signal(a.pid(), Signal::CONT);
    for id in [&id, &frozen] {
        a.go(id);
        world.until(id, "succeeded");
    }
    drop(guard);
}

#[test]
fn a_second_agent_of_the_same_name_refuses_to_start() {
    let world = world();
    let _a = Agent::start(&world, "a", &[]);
    let other = world.path("other");
    let args = ["agent", "--node", "a", "--state-dir"].map(std::ffi::OsStr::new);
    let done = world.run(args.into_iter().chain([other.as_os_str()]));
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("an agent named a runs already"), "{done:?}");
}

#[test]
fn of_two_agents_of_one_name_one_gives_way() {
    let world = world();
    let mut a = Agent::start(&world, "a", &[]);
    let id = world.submit(&[], "sleep 600");
    world.until(&id, "running");
    // As by an agent that started in the same moment, on a machine made from the same image.
    let path = world.path("fleet/nodes/a.json");
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path).expect("there")).expect("JSON");
    record["incarnation"] = "0000000000000000".into();
    let mut counter = 1;
    eventually("it gives way", || {
        counter += 1;
        record["counter"] = counter.into();
        std::fs::write(&path, record.to_string()).expect("written");
        a.said().contains("this one gives way").then_some(())
    });
    assert_eq!(a.ended(), 1);
    assert!(a.said().contains("another agent is named a too"), "{}", a.said());
    assert_eq!((world.state(&id).as_str(), world.containers().len()), ("queued", 0));
}

fn sweeping() -> World {
    let mut settings =
        Settings { beat: Span(std::time::Duration::from_millis(500)), ..Settings::embedded(None) };
    settings.sweep = Span::secs(1);
    World::with_settings(settings)
}

#[test]
fn a_purged_queue_is_filled_again() {
    let world = sweeping();
    let id = world.submit(&[], "true");
    world.purge();
    let a = Agent::start(&world, "a", &[]);
    world.until(&id, "succeeded");
    assert!(a.said().contains("sent messages again"), "{}", a.said());
}

#[test]
fn a_job_of_a_newer_haul_does_not_keep_the_sweep_from_others() {
    let world = sweeping();
    let [newer, lost] = [(); 2].map(|()| world.submit(&[], "true"));
    world.make_newer(&newer);
    world.purge();
    let a = Agent::start(&world, "a", &[]);
    world.until(&lost, "succeeded");
    assert!(a.said().contains("the job is left to a newer agent"), "{}", a.said());
}

#[test]
fn a_job_of_a_newer_haul_does_not_keep_others_on_its_dead_node() {
    let world = world();
    let mut a = Agent::start(&world, "a", &[]);
    let ids = ["0-newer", "1-lost"];
    for id in ids {
        world.run(["submit", "--id", id, "--", BUSYBOX, "sh", "-c", JOB]).ok();
        world.until(id, "running");
    }
    a.kill();
    world.make_newer(ids[0]);
    let _b = Agent::start(&world, "b", &[]);
    world.until(ids[1], "succeeded");
    assert_eq!(world.events(ids[1], "claimed").len(), 2);
}

#[test]
fn the_guard_is_told_of_the_engine_that_the_agent_has_from_its_environment() {
    let world = World::new();
    let engine = "unix:///var/run/docker.sock";
    let a = Agent::start_with(&world, "a", &[], &[("DOCKER_HOST", engine)]);
    let record = std::fs::read_to_string(a.state_dir().join("fence.json")).expect("a record");
    let record: Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!(record["engine"], engine);
}

#[test]
fn a_guard_whose_engine_does_not_answer_says_so_in_time() {
    let world = World::new();
    let mut a = Agent::start(&world, "a", &[]);
    a.kill();
    let file = a.state_dir().join("fence.json");
    let mut note: Value = serde_json::from_slice(&std::fs::read(&file).expect("a note")).expect("JSON");
    let engine = world.path("docker.sock");
    note["engine"] = format!("unix://{}", engine.display()).into();
    std::fs::write(&file, note.to_string()).expect("written");
    let guard = a.guard();
    let says = |words: &str| {
        let said = std::fs::read_to_string(world.path("a.guard.log")).unwrap_or_default();
        said.contains(words).then_some(())
    };
    eventually("it warns", || says("does not answer the guard"));
    std::os::unix::fs::symlink("/var/run/docker.sock", engine).expect("made");
    eventually("it says that it does now", || says("the engine answers the guard"));
    drop(guard);
}
