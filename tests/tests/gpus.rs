//! GPUs through the shipped NVML code, with a library that reads them from a file, and through
//! the engine's own NVIDIA path, with a hook that does nothing.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::{Agent, Done, World, engine::Engine, eventually, world::BUSYBOX};

const FIRST: &str = "GPU-5ecf1a1e-0000-0000-0000-000000000001";
const SECOND: &str = "GPU-5ecf1a1e-0000-0000-0000-000000000002";

/// The built library.
fn library() -> PathBuf {
    let test = std::env::current_exe().expect("this test's path");
    let library = test.ancestors().nth(2).expect("target/debug").join("libfake_nvml.so");
    assert!(library.is_file(), "{} is not built; run: cargo build --workspace", library.display());
    library
}

/// A host of two P100s, the first of which has these fields besides.
fn two_p100(first: &str, host: &str) -> String {
    let gpu = |uuid: &str, minor: u32, more: &str| {
        format!(
            "[[gpus]]\nuuid = \"{uuid}\"\nname = \"Tesla P100-PCIE-16GB\"\nmemory_mib = 16384\ncc = [6, 0]\nminor = {minor}\n\
             utilization = 7\npower_mw = 30500\ntemperature = 40\n{more}\n"
        )
    };
    format!("{host}\n{}{}", gpu(FIRST, 0, first), gpu(SECOND, 1, ""))
}

/// Writes it so that no reader sees half of it.
fn set(world: &World, text: &str) {
    let new = world.file("gpus.new", text);
    std::fs::rename(new, world.path("gpus.toml")).expect("renamed");
}

fn gpus(world: &World, library: &Path, flags: &[&str]) -> Done {
    let mut command = world.command(["gpus"].iter().chain(flags));
    command.env("HAUL_NVML_LIBRARY", library).env("FAKE_NVML_FILE", world.path("gpus.toml"));
    command.output().expect("haul starts").into()
}

fn agent<'w>(world: &'w World) -> Agent<'w> {
    let (library, file) = (library(), world.path("gpus.toml"));
    let env = [
        ("HAUL_NVML_LIBRARY", library.to_str().expect("text")),
        ("FAKE_NVML_FILE", file.to_str().expect("text")),
    ];
    Agent::start_with(world, "a", &[], &env)
}

fn states(world: &World, agent: &Agent<'_>) -> Vec<String> {
    let dir = agent.state_dir().display().to_string();
    let status = world.json(["agent", "status", "--json", "--state-dir", &dir]);
    let gpus = status["offer"]["gpus"].as_array().expect("a list").clone();
    gpus.iter().map(|gpu| gpu["state"]["state"].as_str().expect("a state").to_owned()).collect()
}

#[test]
fn all_of_a_gpu_is_read() {
    let world = World::new();
    set(&world, &two_p100("used_mib = 512\nprocesses = [{ pid = 1, memory_mib = 512 }]", ""));
    let read: Value = serde_json::from_str(&gpus(&world, &library(), &["--json"]).ok()).expect("JSON");
    assert_eq!(
        (read["driver"]["version"].as_str(), read["driver"]["cuda"].as_str()),
        (Some("535.104.05"), Some("12.4"))
    );
    assert_eq!((read["gpus"].as_array().map(Vec::len), read["simulated"].as_bool()), (Some(2), Some(false)));
    let first = &read["gpus"][0];
    assert_eq!(first["uuid"], FIRST);
    assert_eq!(first["model"], "Tesla P100-PCIE-16GB");
    assert_eq!((first["memory"].as_str(), first["memory_used"].as_str()), (Some("16GiB"), Some("512MiB")));
    assert_eq!(first["compute_capability"], "6.0");
    assert_eq!(
        (first["utilization"].as_u64(), first["power"].as_f64(), first["temperature"].as_u64()),
        (Some(7), Some(30.5), Some(40))
    );
    assert_eq!(first["processes"][0]["pid"], 1);
    assert!(gpus(&world, &library(), &[]).ok().contains("(pid 1)"));
}

#[test]
fn a_library_that_does_not_work_is_named() {
    let world = World::new();
    let broken = world.file("broken.so", "this is no library");
    for library in [broken, world.path("nowhere.so")] {
        let done = gpus(&world, &library, &[]);
        assert!(done.code == 1 && done.stderr.contains(library.to_str().expect("text")), "{done:?}");
    }
}

#[test]
fn a_driver_that_hangs_is_said_and_the_agent_lives() {
    let world = World::new();
    set(&world, &two_p100("", ""));
    let agent = agent(&world);
    set(&world, &two_p100("", "hang = true"));
    let dir = agent.state_dir().display().to_string();
    let problems = || world.json(["agent", "status", "--json", "--state-dir", &dir])["problems"].to_string();
    eventually("it is said", || problems().contains("did not answer").then_some(()));
    let id = world.submit(&["--gpus", "1"], "true");
    assert_eq!(world.state(&id), "queued");
    set(&world, &two_p100("", ""));
    // The engine has no NVIDIA hook, but the job is taken.
    eventually("the job is taken", || (!world.events(&id, "claimed").is_empty()).then_some(()));
    world.run(["cancel", &id]).ok();
}

