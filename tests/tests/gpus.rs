//! GPUs through the shipped NVML code, with a library that reads them from a file, and through
//! the engine's own NVIDIA path, with a hook that does nothing.

use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use shared::units::Size;
use tests::{
    Agent, Done, World,
    engine::{Engine, ask, container},
    eventually,
    nvml::{self, FIRST, HOOK, SECOND, library, p100, set, two_p100},
    world::BUSYBOX,
};

fn gpus(world: &World, library: &Path, flags: &[&str]) -> Done {
    let mut command = nvml::on_host(world, world.command(["gpus"].iter().chain(flags)));
    command.env("HAUL_NVML_LIBRARY", library);
    command.output().expect("haul starts").into()
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
    set(&world, &two_p100("used_kib = 524288\nprocesses = [{ pid = 1, memory_mib = 512 }]", ""));
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

/// What `haul gpus --json` printed on a real H200 (driver 580.159.04), and the host that gives these numbers.
fn recorded(text: &str) -> (Value, String) {
    let mut read: Value = serde_json::from_str(text).expect("JSON");
    let driver = read["driver"]["version"].clone();
    let gpu = &mut read["gpus"][0];
    // The stand-in has no bus, and the program that was seen there does not run here.
    gpu["pci_bus"] = Value::Null;
    for process in gpu["processes"].as_array_mut().expect("a list") {
        process["pid"] = std::process::id().into();
        process["name"] = std::fs::read_to_string("/proc/self/comm").expect("a name").trim_end().into();
    }
    let number = |name: &str| gpu[name].as_f64().expect("a number");
    let kib = |value: &Value| value.as_str().expect("text").parse::<Size>().expect("a size").bytes() >> 10;
    let processes: Vec<String> = gpu["processes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|process| {
            format!("{{ pid = {}, memory_mib = {} }}", process["pid"], kib(&process["memory"]) >> 10)
        })
        .collect();
    let host = format!(
        "driver = {}\ncuda = 13000\n[[gpus]]\nuuid = {}\nname = {}\nmemory_mib = {}\nreserved_kib = {}\n\
         used_kib = {}\ncc = [9, 0]\nutilization = {}\npower_mw = {:.0}\nenergy_mj = {:.0}\ntemperature = {}\n\
         mig = false\nprocesses = [{}]\n",
        driver,
        gpu["uuid"],
        gpu["model"],
        kib(&gpu["memory"]) >> 10,
        kib(&gpu["memory_reserved"]),
        kib(&gpu["memory_used"]),
        gpu["utilization"],
        number("power") * 1000.0,
        number("energy") * 1000.0,
        gpu["temperature"],
        processes.join(", "),
    );
    (read, host)
}

#[test]
fn a_gpu_reads_as_a_real_one_did() {
    let world = World::new();
    for text in [include_str!("h200/idle.json"), include_str!("h200/busy.json")] {
        let (real, host) = recorded(text);
        set(&world, &host);
        let read: Value = serde_json::from_str(&gpus(&world, &library(), &["--json"]).ok()).expect("JSON");
        assert_eq!(read, real);
    }
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
    let agent = nvml::agent(&world, &[]);
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
    let agent = nvml::agent(&world, &[]);
    assert_eq!(states(&world, &agent), ["foreign", "free"]);
    let becomes = |first: &str, expected: &str| {
        set(&world, &two_p100(first, ""));
        eventually(expected, || (states(&world, &agent) == [expected, "free"]).then_some(()));
    };
    becomes("", "free");
    becomes("ecc = 3", "out");
    becomes("mig = true", "out");
    becomes("ecc = 0\nmig = false", "free");
    // What a program can bring about, and what the power limit asks for, is nothing.
    becomes("xids = [13, 31]\nthrottled = 4\nenergy_mj = 9000", "free");
    becomes("xids = [13, 31, 48]\nenergy_mj = 9000", "out");
    becomes("xids = [13, 31, 48, 45]\nenergy_mj = 9500", "out");
    becomes("energy_mj = 100", "free");
    becomes("throttled = 72", "out");
    becomes("", "free");
    becomes("lost = true", "out");
    let nodes = world.json(["nodes", "--json"]);
    assert_eq!(nodes[0]["offer"]["gpus"][0]["uuid"], FIRST, "a lost one keeps its name");
}

