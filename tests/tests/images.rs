//! What a registry says of an image, at submit: hosts that cannot run it never take the job.

use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tests::{Agent, World, engine, eventually, world::BUSYBOX};

/// A registry without users, with an image made from the tests' own.
struct Registry {
    process: Child,
    image: String,
}

impl Registry {
    fn start(world: &World, change: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("bound");
        let host = free.local_addr().expect("bound").to_string();
        drop(free);
        let root = world.path("registry");
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{host}'}}\n",
            root.display()
        );
        let config = world.file("registry.yml", &config);
        let mut serve = Command::new("docker-registry");
        serve.arg("serve").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
        let process = serve.spawn().expect("docker-registry is installed");
        let registry = Self { process, image: format!("{host}/team/app:1") };
        eventually("the registry listens", || TcpStream::connect(&host).ok());
        let made = engine::ask(None, &["create", BUSYBOX, "true"]);
        engine::ask(None, &["commit", "--change", change, made.trim(), &registry.image]);
        engine::ask(None, &["rm", made.trim()]);
        engine::ask(None, &["push", "-q", &registry.image]);
        registry
    }

    fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
        let _ = engine::docker(None).args(["rmi", &self.image]).output();
    }
}

/// A submission that asks the registry.
fn submit(world: &World, args: &[&str]) -> tests::Done {
    let mut command = world.command(["submit"].iter().chain(args));
    command.env_remove("HAUL_NO_INSPECT").output().expect("starts").into()
}

#[test]
fn a_job_goes_only_to_hosts_that_its_image_can_run_on() {
    let world = World::new();
    let mut registry = Registry::start(&world, "ENV NVIDIA_REQUIRE_CUDA=cuda>=12.6");
    let image = registry.image.clone();
    let _old = Agent::start(&world, "old", &["--simulate-gpus", "1xA100:80GiB:cuda12.4"]);
    let dry = submit(&world, &["--dry-run", "--json", "--gpus", "1", "--", &image]).ok();
    let dry: Value = serde_json::from_str(&dry).expect("JSON");
    assert_eq!(
        (&dry["image"]["adds"]["cuda"], &dry["spec"]["resources"]["cuda"]),
        (&"12.6".into(), &"12.6".into())
    );

    let args = ["--id", "once", "--gpus", "1", "--", &image, "true"];
    let done = submit(&world, &args);
    assert!(done.stderr.contains("the image needs CUDA 12.6"), "{done:?}");
    let why = "needs CUDA 12.6";
    eventually(why, || world.run(["status", "once"]).ok().contains(why).then_some(()));
    assert_eq!(world.state("once"), "queued");

    // The same job again is the same, also where nobody can be asked; another one is not.
    registry.stop();
    std::fs::remove_dir_all(world.path("cache")).expect("it was kept there");
    assert_eq!(submit(&world, &args).ok().trim(), "once");
    let other = submit(&world, &["--id", "once", "--gpus", "2", "--", &image, "true"]);
    assert!(other.code == 2 && other.stderr.contains("taken by a different job"), "{other:?}");
    let dry = submit(&world, &["--dry-run", "--gpus", "1", "--", &image]).ok();
    assert!(dry.contains("image  nothing is known of it:"), "{dry}");

    // The engine has the image yet.
    let _new = Agent::start(&world, "new", &["--simulate-gpus", "1xA100:80GiB:cuda12.6"]);
    world.until("once", "succeeded");
    assert_eq!(world.events("once", "claimed")[0]["node"], "new");
}