#[test]
fn gpus_that_others_use_or_that_are_broken_are_kept_from_jobs() {
    let world = World::new();
    set(&world, &two_p100("processes = [{ pid = 1, memory_mib = 100 }]", ""));
    let agent = agent(&world);
    assert_eq!(states(&world, &agent), ["foreign", "free"]);
    let becomes = |first: &str, expected: &str| {
        set(&world, &two_p100(first, ""));
        eventually(expected, || (states(&world, &agent) == [expected, "free"]).then_some(()));
    };
    becomes("", "free");
    becomes("ecc = 3", "out");
    becomes("mig = true", "out");
    becomes("ecc = 0\nmig = false", "free");
    becomes("lost = true", "out");
    let nodes = world.json(["nodes", "--json"]);
    assert_eq!(nodes[0]["offer"]["gpus"][0]["uuid"], FIRST, "a lost one keeps its name");
}

#[test]
fn instances_are_given_out_in_place_of_their_gpu() {
    const INSTANCES: [&str; 2] =
        ["MIG-5ecf1a1e-0000-0000-0000-00000000000a", "MIG-5ecf1a1e-0000-0000-0000-00000000000b"];
    let hook = ("nvidia-container-runtime-hook", "#!/bin/sh\ncat >/dev/null\n");
    let engine = Engine::start_with(&[BUSYBOX], &[hook]);
    let world = World::on_engine(engine.address());
    let instances =
        INSTANCES.map(|uuid| format!("{{ uuid = \"{uuid}\", profile = \"1g.10gb\", memory_mib = 9728 }}"));
    set(&world, &two_p100(&format!("mig = true\ninstances = [{}]", instances.join(", ")), ""));
    let agent = agent(&world);
    assert_eq!(states(&world, &agent), ["free", "free", "free"]);
    // Until they are let go, so that each has one.
    let script = "echo $NVIDIA_VISIBLE_DEVICES; until [ -e $HAUL_CHECKPOINT_DIR/go ]; do sleep 0.1; done";
    let small: Vec<String> = (0..2).map(|_| world.submit(&["--mig", "1g.10gb"], script)).collect();
    let whole = world.submit(&["--gpus", "1"], script);
    let printed = |id: &String| {
        eventually("it prints", || {
            Some(world.run(["logs", id]).stdout.trim().to_owned()).filter(|text| !text.is_empty())
        })
    };
    let mut given: Vec<String> = small.iter().map(printed).collect();
    given.sort();
    assert_eq!(given, INSTANCES);
    assert_eq!(printed(&whole), SECOND);
    let two = world.submit(&["--gpus", "2"], "true");
    let why = "needs 2 GPUs, the host has 1 that is not in MIG mode, and 2 MIG instances";
    eventually(why, || world.run(["status", &two]).ok().contains(why).then_some(()));
    for id in small.iter().chain([&whole, &two]) {
        world.run(["cancel", id]).ok();
    }
}

#[test]
fn the_engine_is_asked_for_gpus_by_their_full_uuid() {
    // Called with the container's state; what the engine passes on is in the container's own
    // environment.
    let hook = ("nvidia-container-runtime-hook", "#!/bin/sh\ncat >/dev/null\n");
    let engine = Engine::start_with(&[BUSYBOX], &[hook]);
    let world = World::on_engine(engine.address());
    set(&world, &two_p100("", ""));
    let _agent = agent(&world);
    let one = world.submit(&["--gpus", "1"], "echo $NVIDIA_VISIBLE_DEVICES");
    let two = world.submit(&["--gpus", "2"], "echo $NVIDIA_VISIBLE_DEVICES");
    let none = world.submit(&[], "echo $NVIDIA_VISIBLE_DEVICES");
    let printed = |id: &str| {
        world.until(id, "succeeded");
        world.run(["logs", id]).ok().trim().to_owned()
    };
    assert!([FIRST, SECOND].contains(&printed(&one).as_str()));
    assert_eq!(printed(&two), format!("{FIRST},{SECOND}"));
    assert_eq!(printed(&none), "void");
}

#[test]
fn an_engine_without_the_nvidia_toolkit_is_said() {
    let world = World::new();
    set(&world, &two_p100("", ""));
    let _agent = agent(&world);
    let id = world.submit(&["--gpus", "1"], "true");
    let ended = eventually("it ended", || world.events(&id, "ended").into_iter().next());
    assert_eq!(ended["outcome"], "engine_fault");
    let message = ended["message"].as_str().expect("a message");
    assert!(message.contains("nvidia-container-toolkit"), "{message}");
    world.run(["cancel", &id]).ok();
}