/// One way in which the first of two GPUs goes bad: what the driver says of it and of the host, and what
/// `haul nodes` then says.
struct Fault {
    gpu: &'static str,
    host: &'static str,
    said: &'static str,
}

const FAULTS: [Fault; 7] = [
    Fault { gpu: "processes = [{ pid = 1, memory_mib = 100 }]", host: "", said: "(pid 1)" },
    Fault { gpu: "ecc = 3", host: "", said: "3 uncorrectable ECC errors; reset it" },
    Fault {
        gpu: "xids = [79]\nenergy_mj = 9000",
        host: "",
        said: "XID 79: it has fallen off the bus; reset it",
    },
    Fault { gpu: "lost = true", host: "", said: "restart the host" },
    Fault { gpu: "throttled = 72", host: "", said: "slowed down by heat at 40 °C" },
    Fault { gpu: "mig = true", host: "", said: "it is in MIG mode" },
    Fault { gpu: "", host: "hang = true", said: "did not answer within" },
];

#[test]
fn each_fault_under_load_is_shown_and_passes() {
    let engine = Engine::start_with(&[BUSYBOX], &[HOOK]);
    let world = World::on_engine(engine.address());
    let well = two_p100("energy_mj = 100", "");
    set(&world, &well);
    let _agent = nvml::agent(&world, &[]);
    let counter = |node: &Value| node["counter"].as_u64().expect("a number");
    let gpu_of = |id: &str| world.events(id, "claimed").last().map(|claim| claim["gpus"][0].clone());
    for Fault { gpu, host, said } in FAULTS {
        let load = world.run(["submit", "--gpus", "1", "--array", "0-7", "--", BUSYBOX, "true"]).ok();
        let load: Vec<&str> = load.lines().collect();
        set(&world, &two_p100(gpu, host));
        let before = counter(&world.json(["nodes", "--json"])[0]);
        let after = eventually(said, || {
            let node = &world.json(["nodes", "--json"])[0];
            node.to_string().contains(said).then(|| counter(node))
        });
        // One may have been under way; a driver that hangs is waited for for five of them.
        let within = if host.is_empty() { 3 } else { 9 };
        assert!(after - before <= within, "{said}: {} beats", after - before);
        assert!(world.run(["nodes"]).ok().contains(said), "{said}");
        // Whatever is claimed from now on.
        let later: Vec<String> = (0..2).map(|_| world.submit(&["--gpus", "1"], "true")).collect();
        if host.is_empty() {
            for id in load.iter().copied().chain(later.iter().map(String::as_str)) {
                world.until(id, "succeeded");
            }
            assert!(later.iter().all(|id| gpu_of(id).is_some_and(|gpu| gpu == SECOND)), "{said}");
        } else {
            assert!(later.iter().all(|id| gpu_of(id).is_none()), "{said}");
        }
        set(&world, &well);
        eventually("it is given out again", || {
            let id = world.submit(&["--gpus", "1"], "true");
            world.until(&id, "succeeded");
            gpu_of(&id).is_some_and(|gpu| gpu == FIRST).then_some(())
        });
    }
}

