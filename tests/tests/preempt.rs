//! Jobs that give way to others of a higher priority.

use tests::{
    Agent, World, eventually,
    world::{BUSYBOX, COUNTS},
};

#[test]
fn only_the_preemptible_job_gives_way_and_it_goes_on_later() {
    let world = World::new();
    let _agent = Agent::start(&world, "a", &["--simulate-gpus", "3xP100:16GiB"]);
    let fixed = world.submit(&["--gpus", "2"], "sleep 1000");
    world.until(&fixed, "running");
    let soft = world.submit(&["--gpus", "1", "--preemptible"], COUNTS);
    eventually("it counts", || world.run(["logs", &soft]).stdout.contains("counts from 0").then_some(()));
    // Nobody gives way to its equals.
    let equal = world.submit(&["--gpus", "1", "--gpu-model", "P100"], "true");
    let submit = ["submit", "--gpus", "1", "--priority", "high", "--", BUSYBOX, "sh", "-c", "sleep 3"];
    let high = world.run(submit).ok().trim().to_owned();
    world.until(&high, "running");
    let ended = world.events(&soft, "ended")[0].clone();
    assert_eq!(ended["outcome"], "preempted");
    assert_eq!(ended["message"], format!("gave way to job {high}, which goes before it"));
    assert!(world.events(&equal, "claimed").is_empty());
    world.until(&high, "succeeded");
    world.until(&soft, "succeeded");
    let output = world.run(["logs", &soft]).stdout;
    let on = output.lines().filter_map(|line| line.strip_prefix("counts from ")).next_back().expect("a line");
    let on = on.parse::<u32>().expect("a number");
    assert!(on > 0 && output.contains(&format!("counted to {}", on + 4)), "{output}");
    assert_eq!(world.events(&soft, "claimed").len(), 2);
    assert_eq!(world.events(&fixed, "claimed").len(), 1);
    assert_eq!(world.state(&fixed), "running");
    world.until(&equal, "succeeded");
    world.run(["cancel", &fixed]).ok();
}

#[test]
fn nobody_gives_way_while_another_node_has_room() {
    let world = World::new();
    let gpu = ["--simulate-gpus", "1xP100:16GiB"];
    let _other = Agent::start(&world, "a", &gpu);
    // It lists the nodes when it begins, and so knows of the other.
    let _here = Agent::start(&world, "b", &[&gpu[..], &["--label", "here=yes"]].concat());
    let job = format!(
        "image = \"{BUSYBOX}\"\ncommand = [\"sleep\", \"1000\"]\npreemptible = true\n[resources]\ngpus = 1\n\
         [placement]\nrequire = {{ here = \"yes\" }}\n"
    );
    let file = world.file("soft.toml", &job);
    let soft = world.run(["submit".as_ref(), file.as_os_str()]).ok().trim().to_owned();
    world.until(&soft, "running");
    let submit = ["submit", "--gpus", "1", "--priority", "high", "--", BUSYBOX, "true"];
    let high = world.run(submit).ok().trim().to_owned();
    world.until(&high, "succeeded");
    assert!(world.events(&soft, "ended").is_empty());
    world.run(["cancel", &soft]).ok();
}
