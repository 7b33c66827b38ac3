//! How many machines an autoscaler is asked for, from the first job to the last.

use serde_json::Value;
use tests::{Agent, World, eventually, world::BUSYBOX};

const POOLS: &str = r#"pools={"burst": {"labels": {"pool": "burst"}, "gpu_model": "A100", "gpus": 1,
    "gpu_memory": "80GiB", "cpus": 2, "memory": "1GiB", "max": 3, "keep_idle": "2s"}}"#;

fn burst(world: &World) -> Value {
    world.json(["demand", "--json"])["pools"][0].clone()
}

#[test]
fn a_machine_is_wanted_for_a_job_until_it_has_been_without_any() {
    let world = World::new();
    world.run(["fleet", "set", POOLS]).ok();
    let bad = world.run(["fleet", "set", &POOLS.replace("\"max\": 3", "\"max\": 3, \"min\": 4")]);
    assert!(bad.code != 0 && bad.stderr.contains("pools.burst.max = 3: at least min"), "{bad:?}");
    let id = world.submit(&["--gpus", "1", "--gpu-model", "A100"], "sleep 3");
    assert_eq!(burst(&world)["wanted"], 0, "an agent might be about to claim it");
    let wanted = eventually("a machine is wanted", || Some(burst(&world)).filter(|pool| pool["wanted"] == 1));
    assert_eq!((wanted["present"].as_u64(), wanted["jobs"].as_u64()), (Some(0), Some(1)), "{wanted}");
    assert!(world.run(["demand"]).ok().contains("1 more for waiting jobs (1)"));
    let flags =
        ["--simulate-gpus", "1xA100:80GiB", "--label", "pool=burst", "--cpus", "2", "--memory", "1GiB"];
    let _agent = Agent::start(&world, "vm1", &flags);
    world.until(&id, "running");
    let busy = eventually("it is there", || Some(burst(&world)).filter(|pool| pool["present"] == 1));
    assert_eq!(
        (busy["wanted"].as_u64(), busy["idle"].as_array().map(Vec::len)),
        (Some(1), Some(0)),
        "{busy}"
    );
    world.until(&id, "succeeded");
    let over = eventually("it may be ended", || Some(burst(&world)).filter(|pool| pool["wanted"] == 0));
    assert_eq!(over["idle"], serde_json::json!(["vm1"]), "{over}");
    assert!(over["since"].is_string());
    let unserved = world.run(["submit", "--gpus", "9", "--", BUSYBOX, "true"]).ok();
    let demands = world.json(["demand", "--json"]);
    assert_eq!(demands["unserved"], serde_json::json!([unserved.trim()]));
    world.run(["cancel", unserved.trim()]).ok();
}

#[test]
fn a_fleet_without_pools_says_how_to_get_one() {
    let world = World::new();
    assert!(world.run(["demand"]).ok().contains("haul fleet set pools="));
}