#[test]
fn a_job_whose_gpu_fails_goes_on_elsewhere_and_is_not_charged() {
    let engine = Engine::start_with(&[BUSYBOX], &[HOOK]);
    let world = World::on_engine(engine.address());
    set(&world, &two_p100("", ""));
    let agent = nvml::agent(&world, &[]);
    let here = || {
        let script = "[ $HAUL_ATTEMPT = 2 ] || sleep 1000";
        let id = world.submit(&["--gpus", "1", "--retries", "0"], script);
        world.until(&id, "running");
        assert_eq!(world.events(&id, "claimed")[0]["gpus"][0], FIRST);
        id
    };
    let fails = |id: &str, said: &str| {
        world.until(id, "succeeded");
        let ended = &world.events(id, "ended")[0];
        assert_eq!(ended["outcome"], "gpu_fault", "{ended}");
        assert!(ended["message"].as_str().is_some_and(|text| text.contains(said)), "{ended}");
        assert_eq!(world.events(id, "claimed")[1]["gpus"][0], SECOND);
        set(&world, &two_p100("", ""));
        eventually("both are free", || (states(&world, &agent) == ["free", "free"]).then_some(()));
    };
    // It hangs on the GPU, and is ended.
    let hangs = here();
    set(&world, &two_p100("lost = true", ""));
    fails(&hangs, "lost");
    // It notices before the agent does.
    let notices = here();
    set(&world, &two_p100("ecc = 2", ""));
    let address = engine.address();
    ask(Some(&address), &["kill", &container(Some(&address), &notices, "{{.Name}}")]);
    fails(&notices, "2 uncorrectable ECC errors");
}

#[test]
fn a_gpu_is_given_on_when_nothing_of_its_last_job_is_left_on_it() {
    let engine = Engine::start_with(&[BUSYBOX], &[HOOK]);
    let world = World::on_engine(engine.address());
    set(&world, &p100(FIRST, 0, ""));
    let agent = nvml::agent(&world, &[]);
    let first = world.submit(&["--gpus", "1"], "sleep 1000");
    world.until(&first, "running");
    let pid = container(Some(&engine.address()), &first, "{{.State.Pid}}");
    set(&world, &p100(FIRST, 0, &format!("processes = [{{ pid = {pid}, memory_mib = 900 }}]")));
    let second = world.submit(&["--gpus", "1"], "true");
    world.run(["cancel", &first]).ok();
    world.until(&first, "cancelled");
    eventually("what is left is named", || {
        let nodes = world.run(["nodes"]).ok();
        nodes.contains(&format!("used outside haul by a process (pid {pid})")).then_some(())
    });
    assert_eq!((states(&world, &agent), world.events(&second, "claimed").len()), (vec!["foreign".into()], 0));
    set(&world, &p100(FIRST, 0, ""));
    world.until(&second, "succeeded");
}

/// The directories of a container's control groups: one, or one for each controller (cgroups(7)).
fn groups(pid: &str) -> Vec<PathBuf> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    let dirs = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        let name = controllers.strip_prefix("name=").unwrap_or(controllers);
        Some(Path::new("/sys/fs/cgroup").join(name).join(path))
    });
    dirs.filter(|dir| dir.join("cgroup.procs").exists()).collect()
}

#[test]
fn what_a_job_leaves_on_its_gpu_is_killed() {
    let engine = Engine::start_with(&[BUSYBOX], &[HOOK]);
    let world = World::on_engine(engine.address());
    set(&world, &p100(FIRST, 0, ""));
    let agent = nvml::agent(&world, &[]);
    let first = world.submit(&["--gpus", "1"], "sleep 1000");
    world.until(&first, "running");
    let init = container(Some(&engine.address()), &first, "{{.State.Pid}}");
    // It is in the container's groups, and no child of its first process, with which the others end.
    let mut left = Command::new("sleep").arg("1000").spawn().expect("sleep starts");
    let pid = left.id();
    for dir in groups(&init) {
        std::fs::write(dir.join("cgroup.procs"), pid.to_string()).expect("it goes there");
    }
    let outside = std::process::id();
    let processes =
        format!("processes = [{{ pid = {pid}, memory_mib = 900 }}, {{ pid = {outside}, memory_mib = 1 }}]");
    set(&world, &p100(FIRST, 0, &processes));
    let second = world.submit(&["--gpus", "1"], "true");
    world.run(["cancel", &first]).ok();
    let ended = eventually("it is killed", || left.try_wait().expect("a child"));
    assert_eq!(ended.signal(), Some(9));
    let told = eventually("it is said", || {
        let said = agent.said();
        let mut lines = said.lines();
        lines.find(|line| line.contains("outlived the job on a GPU, and is killed")).map(str::to_owned)
    });
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!((&told["pid"], &told["job"]), (&pid.into(), &first.as_str().into()));
    assert_eq!(world.state(&first), "cancelled");
    set(&world, &p100(FIRST, 0, ""));
    world.until(&second, "succeeded");
}

