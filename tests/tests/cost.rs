//! What jobs cost, and which kind of host is the cheapest for them.

use serde_json::Value;
use tests::{Agent, World};

/// As long as its kind of host takes for it.
const PROGRAM: &str = "case $HAUL_NODE in slow) sleep 4;; *) sleep 1;; esac";

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[test]
fn the_cheapest_kind_of_host_for_a_program_is_found_by_running_it_on_each() {
    let world = World::new();
    // What the rented one costs, the fleet's table of prices says.
    let table = world.path("prices.json");
    let row = r#"[{"labels": {"provider": "cloud", "machine_type": "h1"}, "price": "36USD:on-demand"}]"#;
    std::fs::write(&table, row).expect("written");
    world.run(["fleet", "set", &format!("prices=@{}", table.display())]).ok();
    // The fast one is four times as fast, and ten times as dear. One's name is in the other's.
    let start = |name, gpus, flags: &[&str]| {
        Agent::start(&world, name, &[&["--simulate-gpus", gpus][..], flags].concat())
    };
    let _slow = start("slow", "2xH100:80GiB", &["--price", "7.20USD:fixed:metal"]);
    let _fast =
        start("fast", "1xH100-NVL:94GiB", &["--label", "provider=cloud", "--label", "machine_type=h1"]);
    let (job, each) = (["--", tests::world::BUSYBOX, "sh", "-c", PROGRAM], ["--on", "each=gpu_model"]);
    let submit: Vec<&str> =
        ["submit", "--wait", "--name", "bench", "--gpus", "1"].into_iter().chain(each).chain(job).collect();
    let ids = world.run(&submit).ok();
    assert_eq!(ids.lines().count(), 2, "{ids}");
    let kinds = world.json(["compare", "bench", "--json"]);
    let [slow, fast] = [&kinds[0], &kinds[1]];
    assert_eq!(
        (&slow["model"], &fast["model"]),
        (&"H100".into(), &"H100-NVL".into()),
        "the cheapest first: {kinds}"
    );
    let time = |kind: &Value| number(&kind["seconds"]["mean"]);
    assert!(time(slow) > 3.9 && time(fast) > 0.9 && time(fast) < time(slow), "{kinds}");
    // One of two GPUs of a host for 7.20 an hour, and the one GPU of one for 36.
    assert!(near(number(&slow["cost"]["USD"]), time(slow) * 3.6 / 3600.0), "{kinds}");
    assert!(near(number(&fast["cost"]["USD"]), time(fast) * 36.0 / 3600.0), "{kinds}");
    let bills = world.json(["cost", "--by", "provider", "--json"]);
    let sum = number(&slow["cost"]["USD"]) + number(&fast["cost"]["USD"]);
    assert!(near(number(&bills["total"]["cost"]["USD"]), sum), "{bills}");
    assert_eq!(
        (&bills["bills"][0]["of"], &bills["bills"][1]["of"]),
        (&"cloud".into(), &"metal".into()),
        "the dearest first"
    );
    assert!(near(number(&bills["total"]["gpu_hours"]), (time(slow) + time(fast)) / 3600.0), "{bills}");
    let svg = world.path("bench.svg").display().to_string();
    let said = world.run(["compare", "bench", "--plot", &svg]).ok();
    assert!(said.lines().nth(1).is_some_and(|line| line.starts_with("H100 ")), "{said}");
    assert!(std::fs::read_to_string(&svg).expect("a picture").starts_with("<svg"));
    let status = world.run(["status", ids.lines().next().expect("an id")]).ok();
    assert!(status.contains("cost 0.0"), "{status}");
}

#[test]
fn what_cannot_be_compared_or_priced_is_said() {
    let world = World::new();
    let said = world.run(["compare", "nothing"]);
    assert!(said.code == 1 && said.stderr.contains("no attempt of nothing has succeeded yet"), "{said:?}");
    let said = world.run(["submit", "--on", "each=gpu_model", "--", tests::world::BUSYBOX, "true"]);
    assert!(said.code == 2 && said.stderr.contains("add --gpus 1"), "{said:?}");
    let said =
        world.run(["submit", "--gpus", "1", "--on", "each=gpu_model", "--", tests::world::BUSYBOX, "true"]);
    assert!(said.code == 1 && said.stderr.contains("no live node has GPUs"), "{said:?}");
    assert!(world.run(["cost"]).ok().contains("no attempt has ended within 7days"));
}
