//! `haul run`: a job here and now.

use std::io::{BufRead, BufReader};

use tests::{World, world::BUSYBOX};

fn run(world: &World, flags: &[&str], command: &[&str]) -> tests::Done {
    let args = ["run"].iter().chain(flags).chain(&["--", BUSYBOX]).chain(command);
    world.run(args)
}

#[test]
fn a_job_prints_its_output_and_ends_with_its_code() {
    let world = World::new();
    let done = run(&world, &[], &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((done.code, done.stdout.as_str()), (7, "out\n"), "{done:?}");
    assert!(done.stderr.contains("err\n"), "{done:?}");
    assert!(done.stderr.contains("exited, exit code 7"), "{done:?}");
    assert_eq!(run(&world, &[], &["true"]).code, 0);
    assert_eq!(run(&world, &[], &["false"]).code, 1);
    assert_eq!(world.containers(), [""; 0]);
}

#[test]
fn output_comes_while_the_job_runs() {
    let world = World::new();
    let gate = world.path("gate");
    std::fs::create_dir(&gate).expect("made");
    let volume = format!("gate={}", gate.display());
    let job = world.file(
        "job.toml",
        &format!(
            "image = \"{BUSYBOX}\"\n\
             command = [\"sh\", \"-c\", \"echo first; while [ ! -e /gate/open ]; do sleep 0.05; done; echo last\"]\n\
             [[mounts]]\nvolume = \"gate\"\ntarget = \"/gate\"\n"
        ),
    );
    let args = ["run".as_ref(), "--volume".as_ref(), volume.as_ref(), job.as_os_str()];
    let mut process = world.start(args);
    let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("first"));
    // The job goes on only now: what was read came while it ran.
    std::fs::write(gate.join("open"), "").expect("written");
    assert_eq!(lines.next().as_deref(), Some("last"));
    assert_eq!(process.wait().expect("ends").code(), Some(0));
}

#[test]
fn a_job_that_runs_too_long_ends_with_124() {
    let world = World::new();
    let done = run(&world, &["--timeout", "2s"], &["sleep", "600"]);
    assert_eq!(done.code, 124, "{done:?}");
    assert!(done.stderr.contains("timed_out"), "{done:?}");
}

#[test]
fn an_image_that_does_not_exist_ends_with_125_and_is_named() {
    let world = World::new();
    let done = world.run(["run", "--", "localhost:1/no/such:image", "true"]);
    assert_eq!(done.code, 125, "{done:?}");
    assert!(done.stderr.contains("localhost:1/no/such:image"), "{done:?}");
}

#[test]
fn a_command_that_does_not_exist_ends_with_127() {
    let world = World::new();
    let done = run(&world, &[], &["no-such-program"]);
    assert_eq!(done.code, 127, "{done:?}");
    assert!(done.stderr.contains("no-such-program"), "{done:?}");
}

#[test]
fn a_job_that_uses_too_much_memory_says_so() {
    let world = World::new();
    let done = run(&world, &["--memory", "16MiB"], &["tail", "/dev/zero"]);
    assert_eq!(done.code, 137, "{done:?}");
    assert!(done.stderr.contains("out_of_memory"), "{done:?}");
}

#[test]
fn what_this_host_does_not_have_is_said_at_once() {
    let world = World::new();
    let job = |text: &str| world.file("job.toml", &format!("image = \"{BUSYBOX}\"\n{text}"));
    let refused = |text: &str, why: &str| {
        let path = job(text);
        let done = world.run([
            "run".as_ref(),
            "--simulate-gpus".as_ref(),
            "2xP100:16GiB".as_ref(),
            path.as_os_str(),
        ]);
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.stderr.contains(why), "{why}: {done:?}");
    };
    refused("[[mounts]]\nvolume = \"nope\"\ntarget = \"/d\"", "the host does not offer volume nope");
    refused("secrets = [\"NOPE\"]", "the host does not hold secret NOPE");
    refused("[resources]\ngpus = 3", "needs 3 GPUs, the host has 2");
}

#[test]
fn the_container_is_what_a_deep_learning_job_wants() {
    let world = World::new();
    let script = "cat /proc/1/comm; \
                  df -k /dev/shm | tail -1 | awk '{print $2}'; \
                  ulimit -l; \
                  grep NoNewPrivs /proc/self/status | awk '{print $2}'; \
                  echo $HAUL_ATTEMPT $HAUL_OUTPUT_DIR $HAUL_CHECKPOINT_DIR; \
                  touch $HAUL_OUTPUT_DIR/a $HAUL_CHECKPOINT_DIR/b";
    let done = run(&world, &["--memory", "64MiB"], &["sh", "-c", script]);
    // An engine that may not raise limits itself gives its own.
    let unlimited = ["run", "--rm", "--ulimit", "memlock=-1", BUSYBOX, "sh", "-c", "ulimit -l"];
    let own = ["run", "--rm", BUSYBOX, "sh", "-c", "ulimit -l"];
    let raised = tests::engine::docker(None).args(unlimited).output().expect("docker starts");
    let locked = if raised.status.success() { "unlimited".into() } else { tests::engine::ask(None, &own) };
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines.len(), 5, "{done:?}");
    assert!(lines[0].contains("init"), "an init process reaps: {done:?}");
    assert_eq!(&lines[1..], ["32768", locked.trim(), "1", "1 /haul/output /haul/checkpoint"]);
    assert!(done.stderr.contains("output: "), "{done:?}");
}

