//! Agents that die, and engines that restart: nothing is lost, nothing is done twice.

use std::process::Command;

use rand::{Rng, SeedableRng, rngs::SmallRng};
use shared::{fleet::Settings, units::Span};
use tests::{
    Agent, World,
    engine::{Engine, container},
    eventually,
    world::BUSYBOX,
};

/// A line every 100 ms, numbered from 1, and no two alike.
fn counting(lines: u32) -> String {
    format!("i=1; while [ $i -le {lines} ]; do echo line $i; i=$((i + 1)); sleep 0.1; done")
}

fn numbered(lines: u32) -> String {
    (1..=lines).map(|i| format!("line {i}\n")).collect()
}

#[test]
fn jobs_outlive_a_killed_agent_and_their_output_is_whole() {
    let world = World::new();
    let mut agent = Agent::start(&world, "a", &["--cpus", "4"]);
    let ids: Vec<String> = (0..3).map(|_| world.submit(&[], &counting(60))).collect();
    for id in &ids {
        eventually("it prints", || world.run(["logs", id]).stdout.contains("line 3\n").then_some(()));
    }
    agent.kill();
    assert_eq!(world.containers().len(), 3, "containers run on without their agent");
    agent.launch();
    agent.until_ready();
    for id in &ids {
        world.until(id, "succeeded");
        assert_eq!(world.run(["logs", id]).ok(), numbered(60), "each line once, in order");
        let claims = world.events(id, "claimed");
        assert_eq!((claims.len(), claims[0]["attempt"].as_u64()), (1, Some(1)));
    }
    eventually("no container is left", || world.containers().is_empty().then_some(()));
}

#[test]
fn a_job_that_ended_while_no_agent_was_there_is_not_run_again() {
    let world = World::new();
    let mut agent = Agent::start(&world, "a", &[]);
    let id =
        world.submit(&[], "echo begin; until [ -e $HAUL_CHECKPOINT_DIR/go ]; do sleep 0.1; done; echo end");
    world.until(&id, "running");
    agent.kill();
    agent.go(&id);
    let name = world.containers().remove(0);
    eventually("the container exits", || {
        let state = tests::engine::ask(None, &["inspect", "--format", "{{.State.Status}}", &name]);
        (state.trim() == "exited").then_some(())
    });
    agent.launch();
    world.until(&id, "succeeded");
    assert_eq!(world.run(["logs", &id]).ok(), "begin\nend\n");
    assert_eq!(world.events(&id, "claimed").len(), 1);
}

#[test]
fn a_container_that_an_older_agent_has_called_otherwise_is_taken_up_and_removed() {
    let world = World::new();
    let mut agent = Agent::start(&world, "a", &[]);
    let id = world.submit(&[], "until [ -e $HAUL_CHECKPOINT_DIR/go ]; do sleep 0.1; done");
    world.until(&id, "running");
    agent.kill();
    let name = format!("haul-{id}-1");
    tests::engine::ask(None, &["rename", &world.containers().remove(0), &name]);
    agent.launch();
    agent.until_ready();
    assert_eq!(world.containers(), [name]);
    agent.go(&id);
    world.until(&id, "succeeded");
    eventually("it is removed", || world.containers().is_empty().then_some(()));
    assert!(!agent.said().contains("came after its attempt had ended"), "by the job's own end");
    assert_eq!(world.events(&id, "claimed").len(), 1);
}

/// A file that nobody may remove (`chattr(1)`), until this is dropped.
struct Immutable(String);

impl Immutable {
    fn make(path: String) -> Self {
        Self::set(&path, "+i");
        Self(path)
    }

    fn set(path: &str, flag: &str) {
        assert!(Command::new("chattr").args([flag, path]).status().expect("chattr starts").success());
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        Self::set(&self.0, "-i");
    }
}

#[test]
fn a_container_that_cannot_be_removed_keeps_neither_jobs_nor_the_agents_start_and_end() {
    let engine = Engine::start(&[BUSYBOX]);
    let world = World::on_engine(engine.address());
    let mut agent = Agent::start(&world, "a", &["--exit-when-idle", "5s"]);
    let id = world.submit(&[], "until [ -e $HAUL_CHECKPOINT_DIR/go ]; do sleep 0.1; done");
    world.until(&id, "running");
    let stuck = Immutable::make(container(Some(&engine.address()), &id, "{{.HostnamePath}}"));
    agent.go(&id);
    world.until(&id, "succeeded");
    let tried = |agent: &Agent, times: usize| {
        eventually("it is tried", || {
            (agent.said().matches("the container's removal; trying again").count() >= times).then_some(())
        });
    };
    tried(&agent, 1);
    agent.kill();
    let before = agent.said().matches("the container's removal; trying again").count();
    agent.launch();
    agent.until_ready();
    tried(&agent, before + 1);
    let other = world.submit(&[], "true");
    world.until(&other, "succeeded");
    assert_eq!(agent.ended(), 0, "it leaves when it is idle");
    assert_eq!(world.containers().len(), 1, "it is there still");
    drop(stuck);
    agent.launch();
    eventually("it is removed", || world.containers().is_empty().then_some(()));
}

