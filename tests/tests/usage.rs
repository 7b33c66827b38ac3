//! What attempts used, by what the driver and the engine said while they ran.

use tests::{
    World,
    engine::Engine,
    eventually,
    nvml::{self, FIRST, HOOK, p100, set},
    world::BUSYBOX,
};

#[test]
fn what_a_job_used_stands_in_its_log_and_in_its_status() {
    let engine = Engine::start_with(&[BUSYBOX], &[HOOK]);
    let world = World::on_engine(engine.address());
    // Nobody's memory, so that the GPU stays free.
    let host = |joules: u64, used: u32| {
        set(&world, &p100(FIRST, 0, &format!("energy_mj = {}\nused_kib = {}", joules * 1000, used << 10)));
    };
    host(5000, 0);
    let _agent = nvml::agent(&world, &[]);
    let busy = world.submit(&["--gpus", "1"], "while [ ! -e $HAUL_CHECKPOINT_DIR/go ]; do :; done");
    let counter = || world.json(["nodes", "--json"])[0]["counter"].as_u64().expect("a number");
    world.until(&busy, "running");
    let beats = |count: u64| {
        let seen = counter() + count;
        eventually("it is sampled", || (counter() > seen).then_some(()));
    };
    beats(2);
    host(8600, 300);
    beats(3);
    host(8600, 0);
    world.run(["cancel", &busy]).ok();
    world.until(&busy, "cancelled");
    let usage = world.events(&busy, "ended")[0]["usage"].clone();
    let number = |path: &str| usage.pointer(path).and_then(serde_json::Value::as_f64);
    assert_eq!((number("/gpu/utilization"), number("/gpu/utilization_peak")), (Some(7.0), Some(7.0)));
    assert_eq!((number("/gpu/energy"), &usage["gpu"]["memory_peak"]), (Some(3600.0), &"300MiB".into()));
    assert!(number("/gpu_seconds").is_some_and(|seconds| seconds > 1.0), "{usage:#}");
    // A loop that never waits, on a machine that others use too.
    assert!(number("/cpu/mean").is_some_and(|cores| (0.05..1.5).contains(&cores)), "{usage:#}");
    let status = world.run(["status", &busy]).ok();
    assert!(status.contains("7% busy (most 7%)") && status.contains("memory 300.0 MiB, 1.00 Wh"), "{status}");
}