#[test]
fn a_mount_that_leads_outside_its_volume_is_refused() {
    let world = World::new();
    let volume = world.path("volume");
    std::fs::create_dir(&volume).expect("made");
    std::os::unix::fs::symlink("/etc", volume.join("etc")).expect("made");
    let job = world.file(
        "job.toml",
        &format!("image = \"{BUSYBOX}\"\ncommand = [\"cat\", \"/d/passwd\"]\n[[mounts]]\nvolume = \"v\"\npath = \"etc\"\ntarget = \"/d\"\n"),
    );
    let offered = format!("v={}", volume.display());
    let done = world.run(["run".as_ref(), "--volume".as_ref(), offered.as_ref(), job.as_os_str()]);
    assert_eq!(done.code, 125, "{done:?}");
    assert!(done.stderr.contains("\"etc\" leads outside volume v"), "{done:?}");
    assert!(!done.stdout.contains("root:"), "{done:?}");
}

#[test]
fn a_secret_reaches_the_job_and_nothing_else() {
    let world = World::new();
    let secrets = world.path("secrets");
    std::fs::create_dir(&secrets).expect("made");
    std::fs::write(secrets.join("TOKEN"), "planted-s3cret\n").expect("written");
    let job = world.file(
        "job.toml",
        &format!("image = \"{BUSYBOX}\"\nsecrets = [\"TOKEN\"]\ncommand = [\"sh\", \"-c\", \"test ${{#TOKEN}} = 14\"]\n"),
    );
    let mut command =
        world.command(["run".as_ref(), "--secrets-dir".as_ref(), secrets.as_os_str(), job.as_os_str()]);
    let done: tests::Done = command.env("HAUL_LOG", "trace").output().expect("starts").into();
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!done.stdout.contains("planted") && !done.stderr.contains("planted"), "a log shows it");
    let found = std::process::Command::new("grep").args(["-r", "planted"]).arg(world.path("fleet")).output();
    assert_eq!(found.expect("grep starts").status.code(), Some(1), "the store shows it");
}

#[test]
fn retries_go_on_from_the_checkpoint() {
    let world = World::new();
    let script = "n=$(cat $HAUL_CHECKPOINT_DIR/n 2>/dev/null || echo 0); echo attempt $HAUL_ATTEMPT from $n; \
                  echo $((n + 1)) > $HAUL_CHECKPOINT_DIR/n; echo $n > $HAUL_OUTPUT_DIR/n; test $n -ge 2";
    let done = run(&world, &["--retries", "3"], &["sh", "-c", script]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(done.stdout, "attempt 1 from 0\nattempt 2 from 1\nattempt 3 from 2\n");
    let latest = done.stderr.lines().find_map(|line| line.strip_prefix("output: ")).expect("output is named");
    assert_eq!(std::fs::read_to_string(format!("{latest}/n")).expect("there"), "2\n");
}

#[test]
fn what_a_killed_run_leaves_is_finished_by_the_next() {
    let world = World::new();
    let mut killed = world.start(["run", "--", BUSYBOX, "sh", "-c", "echo up; sleep 600"]);
    let mut lines = BufReader::new(killed.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("up"));
    tests::engine::signal(killed.id(), rustix::process::Signal::KILL);
    killed.wait().expect("ends");
    assert_eq!(world.containers().len(), 1);
    let id = world.json(["ps", "--json"])[0]["id"].as_str().expect("an id").to_owned();
    // It takes as long as the next run lasts, at most.
    let args = ["run", "--", BUSYBOX, "sleep", "15"];
    let mut next = world.start(args);
    world.until(&id, "cancelled");
    tests::engine::signal(next.id(), rustix::process::Signal::TERM);
    next.wait().expect("ends");
    assert_eq!(world.containers(), [""; 0]);
}

#[test]
fn a_run_that_is_interrupted_cancels_its_job() {
    let world = World::new();
    let mut run = world.start([
        "run",
        "--",
        BUSYBOX,
        "sh",
        "-c",
        "trap 'echo term; exit 0' TERM; echo up; while :; do sleep 0.1; done",
    ]);
    let mut lines = BufReader::new(run.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert_eq!(lines.next().as_deref(), Some("up"));
    tests::engine::signal(run.id(), rustix::process::Signal::INT);
    assert_eq!(lines.next().as_deref(), Some("term"));
    assert_eq!(run.wait().expect("ends").code(), Some(130));
    assert_eq!(world.containers(), [""; 0]);
}

#[test]
fn exit_code_75_runs_the_job_again_without_charging_it() {
    let world = World::new();
    let script = "if [ $HAUL_ATTEMPT = 1 ]; then exit 75; fi; echo again";
    let done = run(&world, &[], &["sh", "-c", script]);
    assert_eq!((done.code, done.stdout.as_str()), (0, "again\n"), "{done:?}");
}