#[test]
fn a_run_that_is_tried_again_gets_its_gpu_back() {
    let engine = Engine::start_with(&[BUSYBOX], &[HOOK]);
    let world = World::on_engine(engine.address());
    set(&world, &p100(FIRST, 0, ""));
    let script = "echo attempt $HAUL_ATTEMPT; [ $HAUL_ATTEMPT = 2 ]";
    let args = ["run", "--gpus", "1", "--retries", "1", "--", BUSYBOX, "sh", "-c", script];
    let done: Done = nvml::on_host(&world, world.command(args)).output().expect("haul starts").into();
    assert!(done.code == 0 && done.stdout.ends_with("attempt 2\n"), "{done:?}");
}

#[test]
fn instances_are_given_out_in_place_of_their_gpu() {
    const INSTANCES: [&str; 2] =
        ["MIG-5ecf1a1e-0000-0000-0000-00000000000a", "MIG-5ecf1a1e-0000-0000-0000-00000000000b"];
    let engine = Engine::start_with(&[BUSYBOX], &[HOOK]);
    let world = World::on_engine(engine.address());
    let instances =
        INSTANCES.map(|uuid| format!("{{ uuid = \"{uuid}\", profile = \"1g.10gb\", memory_mib = 9728 }}"));
    set(&world, &two_p100(&format!("mig = true\ninstances = [{}]", instances.join(", ")), ""));
    let agent = nvml::agent(&world, &[]);
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
    let engine = Engine::start_with(&[BUSYBOX], &[HOOK]);
    let world = World::on_engine(engine.address());
    set(&world, &two_p100("", ""));
    let _agent = nvml::agent(&world, &[]);
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
    let _agent = nvml::agent(&world, &[]);
    let id = world.submit(&["--gpus", "1"], "true");
    let ended = eventually("it ended", || world.events(&id, "ended").into_iter().next());
    assert_eq!(ended["outcome"], "engine_fault");
    let message = ended["message"].as_str().expect("a message");
    assert!(message.contains("nvidia-container-toolkit"), "{message}");
    world.run(["cancel", &id]).ok();
}

#[test]
fn a_docker_without_nvidias_hook_gives_gpus_by_their_cdi_names() {
    let node = |path: &str| json!({ "path": path, "hostPath": "/dev/zero" });
    // The driver's, where this machine has one.
    let driver = ["/dev/nvidiactl", "/dev/nvidia-uvm"].into_iter().filter(|node| Path::new(node).exists());
    let specification = json!({
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [{ "name": FIRST, "containerEdits": { "deviceNodes": [node("/dev/nvidia0")] } }],
        "containerEdits": { "deviceNodes": driver.map(node).collect::<Vec<_>>(), "env": ["SPECIFIED=yes"] },
    });
    let engine = Engine::with_devices(&[BUSYBOX], &specification);
    let world = World::on_engine(engine.address());
    set(&world, &two_p100("", ""));
    let _agent = nvml::agent(&world, &[]);
    // The first finds out, the second is asked for in the right way from the start.
    for _ in 0..2 {
        let id = world.submit(&["--gpus", "1"], "ls /dev/nvidia0; echo $SPECIFIED: $NVIDIA_VISIBLE_DEVICES");
        world.until(&id, "succeeded");
        assert_eq!(world.run(["logs", &id]).ok(), "/dev/nvidia0\nyes: void\n");
        assert_eq!(world.events(&id, "claimed").len(), 1);
    }
    // The second is not in the specification.
    let id = world.submit(&["--gpus", "2"], "true");
    let ended = eventually("it is refused", || world.events(&id, "ended").first().cloned());
    assert_eq!(ended["outcome"], "engine_fault", "{ended}");
    let said = ended["message"].as_str().expect("text");
    assert!(
        said.contains(&format!("nvidia.com/gpu={SECOND}")) && said.contains("nvidia-ctk cdi generate"),
        "{said}"
    );
    world.run(["cancel", &id]).ok();
}
