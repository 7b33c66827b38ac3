//! Several jobs on one GPU, each with so much of its memory.

use serde_json::Value;
use tests::{
    Agent, World,
    engine::{Engine, container},
    eventually,
    nvml::{self, FIRST, HOOK, p100, set},
    world::BUSYBOX,
};

/// Prints its GPU, and ends when it is let go.
const UNTIL_LET_GO: &str =
    "echo $NVIDIA_VISIBLE_DEVICES $HAUL_GPU_SHARE; until [ -e $HAUL_CHECKPOINT_DIR/go ]; do sleep 0.1; done";

#[test]
fn shares_are_packed_by_best_fit() {
    let world = World::new();
    // Three and three would leave 4 and 12 GiB; four and two leave the large one 16 GiB in one piece.
    let _agent = Agent::start(&world, "a", &["--simulate-gpus", "1xA10:24GiB,1xT4:16GiB"]);
    let ids: Vec<String> = (0..6).map(|_| world.submit(&["--gpu-share", "4GiB"], UNTIL_LET_GO)).collect();
    ids.iter().for_each(|id| world.until(id, "running"));
    let gpus = || {
        let nodes = world.json(["nodes", "--json"]);
        let gpus = nodes[0]["offer"]["gpus"].as_array().expect("a list").clone();
        let state = |gpu: &Value| format!("{} {}", gpu["model"], gpu["state"]["free"]);
        gpus.iter().map(state).collect::<Vec<_>>()
    };
    eventually("two on the large one and four on the small one", || {
        (gpus() == [r#""A10" "16GiB""#, r#""T4" "0B""#]).then_some(())
    });
    let seventh = world.submit(&["--gpu-share", "17GiB"], "true");
    let why = "needs 17GiB of a GPU, 16.0 GiB free now on the emptiest";
    eventually(why, || world.run(["status", &seventh]).ok().contains(why).then_some(()));
    ids.iter().for_each(|id| drop(world.run(["cancel", id]).ok()));
    world.until(&seventh, "succeeded");
}

#[test]
fn a_job_that_holds_more_than_its_share_is_warned_of_and_ended() {
    let engine = Engine::start_with(&[BUSYBOX], &[HOOK]);
    let world = World::on_engine(engine.address());
    set(&world, &p100(FIRST, 0, ""));
    let _agent = nvml::agent(&world, &[]);
    // It does not end at once when it is told to.
    let stubborn = format!("trap '' TERM; {UNTIL_LET_GO}");
    let job = serde_json::json!({ "image": BUSYBOX, "grace": "8s", "command": ["sh", "-c", stubborn] });
    let file = world.file("greedy.json", &job.to_string());
    let greedy = ["submit", "--gpu-share", "4GiB", file.to_str().expect("text")];
    let greedy = world.run(greedy).ok().trim().to_owned();
    let modest = world.submit(&["--gpu-share", "4GiB"], UNTIL_LET_GO);
    let pid = |id: &str| {
        world.until(id, "running");
        container(Some(&engine.address()), id, "{{.State.Pid}}")
    };
    let (first, second) = (pid(&greedy), pid(&modest));
    for id in [&greedy, &modest] {
        let printed = format!("{FIRST} {}\n", 4_u64 << 30);
        eventually("it prints", || (world.run(["logs", id]).stdout == printed).then_some(()));
    }
    let hold = |mib: u32| {
        let processes =
            format!("{{ pid = {first}, memory_mib = {mib} }}, {{ pid = {second}, memory_mib = 4096 }}");
        set(
            &world,
            &p100(FIRST, 0, &format!("used_kib = {}\nprocesses = [{processes}]", (mib + 4096) << 10)),
        );
    };
    let beats = || world.json(["nodes", "--json"])[0]["counter"].as_u64().expect("a number");
    let gpu = || world.json(["nodes", "--json"])[0]["offer"]["gpus"][0]["state"]["state"].clone();
    // All that they asked for, and nobody else is on it.
    hold(4096);
    let seen = beats() + 3;
    eventually("it is looked at", || (beats() > seen).then_some(()));
    assert_eq!((world.state(&greedy), world.state(&modest)), ("running".into(), "running".into()));
    assert_eq!(gpu(), "shared");
    hold(4100);
    let excess = "it holds 4100MiB of a GPU's memory and has asked for 4GiB of it (gpu_share)";
    eventually("it is warned of", || world.run(["status", &greedy]).ok().contains(excess).then_some(()));
    world.until(&greedy, "failed");
    let ended = world.events(&greedy, "ended").remove(0);
    assert_eq!(ended["outcome"], "share_exceeded");
    assert_eq!(ended["message"], excess);
    assert_eq!(world.state(&modest), "running");
    world.run(["cancel", &modest]).ok();
}