#[test]
fn containers_that_nobody_owns_are_removed_at_the_start() {
    let world = World::new();
    let mut agent = Agent::start(&world, "a", &[]);
    let id = world.submit(&[], "true");
    world.until(&id, "succeeded");
    agent.kill();
    // As if an earlier run had died between the job's end and the container's removal.
    let labels = [
        format!("haul.fleet={}", world.fleet()),
        "haul.node=a".to_owned(),
        format!("haul.job={id}"),
        "haul.attempt=1".to_owned(),
    ];
    let mut args = vec!["create"];
    labels.iter().for_each(|label| args.extend(["--label", label]));
    args.extend([BUSYBOX, "true"]);
    tests::engine::ask(None, &args);
    assert_eq!(world.containers().len(), 1);
    agent.launch();
    eventually("it is removed", || world.containers().is_empty().then_some(()));
}

#[test]
fn a_second_agent_with_the_same_state_directory_refuses_to_start() {
    let world = World::new();
    let agent = Agent::start(&world, "a", &[]);
    let dir = agent.state_dir();
    let done = world.run([
        "agent".as_ref(),
        "--node".as_ref(),
        "a".as_ref(),
        "--state-dir".as_ref(),
        dir.as_os_str(),
    ]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("another agent uses the state directory"), "{done:?}");
}

/// kill -9 at random moments over many short jobs. The seed is printed; `CHAOS_SEED` repeats it,
/// as far as the engine's own timing allows.
#[test]
fn each_of_200_jobs_ends_exactly_once_however_often_the_agent_is_killed() {
    const JOBS: usize = 200;
    const KILLS: usize = 100;
    let seed = std::env::var("CHAOS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_124);
    println!("CHAOS_SEED={seed}");
    let mut chance = SmallRng::seed_from_u64(seed);
    // A kill between a job's marker and its message leaves it to the sweep, which by default comes once a
    // minute on average, and looks at markers that are as old.
    let world = World::with_settings(Settings { sweep: Span::secs(5), ..Settings::embedded(None) });
    let ids: Vec<String> = (0..JOBS).map(|i| world.submit(&[], &format!("echo job {i}"))).collect();
    let mut agent = Agent::start(&world, "a", &["--cpus", "4"]);
    for kill in 0..KILLS {
        // A moment of anything from the first steps of a start to several jobs' lives.
        let after = std::time::Duration::from_millis(chance.random_range(5..1500));
        let deadline = tests::now() + after;
        eventually("the moment of the kill", || (tests::now() >= deadline).then_some(()));
        agent.kill();
        agent.launch();
        if kill % 10 == 0 {
            agent.until_ready();
        }
    }
    agent.until_ready();
    for (i, id) in ids.iter().enumerate() {
        world.until(id, "succeeded");
        let history = world.history(id);
        let finals = history.iter().filter(|entry| entry["event"]["next"] == "final").count();
        assert_eq!(finals, 1, "job {i} ended {finals} times: {history:#?}");
        assert_eq!(world.run(["logs", id]).ok(), format!("job {i}\n"));
    }
    eventually("no container is left", || world.containers().is_empty().then_some(()));
    let jobs = world.json(["ps", "--all", "--json"]);
    assert_eq!(jobs.as_array().expect("a list").len(), JOBS);
}

#[test]
fn jobs_under_a_restarted_engine_are_tried_again_and_not_charged() {
    let mut engine = Engine::start(&[BUSYBOX]);
    let world = World::on_engine(engine.address());
    let _agent = Agent::start(&world, "a", &["--cpus", "4"]);
    // One that would end in order when it is told to stop, and one that would not.
    let tidy =
        world.submit(&[], "trap 'exit 0' TERM; echo up; while [ $HAUL_ATTEMPT = 1 ]; do sleep 0.1; done");
    let rude = world.submit(&[], "echo up; while [ $HAUL_ATTEMPT = 1 ]; do sleep 0.1; done");
    for id in [&tidy, &rude] {
        eventually("it prints", || world.run(["logs", id]).stdout.contains("up").then_some(()));
    }
    engine.down();
    engine.up();
    for id in [&tidy, &rude] {
        world.until(id, "succeeded");
        let outcomes: Vec<String> =
            world.events(id, "ended").iter().map(|ended| ended["outcome"].to_string()).collect();
        assert_eq!(outcomes, ["\"engine_fault\"", "\"succeeded\""]);
    }
    eventually("no container is left", || world.containers().is_empty().then_some(()));
}

#[test]
fn the_end_of_a_job_is_not_taken_for_a_container_that_comes_late() {
    let world = World::with_settings(Settings { sweep: Span::secs(1), ..Settings::embedded(None) });
    let agent = Agent::start(&world, "a", &["--cpus", "8"]);
    let ids: Vec<String> = (0..40).map(|_| world.submit(&[], "sleep 0.5")).collect();
    world.run(["wait"].into_iter().chain(ids.iter().map(String::as_str))).ok();
    assert!(!agent.said().contains("after its attempt had ended"), "{}", agent.said());
}
