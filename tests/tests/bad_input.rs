//! What bad input gets: an error that names the thing, an exit code of 1 or 2, nothing half-done.

use tests::{Done, World, world::BUSYBOX};

/// It failed with this code and said this; and no job came of it.
fn refused(world: &World, done: &Done, code: i32, says: &[&str]) {
    assert_eq!(done.code, code, "{done:?}");
    assert!(done.stderr.starts_with("error: "), "{done:?}");
    for text in says {
        assert!(done.stderr.contains(text), "{text:?} is not said: {}", done.stderr);
    }
    assert_eq!(world.json(["ps", "--all", "--json"]), serde_json::json!([]));
}

fn submit(world: &World, name: &str, text: &str) -> Done {
    let path = world.file(name, text);
    world.run(["submit".as_ref(), path.as_os_str()])
}

#[test]
fn a_job_with_faults_is_refused_with_all_of_them() {
    let world = World::new();
    let text = "imgae = \"x\"\ncommand = []\ntimeout = \"soon\"\n[resources]\nmemory = \"lots\"\n[[mounts]]\nvolume = \"d\"\npath = \"../x\"\ntarget = \"/d\"\n";
    let done = submit(&world, "job.toml", text);
    let says = [
        "did you mean \"image\"?",
        "image: required",
        "command = []",
        "timeout = \"soon\"",
        "resources.memory = \"lots\"",
        "mounts[0].path = \"../x\"",
    ];
    refused(&world, &done, 2, &says);
}

#[test]
fn a_file_that_is_no_job_is_refused() {
    let world = World::new();
    refused(&world, &submit(&world, "job.txt", "x"), 2, &["job.txt", ".toml"]);
    refused(&world, &submit(&world, "job.json", "{"), 2, &["job.json", "not valid JSON"]);
    refused(&world, &submit(&world, "job.yaml", "just words"), 2, &["job.yaml", "table"]);
    refused(&world, &world.run(["submit", "nowhere.toml"]), 1, &["nowhere.toml", "No such file"]);
    refused(&world, &world.run(["submit"]), 2, &["say what to run"]);
}

#[test]
fn a_spec_of_two_megabytes_is_refused_by_its_size() {
    let world = World::new();
    let text = format!("image = \"x\"\n# {}\n", "x".repeat(2_000_000));
    refused(&world, &submit(&world, "job.toml", &text), 2, &["job.toml", "too large for a job"]);
}

#[test]
fn an_id_in_use_by_another_job_is_refused() {
    let world = World::new();
    let submit = |word: &str| world.run(["submit", "--id", "mine", "--", BUSYBOX, "echo", word]);
    assert_eq!(submit("a").ok(), "mine\n");
    assert_eq!(submit("a").ok(), "mine\n", "the same job again changes nothing");
    let done = submit("b");
    assert!(done.code == 2 && done.stderr.contains("the id mine is taken by a different job"), "{done:?}");
    assert_eq!(world.json(["ps", "--all", "--json"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn an_id_that_is_unknown_or_ambiguous_is_said() {
    let world = World::new();
    for id in ["job-a", "job-b"] {
        world.run(["submit", "--id", id, "--", BUSYBOX]).ok();
    }
    for command in ["status", "logs", "cancel", "retry", "wait"] {
        let done = world.run([command, "nobody"]);
        assert!(done.code == 3 && done.stderr.contains("there is no job \"nobody\""), "{command}: {done:?}");
        let done = world.run([command, "job"]);
        assert!(done.code == 2 && done.stderr.contains("job-a, job-b"), "{command}: {done:?}");
    }
    assert!(world.run(["status", "job-a"]).code == 0);
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    let world = World::new();
    let done = world.run(["--fleet", "/proc/haul", "submit", "--", BUSYBOX]);
    assert!(done.code == 1 && done.stderr.contains("/proc/haul"), "{done:?}");
    assert!(done.stderr.contains("hint: "), "{done:?}");
}

#[test]
fn an_engine_that_is_not_there_is_named() {
    let world = World::on_engine("unix:///nowhere/docker.sock".into());
    for args in [&["run", "--", BUSYBOX][..], &["agent", "--node", "a"][..]] {
        let done = world.run(args);
        assert!(done.code == 1 && done.stderr.contains("/nowhere/docker.sock"), "{done:?}");
    }
    let done = world.run(["doctor"]);
    assert!(done.code == 1 && done.stdout.contains("FAIL  container engine"), "{done:?}");
}

#[test]
fn a_log_entry_from_a_newer_version_is_refused_and_left_alone() {
    let world = World::new();
    world.run(["submit", "--id", "mine", "--", BUSYBOX]).ok();
    let entry = world.path("fleet/jobs/mine/log/0000000001.json");
    std::fs::write(&entry, "{\"v\": 9, \"seq\": 1}").expect("written");
    for command in ["status", "cancel", "retry", "logs"] {
        let done = world.run([command, "mine"]);
        assert!(done.code == 1 && done.stderr.contains("newer haul (version 9"), "{command}: {done:?}");
    }
    assert_eq!(std::fs::read_to_string(&entry).expect("there"), "{\"v\": 9, \"seq\": 1}");
    // Other jobs are none the worse.
    assert_eq!(world.json(["ps", "--json"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn bad_flags_and_files_of_an_agent_are_named() {
    let world = World::new();
    let file = world.file("agent.toml", "volumes_of = {}\n");
    let done = world.run(["agent".as_ref(), "--check".as_ref(), "--config".as_ref(), file.as_os_str()]);
    assert!(done.code == 2 && done.stderr.contains("unknown field `volumes_of`"), "{done:?}");
    let done = world.run(["agent", "--check", "--simulate-gpus", "2xP100"]);
    assert!(done.code == 2 && done.stderr.contains("2xP100"), "{done:?}");
    let done = world.run(["agent", "--check", "--volume", "../x=/d"]);
    assert!(done.code == 2 && done.stderr.contains("volume name"), "{done:?}");
}

#[test]
fn the_effective_configuration_says_where_each_value_comes_from() {
    let world = World::new();
    let file = world.file("agent.toml", "max_jobs = 3\ncpus = 2.0\n");
    let mut command = world.command(["agent", "--check", "--max-jobs", "5", "--config"]);
    let done: Done = command.arg(&file).env("HAUL_LABELS", "tier=metal").output().expect("starts").into();
    let text = done.ok();
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).expect("listed").to_owned();
    assert!(line("max_jobs").contains("5") && line("max_jobs").ends_with("flag"), "{text}");
    assert!(line("cpus").ends_with("agent.toml"), "{text}");
    assert!(line("labels").contains("tier=metal") && line("labels").ends_with("variable"), "{text}");
    assert!(line("on_stop").ends_with("default"), "{text}");
}
