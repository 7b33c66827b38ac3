//! The example that people copy: a training job on real data, killed half-way.

use std::path::PathBuf;

use tests::{Agent, World, engine, eventually, world::root};

/// Where `examples/images/build data` put the digits.
fn data() -> PathBuf {
    let given = std::env::var_os("DIGITS_DATA").map(PathBuf::from);
    let dir = given.unwrap_or_else(|| root().join(".cache/data"));
    let file = dir.join("digits/digits.csv");
    assert!(
        file.is_file(),
        "{} is not there; run: examples/images/build digits data .cache/data",
        file.display()
    );
    dir
}

#[test]
fn a_training_job_prints_as_it_goes_and_leaves_its_metrics() {
    let world = World::new();
    let volume = format!("data={}:ro", data().display());
    let job = root().join("examples/digits/job.toml");
    let args = ["run", "--volume", &volume, "--env", "EPOCHS=3"].map(Into::into);
    let done = world.run(args.into_iter().chain([job.into_os_string()]));
    assert_eq!(done.code, 0, "{done:?}");
    let epochs: Vec<&str> = done.stdout.lines().filter(|line| line.starts_with("epoch ")).collect();
    assert_eq!(epochs.len(), 3, "{done:?}");
    let output = done.stderr.lines().find_map(|line| line.strip_prefix("output: ")).expect("output is named");
    let metrics = std::fs::read_to_string(format!("{output}/metrics.json")).expect("metrics");
    let metrics: serde_json::Value = serde_json::from_str(&metrics).expect("JSON");
    assert!(metrics["accuracy"].as_f64().expect("a number") > 0.9, "{metrics}");
    let picture = std::fs::read(format!("{output}/confusion.png")).expect("a picture");
    assert!(picture.starts_with(b"\x89PNG"));
}

#[test]
fn a_training_job_that_was_killed_goes_on_from_its_checkpoint() {
    let world = World::new();
    let volume = format!("data={}:ro", data().display());
    let _agent = Agent::start(&world, "a", &["--volume", &volume]);
    let job = root().join("examples/digits/job.toml");
    let args = ["submit", "--env", "EPOCHS=8"].map(Into::into);
    let id = world.run(args.into_iter().chain([job.into_os_string()])).ok().trim().to_owned();
    eventually("it has a checkpoint", || world.run(["logs", &id]).stdout.contains("epoch 3/8").then_some(()));
    engine::ask(None, &["kill", &world.containers()[0]]);
    world.until(&id, "succeeded");
    let outcomes: Vec<String> =
        world.events(&id, "ended").iter().map(|end| end["outcome"].to_string()).collect();
    assert_eq!(outcomes, ["\"exited\"", "\"succeeded\""]);
    let second = world.run(["logs", &id, "--attempt", "2"]).ok();
    assert!(!second.contains("epoch 1/8") && second.contains("epoch 8/8"), "{second}");
}
